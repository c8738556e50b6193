"""Made-up times of three variants at points, and walks over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mkwrap.ir.index import size_symbol
from mkwrap.stages import Point, Timing, Variant
from mkwrap.tune.recall import Decision
from mkwrap.tune.walk import Walk, Walked, walk

SMALL, LARGE, OTHER = (Variant("k", name) for name in ("small", "large", "other"))
GUARDS = {variant: frozenset() for variant in (SMALL, LARGE, OTHER)}
S = size_symbol("s")
ENDS = ((1, 4096), (1, 4096))


class Judge:
    """Measures by formulas; counts."""

    def __init__(self, times: Callable[[Point], Mapping[Variant, float]]) -> None:
        self.times = times
        self.seen: list[Point] = []

    def __call__(self, point: Point, some: Sequence[Variant] = ()) -> Decision:
        self.seen.append(point)
        times = {v: us for v, us in self.times(point).items() if not some or v in some}
        timings = tuple(Timing(v, us, 0.001 * us, 20) for v, us in times.items())
        return Decision(min(timings, key=lambda t: t.median_us).variant, "measured", timings)


def crossing(at: float) -> Judge:
    """Let LARGE win above a size, by as much as the sizes differ."""
    return Judge(lambda point: {SMALL: 10.0 * point[0] / at, LARGE: 10.0})


def walked(judge: Judge, *points: Point, extra: int = 0, possible: Callable[[Point], bool] = lambda _: True) -> Walked:
    return walk(Walk(points, lambda _p, _v: True, ENDS, possible, extra), GUARDS, {}, judge)
