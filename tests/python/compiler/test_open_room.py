"""An open choice has room for so many different guards: the variants that do not travel are told of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.export import Dim

import mkwrap
from mkwrap import Model, Options, spaces
from mkwrap.toolchain.relink import KernelEntry, LinkedLibrary, RejectedEntry
from mkwrap.tune import match_points
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee

pytestmark = pytest.mark.toolchain

WHY = "left out of the open choice, which has room for"


def ranked(x: torch.Tensor) -> torch.Tensor:
    """Without an upper end of its size: a text whose positions are 32 bits wide has a guard."""
    return torch.cumsum(x.argmax(-1), 0)


def left_out(model: Model) -> list[tuple[str, str]]:
    """Return the variants, each with its kernel, that a library says did not travel."""
    return sorted((k["name"], r["variant"]) for k in kernels(model) for r in _rejected(k) if WHY in r["reason"])


def kernels(model: Model) -> list[KernelEntry]:
    return LinkedLibrary(model.path).manifest["kernels"]


def _rejected(kernel: KernelEntry) -> list[RejectedEntry]:
    return [entry for point in kernel["points"] for entry in point["rejected"]]


def test_variants_without_room_for_their_guards_are_among_the_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Contest] = []

    def tie(_self: Referee, contest: Contest) -> Outcome:
        held.append(contest)
        return Outcome(dict.fromkeys(range(len(contest.candidates)), (1.0,) * 20), {})

    monkeypatch.setattr(Referee, "hold", tie)
    monkeypatch.setattr(spaces, "MOST", 4)
    fixed = {"progress": False, "threads": 2, "hints": {"size": [10, 3000]}}

    def compiled(name: str, **more: object) -> Model:
        options = Options(cache_dir=tmp_path / name, **fixed, **more)  # type: ignore[arg-type]
        shapes = ({0: Dim("size", min=1)},)
        return mkwrap.compile(ranked, (torch.randn(100, 8),), dynamic_shapes=shapes, target="cpu", options=options)

    whole = compiled("whole", tune="later")
    monkeypatch.setattr(match_points, "MOST_GUARDS", 0)
    small = compiled("small", tune="later")
    every, some = (
        {(k["name"], a["variant"]) for k in kernels(m) for a in k["open"]["alternatives"]} for m in (whole, small)
    )
    assert left_out(whole) == []
    assert left_out(small) == sorted(every - some) != []
    # Also once the choice is made, and its record answers a compile with the device.
    closed = mkwrap.tune_library(small.path, None, Options(tune="quick", cache_dir=tmp_path / "small", progress=False))
    assert held
    assert not any("dispatch" in kernel for kernel in kernels(closed))
    assert left_out(closed) == left_out(small)
    for model in (small, closed):
        assert " ".join(str(model.report).split()).count(WHY) == len(every - some)
    assert closed.save_tuning(tmp_path / "record.jsonl") == len(kernels(closed))
    held.clear()
    again = compiled("again", tuning=tmp_path / "record.jsonl", require_tuning=True)
    assert held == []
    assert [kernel["winner"] for kernel in kernels(again)] == [kernel["winner"] for kernel in kernels(closed)]
