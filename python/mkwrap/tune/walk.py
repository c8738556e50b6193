"""Which points of a kernel are measured, and what wins at each. Pure, but for the measuring it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mkwrap.ir.nearest import DOUBLING, distance
from mkwrap.points import Ends
from mkwrap.spaces import OpenGuards
from mkwrap.stages import Point, Timing, Variant
from mkwrap.tune.election import Legal, elected, near_fastest, neighbours
from mkwrap.tune.recall import Decision

INHERITED = "not measured: both neighbours elect it"

# Within so little a change of the winner is likelier a step than a slope where the lower size is whole tiles: one tile more may
# be a wave of blocks more.
_STEEP = DOUBLING // 4
_TILE = 16
# Between two points that elect different variants further ones are measured, unless they are as near as this …
_CLOSE = DOUBLING // 16
# … or neither variant loses more than this part at the other's point.
_WORTH = 0.05

# So many variants are measured beside a point, the fastest at it.
_MOST_BESIDE = 8

Measure: TypeAlias = Callable[[Point, Sequence[Variant]], Decision]
"""Measures some variants at a point; none stand for all that are worth running there."""


@dataclass(frozen=True)
class Walk:
    """How a kernel's points are gone through."""

    points: Sequence[Point]
    """The example's first."""
    legal: Legal
    ends: Ends
    possible: Callable[[Point], bool]
    """Whether the program has such sizes, for a point nobody asked for."""
    extra: int
    """The most points that are added between two that elect different variants, by halving."""
    beside: Callable[[Point], Point | None] = lambda _: None
    """The point next to a point where sizes are odd; None: there is none, or no variant asks for multiples."""


@dataclass(frozen=True)
class Walked:
    """Decisions at measured points, and the winner and reason of every point."""

    measured: Mapping[Point, Decision]
    winners: Mapping[Point, tuple[Variant, str]]
    odd: frozenset[Point] = frozenset()
    """Those measured beside a point, for what is right at odd sizes."""


def walk(plan: Walk, guards: OpenGuards, known: Mapping[Point, Decision], measure: Measure) -> Walked:
    """Measure every other point along each axis, those between where it takes it, then towards each change of the winner.

    A point between two measured neighbours that both elect the same variant, by more than noise, is not measured. Points in
    `known` are not measured again. Where what wins at a point asks for multiples, what is right for odd sizes is measured beside
    the point: rows of odd lengths start where no vector does, which changes which variant is fast. `guards` has all variants,
    in order.
    """
    measured = dict(known)
    sizes = [sorted(set(axis)) for axis in zip(*plan.points, strict=True)]
    place = {p: tuple(axis.index(size) for axis, size in zip(sizes, p, strict=True)) for p in plan.points}
    first = [p for n, p in enumerate(plan.points) if n == 0 or all(k % 2 == 0 for k in place[p])]
    for point in first:
        if point not in measured:
            measured[point] = measure(point, ())
    inherited: dict[Point, Variant] = {}
    for point in plan.points:
        if point not in measured:
            surely = _between(point, place, measured)
            if surely is not None and plan.legal(point, surely):
                inherited[point] = surely
            else:
                measured[point] = measure(point, ())
    for _ in range(plan.extra):
        added = _crossing(plan, guards, measured)
        if added is None:
            break
        measured[added] = measure(added, ())
    for point, (winner, _) in elected(measured, guards, plan.points, plan.legal, plan.ends).items():
        odd = plan.beside(point)
        if odd is not None and odd not in plan.points and odd not in measured and not plan.legal(odd, winner):
            measured[odd] = measure(odd, _contenders(plan, measured[point].timings, odd))
    odds = frozenset(_odd(plan, measured))
    winners = elected(measured, guards, plan.points, plan.legal, plan.ends, odds)
    win = {winner for winner, _ in winners.values()}
    even = [p for p in measured if p not in odds]
    for point, variant in inherited.items():
        # What was given up at the neighbours does not come back between them.
        near = (winners[p][0] for p in sorted(even, key=lambda p: (distance(p, point), p)))
        stays = variant in win
        winners[point] = variant if stays else next((v for v in near if plan.legal(point, v)), variant), INHERITED
    return Walked(measured, winners, odds)


def _odd(plan: Walk, measured: Mapping[Point, Decision]) -> Iterator[Point]:
    """Yield the points beside others at which variants were timed that are not right there: those for odd sizes."""
    for point, decision in measured.items():
        odd = _odd_beside(plan, point, [timing.variant for timing in decision.timings])
        if odd is not None and odd in measured:
            yield odd


def _odd_beside(plan: Walk, point: Point, variants: Iterable[Variant]) -> Point | None:
    """Return the point beside one at which some of these are not right; what was asked for is a point like others."""
    odd = plan.beside(point)
    if odd is None or odd in plan.points or all(plan.legal(odd, variant) for variant in variants):
        return None
    return odd


def _reserved(plan: Walk, guards: OpenGuards, point: Point) -> Point | None:
    """Return the point beside one that is for odd sizes alone once both are measured: no other is put there."""
    return _odd_beside(plan, point, (variant for variant in guards if plan.legal(point, variant)))


def _between(point: Point, place: Mapping[Point, Point], measured: Mapping[Point, Decision]) -> Variant | None:
    """Return the variant that both neighbours of a point along an axis elect beyond doubt."""
    at = {place[p]: near_fastest(decision) for p, decision in measured.items() if p in place}
    own = place[point]
    for axis in range(len(own)):
        below, above = (at.get((*own[:axis], own[axis] + step, *own[axis + 1 :]), ()) for step in (-1, 1))
        if len(below) == 1 and below == above:
            return below[0]
    return None


def _middle(axis: int, below: Point, above: Point, odds: Collection[Point | None]) -> Point | None:
    """Return the point that is measured next between two along an axis, none of `odds`; None where they are near enough."""
    steep = below[axis] % _TILE == 0 and distance(below, above) <= _STEEP
    size = below[axis] + 1 if steep else math.isqrt(below[axis] * above[axis])
    line = ((*below[:axis], n, *below[axis + 1 :]) for n in range(size, above[axis]))
    middle = next((point for point in line if point not in odds), None)
    return None if distance(below, above) <= _CLOSE or middle == below else middle


def halvings(points: Collection[Point], times: int, odds: Collection[Point]) -> tuple[Point, ...]:
    """Return the points that a walk may add to some, where it comes between two neighbours so many times at most.

    None of them is one of `odds`: at these only what is right for odd sizes is measured.
    """
    line = set(points)
    for _ in range(times):
        line.update([p for gap in neighbours(line) if (p := _middle(*gap, odds)) is not None])
    return tuple(sorted(line - set(points)))


def _crossing(plan: Walk, guards: OpenGuards, measured: Mapping[Point, Decision]) -> Point | None:
    """Return a point between two neighbours along an axis that elect different variants; None: there are enough.

    Those that are far apart, and may lose much, come first. It is halfway, or, where they are near each other and the lower is
    whole tiles, just above the lower. A point that gave up what is fast there for the sizes around it counts as electing the
    fastest: it may have it back once a nearer neighbour stands for those sizes.
    """
    odds = frozenset(_odd(plan, measured))
    chosen = elected(measured, guards, plan.points, plan.legal, plan.ends, odds)
    winners = {point: _at_itself(winner, measured[point].timings) for point, (winner, _) in chosen.items()}
    reserved = {_reserved(plan, guards, point) for point in measured}
    best: tuple[float, Point] | None = None
    for axis, below, above in neighbours([p for p in measured if p not in odds]):
        middle = _middle(axis, below, above, reserved)
        if winners[below] == winners[above] or middle is None or not plan.possible(middle):
            continue
        if _reserved(plan, guards, middle) in measured.keys() - odds:
            continue
        loss = _loss(measured[below].timings, measured[above].timings, winners[below], winners[above])
        weight = min(loss, 1.0) * distance(below, above)
        if loss > _WORTH and (best is None or weight > best[0]):
            best = weight, middle
    return None if best is None else best[1]


def _at_itself(winner: Variant, timings: Sequence[Timing]) -> Variant:
    """Return the fastest at a point whose winner loses much there, else the winner."""
    times = {timing.variant: timing.median_us for timing in timings}
    fastest = min(times, key=lambda variant: times[variant], default=winner)
    return winner if times.get(winner, 0.0) <= (1 + _WORTH) * times.get(fastest, 0.0) else fastest


def _contenders(plan: Walk, timings: Sequence[Timing], odd: Point) -> tuple[Variant, ...]:
    """Return the fastest at a point of those that are right beside it."""
    order = sorted(timings, key=lambda timing: timing.median_us)
    return tuple(timing.variant for timing in order if plan.legal(odd, timing.variant))[:_MOST_BESIDE]


def _loss(below: Sequence[Timing], above: Sequence[Timing], low: Variant, high: Variant) -> float:
    """Return by which part two points' winners are slower at the other's, the larger; much where neither was timed there."""
    losses = []
    for timings, winner, other in ((below, low, high), (above, high, low)):
        times = {timing.variant: timing.median_us for timing in timings}
        if winner in times and other in times:
            losses.append(times[other] / times[winner] - 1)
    return max(losses, default=math.inf)
