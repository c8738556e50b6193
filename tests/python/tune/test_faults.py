"""What may go wrong while measuring: each ends in a right choice or a typed error."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests.python.tune.kernels import LOOP, SLOW, built, choose, options_in, plus_one, target_of

from mkwrap.errors import NoVariantError
from mkwrap.stages import Image, Provenance, Selection
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.child import Child
from mkwrap.tune import match, measure
from mkwrap.tune.cpu_bench import Block
from mkwrap.tune.match import LIMITS

pytestmark = pytest.mark.toolchain

# The fastest gives wrong results.
WRONG = "y[0] = x[0]; return 0;"
BODIES = {"slow": SLOW, "fast": LOOP, "wrong": WRONG}


@pytest.fixture
def pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the ids of measuring processes as they are started."""
    started: list[int] = []

    class Watched(Child):
        def __init__(self, module: str) -> None:
            super().__init__(module)
            started.append(self.pid)

    monkeypatch.setattr(measure, "Child", Watched)
    return started


@contextlib.contextmanager
def _signals(pids: list[int], number: signal.Signals, moments: Iterator[float]) -> Iterator[None]:
    """Send a signal to the newest process after each of some pauses."""
    over = threading.Event()

    def disturb() -> None:
        for pause in moments:
            if over.wait(pause):
                return
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[-1], number)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _chosen(folder: Path, cache: Cache | None = None) -> Selection:
    candidates, binaries = built(plus_one(4096), BODIES)
    return choose(candidates, binaries, target_of(), options_in(folder), cache)


def _winner(selection: Selection) -> str:
    return selection.winners["kernel0"].only.source.variant.label


@pytest.mark.parametrize("seed", range(6))
def test_killing_the_measuring_process_at_random(tmp_path: Path, pids: list[int], seed: int) -> None:
    generator = random.Random(seed)
    moments = [generator.uniform(0.0, 0.5) for _ in range(generator.randint(1, 4))]
    with _signals(pids, signal.SIGKILL, iter(moments)):
        try:
            selection = _chosen(tmp_path)
        except NoVariantError as error:
            assert "SIGKILL" in str(error)  # noqa: PT017
            return
    assert _winner(selection) != "wrong"
    for rejected in selection.rejected["kernel0"]:
        assert "wrong result" in rejected.reason or (rejected.transient and "SIGKILL" in rejected.reason)


def test_a_process_that_is_always_killed_decides_nothing_for_good(tmp_path: Path, pids: list[int]) -> None:
    cache = Cache(tmp_path / "cache")
    with _signals(pids, signal.SIGKILL, itertools.repeat(0.005)):
        try:
            selection = _chosen(tmp_path, cache)
            assert _winner(selection) != "wrong"
            assert "not measured: the measuring process died of SIGKILL" in selection.reasons["kernel0"]
        except NoVariantError as error:
            assert "SIGKILL" in str(error)  # noqa: PT017
    assert _winner(_chosen(tmp_path, cache)) == "fast", "nothing was kept"


@pytest.mark.parametrize("elements", [1 << 40, 1 << 61])
def test_a_point_too_large_for_the_machine_says_so_in_a_line(tmp_path: Path, pids: list[int], elements: int) -> None:
    candidates, binaries = built(plus_one(elements), {"slow": SLOW, "fast": LOOP})
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path))
    reason = selection.reasons["kernel0"]
    assert reason.startswith("not measured: memory is short: the buffers hold ")
    assert "\n" not in reason
    assert not selection.rejected["kernel0"]
    assert len(pids) == 1, "the process lives on"


def test_memory_that_the_system_refuses_is_told_from_a_defect() -> None:
    with pytest.raises(MemoryError, match="the system does not give 4611686018427387904 bytes"):
        Block(1 << 62)


def test_one_kill_from_outside_costs_no_candidate_the_race(tmp_path: Path, pids: list[int]) -> None:
    def once() -> Iterator[float]:
        while not pids:
            yield 0.001
        yield 0.0

    with _signals(pids, signal.SIGKILL, once()):
        selection = _chosen(tmp_path)
    assert len(pids) == 2
    assert _winner(selection) == "fast"
    assert [entry.variant.label for entry in selection.rejected["kernel0"]] == ["wrong"]


def test_a_measuring_process_that_stands_still_is_replaced(
    tmp_path: Path, pids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_GRACE_S", 1.0)
    monkeypatch.setitem(LIMITS, "quick", dataclasses.replace(LIMITS["quick"], hang=1.0))

    def once() -> Iterator[float]:
        while not pids:
            yield 0.001
        yield 0.0

    with _signals(pids, signal.SIGSTOP, once()):
        selection = _chosen(tmp_path)
    assert len(pids) == 2
    assert _winner(selection) == "fast"


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, jumps = time.time, itertools.cycle([0.0, -1e9, 1e9])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    cache = Cache(tmp_path / "cache")
    first, second = _chosen(tmp_path, cache), _chosen(tmp_path, cache)
    assert (_winner(first), first.provenance) == ("fast", {"kernel0": Provenance.MEASURED})
    assert (_winner(second), second.provenance) == ("fast", {"kernel0": Provenance.CACHE})


def test_a_full_disk_under_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        del path, data
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = Cache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        selection = _chosen(tmp_path, cache)
    assert _winner(selection) == "slow"
    assert "No space left on device" in selection.reasons["kernel0"]
    assert _winner(_chosen(tmp_path, cache)) == "fast", "nothing was kept"


@pytest.mark.parametrize("trouble", ["the linker ran for more than 120 s", "cannot be linked: No space left on device"])
def test_a_variant_that_could_not_be_linked_for_now_is_raced_another_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """The row of a choice without it would outlive the trouble."""
    cache = Cache(tmp_path / "cache")
    link_objects = match.link_objects

    def short(images: Sequence[Image], cxx: str, folder: Path) -> Mapping[str, Path | str]:
        *linked, last = link_objects(images, cxx, folder).items()
        return dict([*linked, (last[0], trouble)])

    candidates, binaries = built(plus_one(4096), {"slower": SLOW, "slow": SLOW.replace("40", "20"), "fast": LOOP})
    with monkeypatch.context() as patch:
        patch.setattr(match, "link_objects", short)
        selection = choose(candidates, binaries, target_of(), options_in(tmp_path), cache)
    assert _winner(selection) == "slow"
    assert [entry.reason for entry in selection.rejected["kernel0"]] == [trouble]
    assert _winner(choose(candidates, binaries, target_of(), options_in(tmp_path), cache)) == "fast"


def test_a_system_that_refuses_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, binaries = built(plus_one(4096), BODIES)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    selection = choose(candidates, binaries, target_of(), options_in(tmp_path))
    assert _winner(selection) == "slow"
    assert selection.reasons["kernel0"].startswith("not measured: cannot start a Python process")


_FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
import mkwrap
from mkwrap.errors import ToolchainError
x, outcomes = torch.randn(64, 64), []
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (8_000, 20_000, 60_000, hard):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    options = mkwrap.Options(cache_dir=Path(sys.argv[1]), tune="quick")
    try:
        model = mkwrap.compile(lambda x: torch.softmax(x, -1).sum(0), (x,), options=options)
        torch.testing.assert_close(model(x), torch.softmax(x, -1).sum(0))
        outcomes.append("right")
    except ToolchainError:
        outcomes.append("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(*outcomes)
"""


@pytest.mark.slow
def test_files_that_cannot_grow_end_in_a_right_library_or_a_typed_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = done.stdout.split()
    assert (outcomes[0], outcomes[-1]) == ("refused", "right")
