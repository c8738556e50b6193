"""Makes int64 index arithmetic int32 where its range allows: twice the lanes for masks like `column <= row`.

Requires a verified nest. Ensures the same results: only values whose bounds fit int32, and whose users are comparisons,
casts or narrowed themselves, change type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from mkwrap.ir.analysis import dependencies
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_ranges, bounds
from mkwrap.ir.nodes import Compute, Constant, IndexValue, Instruction, Nest
from mkwrap.ir.ops import OPS, Kind

_LIMIT = 1 << 31
Range: TypeAlias = tuple[int, int]


def narrowed(nest: Nest) -> Nest:
    """Return the nest with index arithmetic in int32 where that is safe."""
    ranges = axis_ranges((*nest.axes, *nest.reduction_axes))
    small: dict[str, Range] = {}
    for i in nest.body:
        limits = _range(i, small, ranges)
        if limits is not None and limits[0] >= -_LIMIT and limits[1] < _LIMIT:
            small[i.dest] = limits  # type: ignore[union-attr]
    chosen = _closed(nest, set(small))
    if not chosen:
        return nest
    return replace(nest, body=tuple(_retyped(i, chosen) for i in nest.body))


def _range(i: Instruction, known: Mapping[str, Range], ranges: Ranges) -> Range | None:
    """Return the bounds of an int64 value made of indices and constants."""
    match i:
        case Constant(dtype=DType.INT64, value=value):
            return int(value), int(value)
        case IndexValue(dtype=DType.INT64, expr=expr):
            limits = bounds(expr, ranges)
            if limits is None or not (limits[0].is_Integer and limits[1].is_Integer):
                return None
            return int(limits[0]), int(limits[1])
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
