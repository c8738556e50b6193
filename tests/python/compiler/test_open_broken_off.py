"""Closings of an open choice that are broken off: the file stays, and what was measured is not measured again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.export import Dim

import mkwrap
from mkwrap import Model, Options, errors, spaces
from mkwrap.cli.app import main
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.relink import KernelEntry, LinkedLibrary
from mkwrap.toolchain.trouble import LATE
from mkwrap.tune.closing_held import Held
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee

pytestmark = pytest.mark.toolchain

Hold = Callable[[Referee, Contest], Outcome]
ARGS = (torch.randn(16, 40), torch.randn(32, 24))


def normed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A kernel with dynamic sizes, then one without."""
    return torch.softmax(x, -1), torch.softmax(y, -1)


@pytest.fixture(scope="module")
def opened(shared_cache: Path) -> Model:
    options = Options(tune="later", cache_dir=shared_cache, progress=False, threads=2, hints={"rows": [1, 64]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "MOST", 3)
        shapes = ({0: Dim("rows", min=1, max=512)}, None)
        return mkwrap.compile(normed, ARGS, dynamic_shapes=shapes, target="cpu", options=options)


@pytest.fixture
def cold(tmp_path: Path) -> Options:
    return Options(tune="quick", cache_dir=tmp_path / "cache", progress=False)


def broken_off(hold: Hold, after: int, end: BaseException | Outcome) -> Hold:
    """Hold contests, then end otherwise."""
    left = after

    def held(referee: Referee, contest: Contest) -> Outcome:
        nonlocal left
        left -= 1
        if left >= 0:
            return hold(referee, contest)
        if isinstance(end, Outcome):
            return end
        raise end

    return held


def choices(path: Path) -> list[KernelEntry]:
    """Return what a library says of its kernels, but for the time."""
    found = [kernel.copy() for kernel in LinkedLibrary(path).manifest["kernels"]]
    for kernel in found:
        assert kernel["tuned"] is not None
        kernel["tuned"] = {**kernel["tuned"], "measured_at": ""}
    return found


ENDS = [
    KeyboardInterrupt(),
    errors.InternalError("the measuring process answered nonsense"),
    Outcome({}, {}, "the measuring process was killed"),
]


@pytest.mark.parametrize("end", ENDS, ids=["interrupted", "crashed", "not measured"])
@pytest.mark.parametrize("kernel", [1, 2], ids=["first kernel", "second kernel"])
def test_what_was_held_is_not_held_again(
    opened: Model,
    cold: Options,
    contests: list[Contest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel: int,
    end: BaseException | Outcome,
) -> None:
    path, hold = tmp_path / "model.so", Referee.hold
    opened.save(path)
    before = path.read_bytes()
    whole = mkwrap.tune_library(path, None, replace(cold, cache_dir=tmp_path / "other"))
    every = list(contests)
    assert len(every) > 3
    contests.clear()
    # The second kernel has no dynamic sizes: its contest is the last.
    after = len(every) - 1 if kernel == 2 else 2
    with monkeypatch.context() as patch:
        patch.setattr(Referee, "hold", broken_off(hold, after, end))
        kind = errors.MeasureError if isinstance(end, Outcome) else type(end)
        with pytest.raises(kind):
            mkwrap.tune_library(path, path, cold)
    assert contests == every[:after]
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["model.so"]
    closed = mkwrap.tune_library(path, path, cold)
    assert contests == every
    assert choices(closed.path) == choices(whole.path)
    for got, expected in zip(closed(*ARGS), normed(*ARGS), strict=True):
        torch.testing.assert_close(got, expected)


def test_another_question_is_held_anew(opened: Model, cold: Options, contests: list[Contest]) -> None:
    """For another number of threads, or measured for longer."""
    mkwrap.tune_library(opened.path, None, cold)
    every = len(contests)
    mkwrap.tune_library(opened.path, None, replace(cold, threads=1))
    mkwrap.tune_library(opened.path, None, replace(cold, tune="full"))
    assert len(contests) == 3 * every


def test_ctrl_c_ends_the_command_as_ever(
    opened: Model, cold: Options, contests: list[Contest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.so"
    opened.save(path)
    words = ["tune", str(path), "--tune", "quick", "--cache-dir", str(cold.cache_dir)]
    with monkeypatch.context() as patch:
        patch.setattr(Referee, "hold", broken_off(Referee.hold, 2, KeyboardInterrupt()))
        assert main(words) == 130
    assert path.read_bytes() == opened.path.read_bytes()
    assert len(contests) == 2
    assert main(words) == 0
    assert len({repr(contest) for contest in contests}) == len(contests)
    assert not any(kernel.is_open for kernel in mkwrap.load(path).report.kernels)


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (Outcome({0: (1.0, 0.1 + 0.2), 2: (3.0,)}, {1: "wrong result: all of it"}), True),
        (Outcome({0: (1.0,)}, {1: LATE}), False),
        (Outcome({}, {0: "wrong result", 1: "wrong result"}), True),
        (Outcome({}, {0: "wrong result", 1: "wrong result", 2: "wrong result"}), False),
        (Outcome({0: (1.0,)}, {}, "memory is short", short=True), False),
    ],
    ids=["held", "transient", "one left", "none left", "remark"],
)
def test_an_outcome_is_kept_if_it_would_be_the_same_again(tmp_path: Path, outcome: Outcome, kept: bool) -> None:
    held = Held(Cache(tmp_path), "question")
    calls: list[None] = []

    def hold() -> Outcome:
        calls.append(None)
        return outcome

    for _ in range(2):
        assert held.outcome("contest", 3, hold) == outcome
    assert len(calls) == (1 if kept else 2)
    held.outcome("another", 3, hold)
    Held(Cache(tmp_path), "another question").outcome("contest", 3, hold)
    Held(None, "question").outcome("contest", 3, hold)
    assert len(calls) == (4 if kept else 5)


@pytest.mark.parametrize("payload", [b"", b"[", b'{"samples": []}', b"[[[0]], []]", b'[[[0, ["x"]]], []]', b"[1, 2]"])
def test_what_is_no_outcome_is_a_miss(tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cache, "get", lambda *_: payload)
    outcome = Outcome({0: (1.0,)}, {})
    assert Held(Cache(tmp_path), "question").outcome("contest", 1, lambda: outcome) is outcome
