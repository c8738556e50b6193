"""Scalar values with Python's operators, so that a formula in a rule reads like the formula in the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import sympy

from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr

Number: TypeAlias = bool | int | float | Expr


@dataclass(frozen=True)
class Term:
    """A value of a body under construction. Python numbers become constants of the other operand's dtype."""

    writer: BodyBuilder
    name: str

    @property
    def dtype(self) -> DType:
        """Dtype of the value."""
        return self.writer.dtype(self.name)

    def like(self, value: Term | Number) -> Term:
        """Make a number a value of this term's dtype (integers wrap); a term is returned as it is."""
        if isinstance(value, Term):
            return value
        if isinstance(value, sympy.Expr):
            return Term(self.writer, self.writer.number(value, self.dtype))
        return Term(self.writer, self.writer.constant(wrap_integer(value, self.dtype), self.dtype))

    def apply(self, op: str, *others: Term | Number) -> Term:
        """Apply a scalar primitive to this term and others of the same dtype."""
        return Term(self.writer, self.writer.compute(op, self.name, *(self.like(other).name for other in others)))

    def cast(self, dtype: DType) -> Term:
        """Convert to a dtype."""
        return Term(self.writer, self.writer.cast(self.name, dtype))

    def where(self, then: Term, otherwise: Term) -> Term:
        """Select `then` where this bool holds, `otherwise` elsewhere."""
        return Term(self.writer, self.writer.compute("where", self.name, then.name, otherwise.name))

    def __add__(self, other: Term | Number) -> Term:
        return self.apply("add", other)

    def __sub__(self, other: Term | Number) -> Term:
        return self.apply("sub", other)

    def __mul__(self, other: Term | Number) -> Term:
        return self.apply("mul", other)

    def __truediv__(self, other: Term | Number) -> Term:
        return self.apply("div", other)

    def __radd__(self, other: Number) -> Term:
        return self.like(other) + self

    def __rsub__(self, other: Number) -> Term:
        return self.like(other) - self

    def __rmul__(self, other: Number) -> Term:
        return self.like(other) * self

    def __rtruediv__(self, other: Number) -> Term:
        return self.like(other) / self

    def __neg__(self) -> Term:
        return self.apply("neg")

    def __and__(self, other: Term) -> Term:
        return self.apply("bitand", other)

    def __or__(self, other: Term) -> Term:
        return self.apply("bitor", other)

    def __xor__(self, other: Term) -> Term:
        return self.apply("bitxor", other)

    def __invert__(self) -> Term:
        return self.apply("bitnot")

    def __lt__(self, other: Term | Number) -> Term:
        return self.apply("lt", other)

    def __le__(self, other: Term | Number) -> Term:
        return self.apply("le", other)

    def __gt__(self, other: Term | Number) -> Term:
        return self.apply("gt", other)

    def __ge__(self, other: Term | Number) -> Term:
        return self.apply("ge", other)

    def equals(self, other: Term | Number) -> Term:
        """Compare for equality (`==` stays identity of terms)."""
        return self.apply("eq", other)


def wrap_integer(value: Number, dtype: DType) -> Number:
    """Wrap an integer into an integer dtype, as torch converts Python scalars; other values stay as they are."""
    if not dtype.is_integer or not isinstance(value, int) or isinstance(value, bool):
        return value
    bits = 8 * dtype.itemsize
    wrapped = value & ((1 << bits) - 1)
    return wrapped - (1 << bits) if dtype.is_signed and wrapped >> (bits - 1) else wrapped
