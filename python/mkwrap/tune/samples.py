"""The integers and bools that a kernel finds in the example call: those of inputs are read, those of temporaries computed.

A gather's speed depends on its indices, a masked kernel's on its mask: they are measured on values that occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mkwrap.errors import IndexRangeError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.nodes import Buffer, Nest
from mkwrap.stages import Access, Schedule
from mkwrap.tune.arrays import storage_elements, strided
from mkwrap.tune.values import Bytes

# Points of the iteration spaces behind one kernel's integers that the interpreter runs, some tens of milliseconds' work.
_MOST_POINTS = 1 << 20
# Of what is longer, the beginning is enough.
_MOST_BYTES = 1 << 24

Read: TypeAlias = Callable[[str], npt.NDArray[np.generic] | None]
"""From an input's name to its example's elements, bfloat16 as uint16 bits; None where they are not known."""


def unknown(name: str) -> None:
    """Know no example."""
    del name


class Samples:
    """The example call's values. Reads examples when asked, and keeps what it computed."""

    def __init__(self, schedule: Schedule, read: Read) -> None:
        self._schedule = schedule
        self._read = read
        self._starts: dict[str, Bytes | None] = {}
        self._computed: dict[tuple[str, int], Bytes] = {}

    def value(self, buffer: str, step: int) -> bytes | None:
        """Return what a buffer holds before a step: its first bytes, at most 16 MiB of whole elements.

        None where nobody knows: no example is at hand, or what leads to it is too much work for the interpreter.
        """
        writers = self._ancestors(buffer, step)
        if writers is None:
            return None
        try:
            for writer in sorted(writers):
                self._run(writer)
            data = self._before(buffer, step)
        except IndexRangeError:
            return None
        size = self._buffer(buffer).dtype.itemsize
        return None if data is None else data[: _MOST_BYTES // size * size].tobytes()

    def _ancestors(self, buffer: str, step: int) -> set[int] | None:
        """Return the steps that a buffer's value before a step comes from; None for too many points or unknown inputs."""
        pending, found, points = [(buffer, step)], set[int](), 0.0
        while pending:
            name, before = pending.pop()
            writer = self._writer(name, before)
            if writer is None:
                if self._start(name) is None:
                    return None
                continue
            if writer in found:
                continue
            found.add(writer)
            use = self._schedule.steps[writer]
            kernel = self._schedule.kernels[use.kernel]
            points += _points(kernel.nest)
            if points > _MOST_POINTS:
                return None
            accesses = zip(kernel.parameters, use.buffers, strict=True)
            pending.extend((bound, writer) for parameter, bound in accesses if parameter.access is not Access.WRITE)
        return found

    def _writer(self, buffer: str, before: int) -> int | None:
        """Return the last step before `before` that writes a buffer."""
        for number in range(before - 1, -1, -1):
            use = self._schedule.steps[number]
            parameters = self._schedule.kernels[use.kernel].parameters
            if any(b == buffer and p.access is not Access.READ for p, b in zip(parameters, use.buffers, strict=True)):
                return number
        return None

    def _before(self, buffer: str, step: int) -> Bytes | None:
        writer = self._writer(buffer, step)
        if writer is not None:
            return self._computed[buffer, writer]
        return self._start(buffer)

    def _start(self, buffer: str) -> Bytes | None:
        """Return what a buffer holds before a call."""
        constant = self._schedule.program.constants.get(buffer)
        if constant is not None:
            return constant.data
        if buffer not in self._starts:
            elements = self._read(buffer)
            self._starts[buffer] = None if elements is None else _bytes_of(self._buffer(buffer), elements)
        return self._starts[buffer]

    def _run(self, number: int) -> None:
        """Interpret a step whose ancestors have run."""
        use = self._schedule.steps[number]
        kernel = self._schedule.kernels[use.kernel]
        results: dict[str, Bytes] = {}
        arrays = {}
        for parameter, bound in zip(kernel.parameters, use.buffers, strict=True):
            buffer = parameter.buffer
            start = None if parameter.access is Access.WRITE else self._before(bound, number)
            data = (
                np.zeros(storage_elements(buffer) * buffer.dtype.itemsize, np.uint8) if start is None else start.copy()
            )
            if parameter.access is not Access.READ:
                results[bound] = data
            arrays[buffer.name] = strided(buffer, data)
        if any((bound, number) not in self._computed for bound in results):
            interpret_nest(kernel.nest, arrays)
            self._computed |= {(bound, number): data for bound, data in results.items()}

    def _buffer(self, name: str) -> Buffer:
        return self._schedule.program.buffers[name]


def _points(nest: Nest) -> float:
    extents = [axis.extent for axis in (*nest.axes, *nest.reduction_axes)]
    return math.prod(int(extent) for extent in extents) if all(extent.is_Integer for extent in extents) else math.inf


def _bytes_of(buffer: Buffer, elements: npt.NDArray[np.generic]) -> Bytes:
    """Copy elements, in the buffer's strides; bytes between them are 0."""
    data = np.zeros(storage_elements(buffer) * buffer.dtype.itemsize, np.uint8)
    strided(buffer, data)[...] = elements
    return data


def in_range(data: bytes, dtype: DType, limit: int) -> bool:
    """Whether all integers are indices of so many elements; negative ones count from the end."""
    values = np.frombuffer(data, dtype.value)
    return not values.size or (int(values.min()) >= -limit and int(values.max()) < limit)
