"""The arithmetic of `benchmarks.choice`: what noise does to a regret."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from benchmarks import choice_race
from benchmarks.case import Case
from benchmarks.choice import measured
from benchmarks.choice_cases import cases
from benchmarks.choice_race import Course, Race

from mkwrap.stages import Pruned, Source


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


def test_the_loss_of_pruning_is_that_of_the_best_variant_that_was_kept() -> None:
    race = Race("k", ("a", "b", "c"), ((12.0, 12.0), (10.0, 10.0), (11.0, 11.0)), elected=0, pruned=frozenset({1}))
    assert race.loss_of_pruning() == pytest.approx(1.1)
    assert race.loss(0) == pytest.approx(1.2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_there_are_sixty_cases_of_different_names(device: str) -> None:
    names = [case.name for case in cases(device)]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.toolchain
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_what_is_pruned_is_timed_beside_the_others_and_not_elected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_but_first(written: Mapping[str, Sequence[Source]], *_: object) -> Mapping[str, Sequence[Source | Pruned]]:
        return {
            name: [first, *(Pruned(s.variant, "pruned: for a test", source=s, rivals=(first.variant,)) for s in others)]
            for name, (first, *others) in written.items()
        }

    monkeypatch.setattr(choice_race, "hopeful", all_but_first)
    case = Case("cumsum", lambda device: (lambda x: x.cumsum(-1), (torch.randn(4, 3000, device=device),)))
    with Course("cpu", "quick", tmp_path) as course:
        row = measured(case, course, cold=False)
    (kernel,) = row["kernels"].values()
    labels = list(kernel["truth_us"])
    assert len(labels) >= 2
    assert (kernel["elected"], kernel["pruned"]) == (labels[0], labels[1:])
    assert row["regret"] == row["pruning"] == row["entry_0"]
    assert "compile_s" not in row
