"""From the choices at a kernel's points to its dispatch table: what runs there and, where guards fail, in its place. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import sympy

from mkwrap.ir.index import FloorDiv
from mkwrap.ir.nearest import DOUBLING, distance
from mkwrap.ir.nodes import Expr
from mkwrap.points import odd_size, values_at
from mkwrap.spaces import OpenGuards
from mkwrap.stages import Binary, Dispatch, DispatchRow, Guard, Point, PointChoice, Variant
from mkwrap.tune.select import FLOOR

Stack: TypeAlias = tuple[tuple[Variant, int], ...]
"""A point's variants with their handicaps: the winner, then what stands in for it."""


@dataclass(frozen=True)
class Table:
    """A dispatch table of variants; `Dispatch` is the same of binaries."""

    symbols: tuple[sympy.Symbol, ...]
    stacks: Mapping[Point, Stack]
    """In order of the points."""
    left_out: int = 0
    """Rows that a library has no room for."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Return its variants, each once."""
        return tuple(dict.fromkeys(variant for stack in self.stacks.values() for variant, _ in stack))

    def dispatch(self, binaries: Sequence[Binary], guards: OpenGuards) -> Dispatch:
        """Return the table with the binaries of its variants; of their guards those are left that may fail."""
        built = {binary.source.variant: with_guards(binary, guards) for binary in binaries}
        rows = [DispatchRow(p, built[v], handicap) for p, stack in self.stacks.items() for v, handicap in stack]
        return Dispatch(tuple(rows), self.symbols, self.left_out)


def with_guards(binary: Binary, guards: OpenGuards) -> Binary:
    """Return a binary with those of its guards that may fail."""
    source = binary.source
    may_fail = tuple(guard for guard in source.guards if guard in guards[source.variant])
    return replace(binary, source=replace(source, guards=may_fail))


def table_of(
    symbols: Sequence[sympy.Symbol],
    choices: Sequence[PointChoice],
    worth: Mapping[Point, Sequence[Variant]],
    guards: OpenGuards,
) -> Table:
    """Return the table of a kernel's choices, with as few points as elect the same (`stacked` has the arguments)."""
    return merged(stacked(symbols, choices, worth, guards), guards)


def stacked(
    symbols: Sequence[sympy.Symbol],
    choices: Sequence[PointChoice],
    worth: Mapping[Point, Sequence[Variant]],
    guards: OpenGuards,
) -> Table:
    """Return the table that has every point.

    `worth` lists the variants worth running at a point, best first; it may lack points. `guards` has the variants that can
    run at all, in order; one of them is right everywhere.
    """
    at = {tuple(choice.at[str(symbol.name)] for symbol in symbols): choice for choice in choices}
    winners = {choice.winner for choice in choices}
    odd = _odd(symbols, at, guards)
    stacks: dict[Point, Stack] = {}
    for point in sorted(at):
        if point in odd.values() and point not in worth:
            continue
        order = _order(point, at, odd, worth, guards)
        legal = tuple(v for v in order.variants if _holds(symbols, point, guards.get(v)))
        stacks[point] = _stack(at[point].winner, replace(order, variants=legal), guards, winners)
    return Table(tuple(symbols), stacks)


def _holds(symbols: Sequence[sympy.Symbol], point: Point, guards: Collection[Guard] | None) -> bool:
    """Whether a variant's guards hold at a point; None: it cannot run at all."""
    return guards is not None and all(guard.holds(values_at(symbols, point)) for guard in guards)


def _odd(symbols: Sequence[sympy.Symbol], at: Mapping[Point, PointChoice], guards: OpenGuards) -> Mapping[Point, Point]:
    """Return, for points where variants were timed that ask for multiples, the point below that was measured for odd sizes.

    Such a point has no row of its own: what wins there stands in at the point above.
    """
    found = {}
    for point, choice in at.items():
        for below in itertools.product(*((size, odd_size(size)) for size in point)):
            if below in at and below != point and at[below].timings:
                timed = (timing.variant for timing in choice.timings)
                if any(not _holds(symbols, below, guards[v]) for v in timed if v in guards):
                    found[point] = below
    return found


@dataclass(frozen=True)
class _Order:
    """The variants to run at a point, best first, their times as far as known, and the best for odd sizes, if measured."""

    variants: tuple[Variant, ...]
    times: Mapping[Variant, float]
    odd: Variant | None


def _order(
    point: Point,
    at: Mapping[Point, PointChoice],
    odd: Mapping[Point, Point],
    worth: Mapping[Point, Sequence[Variant]],
    guards: OpenGuards,
) -> _Order:
    """Return the variants to run at a point by its own times, or else by those of the nearest point like it.

    What is right for odd sizes, too, goes by its times there, where it was measured at such.
    """
    own = at[point]
    timed = [p for p, choice in at.items() if choice.timings and choice.winner == own.winner]
    like = point if own.timings or not timed else min(timed, key=lambda p: (distance(p, point), p))
    times = _times(at[like])
    if like in odd:
        multiples = {v for v in times if _multiples(guards.get(v, ()))}
        times = {v: us for v, us in times.items() if v in multiples} | _times_here(at[odd[like]], times)
    beside = at[odd[like]].winner if like in odd else None
    measured = sorted(times, key=lambda variant: times[variant])
    out = {entry.variant for entry in (*own.rejected, *at[like].rejected)}
    order = dict.fromkeys((own.winner, *measured, *worth.get(point, ()), *worth.get(like, ()), *guards))
    kept = [variant for variant in order if variant not in out]
    return _Order((*kept, *(v for v in order if v in out and not guards.get(v))), times, beside)


def _times(choice: PointChoice) -> dict[Variant, float]:
    return {timing.variant: timing.median_us for timing in choice.timings}


def _times_here(there: PointChoice, here: Mapping[Variant, float]) -> dict[Variant, float]:
    """Return times of another point in the measure of this one: as if there its winner took what it takes here."""
    times = _times(there)
    known = there.winner in times and there.winner in here
    scale = here[there.winner] / times[there.winner] if known else 1.0
    return {variant: us * scale for variant, us in times.items()}


def _stack(winner: Variant, order: _Order, guards: OpenGuards, winners: Collection[Variant]) -> Stack:
    """Return a winner and, the faster first, what runs where its guards fail: variants that ask for less, down to nothing.

    First comes what is the best for odd sizes: they are mostly within the limits, so that it bears no handicap. Then, of those
    that noise cannot tell from the fastest, one that asks for least is taken, or one that wins elsewhere.
    """
    asks, times = guards[winner], order.times
    place = {variant: number for number, variant in enumerate(order.variants)}
    odd = order.odd if order.odd in place and _multiples(asks) and not _multiples(guards[order.odd]) else None
    stack = [winner] if odd is None else [winner, odd]
    while pool := [
        v
        for v in order.variants
        if _wider(guards[v], asks) and not any(_covers(guards[w], guards[v]) for w in stack[1:])
    ]:
        least = min(times.get(v, math.inf) for v in pool)
        near = [v for v in pool if times.get(v, math.inf) <= least * (1 + FLOOR)] if least < math.inf else pool[:1]
        stack.append(min(near, key=lambda v: (len(guards[v]), v not in winners, place[v])))
    rows = tuple((v, 0 if v == odd else _handicap(asks, guards[v])) for v in stack)
    # What wins at another point within its limits is nearer there than it would be here.
    return tuple((v, h) for v, h in rows if not h or v not in winners or all(g.most is None for g in guards[v]))


def _multiples(guards: Collection[Guard]) -> bool:
    """Whether guards ask for multiples."""
    return any(guard.multiple > 1 for guard in guards)


def _handicap(asked: Collection[Guard], still: Collection[Guard]) -> int:
    """Return what a stand-in's distance grows by: where a size is over a limit, another point's winner is likely better."""
    limits = {guard for guard in still if guard.most is not None}
    return DOUBLING if any(guard.most is not None and guard not in limits for guard in asked) else 0


def _wider(guards: Collection[Guard], others: Collection[Guard]) -> bool:
    """Whether guards hold wherever others do, and elsewhere, too."""
    return _covers(guards, others) and not _covers(others, guards)


def _covers(guards: Collection[Guard], others: Collection[Guard]) -> bool:
    """Whether each of some guards is implied by one of others."""
    return all(any(_implies(other, guard) for other in others) for guard in guards)


def _implies(guard: Guard, weaker: Guard) -> bool:
    bounded = weaker.most is None or (guard.most is not None and guard.most <= weaker.most)
    return guard.expr == weaker.expr and bounded and guard.multiple % weaker.multiple == 0


def merged(table: Table, guards: OpenGuards) -> Table:
    """Return a table with fewer points that elects the same for all sizes, and without the symbols that decide nothing.

    Sizes that several points are equally near to within the rule's tolerance may be given to another of these points.
    """
    if len(set(table.stacks.values())) == 1:
        # Whichever point is near: the first variant of the stack whose guards hold is the nearest.
        point, stack = next(iter(table.stacks.items()))
        return _without_idle_symbols(Table(table.symbols, {point: stack}), guards)
    sizes = [sorted(set(axis)) for axis in zip(*table.stacks, strict=True)]
    if math.prod(map(len, sizes)) != len(table.stacks):
        return table
    stacks = dict(table.stacks)
    for axis, values in enumerate(sizes):
        kept = list(values)
        while gone := _superfluous(stacks, axis, kept, guards, alone=len(sizes) == 1):
            kept.remove(gone)
            stacks = {point: stack for point, stack in stacks.items() if point[axis] != gone}
    return _without_idle_symbols(Table(table.symbols, stacks), guards)


def _superfluous(
    stacks: Mapping[Point, Stack], axis: int, values: Sequence[int], guards: OpenGuards, *, alone: bool
) -> int | None:
    """Return a size of an axis of the grid whose points can go, since those of its neighbours do the same; None: there is none.

    In a grid the nearest point is the nearest along each axis. So sizes nearest to a plane of points between two that have the
    same stacks are left to these, and those beyond the last but one plane to it. A handicap that all sizes near a plane bear
    would upset this. In one dimension none do up to the largest point of those alike, whose limits hold below it, too.
    """

    def plane(size: int) -> dict[Point, Stack]:
        return {(*p[:axis], *p[axis + 1 :]): stack for p, stack in stacks.items() if p[axis] == size}

    if len(values) < 2:
        return None
    calm = all(handicap == 0 for stack in stacks.values() for _, handicap in stack)
    growing = alone and all(_only_limits(stack, guards) for stack in stacks.values())
    alike = {pair: plane(pair[0]) == plane(pair[1]) for pair in itertools.pairwise(values)}
    if calm or growing:
        for low, size, high in zip(values, values[1:], values[2:], strict=False):
            if alike[low, size] and alike[size, high]:
                return size
        if alike[values[0], values[1]]:
            return values[0]
    if calm and alike[values[-2], values[-1]]:
        return values[-1]
    return None


def _only_limits(stack: Stack, guards: OpenGuards) -> bool:
    """Whether a stack's handicaps depend on limits alone, all of sizes that grow with the symbols."""
    unhindered = any(h == 0 and all(guard.multiple == 1 for guard in guards[v]) for v, h in stack)
    return unhindered and all(_grows(g.expr) for v, _ in stack for g in guards[v] if g.most is not None)


def _grows(expr: Expr) -> bool:
    """Whether an expression visibly does not fall where a symbol grows."""
    if expr.is_Integer:
        return bool(expr >= 0)
    if expr.is_Symbol:
        return True
    if isinstance(expr, FloorDiv):
        return _grows(expr.args[0]) and bool(expr.args[1].is_Integer)
    if expr.is_Add:
        return all(_grows(arg) or arg.is_Integer for arg in expr.args)
    return bool(expr.is_Mul) and all(_grows(arg) for arg in expr.args)


def _without_idle_symbols(table: Table, guards: OpenGuards) -> Table:
    """Drop the symbols that all points agree on, unless a guard asks for them."""
    asked = {s for variant in table.variants for guard in guards[variant] for s in guard.expr.free_symbols}
    axes = [
        axis
        for axis, symbol in enumerate(table.symbols)
        if symbol in asked or len({point[axis] for point in table.stacks}) > 1
    ]
    stacks = {tuple(point[axis] for axis in axes): stack for point, stack in table.stacks.items()}
    return Table(tuple(table.symbols[axis] for axis in axes), stacks)
