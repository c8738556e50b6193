"""Brings the loops of a nest into their simplest form: splits axes that are read as digits, joins axes that run as one.

*Requires* a fused nest. *Ensures* the same accesses; indices are affine where that can be; buffers of kernels other than
matrix products are one-dimensional. *Why last*: fusion matches indices dim by dim, kernels want flat ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import sympy

from mkwrap.fuse.inline import is_dot
from mkwrap.ir.analysis import index_exprs, stores
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import FloorDiv, Mod, axis_ranges, axis_symbol, recombine, simplify
from mkwrap.ir.nodes import Axis, Buffer, Expr, Instruction, Load, Nest, Role, Store
from mkwrap.ir.rewrite import Replay


def simplify_loops(nest: Nest, buffers: Mapping[str, Buffer]) -> tuple[Nest, Mapping[str, Buffer]]:
    """Return the nest over simpler axes, and the geometry its buffers are indexed with (same memory)."""
    nest = _split_digits(nest)
    if is_dot(nest):
        return _merge_dims(_join_axes(nest, buffers), buffers)
    flat_nest, flat_buffers = _flatten(_sorted_axes(nest, buffers), buffers)
    return _join_axes(flat_nest, flat_buffers), flat_buffers


def _rewritten(
    nest: Nest, mapping: Mapping[sympy.Symbol, Expr], axes: tuple[Axis, ...], reduction_axes: tuple[Axis, ...]
) -> Nest:
    builder = BodyBuilder()
    Replay(builder, mapping, axis_ranges((*axes, *reduction_axes))).run(nest)
    return replace(nest, axes=axes, reduction_axes=reduction_axes, body=builder.body())


def _split_digits(nest: Nest) -> Nest:
    mapping: dict[sympy.Symbol, Expr] = {}

    def split(axes: Sequence[Axis]) -> tuple[Axis, ...]:
        result: list[Axis] = []
        for axis in axes:
            parts = _digit_axes(axis, nest)
            mapping[axis.symbol] = axis.symbol
            if len(parts) > 1:
                position: Expr = sympy.Integer(0)
                for part in parts:
                    position = position * part.extent + part.symbol
                mapping[axis.symbol] = sympy.expand(position)
            result.extend(parts)
        return tuple(result)

    axes, reduction_axes = split(nest.axes), split(nest.reduction_axes)
    if len(axes) + len(reduction_axes) == len(nest.axes) + len(nest.reduction_axes):
        return nest
    return _rewritten(nest, mapping, axes, reduction_axes)


def _digit_axes(axis: Axis, nest: Nest) -> list[Axis]:
    """Return the digits an axis is read as, outermost first; the axis alone where it is not, or not consistently."""
    if not axis.extent.is_Integer:
        return [axis]
    points: set[int] = set()
    for instruction in nest.body:
        for expr in index_exprs(instruction):
            points.update(_digit_points(expr, axis.symbol))
    cuts = sorted(point for point in points if 1 < point < int(axis.extent))
    chain = [1, *cuts, int(axis.extent)]
    if not cuts or any(high % low for low, high in pairwise(chain)):
        return [axis]
    extents = [high // low for low, high in pairwise(chain)]
    return [
        Axis(axis_symbol(f"{axis.symbol.name}_{k}"), sympy.Integer(extent))
        for k, extent in enumerate(reversed(extents))
    ]


def _digit_points(expr: Expr, symbol: sympy.Symbol) -> Iterator[int]:
    """Yield the positions at which FloorDiv and Mod cut an axis: c for x // c and x % c, c and c·n for x // c % n."""
    for part in sympy.preorder_traversal(expr):
        if not isinstance(part, FloorDiv | Mod) or not part.args[1].is_Integer:
            continue
        inner, divisor = part.args[0], int(part.args[1])
        if inner == symbol:
            yield divisor
        elif isinstance(inner, FloorDiv) and inner.args[0] == symbol and inner.args[1].is_Integer:
            yield int(inner.args[1])
            yield int(inner.args[1]) * divisor


def _sorted_axes(nest: Nest, buffers: Mapping[str, Buffer]) -> Nest:
    """Order the parallel axes of a pointwise nest by their step in the first store, largest first."""
    if nest.reduction_axes:
        return nest
    first = stores(nest)[0]
    flat = sympy.expand(buffers[first.buffer].flat_index(first.index))
    steps = {axis: flat.coeff(axis.symbol) for axis in nest.axes}
    if not all(step.is_Integer for step in steps.values()):
        return nest
    return replace(nest, axes=tuple(sorted(nest.axes, key=lambda axis: -int(steps[axis]))))


def _flatten(nest: Nest, buffers: Mapping[str, Buffer]) -> tuple[Nest, Mapping[str, Buffer]]:
    """Index every buffer by its offset in elements."""
    ranges = axis_ranges((*nest.axes, *nest.reduction_axes))
    used = {i.buffer for i in nest.body if isinstance(i, Load | Store)}
    flat = {
        name: replace(b, shape=(_storage(b),), strides=(sympy.Integer(1),))
        for name, b in buffers.items()
        if name in used
    }

    def offset(i: Instruction) -> Instruction:
        if isinstance(i, Load | Store):
            return replace(i, index=(recombine(simplify(buffers[i.buffer].flat_index(i.index), ranges)),))
        return i

    return replace(nest, body=tuple(offset(i) for i in nest.body)), flat


def _storage(buffer: Buffer) -> Expr:
    return sympy.Integer(0) if any(n == 0 for n in buffer.shape) else sympy.expand(buffer.storage_elements)


def _join_axes(nest: Nest, buffers: Mapping[str, Buffer]) -> Nest:
    """Join neighbouring axes that every access runs through as one."""
    axes, reduction_axes = list(nest.axes), list(nest.reduction_axes)
    flat = [
        sympy.expand(buffers[i.buffer].flat_index(i.index)) if isinstance(i, Load | Store) else expr
        for i in nest.body
        for expr in (index_exprs(i)[:1] if isinstance(i, Load | Store) else index_exprs(i))
    ]
    mapping: dict[sympy.Symbol, Expr] = {axis.symbol: axis.symbol for axis in (*axes, *reduction_axes)}
    for group in (axes, reduction_axes):
        k = 0
        while k + 1 < len(group):
            outer, inner = group[k], group[k + 1]
            # An axis without iterations has no digits; it stands alone.
            if inner.extent != 0 and all(_runs_as_one(expr, outer, inner) for expr in flat):
                joined = Axis(axis_symbol(f"{outer.symbol.name}{inner.symbol.name}"), outer.extent * inner.extent)
                digits = {
                    outer.symbol: FloorDiv(joined.symbol, inner.extent),
                    inner.symbol: Mod(joined.symbol, inner.extent),
                }
                group[k : k + 2] = [joined]
                flat = [expr.xreplace({inner.symbol: joined.symbol, outer.symbol: sympy.Integer(0)}) for expr in flat]
                mapping = {symbol: expr.xreplace(digits) for symbol, expr in mapping.items()}
                k = max(k - 1, 0)
            else:
                k += 1
    if len(axes) + len(reduction_axes) == len(nest.axes) + len(nest.reduction_axes):
        return nest
    joined_nest = _rewritten(nest, mapping, tuple(axes), tuple(reduction_axes))
    return replace(joined_nest, body=tuple(_recombined(i) for i in joined_nest.body))


def _runs_as_one(expr: Expr, outer: Axis, inner: Axis) -> bool:
    """Whether an expression depends on two axes only through outer·extent + inner."""
    if not expr.free_symbols & {outer.symbol, inner.symbol}:
        return True
    for part in sympy.preorder_traversal(expr):
        if isinstance(part, FloorDiv | Mod) and part.free_symbols & {outer.symbol, inner.symbol}:
            return False
    return bool(expr.coeff(outer.symbol) == inner.extent * expr.coeff(inner.symbol))


def _recombined(instruction: Instruction) -> Instruction:
    return _map_index(instruction, recombine)


def _map_index(instruction: Instruction, change: Callable[[Expr], Expr]) -> Instruction:
    if isinstance(instruction, Load | Store):
        return replace(instruction, index=tuple(change(expr) for expr in instruction.index))
    return instruction


def _merge_dims(nest: Nest, buffers: Mapping[str, Buffer]) -> tuple[Nest, Mapping[str, Buffer]]:
    """Merge dense dims of a buffer, neighbours in memory, where that removes divisions from its indices.

    Constants keep their dims: a packing is written against them.
    """
    result = dict(buffers)
    for name in sorted({i.buffer for i in nest.body if isinstance(i, Load | Store)}):
        if buffers[name].role is Role.CONSTANT:
            continue
        nest, result[name] = _sort_dims(nest, result[name])
        k = 0
        while k + 1 < len(result[name].shape):
            merged = _merged_dim(nest, result[name], k)
            if merged is None:
                k += 1
            else:
                nest, result[name] = merged
    return nest, result


def _sort_dims(nest: Nest, buffer: Buffer) -> tuple[Nest, Buffer]:
    """Order the dims of a buffer by stride, largest first; the memory is the same."""
    if not all(stride.is_Integer for stride in buffer.strides):
        return nest, buffer
    order = sorted(range(len(buffer.shape)), key=lambda k: -int(buffer.strides[k]))
    body = tuple(
        replace(i, index=tuple(i.index[k] for k in order))
        if isinstance(i, Load | Store) and i.buffer == buffer.name
        else i
        for i in nest.body
    )
    shape, strides = tuple(buffer.shape[k] for k in order), tuple(buffer.strides[k] for k in order)
    return replace(nest, body=body), replace(buffer, shape=shape, strides=strides)


def _merged_dim(nest: Nest, buffer: Buffer, k: int) -> tuple[Nest, Buffer] | None:
    extent = buffer.shape[k + 1]
    if buffer.strides[k] != buffer.strides[k + 1] * extent:
        return None
    before = after = 0
    body: list[Instruction] = []
    for i in nest.body:
        if isinstance(i, Load | Store) and i.buffer == buffer.name:
            joined = recombine(sympy.expand(i.index[k] * extent + i.index[k + 1]))
            before += _divisions(i.index[k]) + _divisions(i.index[k + 1])
            after += _divisions(joined)
            body.append(replace(i, index=(*i.index[:k], joined, *i.index[k + 2 :])))
        else:
            body.append(i)
    if after >= before:
        return None
    shape = (*buffer.shape[:k], buffer.shape[k] * extent, *buffer.shape[k + 2 :])
    strides = (*buffer.strides[:k], *buffer.strides[k + 1 :])
    return replace(nest, body=tuple(body)), replace(buffer, shape=shape, strides=strides)


def _divisions(expr: Expr) -> int:
    return sum(isinstance(part, FloorDiv | Mod) for part in sympy.preorder_traversal(expr))
