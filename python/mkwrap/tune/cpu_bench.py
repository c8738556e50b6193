"""Runs and times CPU candidates in this process, over memory with guards around it."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import mmap
import os
import time
from collections.abc import Sequence

import numpy as np

from mkwrap import _C
from mkwrap.tune.contest import (
    OUT_OF_RANGE,
    POISON,
    Call,
    Candidate,
    Contest,
    MemoryArgument,
    NumberArgument,
    ScratchArgument,
)
from mkwrap.tune.rotation import copies
from mkwrap.tune.values import Bytes, Standard, differences, make, pattern, spread

_GUARD_BYTES = 4096
_GUARD = 0xC3
_STAGGER = 17 * 64
_LIBC = ctypes.CDLL(None, use_errno=True)
_PROT_READ = 1
_TRIALS = 2
_GIB = 1 << 30


class Block:
    """Memory aligned to 64 bytes between two guards that no kernel may write; `MemoryError` where the system has none.

    Blocks start at different places in their pages, as buffers in a model do: were they equal, loads and stores
    would collide.
    """

    def __init__(self, nbytes: int, number: int = 0) -> None:
        start = _GUARD_BYTES + number * _STAGGER % mmap.PAGESIZE
        pages = -(-(start + nbytes + _GUARD_BYTES) // mmap.PAGESIZE)
        try:
            whole = mmap.mmap(-1, pages * mmap.PAGESIZE)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"the system does not give {nbytes} bytes") from error
        self._whole = np.frombuffer(whole, np.uint8)
        self._before, self.data, self._after = np.split(self._whole, (start, start + nbytes))
        self.guard()
        self.address = self._whole.ctypes.data + start

    def guard(self) -> None:
        """Write the guards."""
        self._before[:] = _GUARD
        self._after[:] = _GUARD

    def intact(self) -> bool:
        """Whether the guards are unharmed."""
        return bool((self._before == _GUARD).all() and (self._after == _GUARD).all())

    def protect(self) -> None:
        """Make the block read-only: a candidate that writes an input dies of it, and harms no other's race."""
        if _LIBC.mprotect(ctypes.c_void_p(self._whole.ctypes.data), ctypes.c_size_t(self._whole.nbytes), _PROT_READ):
            raise OSError(ctypes.get_errno(), "mprotect")


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class CpuBench:
    """The contest's memories and candidates on the CPU.

    Candidates share the memories. Those that are warm in a model stay as warm as the cache keeps them; the others are
    rotated over copies while timing.
    """

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._numbers = itertools.count()
        workspace = max(candidate.workspace_bytes for candidate in contest.candidates)
        needed, there = workspace + sum(memory.nbytes for memory in contest.memories), _machine_bytes()
        if needed > there:
            # A system that promises more than it has ends processes when it is asked to keep its word.
            raise MemoryError(
                f"the buffers hold {needed / _GIB:.1f} GiB, all of this machine's memory {there / _GIB:.1f}"
            )
        self._starts = [pattern(memory, number) for number, memory in enumerate(contest.memories)]
        self._blocks = [self._block(place) for place in range(len(contest.memories))]
        self._scratch = Block(workspace, next(self._numbers))
        self._kernels: dict[int, _C.CpuKernel] = {}
        self._rotated: list[list[Block]] = []
        self._racers: dict[int, _C.CpuKernel] = {}
        self._calls: dict[int, int] = {}
        self._seconds: dict[int, float] = {}

    def run(self, number: int) -> float | str:
        """Run a candidate once on fresh memories; returns its seconds, or what went wrong."""
        for memory, block, start in zip(self._contest.memories, self._blocks, self._starts, strict=True):
            if memory.written:
                spread(start, block.data)
        # Workspace contents are undefined unless zeroed: poison shows a kernel that trusts them.
        self._scratch.data[:] = POISON
        try:
            if number not in self._kernels:
                self._kernels[number] = self._load(self._contest.candidates[number], [self._blocks])
            kernel = self._kernels[number]
        except Exception as error:
            return f"cannot be loaded: {error}"
        begin = time.perf_counter()
        status = kernel.run()
        self._seconds[number] = time.perf_counter() - begin
        if status != 0:
            return OUT_OF_RANGE
        # Read-only blocks have no guards to harm.
        harmed = [block for block in (*self._written(self._blocks), self._scratch) if not block.intact()]
        for block in harmed:
            block.guard()
        return "wrote outside its buffers" if harmed else self._seconds[number]

    def results(self) -> list[Bytes]:
        """Return copies of the written memories, in order."""
        return [block.data.copy() for block in self._written(self._blocks)]

    def compare(self, standards: Sequence[Standard]) -> str:
        """Say how the written memories differ from their standards, in order; "" where they agree."""
        return differences(standards, [block.data for block in self._written(self._blocks)])

    def sample(self, numbers: Sequence[int], rounds: int) -> list[list[float]]:
        """Time candidates in interleaved rounds; microseconds per call, per candidate and round."""
        kernels = [self._racer(number) for number in numbers]
        for number, kernel in zip(numbers, kernels, strict=True):
            if number not in self._calls:
                self._calls[number] = self._batch(kernel)
        calls = [self._calls[number] for number in numbers]
        return _C.time_cpu(kernels, rounds, calls=calls, restore=self._restore())

    def _batch(self, kernel: _C.CpuKernel) -> int:
        """Return how many calls fill a batch, from the time of ever more of them."""
        calls, wanted = 1, self._contest.limits.batch_us
        while True:
            elapsed = min(_C.time_cpu([kernel], _TRIALS, calls=[calls])[0]) * calls
            if elapsed >= wanted / 4 or calls >= 1 << 20:
                return max(1, round(calls * wanted / max(elapsed, 1e-3)))
            calls *= 2

    def _restore(self) -> list[tuple[int, int, int]]:
        """Return what is copied before a batch: the start of memories that runs change."""
        changed = [place for place, memory in enumerate(self._contest.memories) if memory.changed and memory.nbytes]
        for place in changed:
            if self._starts[place].size < self._contest.memories[place].nbytes:
                self._starts[place] = make(self._contest.memories[place], place)
        return [
            (self._blocks[place].address, self._starts[place].ctypes.data, self._starts[place].nbytes)
            for place in changed
        ]

    def _racer(self, number: int) -> _C.CpuKernel:
        """Return a candidate bound to the blocks that timing rotates over."""
        if not self._rotated:
            fastest_us = 1e6 * min(self._seconds.values())
            most = round(self._contest.limits.batch_us / max(fastest_us, 1.0))
            count = copies(self._contest.memories, self._contest.cache_bytes, most)
            self._rotated = [self._blocks]
            # Where memory is short fewer copies must do.
            with contextlib.suppress(MemoryError):
                self._rotated.extend(self._copy() for _ in range(count - 1))
        if number not in self._racers:
            self._racers[number] = self._load(self._contest.candidates[number], self._rotated)
        return self._racers[number]

    def _copy(self) -> list[Block]:
        """Return blocks of which those of rotated memories are new."""
        memories = self._contest.memories
        return [self._block(k) if memories[k].rotated else block for k, block in enumerate(self._blocks)]

    def _block(self, place: int) -> Block:
        """Return a new block of a memory, filled; read-only where kernels only read."""
        memory = self._contest.memories[place]
        block = Block(memory.nbytes, next(self._numbers))
        spread(self._starts[place], block.data)
        if not memory.written:
            block.protect()
        return block

    def _written(self, blocks: Sequence[Block]) -> list[Block]:
        return [block for block, memory in zip(blocks, self._contest.memories, strict=True) if memory.written]

    def _load(self, candidate: Candidate, rotated: Sequence[Sequence[Block]]) -> _C.CpuKernel:
        (call,) = candidate.calls
        assert isinstance(call.image, str)
        sizes = [argument.value for argument in call.args if isinstance(argument, NumberArgument)]
        zero = [(self._scratch.address, candidate.workspace_bytes)] if candidate.zero_workspace else []
        lists = [self._addresses(call, blocks) for blocks in rotated]
        return _C.CpuKernel(call.image, call.entry, lists, sizes, zero, call.offset)

    def _addresses(self, call: Call, blocks: Sequence[Block]) -> list[int]:
        addresses = []
        for argument in call.args:
            match argument:
                case MemoryArgument(memory=memory):
                    addresses.append(blocks[memory].address)
                case ScratchArgument(offset=offset):
                    addresses.append(self._scratch.address + offset)
                case NumberArgument():
                    continue
        return addresses
