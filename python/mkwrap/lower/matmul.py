"""Matrix products: a nest that reduces by `dot`, and alpha, beta and bias in a pointwise nest of their own.

The accumulator of the 16-bit floats is float32; it is rounded once, after the epilogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy
import torch

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, Scalar, Unsupported
from mkwrap.lower.rows import Fold, Rows, reduce_rows
from mkwrap.lower.tensor import TensorValue

aten = torch.ops.aten


def matmul(low: Lowering, a: TensorValue, b: TensorValue, result: DType) -> TensorValue:
    """(…, m, k) @ (…, k, n) with equal leading dims, accumulated in a's compute type, converted to `result`."""
    if a.dtype is not b.dtype:
        raise Unsupported(f"a matrix product of {a.dtype.value} and {b.dtype.value}")
    lead = a.rank - 2
    rows = Rows((*a.shape[:-1], b.shape[-1], a.shape[-1]), (lead + 2,))

    def write(writer: NestWriter, index: Index, fold: Fold) -> Sequence[str]:
        *batch, m, n, k = index
        left, right = writer.read(a, (*batch, m, k)), writer.read(b, (*batch, k, n))
        return [writer.cast(fold("dot", left, right)[0], result)]

    return reduce_rows(low, rows, (result,), write)[0]


def _column(x: TensorValue) -> TensorValue:
    return x.through((*x.shape, sympy.Integer(1)), lambda index: index[:-1])


def _row(x: TensorValue) -> TensorValue:
    return x.through((sympy.Integer(1), *x.shape), lambda index: index[1:])


def _without(x: TensorValue, dim: int) -> TensorValue:
    """Drop a dim of extent 1."""
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    return x.through(shape, lambda index: (*index[:dim], sympy.Integer(0), *index[dim:]))


def _transposed(x: TensorValue) -> TensorValue:
    return x.through((x.shape[1], x.shape[0]), lambda index: (index[1], index[0]))


def _product(low: Lowering, a: TensorValue, b: TensorValue) -> TensorValue:
    return matmul(low, a, b, a.dtype)


def _mv(low: Lowering, a: TensorValue, x: TensorValue) -> TensorValue:
    return _without(matmul(low, a, _column(x), a.dtype), 1)


def _dot(low: Lowering, x: TensorValue, y: TensorValue) -> TensorValue:
    return _without(_without(matmul(low, _row(x), _column(y), x.dtype), 1), 0)


def _scaled(writer: NestWriter, value: str, factor: Scalar | Expr) -> str:
    if factor == 1:
        return value
    return writer.compute("mul", writer.read(factor, (), dtype=writer.dtype(value)), value)


def _add_product(
    low: Lowering,
    bias: TensorValue,
    a: TensorValue,
    b: TensorValue,
    *,
    beta: Scalar | Expr = 1,
    alpha: Scalar | Expr = 1,
) -> TensorValue:
    """Beta · bias + alpha · (a @ b); with beta 0 the bias is not read, so that its NaNs do not spread."""
    wide = a.dtype.compute
    product = matmul(low, a, b, wide)
    addend = bias.broadcast(product.shape)

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        value = _scaled(writer, writer.read(product, index), alpha)
        if beta != 0:
            value = writer.compute("add", value, _scaled(writer, writer.read(addend, index, dtype=wide), beta))
        return [writer.cast(value, a.dtype)]

    return low.pointwise(product.shape, (a.dtype,), write)[0]


def _add_mv(
    low: Lowering,
    bias: TensorValue,
    a: TensorValue,
    x: TensorValue,
    *,
    beta: Scalar | Expr = 1,
    alpha: Scalar | Expr = 1,
) -> TensorValue:
    addend = _column(bias.broadcast(a.shape[:1]))
    return _without(_add_product(low, addend, a, _column(x), beta=beta, alpha=alpha), 1)


def _add_batch_sum(
    low: Lowering,
    bias: TensorValue,
    a: TensorValue,
    b: TensorValue,
    *,
    beta: Scalar | Expr = 1,
    alpha: Scalar | Expr = 1,
) -> TensorValue:
    """Beta · bias + alpha · Σ over the batch of a @ b: one product whose depth is batch × depth."""
    batch, m, k = a.shape
    side = a.through((m, batch, k), lambda index: (index[1], index[0], index[2])).reshape((m, batch * k))
    return _add_product(low, bias, side, b.reshape((batch * k, b.shape[2])), beta=beta, alpha=alpha)


def _linear(low: Lowering, x: TensorValue, weight: TensorValue, bias: TensorValue | None = None) -> TensorValue:
    """X @ weightᵀ + bias over flattened leading dims."""
    inner = x.shape[-1]
    flat = x.reshape((sympy.Mul(*x.shape[:-1]), inner))
    weight_t = _column(weight) if weight.rank == 1 else _transposed(weight)
    result = _product(low, flat, weight_t) if bias is None else _add_product(low, bias, flat, weight_t)
    return result.reshape((*x.shape[:-1], *weight.shape[:-1]))


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.mv.default: _mv,
    aten.dot.default: _dot,
    aten.vdot.default: _dot,
    aten.addmm.default: _add_product,
    aten.baddbmm.default: _add_product,
    aten.addmv.default: _add_mv,
    aten.addbmm.default: _add_batch_sum,
    aten.linear.default: _linear,
}
