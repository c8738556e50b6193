"""What test_cuda_bench.py runs in a process whose CUDA driver is the stub: whole contests on the device's side."""

from __future__ import annotations

import array
import ctypes
import gc
import math

from mkwrap import _C
from mkwrap.ir.dtypes import DType
from mkwrap.tune.contest import (
    Accuracy,
    Answer,
    Call,
    Candidate,
    Contest,
    Done,
    Fault,
    Fill,
    Limits,
    Memory,
    MemoryArgument,
    NumberArgument,
    Samples,
    ScratchArgument,
)
from mkwrap.tune.cuda_bench import CudaBench
from mkwrap.tune.worker import hold

DRIVER = ctypes.CDLL("libcuda.so.1")
MIB = 1 << 20
CACHE = 4 * MIB


def adding(*steps: int) -> Candidate:
    """Return a candidate that launches the stub's kernel once per step: memory 0 += step, its first 16 floats.

    It says to read memory 1, too.
    """
    more = MemoryArgument(1)
    arguments = [(MemoryArgument(0), NumberArgument(16, "i32"), NumberArgument(step, "i64"), more) for step in steps]
    return Candidate(tuple(Call("add", b"\x7fELF", args, threads=32) for args in arguments))


def held(contest: Contest) -> tuple[dict[int, str], dict[int, tuple[float, ...]]]:
    """Hold a contest; returns faults and samples."""
    answers: list[Answer] = []
    hold(contest, CudaBench(contest), answers.append)
    assert answers[-1] == Done()
    faults = {answer.number: answer.reason for answer in answers if isinstance(answer, Fault)}
    return faults, {answer.number: answer.values for answer in answers if isinstance(answer, Samples)}


def workspaces() -> None:
    """C14: after poisoned starts and many timed runs, a cleared workspace has counted one run, one that is not none."""
    for cleared in (True, False):
        count = Call(
            "add", b"\x7fELF", (ScratchArgument(0), NumberArgument(1, "i32"), NumberArgument(1, "i64")), threads=32
        )
        counting = Candidate((count, *adding(3).calls), workspace_bytes=64, zero_workspace=cleared)
        memory = Memory(DType.FLOAT32, 64, Fill.NORMAL, written=True, accuracy=Accuracy(DType.FLOAT32))
        read = Memory(DType.FLOAT32, 64, Fill.NORMAL)
        limits = Limits(budget=0.5, rounds=4, batch_us=1e5)
        contest = Contest("cuda", (memory, read), (adding(3), counting), limits, cache_bytes=CACHE)
        bench = CudaBench(contest)
        hold(contest, bench, lambda _: None)
        word = array.array("f", [0.0])
        bench._context.download(bench._scratch, word)
        assert (word[0] == 1.0) if cleared else math.isnan(word[0]), word


def main() -> None:
    """Check, time and give back."""
    workspaces()
    gc.collect()
    anchor = _C.CudaContext(0)
    before = DRIVER.stub_alive()
    limits = Limits(budget=0.5, rounds=4, batch_us=1e6)
    candidates = (adding(3), adding(1, 2), adding(2), adding(1, 1, 1))
    for cold, copies in ((True, 8), (False, 1)):
        accuracy = Accuracy(DType.FLOAT32)
        memory = Memory(DType.FLOAT32, MIB // 4, Fill.NORMAL, written=True, accuracy=accuracy, cold=cold)
        read = Memory(DType.FLOAT32, MIB // 4, Fill.NORMAL, cold=cold)
        faults, samples = held(Contest("cuda", (memory, read), candidates, limits, cache_bytes=CACHE))
        assert faults.keys() == {2}, faults
        assert faults[2].startswith("wrong result: 16 of 262144 elements, first at 0"), faults
        # The stub's clock counts 1 ms per launch.
        assert {number: set(values) for number, values in samples.items()} == {0: {1000.0}, 1: {2000.0}, 3: {3000.0}}
        # The argument that changes, the start it is restored from, the copies of the other; and single words.
        rest = DRIVER.stub_peak() - (2 + copies) * MIB
        assert 0 <= rest < 64, rest
        gc.collect()
        assert DRIVER.stub_alive() == before, "nothing stays allocated"
    del anchor


main()
