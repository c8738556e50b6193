"""Open choices of dynamic sizes for a GPU: races made by given timings, tables that closing replaces, on the fake driver."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.wrapper.fakes import has_cuda_header, run_on_fake
from tests.python.wrapper.test_open_cuda import A100, H100
from torch.export import Dim

import mkwrap
from mkwrap import Model, Options, spaces
from mkwrap.points import odd_size
from mkwrap.targets import cuda
from mkwrap.targets.cuda import LiveDevice
from mkwrap.toolchain.relink import KernelEntry, LinkedLibrary
from mkwrap.toolchain.seal import publish
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif(not has_cuda_header(), reason="no triton, hence neither cuda.h nor ptxas"),
]

ROWS, COLS = Dim("rows", min=1, max=100_000), Dim("cols", min=1, max=8192)
# Lengths that 16 divides and others, beyond every block made for the points, and few and many rows.
SIZES = [(rows, cols) for rows in (1, 70, 5000) for cols in (1, 16, 33, 255, 256, 512, 600, 8000, 8192)]


def fn(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


def compiled(options: Options, target: str | list[str]) -> Model:
    args = (torch.randn(64, 512),)
    return mkwrap.compile(fn, args, dynamic_shapes=({0: ROWS, 1: COLS},), target=target, options=options)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    hints = {"rows": [2, 4096], "cols": [16, 255]}
    return Options(cache_dir=tmp_path_factory.mktemp("cache"), progress=False, tune="later", hints=hints)


@pytest.fixture(scope="module")
def opened(options: Options) -> Model:
    """An open library for two architectures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "MOST", 3)
        return compiled(options, ["cuda:sm_80", "cuda:sm_90"])


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[LiveDevice], list[Contest]]:
    """Let the driver find this device and the sizes of a contest decide who wins it; returns the contests that are held."""

    def pretend(live: LiveDevice) -> list[Contest]:
        held: list[Contest] = []

        def hold(_self: Referee, contest: Contest) -> Outcome:
            held.append(contest)
            assert all(isinstance(call.image, bytes) for c in contest.candidates for call in c.calls)
            sizes = repr([memory.elements for memory in contest.memories])
            best = int(hashlib.sha256(sizes.encode()).hexdigest(), 16) % len(contest.candidates)
            return Outcome({k: (1.0 if k == best else 3.0,) * 20 for k in range(len(contest.candidates))}, {})

        monkeypatch.setattr(Referee, "hold", hold)
        monkeypatch.setattr(cuda, "live_devices", lambda: (live,))
        return held

    return pretend


def kernel_of(path: Path, target: int) -> KernelEntry:
    (kernel,) = (k for k in LinkedLibrary(path).manifest["kernels"] if k["target"] == target)
    return kernel


def entries(kernel: KernelEntry) -> Mapping[int, list[str]]:
    """Return what each alternative of a kernel's table launches."""
    several = kernel["dispatch"]["alternatives"] if "dispatch" in kernel else [kernel]
    return {a["alternative"]: [launch["entry"] for launch in a["launches"]] for a in several}  # type: ignore[attr-defined]


def elected(model: Model, target: int, rows: int, cols: int) -> int:
    """Return the alternative that the manifest says runs."""
    (said,) = (k for k in mkwrap.explain(model, rows=rows, cols=cols).kernels if k.target == target)
    return said.alternative


def check_launches(model: Model, runner: Path, target: int, arch: str) -> None:
    """Run all sizes, twice each: what is launched is what the manifest says, and every image it takes is there."""
    launched = entries(kernel_of(model.path, target))
    for rows, cols in SIZES:
        done = run_on_fake(runner, f"{model.path}@{rows}x{cols}/{cols}x1", arch)
        assert done.returncode == 0, done.stderr
        wanted = launched[elected(model, target, rows, cols)]
        assert re.findall(r"launch (\S+) ", done.stdout) == 2 * wanted


@pytest.mark.parametrize(("target", "arch"), [(0, "80"), (1, "90")])
def test_c21_c22_an_open_library_runs_its_guesses(opened: Model, runner: Path, target: int, arch: str) -> None:
    kernel = kernel_of(opened.path, target)
    assert kernel["reason"].startswith("open: ")
    assert any(guard["most"] is not None for guard in kernel["open"]["guards"])
    assert any(guard["multiple"] > 1 for guard in kernel["open"]["guards"])
    check_launches(opened, runner, target, arch)


def test_each_machine_closes_its_own_architecture(
    opened: Model, options: Options, device: Callable[[LiveDevice], list[Contest]], runner: Path, tmp_path: Path
) -> None:
    cold = replace(options, tune="quick", cache_dir=tmp_path / "cache")
    contests = device(A100)
    half = mkwrap.tune_library(opened.path, tmp_path / "half.so", cold)
    assert len(contests) == len(kernel_of(half.path, 0)["points"])
    assert ["open" in kernel_of(half.path, target) for target in (0, 1)] == [False, True]
    check_launches(half, runner, 0, "80")
    check_launches(half, runner, 1, "90")
    device(H100)
    whole = mkwrap.tune_library(half.path, tmp_path / "whole.so", cold)
    assert ["open" in kernel_of(whole.path, target) for target in (0, 1)] == [False, False]
    check_launches(whole, runner, 0, "80")
    check_launches(whole, runner, 1, "90")
    assert opened.path.stat().st_size > half.path.stat().st_size > whole.path.stat().st_size
    assert whole.save_tuning(tmp_path / "rows.jsonl") == 2


def test_c2_a_closed_library_holds_exactly_the_images_in_its_table(
    opened: Model, options: Options, device: Callable[[LiveDevice], list[Contest]], tmp_path: Path
) -> None:
    images = {}
    for kernel in LinkedLibrary(opened.path).manifest["kernels"]:
        for launch in (launch for a in kernel["open"]["alternatives"] for launch in a["launches"]):
            assert launch["part"] is not None
            images[launch["digest"]] = bytes(LinkedLibrary(opened.path).parts.blobs[launch["part"]])
    device(A100)
    half = mkwrap.tune_library(opened.path, None, replace(options, tune="quick", cache_dir=tmp_path / "cache"))
    device(H100)
    closed = mkwrap.tune_library(half.path, None, replace(options, tune="quick", cache_dir=tmp_path / "cache"))
    data = closed.path.read_bytes()
    kept = {
        launch["digest"]
        for target in (0, 1)
        for a in kernel_of(closed.path, target)["dispatch"]["alternatives"]
        for launch in a["launches"]
    }
    assert kept < images.keys()
    assert {digest for digest, image in images.items() if image in data} == kept


def test_a_closed_library_is_what_one_compiled_with_its_record_is(
    options: Options,
    device: Callable[[LiveDevice], list[Contest]],
    runner: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The record made where no compiler is answers a compile where no GPU is."""
    monkeypatch.setattr(spaces, "MOST", 3)
    opened = compiled(options, "cuda:sm_90")
    contests = device(H100)
    closed = mkwrap.tune_library(opened.path, None, replace(options, tune="quick", cache_dir=tmp_path / "cache"))
    assert closed.save_tuning(tmp_path / "rows.jsonl") == 1
    contests.clear()
    recorded = replace(options, tune="quick", tuning=tmp_path / "rows.jsonl", require_tuning=True)
    other = compiled(recorded, "cuda:sm_90")
    assert contests == []
    one, two = kernel_of(closed.path, 0), kernel_of(other.path, 0)
    assert one["points"] == two["points"]
    assert [{**row, "alternative": 0} for row in one["dispatch"]["rows"]] == [
        {**row, "alternative": 0} for row in two["dispatch"]["rows"]
    ]
    for rows, cols in SIZES:
        runs = [run_on_fake(runner, f"{m.path}@{rows}x{cols}/{cols}x1").stdout for m in (closed, other)]
        assert runs[0].replace(str(closed.path), "") == runs[1].replace(str(other.path), "")


def test_contests_are_those_of_a_compile_on_the_machine(
    options: Options,
    device: Callable[[LiveDevice], list[Contest]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same candidates with the same arguments at the same points, also beside points for odd sizes."""
    monkeypatch.setattr(spaces, "MOST", 3)
    contests = device(H100)
    opened = compiled(options, "cuda:sm_90")
    cold = replace(options, tune="quick", cache_dir=tmp_path / "cache")
    closed = mkwrap.tune_library(opened.path, None, cold)

    def plain(contest: Contest) -> object:
        calls = [call for candidate in contest.candidates for call in candidate.calls]
        return contest.memories, calls, contest.limits, contest.cache_bytes

    there = list(map(plain, contests))
    contests.clear()
    other = compiled(replace(cold, cache_dir=tmp_path / "other"), "cuda:sm_90")
    assert there == list(map(plain, contests))
    assert kernel_of(closed.path, 0)["points"] == kernel_of(other.path, 0)["points"]
    asked = {tuple(entry["at"]) for entry in kernel_of(opened.path, 0)["open"]["points"] if entry["worth"]}
    measured = {(p["at"]["cols"], p["at"]["rows"]) for p in kernel_of(closed.path, 0)["points"] if p["timings"]}
    odd = measured - asked
    assert odd
    assert odd <= {(odd_size(cols), rows) for cols, rows in asked}


def test_c41_a_missing_image_is_named_before_any_launch(opened: Model, runner: Path, tmp_path: Path) -> None:
    """Only where the table takes it: a variant that is not in the table is not loaded."""
    library = LinkedLibrary(opened.path)
    in_table = {a["alternative"] for a in kernel_of(opened.path, 1)["dispatch"]["alternatives"]}
    for wanted in (False, True):
        manifest = LinkedLibrary(opened.path).manifest
        (kernel,) = (kernel for kernel in manifest["kernels"] if kernel["target"] == 1)
        for alternative in kernel["open"]["alternatives"]:
            if (alternative["alternative"] in in_table) == wanted:
                for launch in alternative["launches"]:
                    launch["part"] = None
        publish(library.with_choice(manifest, library.parts.rows), tmp_path / f"{wanted}.so")
        done = run_on_fake(runner, f"{tmp_path / f'{wanted}.so'}@64x512/512x1")
        if wanted:
            assert done.returncode == 1
            assert re.search(r"holds no image of reduction_0 \S+ for sm_90", done.stderr)
        else:
            assert done.returncode == 0, done.stderr
