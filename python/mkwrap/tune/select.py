"""From timings to a winner: a pure function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mkwrap.stages import Timing
from mkwrap.tune.spread import standard_error

# Between two runs of the same binary medians differ by a percent or so, whatever the spread within a run says.
FLOOR = 0.02
# A spread needs three samples. Single runs of one binary were seen to differ by some percent, so a median of fewer
# tells nothing finer than this part of itself.
FEW = 3
COARSE = 0.05


@dataclass(frozen=True)
class Verdict:
    """Position of the winner among the timings, and why it won."""

    winner: int
    reason: str


def select(timings: Sequence[Timing], default: int | None = 0) -> Verdict:
    """Choose by median: the lowest wins; of those that noise cannot tell from it, the first.

    The default (position `default`; None if it is not among the timings) gives way only to a gap above the noise
    floor: the noise of both medians, and `FLOOR` of its own. A median of fewer than `FEW` runs has a noise of at least
    `COARSE` of itself, whatever its spread. Raises ValueError for no timings.
    """
    best = min(range(len(timings)), key=lambda i: timings[i].median_us)
    winner = next(
        i for i in range(len(timings)) if _gap(timings[i], timings[best]) <= _noise(timings[i], timings[best])
    )
    if default is None or best == default:
        return Verdict(winner, "measured")
    floor = max(FLOOR * timings[default].median_us, _noise(timings[default], timings[best]))
    if winner == default or _gap(timings[default], timings[best]) <= floor:
        return Verdict(default, "within noise of the default")
    return Verdict(winner, "measured")


def _gap(a: Timing, b: Timing) -> float:
    return a.median_us - b.median_us


def _noise(a: Timing, b: Timing) -> float:
    """Return two standard errors of the difference of two medians."""
    return 2 * math.hypot(_error(a), _error(b))


def _error(timing: Timing) -> float:
    """Return a median's standard error; of fewer than `FEW` runs half of `COARSE` of it at the least."""
    error = standard_error(timing.spread_us, timing.runs)
    return error if timing.runs >= FEW else max(error, COARSE / 2 * timing.median_us)
