"""softmax, log_softmax and logsumexp: the row maximum, the row sum of exponentials, and the final pointwise nest.

Everything is computed in the compute type and rounded once at the end, as torch's own kernels do inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from mkwrap.ir.dtypes import DType
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, dtype_of
from mkwrap.lower.rows import Dims, Fold, Rows, dims_of, reduce_rows
from mkwrap.lower.tensor import TensorValue

aten = torch.ops.aten

Finish: TypeAlias = Callable[[NestWriter, str, str, str], str]
"""`finish(writer, element, row maximum, row sum of exp(element − maximum))` → the value of one element."""


def _maxima(low: Lowering, x: TensorValue, rows: Rows, dtype: DType) -> TensorValue:
    def write(writer: NestWriter, index: Index, fold: Fold) -> Sequence[str]:
        return fold("maximum", writer.read(x, index, dtype=dtype))

    return reduce_rows(low, rows, (dtype,), write)[0]


def _shifted_exp(writer: NestWriter, element: str, maximum: str) -> str:
    return writer.compute("exp", writer.compute("sub", element, maximum))


def _along(low: Lowering, x: TensorValue, dim: int, result: DType, finish: Finish) -> TensorValue:
    # Integers are legal where there are no elements.
    wide = DType.FLOAT64 in (x.dtype, result)
    dtype = DType.FLOAT64 if wide else DType.FLOAT32
    rows = Rows(x.shape, dims_of(x.rank, dim), keepdim=True)
    top = _maxima(low, x, rows, dtype).broadcast(x.shape)

    def write_sum(writer: NestWriter, index: Index, fold: Fold) -> Sequence[str]:
        return fold("sum", _shifted_exp(writer, writer.read(x, index, dtype=dtype), writer.read(top, index)))

    total = reduce_rows(low, rows, (dtype,), write_sum)[0].broadcast(x.shape)

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        element, maximum, tail = writer.read(x, index, dtype=dtype), writer.read(top, index), writer.read(total, index)
        return [writer.cast(finish(writer, element, maximum, tail), result)]

    return low.pointwise(x.shape, (result,), write)[0]


def _share(writer: NestWriter, element: str, maximum: str, total: str) -> str:
    return writer.compute("div", _shifted_exp(writer, element, maximum), total)


def _safe_share(writer: NestWriter, element: str, maximum: str, total: str) -> str:
    dtype = writer.dtype(element)
    empty = writer.compute("eq", maximum, writer.constant(-math.inf, dtype))
    return writer.compute("where", empty, writer.constant(0, dtype), _share(writer, element, maximum, total))


def _log_share(writer: NestWriter, element: str, maximum: str, total: str) -> str:
    return writer.compute("sub", writer.compute("sub", element, maximum), writer.compute("log", total))


def softmax(low: Lowering, x: TensorValue, dim: int, result: DType, safe: bool = False) -> TensorValue:
    """Softmax along a dim, computed in the wider of both compute types; `safe` gives 0 for rows that are all −inf."""
    return _along(low, x, dim, result, _safe_share if safe else _share)


def _softmax(low: Lowering, x: TensorValue, dim: int, half_to_float: bool) -> TensorValue:
    return softmax(low, x, dim, x.dtype.compute if half_to_float else x.dtype)


def _safe_softmax(low: Lowering, x: TensorValue, dim: int, dtype: torch.dtype | None = None) -> TensorValue:
    return softmax(low, x, dim, x.dtype if dtype is None else dtype_of(dtype), safe=True)


def _log_softmax(low: Lowering, x: TensorValue, dim: int, half_to_float: bool) -> TensorValue:
    result = x.dtype.compute if half_to_float else x.dtype
    return _along(low, x, dim, result, _log_share)


def _logsumexp(low: Lowering, x: TensorValue, dim: Dims, keepdim: bool = False) -> TensorValue:
    result = x.dtype if x.dtype.is_float else DType.FLOAT32
    dtype = result.compute
    rows = Rows(x.shape, dims_of(x.rank, dim), keepdim=True)
    maxima = _maxima(low, x, rows, dtype)
    top = maxima.broadcast(x.shape)

    def write_sum(writer: NestWriter, index: Index, fold: Fold) -> Sequence[str]:
        shift = _finite(writer, writer.read(top, index))
        return fold("sum", _shifted_exp(writer, writer.read(x, index, dtype=dtype), shift))

    total = reduce_rows(low, rows, (dtype,), write_sum)[0]

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        shift = _finite(writer, writer.read(maxima, index))
        value = writer.compute("add", writer.compute("log", writer.read(total, index)), shift)
        return [writer.cast(value, result)]

    (value,) = low.pointwise(rows.kept, (result,), write)
    return value if keepdim else value.reshape(Rows(x.shape, rows.dims).kept)


def _finite(writer: NestWriter, maximum: str) -> str:
    """Replace an infinite maximum by 0: inf − inf would turn a row of −inf or with +inf into NaN."""
    infinite = writer.compute("isinf", maximum)
    return writer.compute("where", infinite, writer.constant(0, writer.dtype(maximum)), maximum)


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten._softmax.default: _softmax,
    aten._safe_softmax.default: _safe_softmax,
    aten._log_softmax.default: _log_softmax,
    aten.logsumexp.default: _logsumexp,
}
