"""The measuring process's part, on scripted devices: who is checked, who is raced, for how long."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from mkwrap import _C
from mkwrap.errors import DriverError
from mkwrap.ir.dtypes import DType
from mkwrap.tune import cuda_bench
from mkwrap.tune.contest import (
    Answer,
    At,
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
from mkwrap.tune.values import Bytes, Standard, differences
from mkwrap.tune.worker import hold

OUT = Memory(DType.FLOAT32, 4, Fill.POISON, written=True)


class Script:
    """A device whose candidates take given microseconds (cycled through) and give given results."""

    def __init__(
        self,
        times: Sequence[Sequence[float]],
        results: Sequence[float | str],
        pause: float = 0.0,
        seconds: Sequence[float] = (),
    ) -> None:
        self._times: list[Iterator[float]] = [itertools.cycle(t) for t in times]
        self._results = results
        self._pause = pause
        self._last = 0
        self._seconds = seconds
        self.sampled: list[list[int]] = []

    def run(self, number: int) -> float | str:
        self._last = number
        result = self._results[number]
        return result if isinstance(result, str) else dict(enumerate(self._seconds)).get(number, 0.0)

    def results(self) -> list[Bytes]:
        return [np.full(4, self._results[self._last], np.float32).view(np.uint8)]

    def compare(self, standards: Sequence[Standard]) -> str:
        return differences(standards, self.results())

    def sample(self, numbers: Sequence[int], rounds: int) -> list[list[float]]:
        time.sleep(self._pause)
        self.sampled.append(list(numbers))
        return [[next(self._times[number]) for _ in range(rounds)] for number in numbers]


def _contest(count: int, **fields: object) -> Contest:
    limits = Limits(**{"budget": 10.0, "rounds": 12, "batch_us": 100.0, **fields})  # type: ignore[arg-type]
    call = Call("entry", "", (MemoryArgument(0),))
    return Contest("cpu", (OUT,), (Candidate((call,)),) * count, limits)


def _held(contest: Contest, script: Script) -> list[Answer]:
    answers: list[Answer] = []
    hold(contest, script, answers.append)
    assert answers[-1] == Done()
    return answers


def _samples(answers: Sequence[Answer]) -> dict[int, tuple[float, ...]]:
    return {answer.number: answer.values for answer in answers if isinstance(answer, Samples)}


def test_every_candidate_is_announced_before_it_runs_alone() -> None:
    answers = _held(_contest(2), Script([[1.0], [1.0]], [5, 5]))
    assert [answer.number for answer in answers if isinstance(answer, At)][:4] == [0, 1, 0, 1]


def test_slow_candidates_leave_the_race_after_the_first_rounds() -> None:
    samples = _samples(_held(_contest(3), Script([[1.0], [1.4], [1.6]], [5, 5, 5])))
    assert len(samples[0]) == len(samples[1]) == 12
    assert samples[2] == (1.6,) * 4


def test_a_candidate_disturbed_in_its_first_rounds_comes_back() -> None:
    samples = _samples(_held(_contest(2), Script([[1.0], [9.0] * 8 + [0.9] * 1000], [5, 5])))
    assert len(samples[1]) >= 12
    assert set(samples[1]) == {0.9}


def test_disturbed_rounds_do_not_count() -> None:
    bursts = [1.0] * 8 + [30.0] * 8
    samples = _samples(_held(_contest(2), Script([bursts, bursts], [5, 5])))
    assert set(samples[0]) == {1.0}
    assert len(samples[0]) >= 12


def test_a_sample_is_the_best_of_four_batches() -> None:
    samples = _samples(_held(_contest(2), Script([[9.0, 1.0, 9.0, 9.0], [2.0, 1.2, 2.0, 2.0]], [5, 5])))
    assert set(samples[0]) == {1.0}
    assert set(samples[1]) == {1.2}


def test_uncertain_medians_get_more_rounds() -> None:
    disturbed = [1.0] * 4 + [1.2] * 4 + [1.45] * 4
    calm, wild = (_samples(_held(_contest(2), Script([t, t], [5, 5])))[0] for t in ([1.0], disturbed))
    assert len(calm) == 12
    assert len(wild) == 5 * 12


def test_the_budget_ends_the_race() -> None:
    begin = time.monotonic()
    samples = _samples(_held(_contest(2, budget=0.2, rounds=1000), Script([[1.0], [1.0]], [5, 5], pause=0.02)))
    assert 2 < len(samples[0]) < 1000
    assert time.monotonic() - begin < 1.0


def test_every_right_candidate_is_measured_whatever_the_budget() -> None:
    answers = _held(_contest(4, budget=-1.0), Script([[1.0]] * 4, [5, 5, 5, 5]))
    assert _samples(answers) == {0: (1.0,) * 2, 1: (1.0,) * 2, 2: (0.0,), 3: (0.0,)}


def test_checks_that_take_too_long_end() -> None:
    answers = _held(_contest(4, check=-1.0), Script([[1.0]] * 4, [5, 5, 5, 5]))
    faults = {a.number: a.reason for a in answers if isinstance(a, Fault)}
    assert faults == dict.fromkeys((2, 3), "not measured: checking the variants before it took too long")


def test_a_hopelessly_slow_candidate_is_not_run_again_before_the_others_are_known() -> None:
    script = Script([[5e4], [4e5]], [5, 5], seconds=(0.05, 0.4))
    samples = _samples(_held(_contest(2, budget=0.0), script))
    assert samples == {0: (5e4,), 1: (4e5,)}
    assert script.sampled == [[0]]


@pytest.mark.parametrize("again", [900e-6, 20e-6])
def test_a_candidate_that_is_slow_twice_is_not_raced(again: float) -> None:
    script = Script([[10.0], [9.0]], [5, 5])
    runs = {0: iter([10e-6]), 1: iter([900e-6, again])}
    script.run = lambda number: next(runs[number])  # type: ignore[method-assign]
    samples = _samples(_held(_contest(2), script))
    assert any(1 in numbers for numbers in script.sampled) == (again < 100e-6)
    assert set(samples[1]) == {900.0 if again > 100e-6 else 9.0}


def test_a_candidate_that_fails_when_run_again_is_out() -> None:
    script = Script([[10.0], [9.0], [8.0]], [5, 5, 5])
    runs: dict[int, Iterator[float | str]] = {
        0: iter([10e-6]),
        1: iter([900e-6, "an index was out of range"]),
        2: iter([9e-6]),
    }
    script.run = lambda number: next(runs[number])  # type: ignore[method-assign]
    answers = _held(_contest(3), script)
    assert [a for a in answers if isinstance(a, Fault)] == [Fault(1, "an index was out of range")]
    assert set(_samples(answers)) == {0, 2}


def test_c35_wrong_and_failing_candidates_are_not_raced() -> None:
    answers = _held(_contest(4), Script([[1.0]] * 4, [5, "cannot be loaded", 6, 5]))
    faults = {a.number: a.reason for a in answers if isinstance(a, Fault)}
    assert faults[1] == "cannot be loaded"
    assert faults[2].startswith("wrong result: 4 of 4")
    assert set(_samples(answers)) == {0, 3}


class _Gpu:
    """The driver's part of `_C`, in numpy: one memory, launches that are Python functions."""

    def __init__(self) -> None:
        self.memory = np.zeros(1 << 16, np.uint8)
        self.top = 256
        self.launches: list[tuple[object, ...]] = []
        self.timed: list[Sequence[object]] = []

    def context(self, ordinal: int) -> _Gpu:
        assert ordinal == 0
        return self

    def allocate(self, nbytes: int) -> int:
        address, self.top = self.top, self.top + -(-nbytes // 256) * 256
        return address

    def upload(self, address: int, data: memoryview) -> None:
        self.memory[address : address + data.nbytes] = np.frombuffer(data, np.uint8)

    def download(self, address: int, data: memoryview) -> None:
        np.frombuffer(data, np.uint8)[:] = self.memory[address : address + data.nbytes]

    def fill(self, address: int, value: int, nbytes: int) -> None:
        self.memory[address : address + nbytes] = value

    def copy(self, destination: int, source: int, nbytes: int) -> None:
        self.memory[destination : destination + nbytes] = self.memory[source : source + nbytes]

    def repeat(self, address: int, period: int, nbytes: int) -> None:
        self.memory[address : address + nbytes] = np.resize(self.memory[address : address + period], nbytes)

    def compare(self, address: int, expected: _C.Reference) -> tuple[int, int]:
        return expected.compare(self.memory[address : address + 16].data)

    def load(self, cubin: bytes, entry: str, shared_bytes: int) -> SimpleNamespace:
        if cubin == b"damaged":
            raise ValueError("invalid image")
        assert (entry, shared_bytes) == ("entry", 64)
        return SimpleNamespace(launch=lambda *launch: launch)

    def run(self, run: Sequence[tuple[object, ...]]) -> None:
        for step in run:
            if isinstance(step[0], int):
                self.fill(*step)  # type: ignore[arg-type]
            else:
                self.launches.append(step)
                self._kernel(step[3])  # type: ignore[arg-type]

    def _kernel(self, args: Sequence[tuple[str, int]]) -> None:
        """Do out[i] = in[i] + count + scratch[0], in place where they are one; scratch[0] becomes 1."""
        (_, source), (_, target), (_, scratch), (_, count) = args[:4]
        x = self.memory[source : source + 16].view(np.float32) + count + self.memory[scratch]
        self.memory[target : target + 16] = x.astype(np.float32).view(np.uint8)
        self.memory[scratch] = 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> _Gpu:
    device = _Gpu()

    def replay(_: _Gpu, runs: Sequence[object], unroll: int) -> Sequence[object]:
        assert 1 <= len(runs) <= unroll <= 64
        device.timed.append(runs)
        return runs

    def time_cuda(_: _Gpu, replays: Sequence[object], rounds: int, __: object) -> list[list[float]]:
        return [[1.0] * rounds for _ in replays]

    binding = SimpleNamespace(CudaContext=device.context, CudaReplay=replay, time_cuda=time_cuda)
    monkeypatch.setattr(cuda_bench, "_C", binding)
    return device


def _cuda_contest(target: int, *candidates: tuple[bytes, int, bool]) -> Contest:
    """Return a contest of (image, count, zero the workspace) whose kernel writes memory `target`."""
    memories = (
        Memory(DType.FLOAT32, 4, Fill.NORMAL, written=target == 0),
        Memory(DType.FLOAT32, 4, Fill.POISON, written=target == 1),
    )
    calls = [
        Call(
            "entry",
            image,
            (MemoryArgument(0), MemoryArgument(target), ScratchArgument(0), NumberArgument(count, "i32")),
            grid=(2, 1, 1),
            threads=128,
            shared_bytes=64,
            global_scratch_bytes=32,
        )
        for image, count, _ in candidates
    ]
    made = tuple(Candidate((call,), 16, zero) for call, (_, _, zero) in zip(calls, candidates, strict=True))
    return Contest("cuda", memories, made, Limits(1.0, 4, 100.0))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("target", [0, 1], ids=["in place", "out of place"])
def test_cuda_candidates_start_from_fresh_memories(target: int) -> None:
    contest = _cuda_contest(
        target, (b"", 1, True), (b"", 1, True), (b"", 2, True), (b"", 1, False), (b"damaged", 1, True)
    )
    answers: list[Answer] = []
    hold(contest, CudaBench(contest), answers.append)
    faults = {a.number: a.reason for a in answers if isinstance(a, Fault)}
    assert set(faults) == {2, 3, 4}
    assert faults[4] == "cannot be loaded: invalid image"
    assert set(_samples(answers)) == {0, 1}


def test_cuda_launches_end_in_tritons_scratch_pointers(gpu: _Gpu) -> None:
    contest = _cuda_contest(1, (b"", 1, True), (b"", 1, True))
    hold(contest, CudaBench(contest), lambda _: None)
    assert gpu.launches[0][:3] == ((2, 1, 1), 128, 64)
    scratch, profile = list(gpu.launches[0][3])[-2:]  # type: ignore[call-overload]
    assert scratch[0] == "ptr"
    assert scratch[1] > 0
    assert profile == ("ptr", 0)


def test_c14_every_timed_run_zeroes_its_workspace(gpu: _Gpu) -> None:
    contest = _cuda_contest(1, (b"", 1, True), (b"", 1, True))
    cold = tuple(dataclasses.replace(memory, cold=True) for memory in contest.memories)
    rotated = dataclasses.replace(contest, memories=cold, cache_bytes=64)
    for each in (contest, rotated):
        hold(each, CudaBench(each), lambda _: None)
    assert [len(runs) for runs in gpu.timed] == [1, 1, 4, 4]
    for run in (run for runs in gpu.timed for run in runs):
        address, value, nbytes = run[0]  # type: ignore[index]
        assert (value, nbytes) == (0, 16)
        assert list(run[1][3])[2] == ("ptr", address)  # type: ignore[index]


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        ("CUDA_ERROR_OUT_OF_MEMORY (2)", MemoryError, "the device does not give 16 bytes"),
        ("CUDA_ERROR_ILLEGAL_ADDRESS (700)", DriverError, "ILLEGAL_ADDRESS"),
    ],
    ids=["memory is short", "another"],
)
def test_of_the_drivers_failures_a_lack_of_memory_is_one(
    gpu: _Gpu, monkeypatch: pytest.MonkeyPatch, failure: str, error: type[Exception], said: str
) -> None:
    def failed(nbytes: int) -> int:
        raise DriverError(f"cuMemAlloc failed with {failure}: {nbytes}")

    monkeypatch.setattr(gpu, "allocate", failed)
    with pytest.raises(error, match=said):
        CudaBench(_cuda_contest(1, (b"", 1, False)))
