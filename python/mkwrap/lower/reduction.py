"""Reductions: sums, products, extrema with and without position, any/all, variances and norms."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from mkwrap.ir.dtypes import DType
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, Scalar, Unsupported, dtype_of
from mkwrap.lower.rows import Dims, Fold, Rows, dims_of, reduce_rows
from mkwrap.lower.tensor import TensorValue

aten = torch.ops.aten


def _rows(x: TensorValue, dim: Dims, keepdim: bool) -> Rows:
    return Rows(x.shape, dims_of(x.rank, dim), keepdim)


def _promoted(x: TensorValue, dtype: torch.dtype | None) -> DType:
    """Dtype of a sum or product: as asked, else int64 for integers and bool."""
    if dtype is not None:
        return dtype_of(dtype)
    return x.dtype if x.dtype.is_float else DType.INT64


def _fold_as(low: Lowering, x: TensorValue, rows: Rows, op: str, dtype: DType) -> TensorValue:
    """Reduce x converted to dtype, accumulating in dtype's compute type."""

    def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
        element = writer.cast(writer.read(x, index, dtype=dtype), dtype.compute)
        return [writer.cast(fold(op, element)[0], dtype)]

    return reduce_rows(low, rows, (dtype,), write)[0]


def _sum(
    low: Lowering, x: TensorValue, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> TensorValue:
    return _fold_as(low, x, _rows(x, dim, keepdim), "sum", _promoted(x, dtype))


def _prod(
    low: Lowering, x: TensorValue, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> TensorValue:
    return _fold_as(low, x, _rows(x, dim, keepdim), "prod", _promoted(x, dtype))


def _mean(
    low: Lowering, x: TensorValue, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> TensorValue:
    rows = _rows(x, dim, keepdim)
    result = dtype_of(dtype) if dtype is not None else x.dtype
    if not result.is_float:
        raise Unsupported(f"the mean of {result.value} values has no floating-point dtype")
    wide = result.compute

    def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
        (total,) = fold("sum", writer.read(x, index, dtype=wide))
        return [writer.cast(writer.compute("div", total, writer.number(rows.count, wide)), result)]

    return reduce_rows(low, rows, (result,), write)[0]


def _filled_rows(low: Lowering, x: TensorValue, dim: Dims, keepdim: bool) -> Rows:
    """Rows of a reduction without identity; eager refuses those without elements."""
    rows = _rows(x, dim, keepdim)
    if any(n == 0 for n in rows.reduced):
        raise Unsupported("the reduced dimension has size 0 and the operation has no identity")
    low.need_elements(rows.reduced)
    return rows


def _extremum(op: str) -> Rule:
    def rule(low: Lowering, x: TensorValue, dim: Dims = None, keepdim: bool = False) -> TensorValue:
        return _fold_as(low, x, _filled_rows(low, x, dim, keepdim), op, x.dtype)

    return rule


def _extremum_with_index(op: str) -> Rule:
    def rule(low: Lowering, x: TensorValue, dim: int, keepdim: bool = False) -> tuple[TensorValue, ...]:
        def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
            value, position = fold(op, writer.read(x, index, dtype=x.dtype.compute))
            return [writer.cast(value, x.dtype), position]

        return reduce_rows(low, _filled_rows(low, x, dim, keepdim), (x.dtype, DType.INT64), write)

    return rule


def _position(op: str) -> Rule:
    def rule(low: Lowering, x: TensorValue, dim: int | None = None, keepdim: bool = False) -> TensorValue:
        def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
            return [fold(op, writer.read(x, index, dtype=x.dtype.compute))[1]]

        return reduce_rows(low, _filled_rows(low, x, dim, keepdim), (DType.INT64,), write)[0]

    return rule


def _aminmax(
    low: Lowering, x: TensorValue, *, dim: int | None = None, keepdim: bool = False
) -> tuple[TensorValue, ...]:
    def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
        element = writer.read(x, index, dtype=x.dtype.compute)
        return [writer.cast(fold(op, element)[0], x.dtype) for op in ("minimum", "maximum")]

    return reduce_rows(low, _filled_rows(low, x, dim, keepdim), (x.dtype, x.dtype), write)


def _truth(op: str) -> Rule:
    """Any / all: the maximum / minimum of truth values; the result is bool, for uint8 it is uint8."""

    def rule(low: Lowering, x: TensorValue, dim: Dims = None, keepdim: bool = False) -> TensorValue:
        result = DType.UINT8 if x.dtype is DType.UINT8 else DType.BOOL
        nothing = isinstance(dim, (list, tuple)) and not dim
        rows = Rows(x.shape, (), keepdim) if nothing else _rows(x, dim, keepdim)

        def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
            return [writer.cast(fold(op, writer.read(x, index, dtype=DType.BOOL))[0], result)]

        return reduce_rows(low, rows, (result,), write)[0]

    return rule


def variance(writer: NestWriter, squares: str, rows: Rows, correction: Scalar) -> str:
    """Σ(x − mean)² / max(n − correction, 0)."""
    dtype = writer.dtype(squares)
    if rows.count.is_Integer:
        divisor = writer.constant(max(int(rows.count) - correction, 0), dtype)
    else:
        freedom = writer.compute("sub", writer.number(rows.count, dtype), writer.constant(correction, dtype))
        divisor = writer.compute("maximum", freedom, writer.constant(0, dtype))
    return writer.compute("div", squares, divisor)


def _moments(root: bool, with_mean: bool) -> Rule:
    """Var / std, alone or with the mean."""

    def rule(
        low: Lowering,
        x: TensorValue,
        dim: Dims = None,
        *,
        correction: Scalar | None = None,
        keepdim: bool = False,
    ) -> TensorValue | tuple[TensorValue, ...]:
        rows = _rows(x, dim, keepdim)

        def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
            mean, squares = fold("welford", writer.read(x, index, dtype=x.dtype.compute))
            if rows.count == 0:
                mean = writer.constant(math.nan, x.dtype.compute)
            elif with_mean and not low.surely(1, "<=", rows.count):
                empty = writer.compute("eq", writer.index_value(rows.count), writer.constant(0, DType.INT64))
                mean = writer.compute("where", empty, writer.constant(math.nan, x.dtype.compute), mean)
            spread = variance(writer, squares, rows, 1 if correction is None else correction)
            spread = writer.compute("sqrt", spread) if root else spread
            return [writer.cast(v, x.dtype) for v in ((spread, mean) if with_mean else (spread,))]

        results = reduce_rows(low, rows, (x.dtype,) * (2 if with_mean else 1), write)
        return results if with_mean else results[0]

    return rule


def _norm_element(writer: NestWriter, element: str, order: float) -> str:
    """What a vector norm of some order sums up (or, for ±inf, takes the extremum of)."""
    dtype = writer.dtype(element)
    if order == 0:
        return writer.cast(writer.compute("ne", element, writer.constant(0, dtype)), dtype)
    if order == 2:
        return writer.compute("mul", element, element)
    size = writer.compute("abs", element)
    if order == 1 or math.isinf(order):
        return size
    return writer.compute("pow", size, writer.constant(order, dtype))


def _vector_norm(
    low: Lowering,
    x: TensorValue,
    ord: Scalar = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> TensorValue:
    result = dtype_of(dtype) if dtype is not None else x.dtype
    order = float(ord)
    op = {math.inf: "maximum", -math.inf: "minimum"}.get(order, "sum")

    def write(writer: NestWriter, index: Index, fold: Fold) -> list[str]:
        element = writer.cast(writer.read(x, index, dtype=result), result.compute)
        (total,) = fold(op, _norm_element(writer, element, order))
        if order == 2:
            total = writer.compute("sqrt", total)
        elif order not in (0, 1) and not math.isinf(order):
            total = writer.compute("pow", total, writer.constant(1 / order, result.compute))
        return [writer.cast(total, result)]

    rows = _filled_rows(low, x, dim, keepdim) if math.isinf(order) else _rows(x, dim, keepdim)
    return reduce_rows(low, rows, (result,), write)[0]


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.prod.default: _prod,
    aten.prod.dim_int: _prod,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.amax.default: _extremum("maximum"),
    aten.amin.default: _extremum("minimum"),
    aten.max.default: _extremum("maximum"),
    aten.min.default: _extremum("minimum"),
    aten.max.dim: _extremum_with_index("argmax"),
    aten.min.dim: _extremum_with_index("argmin"),
    aten.argmax.default: _position("argmax"),
    aten.argmin.default: _position("argmin"),
    aten.aminmax.default: _aminmax,
    aten.any.default: _truth("maximum"),
    aten.any.dim: _truth("maximum"),
    aten.any.dims: _truth("maximum"),
    aten.all.default: _truth("minimum"),
    aten.all.dim: _truth("minimum"),
    aten.all.dims: _truth("minimum"),
    aten.var.correction: _moments(root=False, with_mean=False),
    aten.std.correction: _moments(root=True, with_mean=False),
    aten.var_mean.correction: _moments(root=False, with_mean=True),
    aten.std_mean.correction: _moments(root=True, with_mean=True),
    aten.linalg_vector_norm.default: _vector_norm,
}
