"""Tensors made from numbers: full, zeros, arange, linspace, eye, scalar_tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import sympy
import torch

from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv
from mkwrap.ir.nodes import Expr
from mkwrap.lower.elementwise import round_scalar
from mkwrap.lower.lowering import (
    Index,
    Lowering,
    NestWriter,
    Rule,
    Scalar,
    Unsupported,
    dtype_of,
    expr_dtype,
    scalar_dtype,
)
from mkwrap.lower.tensor import TensorValue
from mkwrap.lower.term import Term

aten = torch.ops.aten
prims = torch.ops.prims

Number = Scalar | Expr


def constant(low: Lowering, shape: Sequence[Expr | int], value: Number, dtype: DType) -> TensorValue:
    """Make a tensor of equal elements; a size as value is read at run time."""

    def write(writer: NestWriter, _index: Index) -> list[str]:
        if isinstance(value, sympy.Expr):
            return [writer.number(value, dtype)]
        return [writer.constant(round_scalar(value, dtype), dtype)]

    return low.pointwise([sympy.sympify(n) for n in shape], [dtype], write)[0]


def _dtype(dtype: torch.dtype | None, default: DType) -> DType:
    return default if dtype is None else dtype_of(dtype)


def _full(
    low: Lowering, size: Sequence[Expr], fill_value: Number, *, dtype: torch.dtype | None = None, **_options: object
) -> TensorValue:
    default = expr_dtype(fill_value) if isinstance(fill_value, sympy.Expr) else scalar_dtype(fill_value)
    return constant(low, size, fill_value, _dtype(dtype, default))


def _full_like(
    low: Lowering, x: TensorValue, fill_value: Number, *, dtype: torch.dtype | None = None, **_options: object
) -> TensorValue:
    return constant(low, x.shape, fill_value, _dtype(dtype, x.dtype))


def _zeros_like(low: Lowering, x: TensorValue, *, dtype: torch.dtype | None = None, **_options: object) -> TensorValue:
    return constant(low, x.shape, 0, _dtype(dtype, x.dtype))


def _ones_like(low: Lowering, x: TensorValue, *, dtype: torch.dtype | None = None, **_options: object) -> TensorValue:
    return constant(low, x.shape, 1, _dtype(dtype, x.dtype))


def _zeros(low: Lowering, size: Sequence[Expr], *, dtype: torch.dtype | None = None, **_options: object) -> TensorValue:
    """Lower zeros, and empty: what eager leaves undefined is 0 here."""
    return constant(low, size, 0, _dtype(dtype, DType.FLOAT32))


def _ones(low: Lowering, size: Sequence[Expr], *, dtype: torch.dtype | None = None, **_options: object) -> TensorValue:
    return constant(low, size, 1, _dtype(dtype, DType.FLOAT32))


def _empty_strided(
    low: Lowering,
    size: Sequence[Expr],
    stride: Sequence[Expr],  # noqa: ARG001 (the values are undefined, so is their place)
    *,
    dtype: torch.dtype | None = None,
    **_options: object,
) -> TensorValue:
    return constant(low, size, 0, _dtype(dtype, DType.FLOAT32))


def _scalar_tensor(low: Lowering, s: Number, *, dtype: torch.dtype | None = None, **_options: object) -> TensorValue:
    return constant(low, (), s, _dtype(dtype, DType.FLOAT32))


def _fill(low: Lowering, x: TensorValue, value: Number | TensorValue) -> TensorValue:
    if isinstance(value, TensorValue):
        return low.pointwise(
            x.shape, [x.dtype], lambda writer, index: [writer.read(value.broadcast(x.shape), index, dtype=x.dtype)]
        )[0]
    return constant(low, x.shape, value, x.dtype)


def _progression(low: Lowering, count: Expr, start: Number, step: Number, dtype: DType) -> TensorValue:
    """Make start + k·step; floats are computed in float64, as eager does on the CPU."""
    wide = DType.FLOAT64 if dtype.is_float else DType.INT64

    def write(writer: NestWriter, index: Index) -> list[str]:
        if dtype.is_float:
            place = Term(writer, writer.index_value(index[0])).cast(wide)
            return [(place * float(step) + Term(writer, writer.read(start, (), dtype=wide))).cast(dtype).name]
        at = index[0] * whole_number(step) + whole_number(start)
        return [Term(writer, writer.index_value(at)).cast(dtype).name]

    return low.pointwise([count], [dtype], write)[0]


def whole_number(value: Number) -> Expr:
    """Return a number as an index expression, its fraction cut off. Raises `Unsupported` for one of sizes that has a fraction."""
    if isinstance(value, sympy.Expr):
        if not value.is_integer:
            raise Unsupported(f"a progression by {value}")
        return value
    return sympy.Integer(int(value))


def _arange(
    low: Lowering, start: Number, end: Number, step: Number = 1, *, dtype: torch.dtype | None = None, **_options: object
) -> TensorValue:
    integral = all(
        isinstance(value, int) or (isinstance(value, sympy.Expr) and value.is_integer) for value in (start, end, step)
    )
    target = _dtype(dtype, DType.INT64 if integral else DType.FLOAT32)
    if target.is_float and not integral:
        if any(isinstance(value, sympy.Expr) and not value.is_number for value in (start, end, step)):
            raise Unsupported("arange over fractions up to a dynamic size")
        count = sympy.Integer(max(math.ceil((float(end) - float(start)) / float(step)), 0))
    else:
        count = _steps(low, whole_number(start), whole_number(end), whole_number(step))
    return _progression(low, count, start, step, target)


def _steps(low: Lowering, start: Expr, end: Expr, step: Expr) -> Expr:
    """Return how many of start, start + step, … come before end."""
    if not step.is_Integer:
        raise Unsupported(f"arange in steps of {step}")
    span, size = (end - start, step) if step > 0 else (start - end, -step)
    return low.larger(sympy.Integer(0), FloorDiv(span + size - 1, size))


def _arange_to(low: Lowering, end: Number, **options: object) -> TensorValue:
    return _arange(low, 0, end, 1, **options)  # type: ignore[arg-type]


def _iota(low: Lowering, length: Expr, *, start: int, step: int, dtype: torch.dtype, **_options: object) -> TensorValue:
    return _progression(low, sympy.sympify(length), start, step, dtype_of(dtype))


def _linspace(
    low: Lowering, start: float, end: float, steps: int, *, dtype: torch.dtype | None = None, **_options: object
) -> TensorValue:
    """Lower linspace from both ends inwards, as eager does, so that the last element is exactly `end`."""
    target = _dtype(dtype, DType.FLOAT32)
    wide = DType.FLOAT64 if target is DType.FLOAT64 or not target.is_float else DType.FLOAT32
    step = (float(end) - float(start)) / (steps - 1) if steps > 1 else 0.0

    def write(writer: NestWriter, index: Index) -> list[str]:
        place = Term(writer, writer.index_value(index[0]))
        up = place.cast(wide) * step + float(start)
        back = float(end) - Term(writer, writer.index_value(steps - 1 - index[0])).cast(wide) * step
        return [(place < steps // 2).where(up, back).cast(target).name if steps > 1 else up.cast(target).name]

    return low.pointwise([sympy.Integer(steps)], [target], write)[0]


def _eye(
    low: Lowering, n: Expr, m: Expr | None = None, *, dtype: torch.dtype | None = None, **_options: object
) -> TensorValue:
    target = _dtype(dtype, DType.FLOAT32)

    def write(writer: NestWriter, index: Index) -> list[str]:
        row, column = (Term(writer, writer.index_value(i)) for i in index)
        return [row.equals(column).cast(target).name]

    shape = [sympy.sympify(n), sympy.sympify(n if m is None else m)]
    return low.pointwise(shape, [target], write)[0]


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.full.default: _full,
    aten.full_like.default: _full_like,
    aten.zeros.default: _zeros,
    aten.zeros_like.default: _zeros_like,
    aten.ones.default: _ones,
    aten.ones_like.default: _ones_like,
    aten.empty.memory_format: _zeros,
    aten.empty_like.default: _zeros_like,
    aten.empty_strided.default: _empty_strided,
    aten.empty_permuted.default: _empty_strided,
    aten.scalar_tensor.default: _scalar_tensor,
    aten.fill.Scalar: _fill,
    aten.fill.Tensor: _fill,
    aten.arange.default: _arange_to,
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
    prims.iota.default: _iota,
    aten.linspace.default: _linspace,
    aten.eye.default: _eye,
    aten.eye.m: _eye,
}
