"""Writes pointwise producers into the nests that read them.

*Requires* nests as lowered: a pointwise nest stores at its own axes. *Ensures* the same values; what was inlined into all
its readers is gone. *Why first*: it leaves few, large nests, whose domains the later passes compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import sympy

from mkwrap.fuse.graph import reads, writes
from mkwrap.ir.analysis import arithmetic_cost, loads, reduces, stores
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import axis_ranges
from mkwrap.ir.nodes import Axis, Buffer, Compute, Expr, Load, Nest, Role, Store
from mkwrap.ir.rewrite import Replay, live_body
from mkwrap.stages import Program

_CHEAP_COST = 4
_CHEAP_COST_WITHOUT_LOADS = 32
_RECOMPUTE_COST = 24
_RECOMPUTE_RATIO = 8
_MAX_LOADS = 24
_MAX_INSTRUCTIONS = 400


def inline_pointwise(program: Program) -> Program:
    """Inline every producer for which recomputing beats storing and loading."""
    nests = list(program.nests)
    written = frozenset().union(*[writes(nest) for nest in nests])
    mutated = frozenset(name for name in written if program.buffers[name].role is Role.INPUT)
    for k in range(len(nests)):
        producer = nests[k]
        if not _is_pointwise_temporary(producer, program.buffers):
            continue
        users = [j for j in range(len(nests)) if j != k and reads(nests[j]) & writes(producer)]
        chosen = [j for j in users if _profitable(producer, nests[j], len(users), mutated)]
        if len(chosen) < len(users) and not _is_cheap(producer):
            continue
        for j in chosen:
            nests[j] = inline_into(producer, nests[j])
    return replace(program, nests=without_dead_nests(nests, program.buffers))


def without_dead_nests(nests: list[Nest], buffers: Mapping[str, Buffer]) -> tuple[Nest, ...]:
    """Drop the nests that write only temporaries nobody reads."""
    kept: list[Nest] = []
    needed: set[str] = set()
    for nest in reversed(nests):
        if any(name in needed or buffers[name].role is not Role.TEMPORARY for name in writes(nest)):
            kept.append(nest)
            needed.update(reads(nest))
    return tuple(reversed(kept))


def is_dot(nest: Nest) -> bool:
    """Whether a nest is a matrix product."""
    return any(reduce.op == "dot" for reduce in reduces(nest))


def _is_pointwise_temporary(nest: Nest, buffers: Mapping[str, Buffer]) -> bool:
    return (
        not nest.reduction_axes
        and not reduces(nest)
        and all(buffers[name].role is Role.TEMPORARY for name in writes(nest))
        and all(_store_axes(nest, store) is not None for store in stores(nest))
    )


def _store_axes(nest: Nest, store: Store) -> dict[sympy.Symbol, int] | None:
    """Return which dim each axis is stored at, where the store index is distinct axes and zeros covering all axes."""
    places = {expr: k for k, expr in enumerate(store.index) if not expr.is_Integer}
    symbols = {axis.symbol for axis in nest.axes}
    return places if places.keys() == symbols and len(places) == sum(not e.is_Integer for e in store.index) else None


def _is_cheap(nest: Nest) -> bool:
    count, cost = len(loads(nest)), arithmetic_cost(nest)
    return (count <= 1 and cost <= _CHEAP_COST) or (count == 0 and cost <= _CHEAP_COST_WITHOUT_LOADS)


def _only_casts(nest: Nest) -> bool:
    return len(loads(nest)) == 1 and all(i.op == "cast" for i in nest.body if isinstance(i, Compute))


def _points(axes: tuple[Axis, ...]) -> Expr:
    return sympy.Mul(*[axis.extent for axis in axes])


def _profitable(producer: Nest, consumer: Nest, users: int, mutated: frozenset[str]) -> bool:
    if is_dot(consumer):
        return _only_casts(producer) and not any(i.mask for i in loads(producer))
    if not _reads_in_step(producer, consumer, mutated):
        return False
    if users > 1 and not _is_cheap(producer):
        return False
    if len(loads(producer)) + len(loads(consumer)) > _MAX_LOADS or len(consumer.body) > _MAX_INSTRUCTIONS:
        return False
    places = {load.index for load in loads(consumer) if load.buffer in writes(producer)}
    if len(places) > 1 and arithmetic_cost(producer) * len(places) > _RECOMPUTE_COST:
        return False
    ratio = _points((*consumer.axes, *consumer.reduction_axes)) / sympy.Max(1, _points(producer.axes))
    return arithmetic_cost(producer) <= _RECOMPUTE_COST or not surely(ratio >= _RECOMPUTE_RATIO)


def surely(relation: sympy.logic.boolalg.Boolean | bool) -> bool:
    """Whether a relation of sizes holds whatever the sizes; False where that is not known."""
    return relation is True or relation is sympy.true


def _reads_in_step(producer: Nest, consumer: Nest, mutated: frozenset[str]) -> bool:
    """Whether a consumer that overwrites an input would still read each of its elements before overwriting it."""
    overwritten = writes(consumer) & reads(producer) & mutated
    if writes(consumer) & mutated and (reads(producer) & mutated) - overwritten:
        # Another nest may overwrite that input, and read this one: each would have to run before the other.
        return False
    if not overwritten:
        return True
    merged = inline_into(producer, consumer)
    places = {store.buffer: store.index for store in stores(merged)}
    return all(load.index == places[load.buffer] for load in loads(merged) if load.buffer in overwritten)


def inline_into(producer: Nest, consumer: Nest) -> Nest:
    """Return the consumer with each load of the producer's results replaced by the producer's computation."""
    builder = BodyBuilder()
    ranges = axis_ranges((*consumer.axes, *consumer.reduction_axes))
    values = {store.buffer: store for store in stores(producer)}

    def compute_instead(load: Load, index: tuple[Expr, ...], mask: str | None) -> str | None:
        if load.buffer not in values:
            return None
        store = values[load.buffer]
        axes = {expr: index[k] for k, expr in enumerate(store.index) if not expr.is_Integer}
        replay = Replay(builder, axes, ranges, on_store=lambda *_: False, mask=mask)
        value = replay.run(producer)[store.arg]
        return masked(builder, value, mask)

    own_axes = {axis.symbol: axis.symbol for axis in (*consumer.axes, *consumer.reduction_axes)}
    Replay(builder, own_axes, ranges, on_load=compute_instead).run(consumer)
    origins = tuple(dict.fromkeys((*producer.origins, *consumer.origins)))
    return replace(consumer, body=live_body(builder.body()), origins=origins)


def masked(builder: BodyBuilder, value: str, mask: str | None) -> str:
    """Return the value where mask holds and 0 elsewhere, as a masked load would."""
    if mask is None:
        return value
    return builder.compute("where", mask, value, builder.constant(0, builder.dtype(value)))
