"""The bytes of a contest's memories, and whether two results agree. Needs numpy alone; runs on both sides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mkwrap.ir.dtypes import DType
from mkwrap.tune.contest import POISON, Fill, Memory

Bytes = npt.NDArray[np.uint8]

# Random numbers cost 10 ns each; past this many they repeat, which no kernel's speed depends on.
_DISTINCT = 1 << 20

# Largest difference of right variants, relative to the larger of the element and the root mean square of the result:
# some units in the last place of the coarsest type passed, and for sums in another order some more.
_TOLERANCE = {DType.FLOAT64: 1e-10, DType.FLOAT32: 1e-4, DType.FLOAT16: 4e-3, DType.BFLOAT16: 3e-2}
_JUMPING_FRACTION = 0.005


def make(memory: Memory, number: int) -> Bytes:
    """Return the bytes a memory starts with; equal memory and number (its place in the contest) give equal bytes."""
    if memory.fill is Fill.GIVEN:
        return np.frombuffer(memory.given, np.uint8)
    if memory.fill is Fill.POISON:
        return np.full(memory.nbytes, POISON, np.uint8)
    generator = np.random.Generator(np.random.PCG64(number))
    count = min(memory.elements, _DISTINCT)
    if memory.fill is Fill.NORMAL:
        values = _from_float(generator.standard_normal(count, np.float32), memory.dtype)
    elif memory.dtype is DType.BOOL:
        values = generator.integers(0, 2, count, np.uint8)
    else:
        values = generator.integers(memory.low, memory.high, count, np.int64).astype(memory.dtype.value)
    return np.resize(values, memory.elements).view(np.uint8) if count else np.empty(0, np.uint8)


def _from_float(values: npt.NDArray[np.float32], dtype: DType) -> npt.NDArray[np.generic]:
    if dtype is DType.BFLOAT16:
        return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return values.astype(dtype.value)


def _to_float(data: Bytes, dtype: DType) -> npt.NDArray[np.float64]:
    if dtype is DType.BFLOAT16:
        bits = data.view(np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).astype(np.float64)
    return np.asarray(data.view(dtype.value), np.float64)


def disagreement(memory: Memory, got: Bytes, expected: Bytes) -> str:
    """Say how a written memory differs from what is right beyond its accuracy; "" where it does not.

    Bytes between strided elements count, too: no variant may touch them.
    """
    if np.array_equal(got, expected):
        return ""
    if memory.dtype.is_float:
        x, y = _to_float(got, memory.dtype), _to_float(expected, memory.dtype)
        right = _close(memory, x, y)
    else:
        storage = np.uint8 if memory.dtype is DType.BOOL else memory.dtype.value
        x, y = got.view(storage), expected.view(storage)
        right = x == y
    wrong = np.flatnonzero(~right)
    allowed = _JUMPING_FRACTION * right.size if memory.accuracy is not None and memory.accuracy.jumps else 0
    if wrong.size <= allowed:
        return ""
    first = int(wrong[0])
    return f"wrong result: {wrong.size} of {right.size} elements, first at {first}: {x[first]:g}, expected {y[first]:g}"


def _close(memory: Memory, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    relative = 0.0
    if memory.accuracy is not None:
        relative = _TOLERANCE[memory.accuracy.precision] * memory.accuracy.slack
    finite = np.isfinite(y)
    with np.errstate(all="ignore"):
        scale = float(np.sqrt(np.mean(np.square(y[finite])))) if finite.any() else 0.0
        near = finite & (np.abs(x - y) <= relative * np.maximum(np.abs(y), scale))
        return np.asarray(near | (x == y) | (np.isnan(x) & np.isnan(y)))
