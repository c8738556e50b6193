"""Scans along a dim: running sums, products, extrema and log-sums of exponentials, and scans with a function of the user's.

16-bit floats are scanned in float32 and rounded once per element, as torch's own kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import sympy
import torch
from torch._higher_order_ops.associative_scan import associative_scan_op

from mkwrap.ir.dtypes import DType
from mkwrap.lower.combine import combine_of
from mkwrap.lower.dims import wrap_dim
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, Unsupported, dtype_of
from mkwrap.lower.tensor import TensorValue

aten = torch.ops.aten

WriteScan: TypeAlias = Callable[[NestWriter, Sequence[str]], Sequence[str]]
"""`write(writer, elements)` scans or sorts values of the arguments and returns values of the results."""


def row_of(x: TensorValue, dim: int) -> sympy.Expr:
    """Number of elements along a dim; a 0-d tensor has one."""
    return x.shape[wrap_dim(dim, x.rank)] if x.rank else sympy.Integer(1)


def along(
    low: Lowering,
    args: Sequence[TensorValue],
    dim: int,
    dtypes: Sequence[DType],
    read: Callable[[NestWriter, TensorValue, Index], str],
    write: WriteScan,
    alone: WriteScan,
) -> tuple[TensorValue, ...]:
    """Make a nest that walks args (of one shape) along a dim: `write` of what `read` gives, cast to `dtypes`.

    In rows of one element, and where there are no elements, `alone` gives the results without a walk.
    """
    shape, row = args[0].shape, row_of(args[0], dim)

    def body(make: WriteScan) -> Callable[[NestWriter, Index], Sequence[str]]:
        def results(writer: NestWriter, index: Index) -> Sequence[str]:
            values = make(writer, [read(writer, arg, index) for arg in args])
            return [writer.cast(value, dtype) for value, dtype in zip(values, dtypes, strict=True)]

        return results

    if row == 1 or any(n == 0 for n in shape):
        return low.pointwise(shape, dtypes, body(alone))
    return low.walk(shape, wrap_dim(dim, len(shape)), dtypes, body(write))


def ordered_dtype(dtype: DType) -> DType:
    """Dtype in which values are compared by scans and sorts: no 16-bit floats, no truth values."""
    return DType.UINT8 if dtype is DType.BOOL else dtype.compute


def _accumulated(op: str) -> Rule:
    def rule(low: Lowering, x: TensorValue, dim: int, *, dtype: torch.dtype | None = None) -> TensorValue:
        result = dtype_of(dtype) if dtype is not None else x.dtype if x.dtype.is_float else DType.INT64
        if result is DType.BOOL:
            raise Unsupported("truth values have no running sum or product")

        def read(writer: NestWriter, value: TensorValue, index: Index) -> str:
            return writer.cast(writer.read(value, index, dtype=result), result.compute)

        def write(writer: NestWriter, elements: Sequence[str]) -> Sequence[str]:
            return writer.scan(op, *elements)

        return along(low, [x], dim, [result], read, write, lambda _writer, elements: elements)[0]

    return rule


def _read_ordered(writer: NestWriter, value: TensorValue, index: Index) -> str:
    return writer.read(value, index, dtype=ordered_dtype(value.dtype))


def in_place(writer: NestWriter, elements: Sequence[str]) -> Sequence[str]:
    """Return the results of a row of one element: the element and position 0."""
    return [*elements, writer.constant(0, DType.INT64)]


def _extremum(op: str) -> Rule:
    def rule(low: Lowering, x: TensorValue, dim: int) -> tuple[TensorValue, ...]:
        def write(writer: NestWriter, elements: Sequence[str]) -> Sequence[str]:
            return writer.scan(op, *elements)

        return along(low, [x], dim, [x.dtype, DType.INT64], _read_ordered, write, in_place)

    return rule


def _logcumsumexp(low: Lowering, x: TensorValue, dim: int) -> TensorValue:
    if not x.dtype.is_float:
        raise Unsupported(f"{x.dtype.value} values have no exponentials here; convert them to a floating-point dtype")

    def write(writer: NestWriter, elements: Sequence[str]) -> Sequence[str]:
        return writer.scan("logaddexp", *elements)

    return along(low, [x], dim, [x.dtype], _read_ordered, write, lambda _writer, elements: elements)[0]


def _associative_scan(
    low: Lowering, graph: torch.fx.GraphModule, xs: Sequence[TensorValue], lifted: Sequence[object]
) -> tuple[TensorValue, ...]:
    """Lower torch's associative_scan, which runs along dim 0 (torch has moved the dim there, and turned a reverse scan)."""
    if lifted:
        raise Unsupported("the combine function reads tensors from outside; pass them through as values of the scan")
    dtypes = [x.dtype for x in xs]
    combine = combine_of(low, graph, xs)

    def read(writer: NestWriter, value: TensorValue, index: Index) -> str:
        return writer.read(value, index, dtype=value.dtype.compute)

    def write(writer: NestWriter, elements: Sequence[str]) -> Sequence[str]:
        return writer.scan("associative", *elements, combine=combine)

    return along(low, xs, 0, dtypes, read, write, lambda _writer, elements: elements)


RULES: Mapping[torch._ops.OperatorBase, Rule] = {
    aten.cumsum.default: _accumulated("sum"),
    aten.cumprod.default: _accumulated("prod"),
    aten.cummax.default: _extremum("cummax"),
    aten.cummin.default: _extremum("cummin"),
    aten.logcumsumexp.default: _logcumsumexp,
    associative_scan_op: _associative_scan,
}
