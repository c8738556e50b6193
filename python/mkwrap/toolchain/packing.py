"""Evaluates compile-time layouts of constants with numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import sympy

from mkwrap.errors import InternalError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import Buffer, Expr
from mkwrap.stages import Bytes, ConstantData, Packing

_Grid = npt.NDArray[np.int64]


def pack(constant: ConstantData, buffer: Buffer, packing: Packing | None) -> Bytes:
    """Return the bytes a kernel reads: `constant` in the layout `packing`, or as it is where that is None.

    The packed array is row-major; elements whose source index lies outside the source are 0. A packing that widens a
    16-bit float or narrows a float32 converts with rounding to nearest even.
    """
    if packing is None:
        return constant.data
    shape = tuple(int(extent) for extent in packing.shape)
    if len(shape) != len(packing.axes) or len(packing.index) != len(buffer.shape):
        raise InternalError(f"the packing of {constant.name} does not fit its rank")
    grids: dict[sympy.Symbol, _Grid] = {}
    for dim, symbol in enumerate(packing.axes):
        view = [1] * len(shape)
        view[dim] = shape[dim]
        grids[symbol] = np.arange(shape[dim], dtype=np.int64).reshape(view)
    inside: npt.NDArray[np.bool_] = np.ones((1,) * len(shape), dtype=bool)
    offset: _Grid = np.zeros((1,) * len(shape), dtype=np.int64)
    for expr, extent, stride in zip(packing.index, buffer.shape, buffer.strides, strict=True):
        index = evaluate(expr, grids)
        inside = inside & (index >= 0) & (index < int(extent))
        offset = offset + np.clip(index, 0, max(int(extent) - 1, 0)) * int(stride)
    source = _elements(constant.data, buffer.dtype)
    if source.size == 0:
        return _bytes(np.zeros(shape, dtype=source.dtype), buffer.dtype, packing.dtype)
    packed = source[np.broadcast_to(offset, shape)]
    packed[~np.broadcast_to(inside, shape)] = 0
    return _bytes(packed, buffer.dtype, packing.dtype)


def evaluate(expr: Expr, values: Mapping[sympy.Symbol, _Grid]) -> _Grid:
    """Evaluate an integer expression over arrays that broadcast against each other."""
    expr = sympy.sympify(expr)
    if expr.is_Integer:
        return np.asarray(int(expr), dtype=np.int64)
    if expr.is_Symbol:
        return values[expr]
    args = [evaluate(arg, values) for arg in expr.args]
    result = args[0]
    if expr.is_Pow:
        return np.power(args[0], args[1])
    for arg in args[1:]:
        if expr.is_Add:
            result = result + arg
        elif expr.is_Mul:
            result = result * arg
        elif isinstance(expr, FloorDiv):
            result = result // arg
        elif isinstance(expr, Mod):
            result = result % arg
        elif isinstance(expr, sympy.Min):
            result = np.minimum(result, arg)
        elif isinstance(expr, sympy.Max):
            result = np.maximum(result, arg)
        else:
            raise InternalError(f"the index expression {expr} cannot be evaluated")
    return result


def _elements(data: Bytes, dtype: DType) -> npt.NDArray[np.generic]:
    """View bytes as elements; bfloat16, which numpy lacks, as its bits."""
    names = {DType.BFLOAT16: "<u2", DType.BOOL: "u1"}
    return np.ascontiguousarray(data).view(np.dtype(names.get(dtype, dtype.value)))


def _bytes(values: npt.NDArray[np.generic], source: DType, target: DType) -> Bytes:
    if source is not target:
        values = _convert(values, source, target)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _convert(values: npt.NDArray[np.generic], source: DType, target: DType) -> npt.NDArray[np.generic]:
    if not (source.is_float and target.is_float):
        raise InternalError(f"a packing converts {source.value} to {target.value}; only floats are converted")
    if source is DType.BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if target is not DType.BFLOAT16:
        return values.astype(np.dtype(target.value))
    single = np.ascontiguousarray(values.astype(np.float32))
    bits = single.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(single), np.uint16(0x7FC0), rounded)
