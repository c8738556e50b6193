"""Choices left open for a GPU, and several GPUs in one library: made by given timings, launched on the fake driver."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.wrapper.fakes import has_cuda_header, run_on_fake

import mkwrap
from mkwrap import Model, Options, errors
from mkwrap.cli.app import main
from mkwrap.cli.bench import recorded
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

H100 = LiveDevice("NVIDIA H100", (9, 0), 132, 227 * 1024, 50 << 20, 13000)
A100 = LiveDevice("NVIDIA A100", (8, 0), 108, 163 * 1024, 40 << 20, 13000)


def normed(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A product, two reductions over rows, one over columns."""
    y = torch.nn.functional.layer_norm(torch.softmax(x @ w, -1), (w.shape[-1],))
    return y, x.sum(0)


INPUTS = (torch.randn(64, 512), torch.randn(512, 1024))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(cache_dir=tmp_path_factory.mktemp("cache"), progress=False)


@pytest.fixture(scope="module")
def opened(options: Options) -> Model:
    """The open library of one GPU; a machine that has one leaves the choice open all the same."""
    return mkwrap.compile(normed, INPUTS, target="cuda:sm_90", options=replace(options, tune="later"))


@pytest.fixture(scope="module")
def both(options: Options) -> Model:
    """One library for two architectures."""
    later = replace(options, tune="later")
    return mkwrap.compile(
        lambda x: torch.softmax(x, -1), INPUTS[:1], target=["cuda:sm_80", "cuda:sm_90"], options=later
    )


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Callable[[LiveDevice | None], None]:
    """Let the driver find this device and the candidate of the given number win every contest."""

    def pretend(live: LiveDevice | None, winner: int = 0) -> None:
        def hold(self: Referee, contest: Contest) -> Outcome:
            del self
            assert all(isinstance(call.image, bytes) for c in contest.candidates for call in c.calls)
            best = winner % len(contest.candidates)
            return Outcome({k: (10.0 if k == best else 20.0,) * 9 for k in range(len(contest.candidates))}, {})

        monkeypatch.setattr(Referee, "hold", hold)
        monkeypatch.setattr(cuda, "live_devices", lambda: () if live is None else (live,))

    return pretend


def kernels(path: Path) -> list[KernelEntry]:
    return LinkedLibrary(path).manifest["kernels"]


def cubins(path: Path) -> Mapping[str, bytes]:
    """Return the images in a library by digest, as the parts hold them."""
    library = LinkedLibrary(path)
    found = {}
    for kernel in library.manifest["kernels"]:
        for alternative in kernel["open"]["alternatives"] if "open" in kernel else [kernel]:
            for launch in alternative["launches"]:
                assert launch["part"] is not None
                found[launch["digest"]] = bytes(library.parts.blobs[launch["part"]])
    return found


def launches(output: str) -> list[str]:
    return re.findall(r"launch (\S+) ", output)


def test_without_a_gpu_the_library_is_open_and_can_be_inspected(
    opened: Model, device: Callable[..., None], tmp_path: Path
) -> None:
    for kernel in kernels(opened.path):
        assert kernel["reason"].startswith("open: ")
        labels = [alternative["variant"] for alternative in kernel["open"]["alternatives"]]
        assert len(labels) > 1
        assert kernel["winner"] == labels[0]
        row = next(row for row in opened.report.kernels if row.name == kernel["name"])
        assert [variant.variant for variant in row.variants] == labels
        assert [variant.winner for variant in row.variants] == [True] + [False] * (len(labels) - 1)
    device(None)
    with pytest.raises(errors.DriverError, match="no CUDA device"):
        mkwrap.tune_library(opened.path, tmp_path / "tuned.so")
    assert not (tmp_path / "tuned.so").exists()


def test_inspect_extracts_the_images_of_every_variant(opened: Model, tmp_path: Path) -> None:
    assert main(["inspect", str(opened.path), "--extract", str(tmp_path / "out")]) == 0
    extracted = {path.read_bytes() for path in (tmp_path / "out").glob("*.cubin")}
    assert extracted == set(cubins(opened.path).values())


def test_an_open_library_runs_its_defaults(opened: Model, runner: Path) -> None:
    done = run_on_fake(runner, opened.path)
    assert done.returncode == 0, done.stderr
    first = [launch["entry"] for kernel in kernels(opened.path) for launch in kernel["launches"]]
    assert launches(done.stdout) == 2 * first


@pytest.mark.parametrize("winner", [0, 1, -1])
def test_c2_a_closed_library_holds_exactly_the_winners_images(
    winner: int, opened: Model, options: Options, device: Callable[..., None], runner: Path, tmp_path: Path
) -> None:
    device(H100, winner)
    cold = replace(options, cache_dir=tmp_path / "cache")
    closed = mkwrap.tune_library(opened.path, tmp_path / "tuned.so", cold)
    assert closed.path.stat().st_size < opened.path.stat().st_size
    assert all("open" not in kernel for kernel in kernels(closed.path))
    data = closed.path.read_bytes()
    kept, all_images = cubins(closed.path), cubins(opened.path)
    assert kept.keys() < all_images.keys()
    assert all(data.count(image) == 1 for image in kept.values())
    assert not any(image in data for digest, image in all_images.items() if digest not in kept)
    for before, after in zip(kernels(opened.path), kernels(closed.path), strict=True):
        expected = before["open"]["alternatives"][winner]
        assert {key: after[key] for key in expected if key != "variant"} == {  # type: ignore[literal-required]
            key: value for key, value in expected.items() if key != "variant"
        }
        assert (after["winner"], after["reason"]) == (expected["variant"], "measured")
    done = run_on_fake(runner, closed.path)
    assert done.returncode == 0, done.stderr
    wanted = [launch["entry"] for kernel in kernels(closed.path) for launch in kernel["launches"]]
    assert launches(done.stdout) == 2 * wanted


@pytest.mark.parametrize("winner", [0, 1, -1])
def test_c2_a_closed_library_does_what_one_compiled_with_its_winners_does(
    winner: int, opened: Model, options: Options, device: Callable[..., None], runner: Path, tmp_path: Path
) -> None:
    """The same launches in the same grids, the same workspace, the same manifest but for where its parts lie."""
    device(H100, winner)
    closed = mkwrap.tune_library(opened.path, None, replace(options, cache_dir=tmp_path))
    force = {kernel["name"]: kernel["winner"] for kernel in kernels(closed.path)}
    forced = mkwrap.compile(normed, INPUTS, target="cuda:sm_90", options=replace(options, tune="off", force=force))
    assert run_on_fake(runner, closed.path).stdout.replace(str(closed.path), "") == run_on_fake(
        runner, forced.path
    ).stdout.replace(str(forced.path), "")
    assert closed.manifest["memory"] == forced.manifest["memory"]
    assert cubins(closed.path) == cubins(forced.path)
    assert closed.manifest.keys() == forced.manifest.keys()
    for one, other in zip(kernels(closed.path), kernels(forced.path), strict=True):
        assert one.keys() == other.keys()
        assert all(one[key] == other[key] for key in ("winner", "steps", "origins", "scratch_bytes", "key"))  # type: ignore[literal-required]


def test_rows_of_a_record_come_out_of_a_closed_library(
    opened: Model, options: Options, device: Callable[..., None], tmp_path: Path
) -> None:
    device(H100, 1)
    closed = mkwrap.tune_library(opened.path, None, replace(options, cache_dir=tmp_path))
    assert closed.save_tuning(tmp_path / "rows.jsonl") == len(kernels(closed.path))
    assert '"NVIDIA H100"' in (tmp_path / "rows.jsonl").read_text()
    assert opened.save_tuning(tmp_path / "none.jsonl") == 0


# ── several architectures ────────────────────────────────────────────────────────────────────────────────────────────────


def test_c41_the_best_fitting_architecture_is_taken_and_others_are_refused(both: Model, runner: Path) -> None:
    entries = {kernel["target"]: [launch["entry"] for launch in kernel["launches"]] for kernel in kernels(both.path)}
    assert set(entries) == {0, 1}
    for arch, target in (("80", 0), ("90", 1)):
        # The fake driver refuses a cubin of another architecture.
        done = run_on_fake(runner, both.path, arch)
        assert done.returncode == 0, done.stderr
        assert launches(done.stdout) == 2 * entries[target]
    for arch in ("75", "91"):
        done = run_on_fake(runner, both.path, arch)
        assert done.returncode == 1
        assert f"compiled for sm_80, sm_90; this device (Fake GPU) is sm_{arch}" in done.stderr
        assert "launch" not in done.stdout
    assert [target["arch"] for target in both.manifest["targets"]] == ["sm_80", "sm_90"]  # type: ignore[attr-defined]
    assert "cuda:sm_80, sm_90" in str(both.report)


def test_c41_each_machine_closes_its_own_architecture(
    both: Model, options: Options, device: Callable[..., None], runner: Path, tmp_path: Path
) -> None:
    device(A100, 1)
    half = mkwrap.tune_library(both.path, tmp_path / "half.so", options)
    assert [("open" in kernel, kernel["target"]) for kernel in kernels(half.path)] == [(False, 0), (True, 1)]
    device(H100, 2)
    whole = mkwrap.tune_library(half.path, tmp_path / "half.so", options)  # in place
    assert [("open" in kernel) for kernel in kernels(whole.path)] == [False, False]
    assert [t["device"] for t in whole.manifest["targets"]] == ["NVIDIA A100", "NVIDIA H100"]  # type: ignore[attr-defined]
    for arch, target in (("80", 0), ("90", 1)):
        done = run_on_fake(runner, whole.path, arch)
        assert done.returncode == 0, done.stderr
        (kernel,) = (kernel for kernel in kernels(whole.path) if kernel["target"] == target)
        assert launches(done.stdout) == 2 * [launch["entry"] for launch in kernel["launches"]]
    device(replace(A100, name="Tesla T4", capability=(7, 5)))
    with pytest.raises(errors.ArchitectureError, match=r"sm_80, sm_90; this device \(Tesla T4\) is sm_75"):
        mkwrap.load(both.path, tune=True, options=options)


def test_c41_bench_shows_the_kernels_of_the_device_at_hand(both: Model, device: Callable[..., None]) -> None:
    for live, target in ((A100, 0), (H100, 1)):
        device(live)
        rows = recorded(both, 0)
        assert [kernel.target for kernel, _ in rows] == [target]
    with pytest.raises(errors.DriverError, match="no CUDA device 1"):
        recorded(both, 1)


def test_c41_a_missing_image_is_named_before_any_launch(both: Model, runner: Path, tmp_path: Path) -> None:
    library = LinkedLibrary(both.path)
    manifest = library.manifest
    (kernel,) = (kernel for kernel in manifest["kernels"] if kernel["target"] == 1)
    for alternative in kernel["open"]["alternatives"]:
        for launch in alternative["launches"]:
            launch["part"] = None
    publish(library.with_choice(manifest, library.parts.rows), tmp_path / "m.so")
    assert run_on_fake(runner, tmp_path / "m.so", "80").returncode == 0
    done = run_on_fake(runner, tmp_path / "m.so", "90")
    assert done.returncode == 1
    assert re.search(r"holds no image of reduction_0 \S+ for sm_90", done.stderr)
    assert "launch" not in done.stdout


def test_targets_that_no_library_joins() -> None:
    x = torch.randn(4)
    for target, message in (
        (["cuda:sm_90", "cuda:sm_90"], "given twice"),
        (["cuda:sm_90", "cpu"], "joins several GPU architectures"),
        ([], "no target"),
    ):
        with pytest.raises(errors.TargetError, match=message):
            mkwrap.compile(lambda x: x + 1, (x,), target=target)
