"""The bytes of a contest's memories, and whether two results agree. Runs on both sides; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mkwrap import _C
from mkwrap.ir.dtypes import DType
from mkwrap.tune.contest import POISON, Fill, Memory

Bytes = npt.NDArray[np.uint8]

# Floats past this many repeat, which no kernel's speed depends on; integers may be indices, of which repeated ones are
# found in cache: they repeat later.
_DISTINCT_FLOATS = 1 << 20
_DISTINCT_INTEGERS = 1 << 24

# Largest difference of right variants, relative to the larger of the element and the root mean square of the result:
# some units in the last place of the coarsest type passed, and for sums in another order some more.
_TOLERANCE = {DType.FLOAT64: 1e-10, DType.FLOAT32: 1e-4, DType.FLOAT16: 4e-3, DType.BFLOAT16: 3e-2}
_JUMPING_FRACTION = 0.005


def pattern(memory: Memory, number: int) -> Bytes:
    """Return the bytes that, repeated, fill a memory at first; equal memory and number (its place) give equal bytes.

    Whole elements, at least one where the memory has one.
    """
    if memory.fill is Fill.GIVEN:
        return np.frombuffer(memory.given, np.uint8)[: memory.nbytes]
    if memory.fill is Fill.POISON:
        return np.full(min(memory.elements, 1) * memory.dtype.itemsize, POISON, np.uint8)
    most = _DISTINCT_FLOATS if memory.fill is Fill.NORMAL else _DISTINCT_INTEGERS
    data = np.empty(min(memory.elements, most) * memory.dtype.itemsize, np.uint8)
    if memory.fill is Fill.NORMAL:
        _C.fill_normal(data.data, memory.dtype.value, number)
    else:
        low, high = (0, 2) if memory.dtype is DType.BOOL else (memory.low, memory.high)
        _C.fill_uniform(data.data, memory.dtype.value, low, high, number)
    return data


def spread(start: Bytes, data: Bytes) -> None:
    """Fill data with `start`, repeated to its end."""
    filled = min(start.size, data.size)
    data[:filled] = start[:filled]
    while 0 < filled < data.size:
        part = min(filled, data.size - filled)
        data[filled : filled + part] = data[:part]
        filled += part


def make(memory: Memory, number: int) -> Bytes:
    """Return the bytes a memory starts with."""
    start = pattern(memory, number)
    if start.size == memory.nbytes:
        return start
    data = np.empty(memory.nbytes, np.uint8)
    spread(start, data)
    return data


@dataclass(frozen=True)
class Standard:
    """What a written memory must hold after a run."""

    memory: Memory
    expected: Bytes
    reference: _C.Reference
    """Compares bytes with the expected ones in one pass, those between strided elements, too: no variant may touch them."""


def standard(memory: Memory, expected: Bytes) -> Standard:
    """Make the standard of a written memory; the bytes must not change while it lives."""
    return Standard(memory, expected, _C.Reference(memory.dtype.value, expected.data, relative(memory)))


def differences(standards: Sequence[Standard], results: Sequence[Bytes]) -> str:
    """Say how the first result that is wrong differs from its standard; "" where all are right."""
    for judge, result in zip(standards, results, strict=True):
        wrong, first = judge.reference.compare(result.data)
        size = judge.memory.dtype.itemsize
        if complaint := judged(judge, wrong, first, result[first * size : (first + 1) * size]):
            return complaint
    return ""


def judged(judge: Standard, wrong: int, first: int, got: Bytes) -> str:
    """Say what is wrong with a result of which so many elements, first `first` with the bytes `got`, differ; "": nothing."""
    memory = judge.memory
    elements = judge.expected.size // memory.dtype.itemsize
    if wrong <= allowed(memory, elements):
        return ""
    x = numbers(got, memory.dtype)[0]
    y = numbers(judge.expected, memory.dtype)[first]
    return f"wrong result: {wrong} of {elements} elements, first at {first}: {x:g}, expected {y:g}"


def allowed(memory: Memory, elements: int) -> float:
    """Return how many of so many elements may differ: where values jump, a few."""
    return _JUMPING_FRACTION * elements if memory.accuracy is not None and memory.accuracy.jumps else 0


def relative(memory: Memory) -> float:
    """Return how far floats may lie from right ones, relative to the larger of the element and the root mean square of all."""
    if memory.accuracy is None:
        return 0.0
    return _TOLERANCE[memory.accuracy.precision] * memory.accuracy.slack


def numbers(data: Bytes, dtype: DType) -> npt.NDArray[np.generic]:
    """Return the numbers that bytes stand for; bfloat16 as float32."""
    if dtype is DType.BFLOAT16:
        return (data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return data.view(np.uint8 if dtype is DType.BOOL else dtype.value)
