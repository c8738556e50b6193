"""Makes int64 index arithmetic int32 where its range allows: twice the lanes for masks like `column <= row`.

Requires a verified nest. Ensures the same results: only values whose bounds fit int32, and whose users are comparisons,
casts or narrowed themselves, change type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import sympy

from mkwrap.codegen.parameters import buffers_of, size_symbols
from mkwrap.ir.analysis import dependencies, reduces
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_ranges, bounds
from mkwrap.ir.nodes import Compute, Constant, Expr, IndexValue, Instruction, Nest
from mkwrap.ir.ops import OPS, Kind
from mkwrap.stages import Guard, Kernel, Params

_LIMIT = 1 << 31
Range: TypeAlias = tuple[int, int]


def narrowed(nest: Nest, most: int = 0) -> Nest:
    """Return the nest with index arithmetic in int32 where that is safe for dynamic sizes of at most `most`; 0: for any."""
    ranges = _numbers(nest, most) if most else axis_ranges((*nest.axes, *nest.reduction_axes))
    small: dict[str, Range] = {}
    for i in nest.body:
        limits = _range(i, small, ranges, most)
        if limits is not None and limits[0] >= -_LIMIT and limits[1] < _LIMIT:
            small[i.dest] = limits  # type: ignore[union-attr]
    chosen = _closed(nest, set(small))
    if not chosen:
        return nest
    return replace(nest, body=tuple(_retyped(i, chosen) for i in nest.body))


def _numbers(nest: Nest, most: int) -> Ranges:
    """Return bounds of axes and sizes in numbers, as far as those of the axes are known."""
    axes = (*nest.axes, *nest.reduction_axes)
    sizes = {symbol: sympy.Integer(most) for axis in axes for symbol in axis.extent.free_symbols}
    ranges = {symbol: (sympy.Integer(0), high) for symbol, high in sizes.items()}
    for axis in axes:
        extent = largest(axis.extent, most)
        ranges[axis.symbol] = (sympy.Integer(0), axis.extent - 1 if extent is None else sympy.Integer(extent - 1))
    return ranges


def largest(size: Expr, most: int) -> int | None:
    """Return the most that an expression of dynamic sizes of at most `most` is; None where that is not known."""
    sizes: Ranges = {s: (sympy.Integer(0), sympy.Integer(most)) for s in size.free_symbols} if most else {}
    limits = bounds(size, sizes)
    return int(limits[1]) if limits is not None and limits[1].is_Integer else None


def forms(kernel: Kernel, limits: Mapping[sympy.Symbol, int]) -> tuple[Params, ...]:
    """Return the ways to write a kernel of dynamic sizes: for those up to `most` where that narrows anything, and for all."""
    symbols = size_symbols(kernel.nest, buffers_of(kernel).values())
    bounded = bool(symbols) and all(limits.get(s, _LIMIT) < _LIMIT for s in symbols)
    most = max(limits[s] for s in symbols) if bounded else _LIMIT - 1
    row = sympy.Mul(*[axis.extent for axis in kernel.nest.reduction_axes])
    places = any(r.op.startswith("arg") for r in reduces(kernel.nest)) and (largest(row, most) or _LIMIT) < _LIMIT
    if not symbols or not (places or narrowed(kernel.nest, most) != narrowed(kernel.nest)):
        return ((),)
    narrow: Params = (("most", most),)
    return (narrow,) if bounded else (narrow, ())


def guards(kernel: Kernel, most: int) -> tuple[Guard, ...]:
    """Return what a text for dynamic sizes of at most `most` takes for granted."""
    symbols = size_symbols(kernel.nest, buffers_of(kernel).values()) if most else ()
    return tuple(Guard(symbol, most) for symbol in symbols)


def _range(i: Instruction, known: Mapping[str, Range], ranges: Ranges, most: int) -> Range | None:
    """Return the bounds of an int64 value made of indices and constants."""
    match i:
        case Constant(dtype=DType.INT64, value=value):
            return int(value), int(value)
        case IndexValue(dtype=DType.INT64, expr=expr):
            limits = bounds(expr, ranges)
            if limits is None:
                return None
            low, high = largest(-limits[0], most), largest(limits[1], most)
            return None if low is None or high is None else (-low, high)
        case Compute(dtype=DType.INT64, op="add" | "sub" | "mul" | "minimum" | "maximum" as op, args=(a, b)):
            if a not in known or b not in known:
                return None
            return _combined(op, known[a], known[b])
        case _:
            return None


def _combined(op: str, a: Range, b: Range) -> Range:
    if op == "add":
        return a[0] + b[0], a[1] + b[1]
    if op == "sub":
        return a[0] - b[1], a[1] - b[0]
    if op == "mul":
        corners = [x * y for x in a for y in b]
        return min(corners), max(corners)
    pick = min if op == "minimum" else max
    return pick(a[0], b[0]), pick(a[1], b[1])


def _closed(nest: Nest, candidates: set[str]) -> set[str]:
    """Return the candidates all of whose users can take int32."""
    chosen = set(candidates)
    while True:
        rejected: set[str] = set()
        for i in nest.body:
            touched = [name for name in dependencies(i, candidates) if name in chosen]
            if touched and not _takes_int32(i, chosen):
                rejected.update(touched)
            elif isinstance(i, Compute) and i.dest in chosen and not set(i.args) <= chosen:
                rejected.add(i.dest)
        if not rejected:
            return chosen
        chosen -= rejected


def _takes_int32(i: Instruction, chosen: set[str]) -> bool:
    if not isinstance(i, Compute):
        return False
    if OPS[i.op].kind is Kind.COMPARE:
        return set(i.args) <= chosen
    return i.op == "cast" or i.dest in chosen


def _retyped(i: Instruction, chosen: set[str]) -> Instruction:
    if isinstance(i, Constant | IndexValue | Compute) and i.dest in chosen:
        return replace(i, dtype=DType.INT32)
    return i
