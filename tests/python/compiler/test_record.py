"""Compiles from a tuning record: the same bytes again, nothing measured, also where the device is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.compiler.forced import kernels_of

import mkwrap
from mkwrap import Model, Options, compiler
from mkwrap.artifact import HostCode, Library
from mkwrap.errors import MissingTuningError, OptionError, TuningRecordError
from mkwrap.stages import Binary, Program, Provenance, Rejected, Source
from mkwrap.targets import cuda
from mkwrap.targets.cuda import LiveDevice
from mkwrap.toolchain import pool
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee
from mkwrap.tune.record import encode
from mkwrap.tune.record_file import read_record

pytestmark = pytest.mark.toolchain


def fn(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.softmax(x, -1), (x * 2).t().contiguous()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def measured(x: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A measured model and its record."""
    folder = tmp_path_factory.mktemp("measured")
    options = Options(tune="quick", cache_dir=folder / "cache", threads=2, progress=False)
    model = mkwrap.compile(fn, (x,), target="cpu", options=options)
    assert model.save_tuning(folder / "record.jsonl") == len(kernels_of(model)) == 2
    return model, folder / "record.jsonl"


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("measured")

    monkeypatch.setattr(Referee, "hold", never)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the variants that are compiled from now on."""
    labels: list[str] = []
    one = pool._Crew._one

    def spy(self: pool._Crew, source: Source) -> Binary | Rejected:
        labels.append(source.variant.label)
        return one(self, source)

    monkeypatch.setattr(pool._Crew, "_one", spy)
    return labels


def given(record: Path, cache: Path, **changes: object) -> Options:
    options = Options(tune="quick", cache_dir=cache, threads=2, progress=False, tuning=record, require_tuning=True)
    return replace(options, **changes)  # type: ignore[arg-type]


def choices(model: Model) -> set[Provenance]:
    assert model.compilation is not None
    return set(model.compilation.choices.values())


def content(model: Model, path: Path) -> bytes:
    model.save(path)
    return path.read_bytes()


@pytest.mark.usefixtures("no_measuring")
def test_c44_a_rebuild_from_its_record_has_the_same_bytes_and_measures_nothing(
    x: torch.Tensor, measured: tuple[Model, Path], tmp_path: Path, built: list[str]
) -> None:
    model, record = measured
    again = mkwrap.compile(fn, (x,), target="cpu", options=given(record, tmp_path / "cache"))
    assert content(again, tmp_path / "a.so") == content(model, tmp_path / "b.so")
    assert choices(again) == {Provenance.RECORD}
    # Losers are not even built.
    assert sorted(built) == sorted(str(kernel["winner"]) for kernel in kernels_of(model))
    again.save_tuning(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == record.read_bytes()


@pytest.mark.usefixtures("no_measuring")
def test_c4_a_compile_from_the_cache_has_the_same_bytes(
    x: torch.Tensor, measured: tuple[Model, Path], tmp_path: Path, built: list[str]
) -> None:
    model, record = measured
    options = Options(tune="quick", cache_dir=record.parent / "cache", threads=2, progress=False)
    again = mkwrap.compile(fn, (x,), target="cpu", options=options)
    assert (choices(again), built) == ({Provenance.CACHE}, [])
    assert again.path == model.path
    assert content(again, tmp_path / "a.so") == content(model, tmp_path / "b.so")


@pytest.mark.usefixtures("no_measuring")
def test_the_record_decides_against_the_clock_and_the_cache(
    x: torch.Tensor, measured: tuple[Model, Path], tmp_path: Path
) -> None:
    """A row whose winner was a loser is obeyed: the record is what the user asks for."""
    _, record = measured
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    for row in rows:
        (point,) = row["points"]
        losers = [c for c in point["candidates"] if c["variant"] != point["winner"] and "rejected" not in c]
        point["winner"] = losers[-1]["variant"]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for mode in ("quick", "off", "full"):
        model = mkwrap.compile(fn, (x,), target="cpu", options=given(other, record.parent / "cache", tune=mode))
        assert {k["winner"] for k in kernels_of(model)} == {row["points"][0]["winner"] for row in rows}
        assert choices(model) == {Provenance.RECORD}
    torch.testing.assert_close(model(x), fn(x))


FOREIGN: dict[str, Callable[[dict[str, dict[str, object]]], None]] = {
    "name": lambda row: row["device"].update(name="another processor"),
    "units": lambda row: row["device"].update(units=64),
    "driver": lambda row: row["device"].update(driver="1.0"),
    "mkwrap": lambda row: row["versions"].update(mkwrap="0.0.1+0"),
    "toolchain": lambda row: row["versions"].update(toolchain="g++ 1.0"),
    "torch": lambda row: row["versions"].update(torch="2.0.0"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_c5_a_row_of_another_device_or_version_is_no_answer(
    what: str, x: torch.Tensor, measured: tuple[Model, Path], tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in measured[1].read_text().splitlines()]
    for row in rows:
        FOREIGN[what](row)
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(MissingTuningError, match=f"reduction_0.*its row was measured with {what} '?") as caught:
        mkwrap.compile(fn, (x,), target="cpu", options=given(foreign, tmp_path / "cache"))
    assert "no row for 2 of the kernels" in str(caught.value)


def test_c5_rows_that_do_not_fit_are_measured_anew(
    x: torch.Tensor, measured: tuple[Model, Path], tmp_path: Path
) -> None:
    record = tmp_path / "record.jsonl"
    first, second = (json.loads(line) for line in measured[1].read_text().splitlines())
    second["device"]["name"] = "another processor"
    # The right circumstances but another winner's bytes: what was timed is not what is built here.
    (point,) = first["points"]
    for candidate in point["candidates"]:
        candidate["images"] = ["0" * 64 for _ in candidate["images"]]
    record.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    options = given(record, measured[1].parent / "cache")
    with pytest.raises(MissingTuningError, match="another processor"):
        mkwrap.compile(fn, (x,), target="cpu", options=options)
    model = mkwrap.compile(fn, (x,), target="cpu", options=replace(options, require_tuning=False))
    assert choices(model) == {Provenance.CACHE}
    second["device"]["name"] = json.loads(measured[1].read_text().splitlines()[1])["device"]["name"]
    record.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    with pytest.raises(MissingTuningError, match="its row is of other bytes"):
        mkwrap.compile(fn, (x,), target="cpu", options=options)


def test_c6_a_damaged_record_is_refused_with_its_line(
    x: torch.Tensor, measured: tuple[Model, Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text(measured[1].read_text() + "{}\n")
    with pytest.raises(TuningRecordError, match="line 3"):
        mkwrap.compile(fn, (x,), target="cpu", options=given(damaged, tmp_path / "cache"))


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="require_tuning needs"):
        Options(require_tuning=True)
    with pytest.raises(OptionError, match="drop one"):
        Options(tuning=tmp_path / "record.jsonl", deterministic=True)


def test_c39_a_deterministic_compile_makes_no_rows(x: torch.Tensor, tmp_path: Path) -> None:
    options = Options(cache_dir=tmp_path, deterministic=True, threads=2, progress=False)
    model = mkwrap.compile(fn, (x,), target="cpu", options=options)
    assert choices(model) == {Provenance.NONE}
    assert model.save_tuning(tmp_path / "none.jsonl") == 0
    assert read_record(tmp_path / "none.jsonl") == ()


H100 = LiveDevice("NVIDIA H100 80GB HBM3", (9, 0), 114, 232448, 50 * 2**20, 12080)


def test_c44_without_the_device_the_record_s_winners_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: list[str]
) -> None:
    """Rows come from a machine that pretends to have an H100 with fewer multiprocessors than the usual one."""
    y = torch.randn(4096)

    def twice(y: torch.Tensor) -> torch.Tensor:
        return y * 2 + 1

    def hold(self: Referee, contest: Contest) -> Outcome:
        del self
        return Outcome({k: (10.0 - k,) * 7 for k in range(len(contest.candidates))}, {})

    with monkeypatch.context() as there:
        there.setattr(cuda, "live_devices", lambda: (H100,))
        there.setattr(Referee, "hold", hold)
        options = Options(tune="quick", cache_dir=tmp_path / "there", progress=False)
        tuned = mkwrap.compile(twice, (y,), target="cuda:sm_90", options=options)
        record = tmp_path / "h100.jsonl"
        tuned.save_tuning(record)
    (kernel,) = kernels_of(tuned)
    (row,) = read_record(record)
    assert (row.device.name, row.device.units, row.device.driver) == (H100.name, 114, "12.8")
    assert row.points[0].candidates[0].variant != kernel["winner"]
    built.clear()
    (tmp_path / "more.jsonl").write_text(encode(replace(row, measured_at="2001-01-01T00:00:00Z")) + "\n" + encode(row))
    again = mkwrap.compile(twice, (y,), target="cuda:sm_90", options=given(tmp_path / "more.jsonl", tmp_path / "here"))
    assert built == [kernel["winner"]]
    assert content(again, tmp_path / "a.so") == content(tuned, tmp_path / "b.so")


def test_a_library_that_is_evicted_before_it_is_loaded_is_linked_anew(
    x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(tune="off", cache_dir=tmp_path, threads=2, progress=False)
    first = mkwrap.compile(fn, (x,), target="cpu", options=options)
    publish = compiler.published

    def evicting(host: HostCode, program: Program, options: Options, *, anew: bool = False) -> Library:
        library = publish(host, program, options, anew=anew)
        if not anew:
            library.path.unlink()
        return library

    monkeypatch.setattr(compiler, "published", evicting)
    again = mkwrap.compile(fn, (x,), target="cpu", options=options)
    # The model whose file is gone lives on.
    torch.testing.assert_close(first(x), fn(x))
    assert content(again, tmp_path / "a.so") == content(first, tmp_path / "b.so")


@pytest.mark.cuda
def test_c44_on_the_gpu_a_rebuild_has_the_same_bytes_with_and_without_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(64, 1024, device="cuda")
    options = Options(tune="quick", cache_dir=tmp_path / "cache", progress=False)
    model = mkwrap.compile(fn, (x,), options=options)
    record = tmp_path / "record.jsonl"
    assert model.save_tuning(record) > 0
    assert {row.device.driver for row in read_record(record)} != {""}
    monkeypatch.setattr(Referee, "hold", lambda *_: pytest.fail("measured"))
    assert choices(mkwrap.compile(fn, (x,), options=options)) == {Provenance.CACHE}
    here = mkwrap.compile(fn, (x,), options=given(record, tmp_path / "here"))
    torch.testing.assert_close(here(x), fn(x))
    target = "cuda:sm_{}{}".format(*torch.cuda.get_device_capability())
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(cuda, "live_devices", lambda: ())
        absent = mkwrap.compile(fn, (x,), target=target, options=given(record, tmp_path / "absent"))
    contents = {content(each, tmp_path / "m.so") for each in (model, here, absent)}
    assert len(contents) == 1
