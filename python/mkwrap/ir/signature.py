"""What a compiled callable takes and gives: its tensor arguments, the leaves of its result, its dynamic sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr

if TYPE_CHECKING:
    import sympy


Comparison: TypeAlias = Literal["==", "!=", "<", "<="]


@dataclass(frozen=True)
class InputSpec:
    """One tensor argument of the compiled callable: what every call is checked against."""

    name: str
    """Buffer name, also the graph placeholder's."""
    path: str
    """How the user writes it, for messages: `args[0]`, `kwargs['mask']`."""
    dtype: DType
    shape: tuple[Expr, ...]
    strides: tuple[Expr, ...]
    alignment: int
    """Bytes: 16 where the example's address is a multiple of 16, else the item size."""
    mutated: bool = False


class OutputKind(Enum):
    """Where an output leaf comes from."""

    BUFFER = "a buffer the library writes"
    INPUT_VIEW = "a strided view of an input's memory (or the input itself)"
    SAME = "the same object as an earlier output leaf"
    VALUE = "a Python constant (number, string, None)"


@dataclass(frozen=True)
class OutputSpec:
    """One leaf of the result."""

    kind: OutputKind
    buffer: str = ""
    """BUFFER: the output buffer. INPUT_VIEW: the input's name."""
    dtype: DType = DType.FLOAT32
    shape: tuple[Expr, ...] = ()
    strides: tuple[Expr, ...] = ()
    offset: Expr | int = 0
    """INPUT_VIEW: elements from the input's first element."""
    same_as: int = 0
    """SAME: index of the earlier leaf."""
    value: bool | int | float | str | None = None
    identical: bool = False
    """INPUT_VIEW: the output is the input object itself."""


UNBOUNDED = 2**63 - 1
"""The upper end of a dynamic size that has none."""
_OUT_OF_REACH = 1 << 31


def upper_end(high: int) -> int | None:
    """Return the upper end of a range where it says anything: one that goes on beyond 2³¹ is one that nobody bounded."""
    return high if high < _OUT_OF_REACH else None


@dataclass(frozen=True)
class SymbolSpec:
    """A dynamic size: its symbol, inclusive range, and the input dimension that binds it.

    That dimension is `scale`·symbol + `offset` long (both 1 and 0 but where the program declares a derived dimension alone).
    """

    symbol: sympy.Symbol
    low: int
    high: int
    input_name: str
    dim: int
    scale: int = 1
    offset: int = 0

    @property
    def bounded(self) -> bool:
        """Whether the upper end says anything."""
        return upper_end(self.high) is not None


@dataclass(frozen=True)
class Relation:
    """What dynamic sizes must fulfil in every call, beyond their ranges: `left` op `right`, both over size symbols."""

    left: Expr
    op: Comparison
    right: Expr
    origin: str = ""
    """The user's source line that asks for it, where it is known."""


@dataclass(frozen=True)
class Guard:
    """What the sizes must be like for a binary to be right: `expr` at most `most`, and a multiple of `multiple`."""

    expr: Expr
    most: int | None = None
    multiple: int = 1

    def holds(self, values: Mapping[sympy.Symbol, int]) -> bool:
        """Whether it is fulfilled where every symbol of `expr` has a value."""
        size = int(self.expr.subs(values))
        return (self.most is None or size <= self.most) and size % self.multiple == 0
