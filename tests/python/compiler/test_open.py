"""Choices left open on the CPU: the library runs its defaults, then holds the winners alone, without a compiler or a linker."""

from __future__ import annotations

import ctypes
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.compiler.test_artifact import SYSTEM, output, symbols

import mkwrap
from mkwrap import Model, Options, errors
from mkwrap.toolchain.elf import Elf
from mkwrap.toolchain.relink import LinkedLibrary
from mkwrap.toolchain.seal import TRAILER_BYTES, publish
from mkwrap.toolchain.trouble import LATE
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee

pytestmark = pytest.mark.toolchain

ROOT = Path(__file__).parents[3]


class Head(torch.nn.Module):
    """A product with weights that variants pack differently, a softmax, a sum over columns."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(512, 96, generator=generator))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.softmax(x @ self.weight, -1), x.sum(0)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.randn(64, 512, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def later(shared_cache: Path) -> Options:
    return Options(tune="later", cache_dir=shared_cache, progress=False, threads=2)


@pytest.fixture(scope="module")
def opened(x: torch.Tensor, later: Options) -> Model:
    return mkwrap.compile(Head(), (x,), target="cpu", options=later)


@pytest.fixture
def cold(later: Options, tmp_path: Path) -> Options:
    """Measure, with an empty cache and neither compiler nor linker."""
    return replace(later, tune="quick", cache_dir=tmp_path / "cache", cxx="no-such-compiler")


@pytest.fixture
def winner(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Contest]]:
    """Let the candidate of a number win every contest; returns the contests that were held."""

    def wins(number: int) -> list[Contest]:
        held: list[Contest] = []

        def hold(self: Referee, contest: Contest) -> Outcome:
            del self
            held.append(contest)
            count = len(contest.candidates)
            return Outcome({k: (10.0 if k == number % count else 20.0,) * 9 for k in range(count)}, {})

        monkeypatch.setattr(Referee, "hold", hold)
        return held

    return wins


def entries(path: Path) -> set[str]:
    """Return the kernels in a library's symbol table."""
    return {
        name
        for name in symbols(path)
        if name.startswith(("mkw_matmul", "mkw_dot", "mkw_reduction")) and "." not in name
    }


def check(model: Model, x: torch.Tensor) -> None:
    for got, expected in zip(model(x), Head()(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_an_open_library_runs_and_holds_every_variant(opened: Model, x: torch.Tensor) -> None:
    check(opened, x)
    kernels = LinkedLibrary(opened.path).manifest["kernels"]
    assert all("open" in kernel and kernel["reason"] == "open: left for later" for kernel in kernels)
    found = {a["launches"][0]["entry"] for kernel in kernels for a in kernel["open"]["alternatives"]}
    assert len(found) > len(kernels)
    assert entries(opened.path) == found


def test_a_library_of_other_example_indices_is_another(later: Options) -> None:
    def compiled(indices: list[int]) -> Model:
        return mkwrap.compile(
            lambda x, i: torch.softmax(x[i], -1),
            (torch.ones(8, 32), torch.tensor(indices)),
            target="cpu",
            options=later,
        )

    first, second = compiled([0, 1]), compiled([7, 6])
    given = []
    for model in (first, second):
        library = LinkedLibrary(model.path)
        parts = {part for kernel in library.manifest["kernels"] for part in kernel["open"]["given"]}
        given.append({bytes(library.parts.blobs[part]) for part in parts})
    assert torch.tensor([7, 6]).numpy().tobytes() in given[1]
    assert torch.tensor([7, 6]).numpy().tobytes() not in given[0]


def test_measured_on_this_machine_it_equals_eager_and_is_as_good_as_any_library(
    opened: Model, x: torch.Tensor, cold: Options, tmp_path: Path
) -> None:
    closed = mkwrap.tune_library(opened.path, tmp_path / "tuned.so", cold)
    check(closed, x)
    kernels = LinkedLibrary(closed.path).manifest["kernels"]
    assert all(kernel["timings"] and kernel["tuned"] for kernel in kernels)
    assert closed.path.stat().st_size < opened.path.stat().st_size / 2
    assert entries(closed.path) == {kernel["launches"][0]["entry"] for kernel in kernels}
    assert output("nm", "-D", "--defined-only", closed.path).split()[1:] == ["T", "mkw_get_api"]
    assert {Path(line.split()[0]).name for line in output("ldd", closed.path).splitlines()} <= SYSTEM
    check(mkwrap.load(closed.path), x)
    assert ctypes.CDLL(str(closed.path)).mkw_get_api(2) != 0
    closed.save(tmp_path / "copy.so")
    assert (tmp_path / "copy.so").read_bytes() == closed.path.read_bytes()


def test_a_closed_library_can_be_linked_with(
    x: torch.Tensor, later: Options, cold: Options, tmp_path: Path, winner: Callable[[int], list[Contest]]
) -> None:
    model = mkwrap.compile(lambda x: torch.softmax(x, -1), (x,), target="cpu", options=later)
    winner(-1)
    closed = mkwrap.tune_library(model.path, tmp_path / "libclosed.so", cold)
    sources = [ROOT / "tests/python/compiler/linked.cpp", *(ROOT / "csrc/loader").glob("*.cpp")]
    includes = ["-I", mkwrap.include_dir(), "-I", ROOT / "csrc"]
    program = tmp_path / "linked"
    output("g++", "-std=c++17", *includes, *sources, closed.path, f"-Wl,-rpath,{tmp_path}", "-ldl", "-o", program)
    x.numpy().tofile(tmp_path / "x")
    output(program, tmp_path / "y", tmp_path / "x")
    assert (tmp_path / "y").read_bytes() == closed(x).numpy().tobytes()


@pytest.mark.parametrize("number", [0, 1, -1])
def test_c2_a_closed_library_is_what_one_compiled_with_its_winners_is(
    number: int, opened: Model, x: torch.Tensor, later: Options, cold: Options, winner: Callable[[int], list[Contest]]
) -> None:
    contests = winner(number)
    closed = mkwrap.tune_library(opened.path, None, cold)
    kernels = LinkedLibrary(closed.path).manifest["kernels"]
    assert len(contests) == len(kernels)
    force = {kernel["name"]: kernel["winner"] for kernel in kernels}
    forced = mkwrap.compile(Head(), (x,), target="cpu", options=replace(later, tune="off", force=force))
    assert entries(closed.path) == entries(forced.path)
    assert closed.manifest["memory"] == forced.manifest["memory"]
    assert closed.workspace_bytes == forced.workspace_bytes
    assert closed.manifest["code"] == []
    for one, other in zip(closed(x), forced(x), strict=True):
        assert torch.equal(one, other)
    contents = [LinkedLibrary(model.path) for model in (closed, forced)]
    texts = [library.manifest["texts"] for library in contents]
    parts = [[bytes(blob) for blob in c.parts.blobs[1:n] if len(blob)] for c, n in zip(contents, texts, strict=True)]
    assert parts[0] == parts[1]
    kernel_texts = [json.loads(bytes(c.parts.blobs[n])) for c, n in zip(contents, texts, strict=True)]
    # The host code is the open library's.
    assert all(kinds.pop("")["host"] for kinds in kernel_texts)
    assert kernel_texts[0] == kernel_texts[1]


def test_constants_are_raced_with_their_own_bytes(
    opened: Model, cold: Options, winner: Callable[[int], list[Contest]]
) -> None:
    contests = winner(0)
    mkwrap.tune_library(opened.path, None, cold)
    given = [m for contest in contests for m in contest.memories if m.given]
    raw = Head().weight.detach().numpy()
    packed = {bytes(m.given) for m in given if m.nbytes >= raw.nbytes}
    assert packed
    for data in packed:
        assert set(raw.ravel().tolist()) <= set(torch.frombuffer(bytearray(data), dtype=torch.float32).tolist())


def test_a_second_load_finds_the_tuned_library(
    opened: Model, x: torch.Tensor, cold: Options, winner: Callable[[int], list[Contest]]
) -> None:
    before = opened.path.read_bytes()
    contests = winner(1)
    first = mkwrap.load(opened.path, tune=True, options=cold)
    held = len(contests)
    assert held > 0
    second = mkwrap.load(opened.path, tune=True, options=cold)
    assert (second.path, len(contests)) == (first.path, held)
    check(second, x)
    assert opened.path.read_bytes() == before
    # A library with nothing open is its own answer.
    assert mkwrap.load(first.path, tune=True, options=cold).path == first.path


@pytest.mark.parametrize("broken", ["", "libraries"])
def test_what_was_measured_is_written_where_the_cache_cannot_be(
    broken: str, opened: Model, x: torch.Tensor, cold: Options, tmp_path: Path, winner: Callable[[int], list[Contest]]
) -> None:
    contests = winner(1)
    in_the_way = cold.cache_dir / broken
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("no folder")
    with pytest.warns(RuntimeWarning, match="the tuned library is not cached"):
        check(mkwrap.tune_library(opened.path, tmp_path / "tuned.so", cold), x)
    held = len(contests)
    with pytest.raises(errors.CacheError, match=r"cache directory .* set Options\.cache_dir"):
        mkwrap.tune_library(opened.path, None, cold)
    assert len(contests) == held


def test_a_tuned_library_in_the_cache_takes_the_place_of_what_was_used_longest_ago(
    opened: Model, cold: Options, tmp_path: Path, winner: Callable[[int], list[Contest]]
) -> None:
    winner(1)
    for written in (None, tmp_path / "tuned.so"):
        options = replace(cold, cache_dir=tmp_path / f"cache of {written is None}", cache_bytes=1)
        old = options.cache_dir / "libraries" / f"{'0' * 64}.so"
        old.parent.mkdir(parents=True)
        old.write_bytes(b"old")
        os.utime(old, (1e9, 1e9))
        mkwrap.tune_library(opened.path, written, options)
        assert len(list(old.parent.iterdir())) == 1
        assert not old.exists()


def test_a_library_is_tuned_for_the_threads_it_was_compiled_for(
    opened: Model, cold: Options, winner: Callable[[int], list[Contest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    winner(0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    for threads, units in ((None, 2), (3, 3)):
        closed = mkwrap.tune_library(opened.path, None, replace(cold, threads=threads))
        (target,) = LinkedLibrary(closed.path).manifest["targets"]
        assert target["units"] == units
        assert target["tuning"] is not None
        assert target["tuning"]["device"]["units"] == units


def test_in_place(
    opened: Model, x: torch.Tensor, cold: Options, tmp_path: Path, winner: Callable[[int], list[Contest]]
) -> None:
    winner(1)
    path = tmp_path / "model.so"
    opened.save(path)
    loaded = mkwrap.load(path)
    check(mkwrap.tune_library(path, path, cold), x)
    check(loaded, x)
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".so"] == ["model.so"]


def test_nothing_but_numpy_and_the_binding_is_needed(opened: Model, cold: Options, tmp_path: Path) -> None:
    """Neither Triton is imported nor a compiler found; the measuring process starts from this interpreter."""
    script = f"""
import sys
sys.modules["triton"] = None
import mkwrap
options = mkwrap.Options(tune="quick", cache_dir={str(cold.cache_dir)!r}, progress=False, threads=2)
mkwrap.tune_library({str(opened.path)!r}, {str(tmp_path / "tuned.so")!r}, options)
"""
    environment = {key: value for key, value in os.environ.items() if key != "CXX"} | {"PATH": "/nonexistent"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, cwd=ROOT)
    assert entries(tmp_path / "tuned.so") < entries(opened.path)


def test_r6_damage_is_refused(opened: Model, cold: Options, tmp_path: Path) -> None:
    data = opened.path.read_bytes()
    path = tmp_path / "m.so"
    rng = random.Random(0)
    flips = [rng.randrange(len(data)) for _ in range(20)]
    damaged = [data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :] for at in flips]
    for bad in (*damaged, data[:-1], data[: len(data) // 2], b"", b"\x7fELF", data + b"x"):
        path.write_bytes(bad)
        with pytest.raises(errors.LibraryFormatError):
            mkwrap.tune_library(path, tmp_path / "tuned.so", cold)
    with pytest.raises(errors.LibraryFormatError, match="cannot be read"):
        mkwrap.tune_library(tmp_path / "missing.so", None, cold)
    assert not (tmp_path / "tuned.so").exists()


def test_r6_sealed_nonsense_is_refused(opened: Model, cold: Options, tmp_path: Path) -> None:
    """Files that somebody sealed, with an image that is none of ours."""
    library = LinkedLibrary(opened.path)
    race = bytes(library.parts.blobs[library.manifest["kernels"][0]["open"]["race"]])
    image = opened.path.read_bytes()[:-TRAILER_BYTES]
    directory = image.index(b"MKWPARTS")
    for bad in (
        image.replace(race, json.dumps(["Contest", {}]).encode().ljust(len(race))),
        image.replace(race, b"[" * len(race)),
        image.replace(race, race.replace(b"Candidate", b"Kandidate")),
        image[:directory] + b"?" + image[directory + 1 :],
        image[: directory + 12] + b"\xff\xff\xff\x7f" + image[directory + 16 :],
        image.replace(b".mkwrap\0", b".mkwrop\0"),
        image[:1000],
        b"\x7fELF" + bytes(4000),
    ):
        publish(bad, tmp_path / "m.so")
        with pytest.raises(errors.LibraryFormatError):
            mkwrap.tune_library(tmp_path / "m.so", None, cold)


def test_code_that_shares_a_segment_with_a_winner_s_is_not_cut(
    opened: Model, cold: Options, tmp_path: Path, winner: Callable[[int], list[Contest]]
) -> None:
    """As LLD links: one PT_LOAD over the code of two variants."""
    winner(0)
    image = bytearray(opened.path.read_bytes()[:-TRAILER_BYTES])
    elf = Elf(memoryview(bytes(image)), "model.so")
    first, second = (elf.segment_at(elf.section(f".mkwrap.code{k}").address) for k in (0, 1))
    header = struct.Struct("<IIQQQQQQ")
    (table,) = struct.unpack_from("<Q", image, 0x20)
    size = second.address + second.memory_bytes - first.address
    merged = replace(first, file_bytes=size, memory_bytes=size)
    for segment, changed in ((first, merged), (second, replace(second, type=0))):
        header.pack_into(image, table + elf.segments.index(segment) * header.size, *vars(changed).values())
    publish(bytes(image), tmp_path / "m.so")
    with pytest.raises(errors.LibraryFormatError, match=r"\.mkwrap\.code0 lies in one segment with .* GNU ld"):
        mkwrap.tune_library(tmp_path / "m.so", tmp_path / "tuned.so", cold)
    assert not (tmp_path / "tuned.so").exists()


def test_modes_that_do_not_measure_are_refused(opened: Model, cold: Options) -> None:
    with pytest.raises(errors.OptionError, match="'full' or 'quick'"):
        mkwrap.tune_library(opened.path, None, replace(cold, tune="off"))


def test_c35_a_bad_candidate_is_dropped_with_its_reason(
    opened: Model, x: torch.Tensor, cold: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(self: Referee, contest: Contest) -> Outcome:
        del self
        return Outcome(dict.fromkeys(range(1, len(contest.candidates)), (9.0,) * 9), {0: "wrong result: all of it"})

    monkeypatch.setattr(Referee, "hold", hold)
    closed = mkwrap.tune_library(opened.path, None, cold)
    for before, after in zip(*(LinkedLibrary(m.path).manifest["kernels"] for m in (opened, closed)), strict=True):
        assert after["rejected"] == [{"variant": before["winner"], "reason": "wrong result: all of it"}]
        assert after["winner"] == before["open"]["alternatives"][1]["variant"]
    check(closed, x)
    monkeypatch.setattr(
        Referee, "hold", lambda _, contest: Outcome({}, dict.fromkeys(range(len(contest.candidates)), "no"))
    )
    with pytest.raises(errors.NoVariantError, match=r"every variant of kernel \w+ \(aten\.\S+\) was rejected"):
        mkwrap.tune_library(opened.path, None, replace(cold, cache_dir=cold.cache_dir / "other"))


def test_a_failed_measurement_leaves_nothing(opened: Model, cold: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Referee, "hold", lambda *_: Outcome({}, {}, "the measuring process was killed"))
    with pytest.raises(errors.MeasureError, match="the measuring process was killed"):
        mkwrap.tune_library(opened.path, None, cold)
    assert not list(cold.cache_dir.rglob("*.so"))


@pytest.mark.parametrize("trouble", [LATE, "died of SIGKILL", "cannot be linked: ld: x.so: No space left on device"])
def test_a_choice_beside_a_transient_rejection_is_no_row_and_is_made_again(
    opened: Model, cold: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    held: list[Contest] = []

    def hold(self: Referee, contest: Contest) -> Outcome:
        del self
        held.append(contest)
        return Outcome({0: (10.0,) * 9}, dict.fromkeys(range(1, len(contest.candidates)), trouble))

    monkeypatch.setattr(Referee, "hold", hold)
    closed = mkwrap.load(opened.path, tune=True, options=cold)
    contests = len(held)
    closed.save_tuning(tmp_path / "record.jsonl")
    assert (tmp_path / "record.jsonl").read_text() == ""
    assert all(kernel["tuned"] is None for kernel in LinkedLibrary(closed.path).manifest["kernels"])
    mkwrap.load(opened.path, tune=True, options=cold)
    assert len(held) == 2 * contests, "nothing was kept"
