"""Runs and times CUDA candidates through the driver, without torch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from mkwrap import _C
from mkwrap.tune.contest import (
    POISON,
    Call,
    Candidate,
    Contest,
    Fill,
    MemoryArgument,
    NumberArgument,
    ScratchArgument,
)
from mkwrap.tune.values import Bytes, make

# A graph replay holds as many runs as fill a batch, so that the events around it are exact enough, up to this many.
_MOST_RUNS = 50


class CudaBench:
    """The contest's memories and candidates on the present device.

    Candidates share the memories and nothing is flushed between runs: in a model a kernel's inputs were written by
    the kernel before, so small ones are in the L2 cache and large ones are not.
    """

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._context = _C.CudaContext(0)
        self._addresses = [self._allocate(memory.nbytes) for memory in contest.memories]
        self._restore: list[tuple[int, int, int]] = []
        self._poisoned: list[tuple[int, int]] = []
        for number, (memory, address) in enumerate(zip(contest.memories, self._addresses, strict=True)):
            if not memory.nbytes:
                continue
            if memory.fill is Fill.POISON:
                self._poisoned.append((address, memory.nbytes))
                continue
            start = make(memory, number)
            self._context.upload(address, start.data)
            if memory.changed:
                copy = self._allocate(memory.nbytes)
                self._context.upload(copy, start.data)
                self._restore.append((address, copy, memory.nbytes))
        self._scratch_bytes = max(candidate.workspace_bytes for candidate in contest.candidates)
        self._scratch = self._allocate(self._scratch_bytes)
        self._runs: dict[int, _C.CudaRun] = {}
        self._seconds: dict[int, float] = {}

    def run(self, number: int) -> str:
        """Run a candidate once on fresh memories; returns what went wrong, or ""."""
        self._refresh()
        try:
            run = self._run(number)
        except Exception as error:
            return f"cannot be loaded: {error}"
        # A fault poisons the context: the error ends this process, whose parent knows which candidate ran.
        self._context.run(run)
        begin = time.monotonic()
        self._context.run(run)
        self._seconds[number] = time.monotonic() - begin
        self._refresh()
        self._context.run(run)
        return ""

    def results(self) -> list[Bytes]:
        """Return copies of the written memories, in order."""
        results = []
        for memory, address in zip(self._contest.memories, self._addresses, strict=True):
            if memory.written:
                data = np.empty(memory.nbytes, np.uint8)
                if memory.nbytes:
                    self._context.download(address, data.data)
                results.append(data)
        return results

    def sample(self, numbers: Sequence[int], rounds: int) -> list[list[float]]:
        """Time candidates in interleaved rounds; microseconds per run, per candidate and round."""
        fastest = min(self._seconds[number] for number in self._seconds)
        unroll = int(self._contest.limits.batch_us * 1e-6 / max(fastest, 1e-7))
        candidates = [[self._run(number)] for number in numbers]
        return _C.time_cuda(
            self._context, candidates, rounds, unroll=max(1, min(unroll, _MOST_RUNS)), restore=self._restore
        )

    def _refresh(self) -> None:
        for address, nbytes in self._poisoned:
            self._context.fill(address, POISON, nbytes)
        for destination, source, nbytes in self._restore:
            self._context.copy(destination, source, nbytes)
        if self._scratch_bytes:
            self._context.fill(self._scratch, POISON, self._scratch_bytes)

    def _allocate(self, nbytes: int) -> int:
        return self._context.allocate(max(nbytes, 1))

    def _run(self, number: int) -> _C.CudaRun:
        if number not in self._runs:
            candidate = self._contest.candidates[number]
            launches: list[_C.CudaLaunch | _C.CudaFill] = [self._launch(call) for call in candidate.calls]
            self._runs[number] = [*self._zero(candidate), *launches]
        return self._runs[number]

    def _zero(self, candidate: Candidate) -> list[_C.CudaFill]:
        """Return the memset that a library does before the kernel, timed with it."""
        return [(self._scratch, 0, candidate.workspace_bytes)] if candidate.zero_workspace else []

    def _launch(self, call: Call) -> _C.CudaLaunch:
        assert isinstance(call.image, bytes)
        function = self._context.load(call.image, call.entry, call.shared_bytes)
        args: list[_C.CudaArgument] = []
        for argument in call.args:
            match argument:
                case MemoryArgument(memory=memory):
                    args.append(("ptr", self._addresses[memory]))
                case ScratchArgument(offset=offset):
                    args.append(("ptr", self._scratch + offset))
                case NumberArgument(value=value, type=kind):
                    args.append((kind, value))
        blocks = call.grid[0] * call.grid[1] * call.grid[2]
        scratch = self._allocate(call.global_scratch_bytes * blocks) if call.global_scratch_bytes else 0
        args += [("ptr", scratch), ("ptr", 0)]
        return function.launch(call.grid, call.threads, call.shared_bytes, args)
