"""Joins nests over one domain into one nest: a row reduction with what feeds it and what follows it, independent work.

*Requires* inlined nests in a legal order. *Ensures* the same values; a value read at the very index it was stored at is
taken from the body instead of memory. *Why after inlining*: only values with several readers are still stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import sympy

from mkwrap.fuse.domain import AxisMap, by_access, by_position, by_row_major, strides_through
from mkwrap.fuse.graph import nest_graph, ordered, reads, writes
from mkwrap.fuse.inline import is_dot, masked, surely
from mkwrap.ir.analysis import loads, reduces, scans, sorts, stores
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import axis_ranges, contiguous_strides
from mkwrap.ir.nodes import Axis, Buffer, Expr, Load, Nest, Role, Store
from mkwrap.ir.rewrite import Replay, live_body
from mkwrap.stages import Program

_MAX_BUFFERS = 20
_MAX_INSTRUCTIONS = 500
_SMALL_POINTS = 1 << 16
"""Independent nests of at most this many points are joined even if they share no input: a launch costs more."""


_LONG_ROW, _FEW_ROWS = 1 << 14, 64
"""Rows so long and so few are worth cutting into parts that run at once."""


class _IllegalMergeError(Exception):
    """The second nest reads a result of the first at another index than its own."""


def merge_nests(program: Program) -> Program:
    """Merge producers with consumers, then independent nests, until nothing changes."""
    nests, buffers = program.nests, dict(program.buffers)
    for find in (_find_vertical, _find_horizontal):
        while (found := find(nests, buffers)) is not None:
            first, second, merged = found
            buffers.update(merged.buffers)
            rest = [n for k, n in enumerate(nests) if k != second]
            rest[rest.index(nests[first])] = merged.nest
            nests = ordered(rest, buffers)
    return replace(program, nests=nests, buffers=buffers)


@dataclass(frozen=True)
class Merged:
    """A joined nest, and the temporaries whose layout follows from it."""

    nest: Nest
    buffers: Mapping[str, Buffer]


def _find_vertical(nests: tuple[Nest, ...], buffers: Mapping[str, Buffer]) -> tuple[int, int, Merged] | None:
    graph = nest_graph(nests, buffers)
    writer = {name: k for k, nest in enumerate(nests) for name in writes(nest)}
    for k, nest in enumerate(nests):
        producers = {writer[name] for name in reads(nest) if name in writer and writer[name] < k}
        for j in sorted(producers, reverse=True):
            if _may_join(nests[j], nest, buffers) and not graph.has_path_around(j, k):
                merged = merge_pair(nests[j], nest, buffers)
                if merged is not None:
                    return j, k, merged
    return None


def _find_horizontal(nests: tuple[Nest, ...], buffers: Mapping[str, Buffer]) -> tuple[int, int, Merged] | None:
    graph = nest_graph(nests, buffers)
    for k, nest in enumerate(nests):
        for j in range(k):
            if not _alike(nests[j], nest) or not _may_join(nests[j], nest, buffers):
                continue
            if graph.depends(k, j) or graph.depends(j, k):
                continue
            axes = by_position(_all_axes(nest), _all_axes(nests[j]))
            if axes is not None:
                merged = _try(nests[j], nest, _identity(nests[j]), axes, nests[j], buffers)
                if merged is not None:
                    return j, k, merged
    return None


def _alike(first: Nest, second: Nest) -> bool:
    """Whether independent nests are worth one launch: equal axes, and a shared input or little work.

    A sort is best alone: it takes far longer than reading its row again, and few templates write it.
    """
    if sorts(first) or sorts(second):
        return False
    if [a.extent for a in first.axes] != [a.extent for a in second.axes]:
        return False
    if [a.extent for a in first.reduction_axes] != [a.extent for a in second.reduction_axes]:
        return False
    points = sympy.Mul(*[axis.extent for axis in _all_axes(first)])
    return bool(reads(first) & reads(second)) or surely(points <= _SMALL_POINTS)


def _may_join(first: Nest, second: Nest, buffers: Mapping[str, Buffer]) -> bool:
    if is_dot(second) or (is_dot(first) and second.reduction_axes):
        return False
    if len(first.body) + len(second.body) > _MAX_INSTRUCTIONS:
        return False
    touched = reads(first) | writes(first) | reads(second) | writes(second)
    if len(touched) > _MAX_BUFFERS:
        return False
    if _binds_rows(first, second):
        return False
    overwrites = any(buffers[name].role is Role.INPUT for name in writes(first) | writes(second))
    return not (overwrites and (first.reduction_axes or second.reduction_axes))


def _binds_rows(first: Nest, second: Nest) -> bool:
    """Whether joining would keep a scan's few long rows in one piece: beside a reduction, or fed by a scan, they are not cut."""
    if not (scans(first) or scans(second)):
        return False
    chained = bool(scans(first) and scans(second) and reads(second) & writes(first))
    if not (chained or reduces(first) or reduces(second)):
        return False
    nest = first if scans(first) else second
    rows, length = (sympy.Mul(*[a.extent for a in axes]) for axes in (nest.axes, nest.reduction_axes))
    return surely(rows <= _FEW_ROWS) and surely(length >= _LONG_ROW)


def merge_pair(first: Nest, second: Nest, buffers: Mapping[str, Buffer]) -> Merged | None:
    """Join a producer and its consumer under the first axis map that makes every shared access match."""
    if second.reduction_axes and not first.reduction_axes:
        for axes in _maps_of_producer(first, second):
            merged = _try(first, second, axes, _identity(second), second, buffers)
            if merged is not None:
                return merged
        return None
    for axes in _maps_of_consumer(first, second):
        merged = _try(first, second, _identity(first), axes, first, buffers)
        if merged is not None:
            return merged
    return None


def _all_axes(nest: Nest) -> tuple[Axis, ...]:
    return (*nest.axes, *nest.reduction_axes)


def _identity(nest: Nest) -> AxisMap:
    return {axis.symbol: axis.symbol for axis in _all_axes(nest)}


def _accesses(first: Nest, second: Nest) -> Iterator[tuple[tuple[Expr, ...], tuple[Expr, ...]]]:
    """Yield (read index in second, write index in first) of each shared buffer."""
    written = {store.buffer: store.index for store in stores(first)}
    for load in loads(second):
        if load.buffer in written:
            yield load.index, written[load.buffer]


def _maps_of_producer(first: Nest, second: Nest) -> Iterator[AxisMap]:
    """Yield maps of a pointwise producer's axes to a reduction's: the index it is read at names them."""
    target = _all_axes(second)
    for read, written in _accesses(first, second):
        if by_access(target, read, written, first.axes) is not None:
            yield {expr: source for source, expr in zip(read, written, strict=True) if not expr.is_Integer}
    row_major = by_row_major(first.axes, target, axis_ranges(target))
    if row_major is not None:
        yield row_major


def _maps_of_consumer(first: Nest, second: Nest) -> Iterator[AxisMap]:
    """Yield maps of a consumer's axes to its producer's."""
    if second.reduction_axes:
        rows, columns = by_position(second.axes, first.axes), by_position(second.reduction_axes, first.reduction_axes)
        if rows is None:
            rows = by_row_major(second.axes, first.axes, axis_ranges(first.axes))
        if columns is None:
            columns = by_row_major(second.reduction_axes, first.reduction_axes, axis_ranges(first.reduction_axes))
        if rows is not None and columns is not None:
            yield {**rows, **columns}
        return
    targets = [first.axes] if is_dot(first) or not first.reduction_axes else [_all_axes(first), first.axes]
    for target in targets:
        for read, written in _accesses(first, second):
            axes = by_access(second.axes, read, written, target)
            if axes is not None:
                yield axes
        for axes in (
            by_position(second.axes, target),
            _by_rows(second, first) if len(target) > len(first.axes) else None,
            by_row_major(second.axes, target, axis_ranges(target)),
        ):
            if axes is not None:
                yield axes


def _by_rows(second: Nest, first: Nest) -> AxisMap | None:
    """Map the consumer axes named by the index of a row result to the rows, the others in order to the columns."""
    for read, written in _accesses(first, second):
        named = {s for expr in read for s in expr.free_symbols}
        rows = [axis for axis in second.axes if axis.symbol in named]
        columns = [axis for axis in second.axes if axis.symbol not in named]
        row_map = by_access(rows, read, written, first.axes)
        column_map = by_position(columns, first.reduction_axes)
        if column_map is None:
            column_map = by_row_major(columns, first.reduction_axes, axis_ranges(first.reduction_axes))
        if row_map is not None and column_map is not None:
            return {**row_map, **column_map}
    return None


def _try(
    first: Nest, second: Nest, first_axes: AxisMap, second_axes: AxisMap, target: Nest, buffers: Mapping[str, Buffer]
) -> Merged | None:
    """Replay both nests over the target's axes; None where an access would not match."""
    builder = BodyBuilder()
    ranges = axis_ranges(_all_axes(target))
    stored: dict[str, tuple[tuple[Expr, ...], str]] = {}

    def remember(store: Store, index: tuple[Expr, ...], value: str) -> bool:
        stored[store.buffer] = (index, value)
        return True

    def take(load: Load, index: tuple[Expr, ...], mask: str | None) -> str | None:
        if load.buffer not in stored:
            return None
        where, value = stored[load.buffer]
        if where != index:
            raise _IllegalMergeError
        return masked(builder, value, mask)

    try:
        Replay(builder, first_axes, ranges, on_store=remember).run(first)
        Replay(builder, second_axes, ranges, on_load=take).run(second)
    except _IllegalMergeError:
        return None
    nest = replace(
        target,
        name=first.name,
        body=live_body(builder.body()),
        origins=tuple(dict.fromkeys((*first.origins, *second.origins))),
    )
    if not _overwrites_in_step(nest, buffers):
        return None
    return Merged(nest, _relaid(first, second, second_axes, buffers))


def _overwrites_in_step(nest: Nest, buffers: Mapping[str, Buffer]) -> bool:
    """Whether every input the nest overwrites is read only at the index it is overwritten at."""
    places = {store.buffer: store.index for store in stores(nest) if buffers[store.buffer].role is Role.INPUT}
    return all(load.index == places[load.buffer] for load in loads(nest) if load.buffer in places)


def _relaid(first: Nest, second: Nest, axes: AxisMap, buffers: Mapping[str, Buffer]) -> Mapping[str, Buffer]:
    """Give the consumer's temporaries the producer's order in memory where their axes are digits of the producer's.

    Otherwise a head-split result of a matrix product would be stored in strips of one head.
    """
    if all(expr.is_Symbol for expr in axes.values()) or reduces(second):
        return {}
    for read, written in _accesses(first, second):
        if by_access(second.axes, read, written, first.axes) is None:
            continue
        dense = dict(
            zip([a.symbol for a in first.axes], contiguous_strides([a.extent for a in first.axes]), strict=True)
        )
        steps = strides_through(second.axes, read, [dense.get(expr, sympy.Integer(0)) for expr in written])
        return {
            store.buffer: replace(
                buffers[store.buffer],
                strides=tuple(steps.get(expr, sympy.Integer(1)) for expr in store.index),
            )
            for store in stores(second)
            if buffers[store.buffer].role is Role.TEMPORARY and all(e in steps or e == 0 for e in store.index)
        }
    return {}
