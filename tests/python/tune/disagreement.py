"""The definition of right results that `_C.Reference`, which takes one pass on several threads, is held to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mkwrap.tune.contest import Memory
from mkwrap.tune.values import Bytes, allowed, numbers, relative


def disagreement(memory: Memory, got: Bytes, expected: Bytes) -> str:
    """Say how a written memory differs from what is right beyond its accuracy; "" where it does not.

    Bytes between strided elements count, too: no variant may touch them.
    """
    if np.array_equal(got, expected):
        return ""
    x, y = numbers(got, memory.dtype), numbers(expected, memory.dtype)
    right = close(memory, x, y) if memory.dtype.is_float else x == y
    wrong = np.flatnonzero(~right)
    if wrong.size <= allowed(memory, right.size):
        return ""
    first = int(wrong[0])
    return f"wrong result: {wrong.size} of {right.size} elements, first at {first}: {x[first]:g}, expected {y[first]:g}"


def close(memory: Memory, a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return which floats are near enough to the right ones; NaN is right where NaN is."""
    with np.errstate(all="ignore"):
        x, y = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(y)
        scale = float(np.sqrt(np.mean(np.square(y[finite])))) if finite.any() else 0.0
        near = finite & (np.abs(x - y) <= relative(memory) * np.maximum(np.abs(y), scale))
        return np.asarray(near | (x == y) | (np.isnan(x) & np.isnan(y)))
