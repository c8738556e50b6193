"""Timings decide: a pure function."""

from __future__ import annotations

import numpy as np
import pytest

from mkwrap.stages import Timing, Variant
from mkwrap.tune.select import FLOOR, select
from mkwrap.tune.spread import summary


def _timings(*medians: float, spread: float = 0.0, runs: int = 25) -> list[Timing]:
    return [Timing(Variant("k", f"v{i}"), median, spread, runs) for i, median in enumerate(medians)]


@pytest.mark.parametrize(
    ("medians", "winner"),
    [((10.0, 5.0, 7.0), 1), ((10.0, 7.0, 5.0), 2), ((5.0, 7.0, 10.0), 0), ((10.0,), 0), ((10.0, 5.0, 4.999), 2)],
)
def test_c3_the_lower_median_wins(medians: tuple[float, ...], winner: int) -> None:
    assert select(_timings(*medians)).winner == winner


@pytest.mark.parametrize("medians", [(5.0, 5.0, 5.0), (5.0, 5.0, 9.0)])
def test_c3_equal_timings_keep_the_lowest_index(medians: tuple[float, ...]) -> None:
    assert select(_timings(*medians)).winner == 0
    assert select(_timings(9.0, *medians)).winner == 1


def test_c3_a_gap_under_the_noise_floor_keeps_entry_0() -> None:
    verdict = select(_timings(10.0, 10.0 * (1 - FLOOR / 2)))
    assert (verdict.winner, verdict.reason) == (0, "within noise of the default")
    assert select(_timings(10.0, 10.0 * (1 - FLOOR * 2))).winner == 1
    assert select(_timings(10.0, 9.0, spread=2.0)).winner == 0
    assert select(_timings(10.0, 9.0, spread=0.1)).winner == 1


@pytest.mark.parametrize("runs", [1, 2])
def test_c3_one_sample_is_not_exact(runs: int) -> None:
    verdict = select(_timings(103_000.0, 100_000.0, runs=runs))
    assert (verdict.winner, verdict.reason) == (0, "within noise of the default")
    assert select(_timings(103_000.0, 100_000.0, runs=3)).winner == 1
    assert select(_timings(112_000.0, 100_000.0, runs=runs)).winner == 1
    assert select(_timings(200_000.0, 103_000.0, 100_000.0, runs=runs)).winner == 1


def test_more_runs_tell_smaller_gaps_apart() -> None:
    assert select(_timings(10.0, 9.0, spread=1.0, runs=5)).winner == 0
    assert select(_timings(10.0, 9.0, spread=1.0, runs=100)).winner == 1


def test_c36_of_variants_that_noise_cannot_tell_apart_the_first_wins() -> None:
    assert select(_timings(20.0, 10.0, 9.98, spread=0.2)).winner == 1
    assert select(_timings(20.0, 9.98, 10.0, spread=0.2)).winner == 1


def test_without_the_default_the_best_wins() -> None:
    assert select(_timings(10.0, 9.99), default=None).winner == 1


def test_summary_is_median_and_half_the_distance_of_the_quartiles() -> None:
    assert summary([4.0]) == (4.0, 0.0)
    assert summary([3.0, 1.0, 2.0]) == (2.0, 0.5)
    assert summary([1.0, 2.0, 3.0, 4.0, 100.0]) == (3.0, 1.0)
    with pytest.raises(IndexError):
        summary([])


def test_c36_equal_variants_under_noise_elect_the_same_19_times_of_20() -> None:
    for offset in (0.0, 1.0):
        winners = []
        for seed in range(20):
            noise = np.random.default_rng(seed)
            samples = [3.0 + offset * (i == 0) + np.abs(noise.normal(0, 0.15, 25)) for i in range(4)]
            timings = [Timing(Variant("k", f"v{i}"), *summary(list(s)), 25) for i, s in enumerate(samples)]
            winners.append(select(timings).winner)
        assert winners.count(int(offset)) >= 19
