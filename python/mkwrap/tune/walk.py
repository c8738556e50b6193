"""Which points of a kernel are measured, and what wins at each. Pure, but for the measuring it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from mkwrap.ir.nearest import DOUBLING, distance
from mkwrap.spaces import OpenGuards
from mkwrap.stages import Point, Timing, Variant
from mkwrap.tune.recall import Decision
from mkwrap.tune.select import FLOOR

MEASURED = "measured"
SHARED = "within noise of the fastest"
AROUND = "least loss at and around the point"
INHERITED = "not measured: both neighbours elect it"

# Within so little a change of the winner is likelier a step than a slope where the lower size is whole tiles: one tile more may
# be a wave of blocks more.
_STEEP = DOUBLING // 4
_TILE = 16
# Between two points that elect different variants further ones are measured, unless they are as near as this …
_CLOSE = DOUBLING // 16
# … or neither variant loses more than this part at the other's point.
_WORTH = 0.05

# A winner runs for all sizes nearer to its point than to others. Halfway to a neighbour its loss is taken to be midway between
# those at the two points, so that on the way there it is a quarter of the neighbour's; of that no more than a half counts.
_QUARTER = 0.25
_MOST_LOSS = 0.5
# Variants whose expected losses differ by less may share points.
_ALIKE = 0.01
# So many variants are measured beside a point, the fastest at it.
_MOST_BESIDE = 8

Legal: TypeAlias = Callable[[Point, Variant], bool]
"""Whether a variant is right at a point."""
Measure: TypeAlias = Callable[[Point, Sequence[Variant]], Decision]
"""Measures some variants at a point; none stand for all that are worth running there."""


@dataclass(frozen=True)
class Walk:
    """How a kernel's points are gone through."""

    points: Sequence[Point]
    """The example's first."""
    legal: Legal
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
    for point, (winner, _) in elected(measured, guards, plan.points, plan.legal).items():
        odd = plan.beside(point)
        if odd is not None and odd not in measured and not plan.legal(odd, winner):
            measured[odd] = measure(odd, _contenders(plan, measured[point].timings, odd))
    odds = frozenset(odd for odd in map(plan.beside, plan.points) if odd in measured)
    winners = elected(measured, guards, plan.points, plan.legal, odds)
    for point, variant in inherited.items():
        winners[point] = variant, INHERITED
    return Walked(measured, winners, odds)


def elected(
    measured: Mapping[Point, Decision],
    guards: OpenGuards,
    asked: Collection[Point],
    legal: Legal,
    odd: Collection[Point] = frozenset(),
) -> dict[Point, tuple[Variant, str]]:
    """Return each point's winner: of those of the least expected loss around it, one that wins at as many points as can be.

    Only points asked for count, so that an added one changes nothing at them; points of `odd` are neighbours of each other only.
    Of those that win at as many, one with fewer guards, then the earlier in `guards`.
    """
    order = {variant: number for number, variant in enumerate(guards)}
    left = _acceptable(measured, legal, odd)
    winners: dict[Point, tuple[Variant, str]] = {}
    while left:
        counts: dict[Variant, int] = {}
        for point, variants in left.items():
            for variant in variants:
                counts[variant] = counts.get(variant, 0) + (point in asked)
        best = min(counts, key=lambda v: (-counts[v], len(guards[v]), order[v]))
        for point in [p for p, variants in left.items() if best in variants]:
            winners[point] = best, _reason(measured[point], best)
            del left[point]
    return winners


def _reason(decision: Decision, winner: Variant) -> str:
    if not decision.timings:
        return decision.reason
    fastest = min(decision.timings, key=lambda timing: timing.median_us)
    if fastest.variant == winner:
        return MEASURED
    return SHARED if winner in _near_fastest(decision) else AROUND


def _acceptable(
    measured: Mapping[Point, Decision], legal: Legal, odd: Collection[Point]
) -> dict[Point, tuple[Variant, ...]]:
    """Return the variants that may win at each point: those whose losses there and on the way to its neighbours are the least."""
    losses = {point: _losses(decision.timings) for point, decision in measured.items()}
    around: dict[Point, list[Point]] = {point: [] for point in measured}
    for points in ([p for p in measured if p not in odd], list(odd)):
        for _, below, above in _neighbours(points) if points else ():
            around[below].append(above)
            around[above].append(below)

    def there(variant: Variant, point: Point, own: float) -> float:
        known = losses[point]
        if variant in known:
            return min(known[variant], _MOST_LOSS)
        # What nobody thought worth timing is slower than what was timed.
        return min(max(known.values(), default=own), _MOST_LOSS) if legal(point, variant) else own

    found = {}
    for point, decision in measured.items():
        expected = {
            variant: _expected(own, [(distance(point, p), there(variant, p, own)) for p in around[point]])
            for variant, own in losses[point].items()
        }
        limit = min(expected.values(), default=0.0) + _ALIKE
        found[point] = tuple(v for v, loss in expected.items() if loss <= limit) or (decision.winner,)
    return found


def _losses(timings: Sequence[Timing]) -> dict[Variant, float]:
    """Return the part by which each variant is slower than the fastest."""
    best = min((timing.median_us for timing in timings), default=0.0)
    return {timing.variant: timing.median_us / best - 1 for timing in timings}


def _expected(own: float, around: Sequence[tuple[int, float]]) -> float:
    """Return a variant's mean loss over the sizes around a point, of its loss there and at neighbours, with how far they are.

    Where it is not right it is taken to lose what it loses at the point: nobody runs it there.
    """
    whole = sum(far for far, _ in around)
    return own if not whole else (1 - _QUARTER) * own + _QUARTER * sum(far * loss for far, loss in around) / whole


def _near_fastest(decision: Decision) -> tuple[Variant, ...]:
    """Return the variants that may be the fastest at a point: those that runs of one binary may differ by from the fastest."""
    if not decision.timings:
        return (decision.winner,)
    return tuple(variant for variant, loss in _losses(decision.timings).items() if loss <= FLOOR)


def _between(point: Point, place: Mapping[Point, Point], measured: Mapping[Point, Decision]) -> Variant | None:
    """Return the variant that both neighbours of a point along an axis elect beyond doubt."""
    at = {place[p]: _near_fastest(decision) for p, decision in measured.items() if p in place}
    own = place[point]
    for axis in range(len(own)):
        below, above = (at.get((*own[:axis], own[axis] + step, *own[axis + 1 :]), ()) for step in (-1, 1))
        if len(below) == 1 and below == above:
            return below[0]
    return None


def _middle(axis: int, below: Point, above: Point) -> Point | None:
    """Return the point that is measured next between two along an axis, None where they are near enough."""
    steep = below[axis] % _TILE == 0 and distance(below, above) <= _STEEP
    size = below[axis] + 1 if steep else math.isqrt(below[axis] * above[axis])
    middle = (*below[:axis], size, *below[axis + 1 :])
    return None if distance(below, above) <= _CLOSE or middle in (below, above) else middle


def halvings(points: Collection[Point], times: int) -> tuple[Point, ...]:
    """Return the points that a walk may add to some, where it comes between two neighbours so many times at most."""
    line = set(points)
    for _ in range(times):
        line.update([p for gap in _neighbours(line) if (p := _middle(*gap)) is not None])
    return tuple(sorted(line - set(points)))


def _crossing(plan: Walk, guards: OpenGuards, measured: Mapping[Point, Decision]) -> Point | None:
    """Return a point between two neighbours along an axis that elect different variants; None: there are enough.

    Those that are far apart, and may lose much, come first. It is halfway, or, where they are near each other and the lower is
    whole tiles, just above the lower.
    """
    winners = elected(measured, guards, plan.points, plan.legal)
    best: tuple[float, Point] | None = None
    for axis, below, above in _neighbours(measured):
        middle = _middle(axis, below, above)
        if winners[below][0] == winners[above][0] or middle is None:
            continue
        loss = _loss(measured[below].timings, measured[above].timings, winners[below][0], winners[above][0])
        weight = min(loss, 1.0) * distance(below, above)
        if loss > _WORTH and plan.possible(middle) and (best is None or weight > best[0]):
            best = weight, middle
    return None if best is None else best[1]


def _contenders(plan: Walk, timings: Sequence[Timing], odd: Point) -> tuple[Variant, ...]:
    """Return the fastest at a point of those that are right beside it."""
    order = sorted(timings, key=lambda timing: timing.median_us)
    return tuple(timing.variant for timing in order if plan.legal(odd, timing.variant))[:_MOST_BESIDE]


def _neighbours(points: Collection[Point]) -> Iterator[tuple[int, Point, Point]]:
    """Yield an axis and two points that differ along it alone, with none between."""
    for axis in range(len(next(iter(points)))):
        lines: dict[Point, list[Point]] = {}
        for point in sorted(points):
            lines.setdefault((*point[:axis], *point[axis + 1 :]), []).append(point)
        for line in lines.values():
            yield from ((axis, *pair) for pair in pairwise(line))


def _loss(below: Sequence[Timing], above: Sequence[Timing], low: Variant, high: Variant) -> float:
    """Return by which part two points' winners are slower at the other's, the larger; much where neither was timed there."""
    losses = []
    for timings, winner, other in ((below, low, high), (above, high, low)):
        times = {timing.variant: timing.median_us for timing in timings}
        if winner in times and other in times:
            losses.append(times[other] / times[winner] - 1)
    return max(losses, default=math.inf)
