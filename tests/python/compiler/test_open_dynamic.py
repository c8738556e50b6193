"""Open choices of kernels with dynamic sizes: guesses run until races at their points are held; then as if compiled there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.compiler.test_open import ROOT, entries
from torch.export import Dim

import mkwrap
from mkwrap import Model, Options, errors, retune, spaces
from mkwrap.stages import Provenance
from mkwrap.toolchain.relink import KernelEntry, LinkedLibrary
from mkwrap.toolchain.trouble import LATE
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee

pytestmark = pytest.mark.toolchain

ROWS, COLS = Dim("rows", min=1, max=4096), Dim("cols", min=1, max=4096)
HINTS = {"rows": [1, 64, 1024], "cols": [8, 256]}
SIZES = [(rows, cols) for rows in (1, 2, 7, 8, 9, 100, 1024, 4096) for cols in (1, 8, 31, 45, 46, 300)]


def normed(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Two kernels with dynamic sizes, one without."""
    return torch.softmax(x, -1), x @ w, torch.softmax(y, -1)


def inputs(rows: int, cols: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows * 5000 + cols)
    return torch.randn(rows, cols, generator=generator), torch.ones(cols, 24), torch.randn(32, 40, generator=generator)


def compiled(options: Options) -> Model:
    dims = ({0: ROWS, 1: COLS}, {0: COLS}, None)
    return mkwrap.compile(normed, inputs(16, 64), dynamic_shapes=dims, target="cpu", options=options)


def check(model: Model, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    for rows, cols in sizes:
        args = inputs(rows, cols)
        for got, expected in zip(model(*args), normed(*args), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def kernels(model: Model) -> list[KernelEntry]:
    return LinkedLibrary(model.path).manifest["kernels"]


def elected(model: Model) -> list[list[str]]:
    """Return which variants run for many sizes: by the library, which the manifest must agree with."""
    found = []
    for rows, cols in SIZES:
        said = mkwrap.explain(model, rows=rows, cols=cols).kernels
        assert tuple(kernel.alternative for kernel in said) == model.elected(inputs(rows, cols))
        found.append([kernel.variant for kernel in said])
    return found


@pytest.fixture(scope="module")
def later(shared_cache: Path) -> Options:
    return Options(tune="later", cache_dir=shared_cache, progress=False, threads=2, hints=HINTS)


@pytest.fixture(scope="module")
def opened(later: Options) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "MOST", 4)
        return compiled(later)


@pytest.fixture
def cold(later: Options, tmp_path: Path) -> Options:
    """Measure, with an empty cache and neither compiler nor linker."""
    return replace(later, tune="quick", cache_dir=tmp_path / "cache", cxx="no-such-compiler")


def test_until_the_choice_is_made_the_best_guess_of_each_point_runs(opened: Model, later: Options) -> None:
    check(opened)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "MOST", 4)
        guessed = compiled(replace(later, tune="off"))
    assert elected(opened) == elected(guessed)
    for kernel, other in zip(kernels(opened), kernels(guessed), strict=True):
        assert kernel["reason"] == "open: left for later"
        assert kernel["winner"] == other["winner"]
        assert len(kernel["open"]["alternatives"]) > len(
            other.get("dispatch", {"alternatives": [other]})["alternatives"]
        )
    found = {a["launches"][0]["entry"] for kernel in kernels(opened) for a in kernel["open"]["alternatives"]}
    assert entries(opened.path) == found


def test_what_is_open_is_told(opened: Model) -> None:
    *dynamic, static = opened.report.kernels
    assert all(row.is_open for row in (*dynamic, static))
    for row, kernel in zip(dynamic, kernels(opened), strict=False):
        assert [variant.variant for variant in row.variants] == [a["variant"] for a in kernel["open"]["alternatives"]]
        assert {variant.variant for variant in row.variants if variant.winner} == {p.variant for p in row.points}
    assert re.search("[1-9] more variants? in the library until the choice is made", str(opened.report))
    said = mkwrap.explain(opened, rows=5, cols=5)
    assert all("a guess, as the choice is open" in str(kernel) for kernel in said.kernels)
    for kernel in kernels(opened)[:-1]:
        assert [len(point["at"]) for point in kernel["open"]["points"]] == [len(kernel["open"]["symbols"])] * 7


def test_measured_on_this_machine_it_equals_eager(opened: Model, cold: Options, tmp_path: Path) -> None:
    closed = mkwrap.tune_library(opened.path, tmp_path / "tuned.so", cold)
    check(closed)
    elected(closed)
    for kernel in kernels(closed):
        assert kernel["tuned"] is not None
        assert "open" not in kernel
    *dynamic, _ = kernels(closed)
    assert all(any(point["timings"] for point in kernel["points"]) for kernel in dynamic)
    assert closed.path.stat().st_size < opened.path.stat().st_size
    check(mkwrap.load(closed.path))
    assert "a guess" not in str(mkwrap.explain(closed, rows=5, cols=5))


def test_a_closed_library_is_what_one_compiled_with_its_record_is(
    opened: Model,
    later: Options,
    cold: Options,
    contests: list[Contest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spaces, "MOST", 4)
    closed = mkwrap.tune_library(opened.path, None, cold)
    assert contests
    assert closed.save_tuning(tmp_path / "record.jsonl") == len(kernels(closed))
    contests.clear()
    recorded = replace(
        later, tune="quick", cache_dir=tmp_path / "fresh", tuning=tmp_path / "record.jsonl", require_tuning=True
    )
    other = compiled(recorded)
    assert contests == []
    assert other.compilation is not None
    assert set(other.compilation.choices.values()) == {Provenance.RECORD}
    assert elected(closed) == elected(other)
    assert entries(closed.path) == entries(other.path)
    assert closed.manifest["memory"] == other.manifest["memory"]
    assert closed.workspace_bytes == other.workspace_bytes
    for one, two in zip(kernels(closed), kernels(other), strict=True):
        assert "open" not in one
        same = one.keys() - {"alternative", "constants", "launches", "dispatch", "table", "tuned"}
        assert {key: one[key] for key in same} == {key: two[key] for key in same}  # type: ignore[literal-required]
        assert (one["tuned"] or {})["measured_at"] == (two["tuned"] or {})["measured_at"]
        assert one["launches"] == two["launches"]
        assert ("dispatch" in one) == ("dispatch" in two)
        if "dispatch" in one:
            tables = [
                ([{**row, "alternative": 0} for row in kernel["dispatch"]["rows"]], kernel["dispatch"]["symbols"])
                for kernel in (one, two)
            ]
            assert tables[0] == tables[1]
    assert any(len(kernel["dispatch"]["alternatives"]) > 2 for kernel in kernels(closed) if "dispatch" in kernel)
    for rows, cols in SIZES:
        args = inputs(rows, cols)
        for got, expected in zip(closed(*args), other(*args), strict=True):
            assert torch.equal(got, expected)


def test_contests_are_those_of_a_compile_on_the_machine(
    opened: Model,
    later: Options,
    cold: Options,
    contests: list[Contest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same memories and calls in the same order, but for where the images lie and which results travel."""
    monkeypatch.setattr(spaces, "MOST", 4)

    def plain(contest: Contest) -> object:
        calls = [(call.args, call.grid, call.threads) for candidate in contest.candidates for call in candidate.calls]
        return contest.memories, calls, contest.limits, contest.cache_bytes

    mkwrap.tune_library(opened.path, None, cold)
    there = list(map(plain, contests))
    contests.clear()
    compiled(replace(later, tune="quick", cache_dir=tmp_path / "fresh"))
    assert there == list(map(plain, contests))


def test_one_winner_everywhere_leaves_no_dispatch(
    opened: Model, cold: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(_self: Referee, contest: Contest) -> Outcome:
        return Outcome(dict.fromkeys(range(len(contest.candidates)), (1.0,) * 20), {})

    monkeypatch.setattr(Referee, "hold", hold)
    closed = mkwrap.tune_library(opened.path, None, cold)
    *dynamic, _ = kernels(closed)
    for kernel in dynamic:
        assert "dispatch" not in kernel
        assert {point["winner"] for point in kernel["points"]} == {kernel["winner"]}
    check(closed)
    assert elected(closed)


def test_progress_is_told_point_by_point(
    opened: Model, cold: Options, contests: list[Contest], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    @contextmanager
    def shown(_wanted: bool | None) -> object:  # type: ignore[misc]
        def advance(_stage: str, _done: int, _total: int, note: str = "") -> None:
            notes.append(note)

        yield advance

    monkeypatch.setattr(retune, "shown", shown)
    mkwrap.tune_library(opened.path, None, cold)
    assert sum(" at cols=" in note for note in notes) == len(contests) - 1
    assert any(note.endswith("cols=8 rows=1024") for note in notes)


@pytest.mark.parametrize(
    ("reason", "kept"), [("wrong result: all of it", True), (LATE, False)], ids=["wrong", "transient"]
)
def test_c35_what_is_wrong_at_one_point_wins_at_none(
    opened: Model, cold: Options, monkeypatch: pytest.MonkeyPatch, reason: str, kept: bool
) -> None:
    first = kernels(opened)[0]["open"]["alternatives"][0]["launches"][0]["entry"]
    offset = LinkedLibrary(opened.path).code_offset(first)
    places: list[int] = []

    def hold(_self: Referee, contest: Contest) -> Outcome:
        numbers = range(len(contest.candidates))
        bad = [k for k in numbers if contest.candidates[k].calls[0].offset == offset]
        places.extend(bad)
        # It would win everywhere but for the first contest.
        out = {bad[0]: reason} if len(places) == 1 else {}
        return Outcome({k: (1.0 if k in bad else 3.0,) * 20 for k in numbers if k not in out}, out)

    monkeypatch.setattr(Referee, "hold", hold)
    closed = mkwrap.tune_library(opened.path, None, cold)
    kernel = kernels(closed)[0]
    label = kernels(opened)[0]["open"]["alternatives"][0]["variant"]
    rejected = [entry for point in kernel["points"] for entry in point["rejected"]]
    assert rejected == [{"variant": label, "reason": reason}]
    winners = {point["winner"] for point in kernel["points"]}
    assert (label in winners) == (not kept)
    assert (kernel["tuned"] is not None) == kept
    check(closed, SIZES[::7])


def test_all_rejected_names_the_kernel(opened: Model, cold: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Referee, "hold", lambda _, contest: Outcome({}, dict.fromkeys(range(len(contest.candidates)), "no"))
    )
    with pytest.raises(errors.NoVariantError, match=r"every variant of kernel \w+ \(aten\.\S+\) was rejected"):
        mkwrap.tune_library(opened.path, None, cold)


@pytest.mark.parametrize("short", [False, True])
def test_a_failed_measurement_leaves_nothing(
    opened: Model, cold: Options, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    """Nor does memory that is short at every point."""
    monkeypatch.setattr(Referee, "hold", lambda *_: Outcome({}, {}, "the measuring process was killed", short))
    with pytest.raises(errors.MeasureError, match="the measuring process was killed"):
        mkwrap.tune_library(opened.path, None, cold)


def test_points_for_which_memory_is_short_stay_unmeasured(
    opened: Model, cold: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller machine than the hints were written for tunes what it can, and keeps nothing of it for later."""
    held: list[int] = []

    def hold(_self: Referee, contest: Contest) -> Outcome:
        held.append(len(contest.candidates))
        if len(held) == 2:
            return Outcome({}, {}, "memory is short: the device does not give 9 bytes", short=True)
        return Outcome({k: (1.0 + k,) * 20 for k in range(len(contest.candidates))}, {})

    monkeypatch.setattr(Referee, "hold", hold)
    closed = mkwrap.tune_library(opened.path, None, cold)
    kernel = kernels(closed)[0]
    (unmeasured,) = (point for point in kernel["points"] if "memory is short" in point["reason"])
    assert not unmeasured["timings"]
    assert any(point["timings"] for point in kernel["points"])
    assert kernel["tuned"] is None
    check(closed, SIZES[::7])


def test_sizes_without_an_upper_end_have_guards(
    later: Options, cold: Options, contests: list[Contest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text whose positions are 32 bits wide has a guard, which closing knows from the manifest alone."""
    monkeypatch.setattr(spaces, "MOST", 4)
    size = Dim("size", min=1)
    options = replace(later, hints={"size": [10, 3000]})
    model = mkwrap.compile(
        lambda x: torch.cumsum(x.argmax(-1), 0), (torch.randn(100, 8),), dynamic_shapes=({0: size},), options=options
    )
    closed = mkwrap.tune_library(model.path, None, cold)
    assert contests
    guarded = [kernel for kernel in kernels(model) if kernel["open"]["guards"]]
    assert guarded
    for kernel in guarded:
        table = next(k for k in kernels(closed) if k["name"] == kernel["name"])
        assert [] in [row["guards"] for row in table["dispatch"]["rows"]]
    for count in (1, 10, 999, 70000):
        x = torch.randn(count, 8)
        assert torch.equal(closed(x), torch.cumsum(x.argmax(-1), 0))
        said = mkwrap.explain(closed, size=count).kernels
        assert tuple(kernel.alternative for kernel in said) == closed.elected((x,))


def test_a_change_of_the_winner_is_followed_to_a_quarter_of_a_gap(
    later: Options, cold: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points are added as a compile on the machine adds them, as far as there are races."""
    monkeypatch.setattr(spaces, "MOST", 4)

    def of_rows(options: Options) -> Model:
        args, dims = (torch.randn(64, 48),), ({0: ROWS},)
        return mkwrap.compile(lambda x: torch.softmax(x, -1), args, dynamic_shapes=dims, target="cpu", options=options)

    line = {"hints": {"rows": [16, 64, 1024]}}
    opened = of_rows(replace(later, **line))  # type: ignore[arg-type]
    (kernel,) = kernels(opened)
    point = next(entry for entry in kernel["open"]["points"] if entry["at"] == [1024])
    few, many = (kernel["open"]["alternatives"][number]["launches"][0]["entry"] for number in point["racers"])
    offsets = {LinkedLibrary(opened.path).code_offset(entry): entry for entry in (few, many)}

    def hold(_self: Referee, contest: Contest) -> Outcome:
        """Let one win for few rows, another for many."""
        calls = [candidate.calls[0] for candidate in contest.candidates]
        names = [offsets.get(call.offset) if call.offset else call.entry for call in calls]
        wins = few if contest.memories[0].elements // 48 < 200 else many
        return Outcome({k: (1.0 if name == wins else 3.0,) * 20 for k, name in enumerate(names)}, {})

    monkeypatch.setattr(Referee, "hold", hold)
    closed = mkwrap.tune_library(opened.path, None, cold)
    compiled_here = of_rows(replace(cold, cache_dir=tmp_path / "other", cxx="c++", **line))  # type: ignore[arg-type]
    points, more = (
        {point["at"]["rows"]: point["winner"] for point in kernels(model)[0]["points"]}
        for model in (closed, compiled_here)
    )
    assert points.keys() == {16, 64, 128, 256, 1024}
    assert points.items() < more.items()
    assert len(set(points.values())) > 1
    assert mkwrap.explain(closed, rows=170).kernels[0].variant == points[128]
    assert mkwrap.explain(closed, rows=190).kernels[0].variant == points[256]


def test_a_second_load_finds_the_tuned_library(opened: Model, cold: Options, contests: list[Contest]) -> None:
    first = mkwrap.load(opened.path, tune=True, options=cold)
    held = len(contests)
    second = mkwrap.load(opened.path, tune=True, options=cold)
    assert (second.path, len(contests)) == (first.path, held)
    # A library with nothing open is its own answer.
    assert mkwrap.load(first.path, tune=True, options=cold).path == first.path


def test_nothing_but_numpy_and_the_binding_is_needed(opened: Model, cold: Options, tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules["triton"] = None
import mkwrap
options = mkwrap.Options(tune="quick", cache_dir={str(cold.cache_dir)!r}, progress=False, threads=2)
mkwrap.tune_library({str(opened.path)!r}, {str(tmp_path / "tuned.so")!r}, options)
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={"PATH": "/nonexistent"}, cwd=ROOT)
    assert entries(tmp_path / "tuned.so") < entries(opened.path)
