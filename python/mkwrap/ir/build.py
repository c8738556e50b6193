"""Builds the body of a nest in SSA form, sharing equal instructions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import sympy

from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol
from mkwrap.ir.nodes import (
    BoundsCheck,
    Combine,
    Compute,
    Constant,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Reduce,
    Scan,
    Sort,
    Store,
)
from mkwrap.ir.ops import OPS, REDUCTIONS, SCANS, Kind

_REAL = {sympy.Add: "add", sympy.Mul: "mul", sympy.Pow: "pow", sympy.Min: "minimum", sympy.Max: "maximum"}
"""Scalar primitives of functions of real numbers."""

_Make: TypeAlias = Callable[[str], Instruction]


class BodyBuilder:
    """Appends instructions and hands out the names of their values; equal instructions are made once.

    The only mutable thing of the IR: it lives while one nest is written and ends in `body()`.
    """

    def __init__(self) -> None:
        self._body: list[Instruction] = []
        self._known: dict[tuple[object, ...], str] = {}
        self._dtypes: dict[str, DType] = {}

    def dtype(self, value: str) -> DType:
        """Dtype of a value made by this builder."""
        return self._dtypes[value]

    def constant(self, value: bool | int | float, dtype: DType) -> str:
        """Make a constant, converted to dtype's Python type."""
        converted: bool | int | float
        if dtype is DType.BOOL:
            converted = bool(value)
        elif dtype.is_float:
            converted = float(value)
        else:
            converted = int(value)
        key = ("constant", repr(converted), dtype)
        return self._known.get(key) or self._add(key, dtype, lambda dest: Constant(dest, dtype, converted))

    def index_value(self, expr: Expr, dtype: DType = DType.INT64) -> str:
        """Make an index expression available as data."""
        if expr.is_Integer:
            return self.constant(int(expr), dtype)
        key = ("index", expr, dtype)
        return self._known.get(key) or self._add(key, dtype, lambda dest: IndexValue(dest, dtype, expr))

    def number(self, expr: Expr, dtype: DType) -> str:
        """Make a number made of sizes available as data: integers exactly, others in float64, as Python computes them."""
        if expr.is_Integer:
            return self.constant(int(expr), dtype)
        return self.cast(self.index_value(expr) if expr.is_integer else self._real(expr), dtype)

    def _real(self, expr: Expr) -> str:
        if expr.is_integer:
            return self.cast(self.index_value(expr), DType.FLOAT64)
        if expr.is_Number:
            return self.constant(float(expr), DType.FLOAT64)
        if expr.is_Pow and expr.exp.is_number and expr.exp.is_negative:
            return self.compute("div", self.constant(1.0, DType.FLOAT64), self._real(expr.base**-expr.exp))
        if expr.is_Pow and expr.exp.is_number and float(expr.exp) == 0.5:
            return self.compute("sqrt", self._real(expr.base))
        op = _REAL[expr.func]
        return functools.reduce(lambda a, b: self.compute(op, a, b), [self._real(arg) for arg in expr.args])

    def load(self, buffer: str, dtype: DType, index: Sequence[Expr], mask: str | None = None) -> str:
        """Read buffer[index] where mask holds, 0 elsewhere."""
        key = ("load", buffer, tuple(index), mask)
        return self._known.get(key) or self._add(key, dtype, lambda dest: Load(dest, dtype, buffer, tuple(index), mask))

    def bounds_check(self, arg: str, extent: Expr, mask: str | None = None) -> Expr:
        """Check and clamp a data-dependent index; returns the symbol to use in index expressions."""
        key = ("check", arg, extent, mask)
        name = self._known.get(key) or self._add(key, DType.INT64, lambda dest: BoundsCheck(dest, arg, extent, mask))
        return axis_symbol(name)

    def compute(self, op: str, *args: str, dtype: DType | None = None) -> str:
        """Apply a scalar primitive; dtype is needed for `cast` only."""
        row = OPS[op]
        if row.kind is Kind.CAST:
            assert dtype is not None
            if self._dtypes[args[0]] is dtype:
                return args[0]
            result = dtype
        elif row.kind in (Kind.COMPARE, Kind.TEST):
            result = DType.BOOL
        else:
            result = self._dtypes[args[-1]]
        key = ("compute", op, args, result)
        return self._known.get(key) or self._add(key, result, lambda dest: Compute(dest, result, op, args))

    def cast(self, value: str, dtype: DType) -> str:
        """Convert a value; nothing is emitted where the dtype is right already."""
        return self.compute("cast", value, dtype=dtype)

    def reduce(self, op: str, *args: str) -> tuple[str, ...]:
        """Reduce over all reduction axes of the nest."""
        key = ("reduce", op, args)
        if key in self._known:
            return tuple(self._known[key].split())
        dtypes = REDUCTIONS[op].results(self._dtypes[args[0]])
        dests = tuple(self._fresh(dtype) for dtype in dtypes)
        self._body.append(Reduce(dests, dtypes, op, args))
        self._known[key] = " ".join(dests)
        return dests

    def scan(self, op: str, *args: str, combine: Combine | None = None) -> tuple[str, ...]:
        """Scan over all reduction axes of the nest: a row of `SCANS`, or any op with the function that combines."""
        key = ("scan", op, args, combine)
        if key in self._known:
            return tuple(self._known[key].split())
        given = tuple(self._dtypes[arg] for arg in args)
        dtypes = SCANS[op].results(given[0]) if combine is None else given
        dests = tuple(self._fresh(dtype) for dtype in dtypes)
        self._body.append(Scan(dests, dtypes, op, args, combine))
        self._known[key] = " ".join(dests)
        return dests

    def sort(self, arg: str, descending: bool = False) -> tuple[str, str]:
        """Sort the row of all reduction axes of the nest: the values in order, and the positions they had."""
        key = ("sort", arg, descending)
        if key not in self._known:
            dtypes = (self._dtypes[arg], DType.INT64)
            dests = (self._fresh(dtypes[0]), self._fresh(dtypes[1]))
            self._body.append(Sort(dests, dtypes, arg, descending))
            self._known[key] = " ".join(dests)
        values, positions = self._known[key].split()
        return values, positions

    def store(self, buffer: str, index: Sequence[Expr], value: str) -> None:
        """Write buffer[index] = value."""
        self._body.append(Store(buffer, tuple(index), value))

    def body(self) -> tuple[Instruction, ...]:
        """Return the instructions so far, in order."""
        return tuple(self._body)

    def _fresh(self, dtype: DType) -> str:
        name = f"v{len(self._dtypes)}"
        self._dtypes[name] = dtype
        return name

    def _add(self, key: tuple[object, ...], dtype: DType, make: _Make) -> str:
        name = self._fresh(dtype)
        self._body.append(make(name))
        self._known[key] = name
        return name
