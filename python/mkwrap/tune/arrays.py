"""Sizes of static buffers, and a buffer's flat bytes as the array that the interpreter reads and writes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mkwrap.errors import DynamicShapeError
from mkwrap.ir.nodes import Buffer, Expr
from mkwrap.ir.numeric import storage_type
from mkwrap.tune.values import Bytes


def number(expr: Expr | int, what: str) -> int:
    """Return a static expression's value; raises `DynamicShapeError` where it depends on a symbol."""
    if isinstance(expr, int):
        return expr
    if not expr.is_Integer:
        raise DynamicShapeError(f"{what} is {expr}: kernels of dynamic sizes are not measured")
    return int(expr)


def storage_elements(buffer: Buffer) -> int:
    """Return how many elements a static buffer's memory has; 0 where a dimension is empty."""
    if any(extent == 0 for extent in buffer.shape):
        return 0
    return number(buffer.storage_elements, f"the size of {buffer.name}")


def strided(buffer: Buffer, data: Bytes) -> npt.NDArray[np.generic]:
    """Return a view of a static buffer's bytes in its shape and strides; bfloat16 as uint16 bits."""
    elements = data.view(storage_type(buffer.dtype))
    shape = [int(extent) for extent in buffer.shape]
    if not elements.size:
        return elements.reshape(shape)
    strides = [int(stride) * buffer.dtype.itemsize for stride in buffer.strides]
    return np.lib.stride_tricks.as_strided(elements, shape, strides)
