"""Layer, group, RMS and (at inference) batch normalisation: statistics per row, then one pointwise nest.

16-bit floats are computed in float32 throughout and rounded once at the end, as torch's own kernels do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy
import torch

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule
from mkwrap.lower.reduction import variance
from mkwrap.lower.rows import Fold, Rows, reduce_rows
from mkwrap.lower.tensor import TensorValue

aten = torch.ops.aten


def _affine(writer: NestWriter, value: str, weight: TensorValue | None, bias: TensorValue | None, index: Index) -> str:
    """Value · weight + bias, where present, in the value's dtype."""
    dtype = writer.dtype(value)
    if weight is not None:
        value = writer.compute("mul", value, writer.read(weight, index, dtype=dtype))
    if bias is not None:
        value = writer.compute("add", value, writer.read(bias, index, dtype=dtype))
    return value


def _statistics(low: Lowering, x: TensorValue, rows: Rows, eps: float) -> tuple[TensorValue, ...]:
    """Mean and 1 / √(population variance + eps) of each row, in the compute type."""
    dtype = x.dtype.compute

    def write(writer: NestWriter, index: Index, fold: Fold) -> Sequence[str]:
        mean, squares = fold("welford", writer.read(x, index, dtype=dtype))
        spread = writer.compute("add", variance(writer, squares, rows, 0), writer.constant(eps, dtype))
        return [mean, writer.compute("rsqrt", spread)]

    return reduce_rows(low, rows, (dtype, dtype), write)


def _standardised(writer: NestWriter, x: TensorValue, mean: TensorValue, scale: TensorValue, index: Index) -> str:
    """(x − mean) · scale; the statistics are already broadcast to x's shape."""
    centred = writer.compute("sub", writer.read(x, index, dtype=mean.dtype), writer.read(mean, index))
    return writer.compute("mul", centred, writer.read(scale, index))


def _saved(x: TensorValue, *statistics: TensorValue) -> tuple[TensorValue | None, ...]:
    """Statistics as results of the op; of 16-bit inputs they have another dtype on each device, so nobody may use them."""
    return tuple(s if s.dtype is x.dtype else None for s in statistics)


def _layer_norm(
    low: Lowering,
    x: TensorValue,
    normalized_shape: Sequence[Expr | int],
    weight: TensorValue | None,
    bias: TensorValue | None,
    eps: float,
) -> tuple[TensorValue | None, ...]:
    lead = x.rank - len(normalized_shape)
    rows = Rows(x.shape, tuple(range(lead, x.rank)), keepdim=True)
    mean, scale = _statistics(low, x, rows, eps)
    wide_mean, wide_scale = mean.broadcast(x.shape), scale.broadcast(x.shape)

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        value = _standardised(writer, x, wide_mean, wide_scale, index)
        return [writer.cast(_affine(writer, value, weight, bias, index[lead:]), x.dtype)]

    return (*low.pointwise(x.shape, (x.dtype,), write), *_saved(x, mean, scale))


def _group_norm(  # noqa: PLR0913, PLR0917 - torch's signature
    low: Lowering,
    x: TensorValue,
    weight: TensorValue | None,
    bias: TensorValue | None,
    batch: Expr | int,  # noqa: ARG001 - given by the op's schema, known from the shape
    channels: Expr | int,
    inner: Expr | int,  # noqa: ARG001
    groups: int,
    eps: float,
) -> tuple[TensorValue | None, ...]:
    group_size = sympy.sympify(channels) / groups
    grouped = x.reshape((x.shape[0], sympy.Integer(groups), group_size, *x.shape[2:]))
    rows = Rows(grouped.shape, tuple(range(2, grouped.rank)), keepdim=True)
    mean, scale = _statistics(low, grouped, rows, eps)
    wide_mean, wide_scale = mean.broadcast(grouped.shape), scale.broadcast(grouped.shape)

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        value = _standardised(writer, grouped, wide_mean, wide_scale, index)
        channel = (index[1] * group_size + index[2],)
        return [writer.cast(_affine(writer, value, weight, bias, channel), x.dtype)]

    (result,) = low.pointwise(grouped.shape, (x.dtype,), write)
    flat = rows.kept[:2]
    return (result.reshape(x.shape), *_saved(x, mean.reshape(flat), scale.reshape(flat)))


def _batch_norm(  # noqa: PLR0913, PLR0917 - torch's signature
    low: Lowering,
    x: TensorValue,
    weight: TensorValue | None,
    bias: TensorValue | None,
    running_mean: TensorValue,
    running_var: TensorValue,
    momentum: float,  # noqa: ARG001 - without training nothing moves
    eps: float,
) -> tuple[TensorValue | None, ...]:
    dtype = x.dtype.compute

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        channel = (index[1],)
        spread = writer.compute("add", writer.read(running_var, channel, dtype=dtype), writer.constant(eps, dtype))
        mean = writer.read(running_mean, channel, dtype=dtype)
        centred = writer.compute("sub", writer.read(x, index, dtype=dtype), mean)
        value = writer.compute("mul", centred, writer.compute("rsqrt", spread))
        return [writer.cast(_affine(writer, value, weight, bias, channel), x.dtype)]

    return (*low.pointwise(x.shape, (x.dtype,), write), None, None)


def _rms_norm(
    low: Lowering,
    x: TensorValue,
    normalized_shape: Sequence[Expr | int],
    weight: TensorValue | None = None,
    eps: float | None = None,
) -> TensorValue:
    dtype = x.dtype.compute
    lead = x.rank - len(normalized_shape)
    rows = Rows(x.shape, tuple(range(lead, x.rank)), keepdim=True)
    epsilon = eps if eps is not None else torch.finfo(torch.float64 if dtype is DType.FLOAT64 else torch.float32).eps

    def write_scale(writer: NestWriter, index: Index, fold: Fold) -> Sequence[str]:
        element = writer.read(x, index, dtype=dtype)
        (total,) = fold("sum", writer.compute("mul", element, element))
        mean = writer.compute("div", total, writer.number(rows.count, dtype))
        return [writer.compute("rsqrt", writer.compute("add", mean, writer.constant(epsilon, dtype)))]

    (scale,) = reduce_rows(low, rows, (dtype,), write_scale)
    wide_scale = scale.broadcast(x.shape)

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        value = writer.compute("mul", writer.read(x, index, dtype=dtype), writer.read(wide_scale, index))
        return [writer.cast(_affine(writer, value, weight, None, index[lead:]), x.dtype)]

    return low.pointwise(x.shape, (x.dtype,), write)[0]


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.rms_norm.default: _rms_norm,
}
