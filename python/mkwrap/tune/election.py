"""What wins at each measured point of a kernel of dynamic sizes: what loses least around it, as few variants as pay. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TypeAlias

from mkwrap.ir.nearest import distance
from mkwrap.points import Ends
from mkwrap.spaces import OpenGuards
from mkwrap.stages import Point, Timing, Variant
from mkwrap.tune.recall import Decision
from mkwrap.tune.select import FLOOR

MEASURED = "measured"
SHARED = "within noise of the fastest"
AROUND = "least loss at and around the point"

# A winner runs for all sizes nearer to its point than to others. Below it, halfway to a neighbour, its loss is taken to be midway
# between those at the two points, so that on the way there it is a quarter of the neighbour's. Above it work is cut in tiles, of
# which one more is begun at once: most of the sizes there lose what the neighbour does. Of a loss no more than a half counts.
_BELOW, _ABOVE = 0.25, 0.65
_MOST_LOSS = 0.5
# Variants whose expected losses differ by less may share points.
_ALIKE = 0.01
# A variant whose points would together lose less with other winners does not pay for its bytes, at up to so many points; of more
# points each stands for fewer sizes and tells more surely what is fast there, so that less is given up. One that stands for more
# sizes than others do, as the least hint may, counts that much more.
_PAYS, _PAYS_UP_TO = 0.1, 16

Legal: TypeAlias = Callable[[Point, Variant], bool]
"""Whether a variant is right at a point."""
_Losses: TypeAlias = Mapping[Point, Mapping[Variant, float]]
"""Of each variant timed at a point, the part by which it is slower than the fastest there, or expected to be around it."""


def elected(
    measured: Mapping[Point, Decision],
    guards: OpenGuards,
    asked: Collection[Point],
    legal: Legal,
    ends: Ends,
    odd: Collection[Point] = frozenset(),
) -> dict[Point, tuple[Variant, str]]:
    """Return each point's winner: of those of the least expected loss around it, one that wins at as many points as can be.

    Points asked for count first; those of `odd` are neighbours of each other only. Of those that win at as many, one with fewer
    guards, then the earlier in `guards`. Winners that do not pay are then given up for others.
    """
    order = {variant: number for number, variant in enumerate(guards)}
    losses = {point: _losses(decision.timings) for point, decision in measured.items()}
    around = _surroundings(measured, ends, odd)
    expected = _expectations(losses, legal, around)
    left = {point: _acceptable(expected[point]) or (decision.winner,) for point, decision in measured.items()}
    winners: dict[Point, Variant] = {}
    while left:
        counts: dict[Variant, tuple[int, int]] = {}
        for point, variants in left.items():
            for variant in variants:
                wanted, others = counts.get(variant, (0, 0))
                counts[variant] = (wanted + 1, others) if point in asked else (wanted, others + 1)
        best = max(counts, key=lambda v: (counts[v], -len(guards[v]), -order[v]))
        for point in [p for p, variants in left.items() if best in variants]:
            winners[point] = best
            del left[point]
    paying = _paying(winners, expected, _weights(around, odd), _PAYS * min(1.0, _PAYS_UP_TO / max(len(asked), 1)))
    return {point: (winner, _reason(measured[point], winner)) for point, winner in paying.items()}


def near_fastest(decision: Decision) -> tuple[Variant, ...]:
    """Return the variants that may be the fastest at a point: those that runs of one binary may differ by from the fastest."""
    if not decision.timings:
        return (decision.winner,)
    return tuple(variant for variant, loss in _losses(decision.timings).items() if loss <= FLOOR)


def neighbours(points: Collection[Point]) -> Iterator[tuple[int, Point, Point]]:
    """Yield an axis and two points that differ along it alone, with none between."""
    for axis, line in _lines(points):
        yield from ((axis, *pair) for pair in pairwise(line))


def _lines(points: Collection[Point]) -> Iterator[tuple[int, Sequence[Point]]]:
    """Yield an axis and the points that differ along it alone, in order."""
    for axis in range(len(next(iter(points), ()))):
        lines: dict[Point, list[Point]] = {}
        for point in sorted(points):
            lines.setdefault((*point[:axis], *point[axis + 1 :]), []).append(point)
        yield from ((axis, line) for line in lines.values())


def _reason(decision: Decision, winner: Variant) -> str:
    if not decision.timings:
        return decision.reason
    fastest = min(decision.timings, key=lambda timing: timing.median_us)
    if fastest.variant == winner:
        return MEASURED
    return SHARED if winner in near_fastest(decision) else AROUND


def _acceptable(expected: Mapping[Variant, float]) -> tuple[Variant, ...]:
    limit = min(expected.values(), default=0.0) + _ALIKE
    return tuple(variant for variant, loss in expected.items() if loss <= limit)


def _paying(
    winners: Mapping[Point, Variant], expected: _Losses, weights: Mapping[Point, float], pays: float
) -> dict[Point, Variant]:
    """Give up, one after another, the winner whose points lose least by others that win, while that is less than what pays."""
    kept = dict(winners)
    while True:
        cheapest: tuple[float, dict[Point, Variant]] | None = None
        for variant in dict.fromkeys(kept.values()):
            moved = _without(variant, kept, expected)
            if moved is None:
                continue
            price = sum(weights[p] * (expected[p][other] - expected[p][variant]) for p, other in moved.items())
            if price < pays and (cheapest is None or price < cheapest[0]):
                cheapest = price, moved
        if cheapest is None:
            return kept
        kept |= cheapest[1]


def _without(variant: Variant, winners: Mapping[Point, Variant], expected: _Losses) -> dict[Point, Variant] | None:
    """Return what would win at a winner's points without it; None where no other winner was timed."""
    others = set(winners.values()) - {variant}
    moved = {}
    for point in [p for p, winner in winners.items() if winner == variant]:
        known = {other: loss for other, loss in expected[point].items() if other in others}
        if not known or variant not in expected[point]:
            return None
        moved[point] = min(known, key=lambda other: known[other])
    return moved


@dataclass(frozen=True)
class _Side:
    """What a point is the nearest for on one side: how much of it, and how much the neighbour tells of it."""

    span: float
    """Up to halfway to the neighbour, as distances count, or to the end of the range."""
    neighbour: Point
    share: float


def _surroundings(measured: Collection[Point], ends: Ends, odd: Collection[Point]) -> Mapping[Point, Sequence[_Side]]:
    """Return the sides of each point; the outermost stand for all up to the ends."""
    around: dict[Point, list[_Side]] = {point: [] for point in measured}
    for points in ([p for p in measured if p not in odd], list(odd)):
        for _, below, above in neighbours(points):
            halfway = distance(below, above) / 2
            around[below].append(_Side(halfway, above, _ABOVE))
            around[above].append(_Side(halfway, below, _BELOW))
        for axis, line in _lines(points):
            (first, last), (least, greatest) = (line[0], line[-1]), ends[axis]
            around[first].append(_Side(distance([min(least, first[axis])], [first[axis]]), first, 0.0))
            if greatest is not None:
                around[last].append(_Side(distance([max(greatest, last[axis])], [last[axis]]), last, 0.0))
    return around


def _weights(around: Mapping[Point, Sequence[_Side]], odd: Collection[Point]) -> dict[Point, float]:
    """Return how many times the mean span each point stands for, at least 1; those of `odd` tell only of what stands in: 1."""
    spans = {p: sum(side.span for side in sides) for p, sides in around.items() if p not in odd}
    mean = sum(spans.values()) / max(len(spans), 1)
    return {p: max(1.0, spans[p] / mean) if mean and p in spans else 1.0 for p in around}


def _expectations(losses: _Losses, legal: Legal, around: Mapping[Point, Sequence[_Side]]) -> _Losses:
    def there(variant: Variant, point: Point, own: float) -> float:
        known = losses[point]
        if variant in known:
            return min(known[variant], _MOST_LOSS)
        # What nobody proposed there is like the middle of what was timed, but no better than here. Where it is not right nobody
        # runs it.
        return max(own, min(median(known.values()), _MOST_LOSS)) if known and legal(point, variant) else own

    def expected(variant: Variant, own: float, sides: Sequence[_Side]) -> float:
        whole = sum(side.span for side in sides)
        lost = (s.span * ((1 - s.share) * own + s.share * there(variant, s.neighbour, own)) for s in sides)
        return sum(lost) / whole if whole else own

    return {
        point: {variant: expected(variant, own, around[point]) for variant, own in known.items()}
        for point, known in losses.items()
    }


def _losses(timings: Sequence[Timing]) -> dict[Variant, float]:
    """Return the part by which each variant is slower than the fastest."""
    best = min((timing.median_us for timing in timings), default=0.0)
    return {timing.variant: timing.median_us / best - 1 for timing in timings}
