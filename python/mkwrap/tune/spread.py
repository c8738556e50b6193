"""Medians, spreads and what they can tell apart. Needs nothing: both sides of a measurement use it."""

from __future__ import annotations

import math
from collections.abc import Sequence

_DISTURBED = 1.5


def undisturbed(samples: Sequence[float]) -> list[float]:
    """Return the samples that nothing disturbed: those within 1.5 times the fastest.

    Other work on the machine only ever makes a sample longer, and where it does, by a time slice rather than a percent.
    """
    limit = _DISTURBED * min(samples)
    return [sample for sample in samples if sample <= limit]


def summary(samples: Sequence[float]) -> tuple[float, float]:
    """Return median and half interquartile distance of at least one sample (linear between order statistics)."""
    ordered = sorted(samples)
    return _quantile(ordered, 0.5), (_quantile(ordered, 0.75) - _quantile(ordered, 0.25)) / 2


def standard_error(spread: float, runs: int) -> float:
    """Return the standard error of a median of `runs` samples with that half interquartile distance.

    For normal samples the half interquartile distance is 0.674 σ and the median's standard error 1.253 σ/√n.
    """
    return 1.253 / 0.674 * spread / math.sqrt(runs)


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    place = fraction * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
