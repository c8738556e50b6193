"""Runs and times CPU candidates in this process, over memory with guards around it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

import numpy as np

from mkwrap import _C
from mkwrap.tune.contest import (
    OUT_OF_RANGE,
    POISON,
    Candidate,
    Contest,
    Fill,
    MemoryArgument,
    NumberArgument,
    ScratchArgument,
)
from mkwrap.tune.values import Bytes, make

_GUARD_BYTES = 4096
_GUARD = 0xC3
_STAGGER = 17 * 64
_LIBC = ctypes.CDLL(None, use_errno=True)
_PROT_READ = 1
_TRIALS = 2


class Block:
    """Memory aligned to 64 bytes between two guards that no kernel may write.

    Blocks start at different places in their pages, as buffers in a model do: were they equal, loads and stores
    would collide.
    """

    def __init__(self, nbytes: int, number: int = 0) -> None:
        start = _GUARD_BYTES + number * _STAGGER % mmap.PAGESIZE
        pages = -(-(start + nbytes + _GUARD_BYTES) // mmap.PAGESIZE)
        self._whole = np.frombuffer(mmap.mmap(-1, pages * mmap.PAGESIZE), np.uint8)
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


class CpuBench:
    """The contest's memories and candidates on the CPU.

    Candidates share the memories, which stay as warm as the cache keeps them: in a model a kernel's inputs were
    written by the kernel before, so small ones are in cache and large ones are not.
    """

    def __init__(self, contest: Contest) -> None:
        self._contest = contest
        self._blocks = [Block(memory.nbytes, number) for number, memory in enumerate(contest.memories)]
        self._scratch = Block(max(candidate.workspace_bytes for candidate in contest.candidates), len(self._blocks))
        self._kernels: dict[int, _C.CpuKernel] = {}
        self._calls: dict[int, int] = {}
        self._written = [block for block, memory in zip(self._blocks, contest.memories, strict=True) if memory.written]
        self._poisoned: list[Block] = []
        self._changed: list[tuple[Block, Bytes]] = []
        for number, (memory, block) in enumerate(zip(contest.memories, self._blocks, strict=True)):
            if memory.fill is Fill.POISON:
                self._poisoned.append(block)
                continue
            start = make(memory, number)
            block.data[:] = start
            if memory.changed:
                self._changed.append((block, start))
            else:
                block.protect()

    def run(self, number: int) -> str:
        """Run a candidate once on fresh memories; returns what went wrong, or ""."""
        for block in self._poisoned:
            block.data[:] = POISON
        for block, start in self._changed:
            block.data[:] = start
        # Workspace contents are undefined unless zeroed: poison shows a kernel that trusts them.
        self._scratch.data[:] = POISON
        try:
            status = self._kernel(number).run()
        except Exception as error:
            return f"cannot be loaded: {error}"
        if status != 0:
            return OUT_OF_RANGE
        # Read-only blocks have no guards to harm.
        harmed = [block for block in (*self._written, self._scratch) if not block.intact()]
        for block in harmed:
            block.guard()
        return "wrote outside its buffers" if harmed else ""

    def results(self) -> list[Bytes]:
        """Return views of the written memories, in order."""
        return [block.data for block in self._written]

    def sample(self, numbers: Sequence[int], rounds: int) -> list[list[float]]:
        """Time candidates in interleaved rounds; microseconds per call, per candidate and round."""
        restore = [(block.address, start.ctypes.data, start.nbytes) for block, start in self._changed if start.nbytes]
        kernels = [self._kernel(number) for number in numbers]
        if not all(number in self._calls for number in numbers):
            for number, kernel in zip(numbers, kernels, strict=True):
                self._calls[number] = self._batch(kernel)
        calls = [self._calls[number] for number in numbers]
        return _C.time_cpu(kernels, rounds, calls=calls, restore=restore)

    def _batch(self, kernel: _C.CpuKernel) -> int:
        """Return how many calls fill a batch, from the time of ever more of them."""
        calls, wanted = 1, self._contest.limits.batch_us
        while True:
            elapsed = min(_C.time_cpu([kernel], _TRIALS, calls=[calls])[0]) * calls
            if elapsed >= wanted / 4 or calls >= 1 << 20:
                return max(1, round(calls * wanted / max(elapsed, 1e-3)))
            calls *= 2

    def _kernel(self, number: int) -> _C.CpuKernel:
        if number not in self._kernels:
            self._kernels[number] = self._load(self._contest.candidates[number])
        return self._kernels[number]

    def _load(self, candidate: Candidate) -> _C.CpuKernel:
        (call,) = candidate.calls
        assert isinstance(call.image, str)
        addresses: list[int] = []
        sizes: list[int] = []
        for argument in call.args:
            match argument:
                case MemoryArgument(memory=memory):
                    addresses.append(self._blocks[memory].address)
                case ScratchArgument(offset=offset):
                    addresses.append(self._scratch.address + offset)
                case NumberArgument(value=value):
                    sizes.append(value)
        zero = [(self._scratch.address, candidate.workspace_bytes)] if candidate.zero_workspace else []
        return _C.CpuKernel(call.image, call.entry, [addresses], sizes, zero)
