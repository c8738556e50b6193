"""The arithmetic of `benchmarks.choice`: what noise does to a regret."""

from __future__ import annotations

import random

import pytest
from benchmarks.choice import Race
from benchmarks.choice_cases import cases


def test_loss_is_the_ratio_to_the_best() -> None:
    race = Race("k", ("a", "b", "c"), ((12.0, 12.0), (10.0, 10.0), (30.0, 30.0)), elected=1)
    assert race.loss(0) == pytest.approx(1.2)
    assert race.loss(1) == pytest.approx(1.0)


def test_noise_alone_is_no_loss_on_average() -> None:
    rng = random.Random(0)

    def loss() -> float:
        halves = tuple((rng.gauss(10, 0.3), rng.gauss(10, 0.3)) for _ in range(8))
        return Race("k", tuple("abcdefgh"), halves, elected=3).loss(3)

    assert sum(loss() for _ in range(2000)) / 2000 == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_there_are_sixty_cases_of_different_names(device: str) -> None:
    names = [case.name for case in cases(device)]
    assert len(set(names)) == len(names) >= 60
