"""Runs and times CUDA candidates through the driver, without torch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import numpy as np

from mkwrap import _C
from mkwrap.errors import DriverError
from mkwrap.tune.contest import (
    OUT_OF_RANGE,
    POISON,
    Call,
    Candidate,
    Contest,
    FaultArgument,
    Fill,
    Memory,
    MemoryArgument,
    NumberArgument,
    ScratchArgument,
)
from mkwrap.tune.rotation import copies
from mkwrap.tune.values import Bytes, Standard, judged, pattern

# A graph replay holds as many runs as fill a batch, so that the events around it are exact enough, up to this many.
_MOST_RUNS = 64
_FAULT_BYTES = 4
# How the driver calls it in the message of its error.
_SHORT = "CUDA_ERROR_OUT_OF_MEMORY"


class CudaBench:
    """The contest's memories and candidates on the present device.

    Candidates share the memories. Those that are warm in a model stay as warm as the L2 cache keeps them; the others are
    rotated over copies while timing.
    """

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._context = _C.CudaContext(0)
        self._addresses = [self._filled(place) for place in range(len(contest.memories))]
        # Where a memory's start is kept that runs change.
        self._kept = {
            place: self._filled(place)
            for place, memory in enumerate(contest.memories)
            if memory.changed and memory.nbytes
        }
        self._scratch_bytes = max(candidate.workspace_bytes for candidate in contest.candidates)
        self._scratch = self._allocate(self._scratch_bytes)
        self._functions: dict[Call, tuple[_C.CudaFunction, int]] = {}
        self._fault = self._allocate(_FAULT_BYTES)
        self._runs: dict[int, _C.CudaRun] = {}
        self._rotated: list[list[int]] = []
        self._replays: dict[int, _C.CudaReplay] = {}
        self._seconds: dict[int, float] = {}

    def run(self, number: int) -> float | str:
        """Run a candidate on fresh memories, in the end once; returns the seconds of a run, or what went wrong."""
        self._refresh()
        try:
            if number not in self._runs:
                self._runs[number] = self._run(self._contest.candidates[number], self._addresses)
            run = self._runs[number]
        except Exception as error:
            return f"cannot be loaded: {error}"
        self._context.fill(self._fault, 0, _FAULT_BYTES)
        # A fault poisons the context: the error ends this process, whose parent knows which candidate ran.
        self._context.run(run)
        if self._faulted():
            return OUT_OF_RANGE
        begin = time.perf_counter()
        self._context.run(run)
        self._seconds[number] = time.perf_counter() - begin
        self._refresh()
        self._context.run(run)
        return self._seconds[number]

    def results(self) -> list[Bytes]:
        """Return copies of the written memories, in order."""
        results = []
        for memory, address in self._written():
            data = np.empty(memory.nbytes, np.uint8)
            self._context.download(address, data.data)
            results.append(data)
        return results

    def compare(self, standards: Sequence[Standard]) -> str:
        """Say how the written memories differ from their standards, in order; "" where they agree."""
        for judge, (memory, address) in zip(standards, self._written(), strict=True):
            wrong, first = self._context.compare(address, judge.reference)
            if not wrong:
                continue
            got = np.empty(memory.dtype.itemsize, np.uint8)
            self._context.download(address + first * got.size, got.data)
            if complaint := judged(judge, wrong, first, got):
                return complaint
        return ""

    def sample(self, numbers: Sequence[int], rounds: int) -> list[list[float]]:
        """Time candidates in interleaved rounds; microseconds per run, per candidate and round."""
        replays = [self._replay(number) for number in numbers]
        restore = [
            (self._addresses[place], source, self._contest.memories[place].nbytes)
            for place, source in self._kept.items()
        ]
        return _C.time_cuda(self._context, replays, rounds, restore)

    def _replay(self, number: int) -> _C.CudaReplay:
        """Return the graph of a candidate's runs over the copies that timing rotates over."""
        fastest = min(self._seconds.values())
        unroll = max(1, min(_MOST_RUNS, int(self._contest.limits.batch_us * 1e-6 / max(fastest, 1e-7))))
        memories = self._contest.memories
        if not self._rotated:
            count = copies(memories, self._contest.cache_bytes, unroll)
            self._rotated = [self._addresses]
            # Where memory is short fewer copies must do.
            with contextlib.suppress(MemoryError):
                self._rotated.extend(self._copy() for _ in range(count - 1))
        if number not in self._replays:
            candidate = self._contest.candidates[number]
            runs = [self._run(candidate, addresses) for addresses in self._rotated]
            self._replays[number] = _C.CudaReplay(self._context, runs, unroll)
        return self._replays[number]

    def _refresh(self) -> None:
        for place, memory in enumerate(self._contest.memories):
            if memory.fill is Fill.POISON and memory.nbytes:
                self._context.fill(self._addresses[place], POISON, memory.nbytes)
        for place, source in self._kept.items():
            self._context.copy(self._addresses[place], source, self._contest.memories[place].nbytes)
        if self._scratch_bytes:
            self._context.fill(self._scratch, POISON, self._scratch_bytes)

    def _copy(self) -> list[int]:
        """Return addresses of the memories, of which those of rotated ones are new."""
        memories = self._contest.memories
        return [self._filled(k) if memories[k].rotated else address for k, address in enumerate(self._addresses)]

    def _filled(self, place: int) -> int:
        """Return the address of new memory with a memory's start."""
        memory = self._contest.memories[place]
        address = self._allocate(memory.nbytes)
        if memory.fill is Fill.POISON:
            self._context.fill(address, POISON, memory.nbytes)
        elif memory.nbytes:
            start = pattern(memory, place)
            self._context.upload(address, start.data)
            self._context.repeat(address, start.nbytes, memory.nbytes)
        return address

    def _written(self) -> list[tuple[Memory, int]]:
        pairs = zip(self._contest.memories, self._addresses, strict=True)
        return [(memory, address) for memory, address in pairs if memory.written]

    def _faulted(self) -> bool:
        """Whether a kernel has met an index out of range."""
        word = np.zeros(_FAULT_BYTES, np.uint8)
        self._context.download(self._fault, word.data)
        return bool(word.any())

    def _allocate(self, nbytes: int) -> int:
        try:
            return self._context.allocate(max(nbytes, 1))
        except DriverError as error:
            if _SHORT not in str(error):
                raise
            raise MemoryError(f"the device does not give {nbytes} bytes") from error

    def _run(self, candidate: Candidate, addresses: Sequence[int]) -> _C.CudaRun:
        launches: list[_C.CudaLaunch | _C.CudaFill] = [self._launch(call, addresses) for call in candidate.calls]
        # The memset that a library does before the kernel, timed with it.
        zero = [(self._scratch, 0, candidate.workspace_bytes)] if candidate.zero_workspace else []
        return [*zero, *launches]

    def _launch(self, call: Call, addresses: Sequence[int]) -> _C.CudaLaunch:
        args: list[_C.CudaArgument] = []
        for argument in call.args:
            match argument:
                case MemoryArgument(memory=memory):
                    args.append(("ptr", addresses[memory]))
                case ScratchArgument(offset=offset):
                    args.append(("ptr", self._scratch + offset))
                case NumberArgument(value=value, type=kind):
                    args.append((kind, value))
                case FaultArgument():
                    args.append(("ptr", self._fault))
        function, scratch = self._function(call)
        args += [("ptr", scratch), ("ptr", 0)]
        return function.launch(call.grid, call.threads, call.shared_bytes, args)

    def _function(self, call: Call) -> tuple[_C.CudaFunction, int]:
        """Return a call's loaded function and the address of the memory that Triton's kernels share."""
        if call not in self._functions:
            assert isinstance(call.image, bytes)
            blocks = call.grid[0] * call.grid[1] * call.grid[2]
            scratch = self._allocate(call.global_scratch_bytes * blocks) if call.global_scratch_bytes else 0
            self._functions[call] = (self._context.load(call.image, call.entry, call.shared_bytes), scratch)
        return self._functions[call]
