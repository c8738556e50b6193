"""The right results of small kernels, from the interpreter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mkwrap.errors import IndexRangeError
from mkwrap.ir.interpret import interpret_nest
from mkwrap.stages import Kernel
from mkwrap.tune.arrays import strided
from mkwrap.tune.contest import Memory
from mkwrap.tune.values import make

# Points of the iteration space up to which the interpreter, which holds each value at all points, takes milliseconds.
_MOST_POINTS = 1 << 16
_MOST_BYTES = 1 << 24


def expected_results(kernel: Kernel, memories: Sequence[Memory]) -> tuple[bytes, ...] | None:
    """Return the bytes of each written memory after a run of the interpreter; None for a kernel too large for it.

    None also where the contest's integers are out of range for the kernel.
    """
    nest = kernel.nest
    axes = (*nest.axes, *nest.reduction_axes)
    points = math.prod(int(axis.extent) for axis in axes)
    own = memories[: len(kernel.parameters)]
    if points > _MOST_POINTS or sum(memory.nbytes for memory in own) > _MOST_BYTES:
        return None
    flat = [make(memory, place).copy() for place, memory in enumerate(own)]
    pairs = zip(kernel.parameters, flat, strict=True)
    arrays = {parameter.buffer.name: strided(parameter.buffer, data) for parameter, data in pairs}
    try:
        interpret_nest(nest, arrays)
    except IndexRangeError:
        return None
    return tuple(data.tobytes() for data, memory in zip(flat, own, strict=True) if memory.written)
