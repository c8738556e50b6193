"""Pointwise ATen ops: arithmetic, comparison, logic, selection, conversion. Math and activations: their own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from mkwrap.ir.dtypes import DType
from mkwrap.lower import pointwise_activation, pointwise_math
from mkwrap.lower.elementwise import (
    ALWAYS_BOOL,
    DEFAULT,
    INT_TO_FLOAT,
    Formula,
    Kind,
    Row,
    broadcast_shape,
    elementwise,
    promote,
    read_operand,
    rule,
)
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Operand, Rule, Scalar, Unsupported, dtype_of
from mkwrap.lower.tensor import TensorValue
from mkwrap.lower.term import Term, wrap_integer

aten = torch.ops.aten
prims = torch.ops.prims


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────────────


def _add(a: Term, b: Term, alpha: Scalar = 1) -> Term:
    scaled = b if alpha == 1 else _mul(b, b.like(alpha))
    return a | scaled if a.dtype is DType.BOOL else a + scaled


def _sub(a: Term, b: Term, alpha: Scalar = 1) -> Term:
    return a - (b if alpha == 1 else b * alpha)


def _rsub(a: Term, b: Term, alpha: Scalar = 1) -> Term:
    return _sub(b, a, alpha)


def _mul(a: Term, b: Term) -> Term:
    return a & b if a.dtype is DType.BOOL else a * b


def _maximum(a: Term, b: Term) -> Term:
    return a | b if a.dtype is DType.BOOL else a.apply("maximum", b)


def _minimum(a: Term, b: Term) -> Term:
    return a & b if a.dtype is DType.BOOL else a.apply("minimum", b)


def _fmax(a: Term, b: Term) -> Term:
    """Larger of two values; a NaN loses against a number."""
    if not a.dtype.is_float:
        return _maximum(a, b)
    return a.apply("isnan").where(b, b.apply("isnan").where(a, a.apply("maximum", b)))


def _fmin(a: Term, b: Term) -> Term:
    if not a.dtype.is_float:
        return _minimum(a, b)
    return a.apply("isnan").where(b, b.apply("isnan").where(a, a.apply("minimum", b)))


def _divide(low: Lowering, a: Operand, b: Operand, *, rounding_mode: str | None = None) -> TensorValue:
    """Lower div: true division promotes integers to float, the rounding modes keep them."""
    common = promote((a, b), INT_TO_FLOAT if rounding_mode is None else DEFAULT)

    def formula(x: Term, y: Term) -> Term:
        if rounding_mode is None:
            return x / y
        if rounding_mode == "floor":
            return x.apply("floordiv", y)
        return (x / y).apply("trunc") if x.dtype.is_float else x.apply("truncdiv", y)

    return elementwise(low, (a, b), formula, common, common, exact_scalars=True)


def _floor_divide(low: Lowering, a: Operand, b: Operand) -> TensorValue:
    return _divide(low, a, b, rounding_mode="floor")


def _addcmul(a: Term, b: Term, c: Term, value: Scalar = 1) -> Term:
    return a + (b * c if value == 1 else b * value * c)


def _addcdiv(a: Term, b: Term, c: Term, value: Scalar = 1) -> Term:
    return a + (b / c if value == 1 else b * value / c)


def _lerp(a: Term, b: Term, weight: Term) -> Term:
    """Interpolate from the nearer end, as eager does: exact at both ends."""
    return (weight.apply("abs") < 0.5).where(a + weight * (b - a), b - (b - a) * (1 - weight))


# ── comparison and logic ─────────────────────────────────────────────────────────────────────────────────


def _primitive(op: str) -> Formula:
    return lambda *terms: terms[0].apply(op, *terms[1:])


def _logical(op: str) -> Formula:
    return lambda *terms: terms[0].cast(DType.BOOL).apply(op, *(term.cast(DType.BOOL) for term in terms[1:]))


# ── selection ────────────────────────────────────────────────────────────────────────────────────────────


def _where(low: Lowering, condition: TensorValue, a: Operand, b: Operand) -> TensorValue:
    common = promote((a, b), DEFAULT)
    shape = broadcast_shape(low, [v.shape for v in (condition, a, b) if isinstance(v, TensorValue)])

    def write(writer: NestWriter, index: Index) -> list[str]:
        chosen = read_operand(writer, condition, shape, index, DType.BOOL)
        return [chosen.where(*(read_operand(writer, v, shape, index, common) for v in (a, b))).name]

    return low.pointwise(shape, [common], write)[0]


def _masked_fill(low: Lowering, x: TensorValue, mask: TensorValue, value: Operand) -> TensorValue:
    """Lower masked_fill; the result keeps x's dtype, whatever the value's."""
    shape = broadcast_shape(low, [x.shape, mask.shape])

    def write(writer: NestWriter, index: Index) -> list[str]:
        chosen = read_operand(writer, mask, shape, index, DType.BOOL)
        return [chosen.where(*(read_operand(writer, v, shape, index, x.dtype) for v in (value, x))).name]

    return low.pointwise(shape, [x.dtype], write)[0]


def _clamp(low: Lowering, x: TensorValue, min: Operand | None = None, max: Operand | None = None) -> TensorValue:
    """Lower clamp with numbers or tensors as bounds; NaN propagates, and min > max gives max."""
    given = [bound for bound in (min, max) if bound is not None]
    common = promote((x, *given), DEFAULT)
    for bound in given:
        if isinstance(bound, int) and wrap_integer(bound, common) != bound and (bound > 0 or common.is_signed):
            raise Unsupported(f"clamp of {common.value} at {bound}, which it cannot hold")

    def formula(value: Term, *bounds: Term) -> Term:
        ends = iter(bounds)
        if min is not None:
            value = _maximum(value, next(ends))
        return value if max is None else _minimum(value, next(ends))

    return elementwise(low, (x, *given), formula, common, common)


def _clamp_max(low: Lowering, x: TensorValue, max: Operand) -> TensorValue:
    return _clamp(low, x, None, max)


# ── conversion and copies ────────────────────────────────────────────────────────────────────────────────


def convert(low: Lowering, x: TensorValue, dtype: torch.dtype) -> TensorValue:
    """Convert to another dtype; a copy where the dtype is the same."""
    target = dtype_of(dtype)
    if target is x.dtype:
        return _copy_of(x)
    return elementwise(low, (x,), lambda value: value, x.dtype, target, wide=False)


def _copy_of(x: TensorValue) -> TensorValue:
    return replace(x, fresh=True)


def _to_copy(low: Lowering, x: TensorValue, *, dtype: torch.dtype | None = None, **_options: object) -> TensorValue:
    return _copy_of(x) if dtype is None else convert(low, x, dtype)


def _clone(_low: Lowering, x: TensorValue, **_options: object) -> TensorValue:
    return _copy_of(x)


def _same(_low: Lowering, x: TensorValue) -> TensorValue:
    return x


def _copy(low: Lowering, x: TensorValue, source: TensorValue, non_blocking: bool = False) -> TensorValue:  # noqa: ARG001
    """Lower copy: the source's values in x's shape and dtype."""
    expanded = source.broadcast(x.shape)
    if source.dtype is x.dtype:
        return _copy_of(expanded)
    return elementwise(low, (expanded,), lambda value: value, source.dtype, x.dtype, wide=False)


def _native_dropout(
    low: Lowering, x: TensorValue, p: float, train: bool | None
) -> tuple[TensorValue, TensorValue | None]:
    if train is not False and p != 0:
        raise Unsupported("dropout that draws random numbers")
    ones = low.pointwise(x.shape, [DType.BOOL], lambda writer, _: [writer.constant(True, DType.BOOL)])[0]
    return _copy_of(x), ones


def _each(row: Row, *overloads: torch._ops.OpOverload) -> dict[torch._ops.OpOverload, Rule]:
    return dict.fromkeys(overloads, rule(row))


def _binary(name: str, formula: Formula, promotion: Kind = DEFAULT) -> dict[torch._ops.OpOverload, Rule]:
    """Make the rows of an op of two tensors, or a tensor and a number."""
    packet = getattr(aten, name)
    return _each(Row(formula, 2, promotion), packet.Tensor, packet.Scalar)


_ARITHMETIC: Mapping[torch._ops.OpOverload, Rule] = {
    **_binary("add", _add),
    **_binary("sub", _sub),
    **_binary("rsub", _rsub),
    **_each(Row(_mul, 2, exact_scalars=True), aten.mul.Tensor, aten.mul.Scalar),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode), _divide),
    **dict.fromkeys((aten.floor_divide.default, aten.floor_divide.Scalar), _floor_divide),
    **_binary("fmod", _primitive("fmod")),
    **_binary("remainder", _primitive("mod")),
    **_each(Row(_primitive("mod"), 2), aten.remainder.Scalar_Tensor),
    **_each(Row(_maximum, 2), aten.maximum.default),
    **_each(Row(_minimum, 2), aten.minimum.default),
    **_each(Row(_fmax, 2), aten.fmax.default),
    **_each(Row(_fmin, 2), aten.fmin.default),
    **_each(Row(_addcmul, 3), aten.addcmul.default),
    **_each(Row(_addcdiv, 3, INT_TO_FLOAT), aten.addcdiv.default),
    **_each(Row(_lerp, 3, exact_scalars=True), aten.lerp.Scalar),
    **_each(Row(_lerp, 3), aten.lerp.Tensor),
}

_LOGIC: Mapping[torch._ops.OpOverload, Rule] = {
    **_binary("eq", _primitive("eq"), ALWAYS_BOOL),
    **_binary("ne", _primitive("ne"), ALWAYS_BOOL),
    **_binary("lt", _primitive("lt"), ALWAYS_BOOL),
    **_binary("le", _primitive("le"), ALWAYS_BOOL),
    **_binary("gt", _primitive("gt"), ALWAYS_BOOL),
    **_binary("ge", _primitive("ge"), ALWAYS_BOOL),
    **_binary("bitwise_and", _primitive("bitand")),
    **_binary("bitwise_or", _primitive("bitor")),
    **_binary("bitwise_xor", _primitive("bitxor")),
    **_each(Row(_primitive("bitand"), 2), aten.bitwise_and.Scalar_Tensor),
    **_each(Row(_primitive("bitor"), 2), aten.bitwise_or.Scalar_Tensor),
    **_each(Row(_primitive("bitxor"), 2), aten.bitwise_xor.Scalar_Tensor),
    **_each(Row(_primitive("bitnot")), aten.bitwise_not.default),
    **_binary("__lshift__", _primitive("shl")),
    **_binary("__rshift__", _primitive("shr")),
    **_each(Row(_primitive("shl"), 2), aten.bitwise_left_shift.Tensor, aten.bitwise_left_shift.Tensor_Scalar),
    **_each(Row(_primitive("shr"), 2), aten.bitwise_right_shift.Tensor, aten.bitwise_right_shift.Tensor_Scalar),
    **_each(Row(_primitive("shl"), 2), aten.bitwise_left_shift.Scalar_Tensor),
    **_each(Row(_primitive("shr"), 2), aten.bitwise_right_shift.Scalar_Tensor),
    **_each(Row(_logical("bitnot"), 1, ALWAYS_BOOL), aten.logical_not.default),
    **_each(Row(_logical("bitand"), 2, ALWAYS_BOOL), aten.logical_and.default),
    **_each(Row(_logical("bitor"), 2, ALWAYS_BOOL), aten.logical_or.default),
    **_each(Row(_logical("bitxor"), 2, ALWAYS_BOOL), aten.logical_xor.default),
}

_SELECTION: Mapping[torch._ops.OpOverload, Rule] = {
    **dict.fromkeys((aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar), _where),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), _masked_fill),
    **dict.fromkeys((aten.clamp.default, aten.clamp.Tensor, aten.clamp_min.default, aten.clamp_min.Tensor), _clamp),
    **dict.fromkeys((aten.clamp_max.default, aten.clamp_max.Tensor), _clamp_max),
}

_COPIES: Mapping[torch._ops.OpOverload, Rule] = {
    aten._to_copy.default: _to_copy,
    prims.convert_element_type.default: convert,
    aten.clone.default: _clone,
    aten.lift_fresh_copy.default: _clone,
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.lift_fresh.default: _same,
    aten.conj_physical.default: _same,
    aten.positive.default: _same,
    aten.copy.default: _copy,
    aten.native_dropout.default: _native_dropout,
}

RULES: Mapping[torch._ops.OpOverload, Rule] = {
    **_ARITHMETIC,
    **_LOGIC,
    **_SELECTION,
    **_COPIES,
    **pointwise_math.RULES,
    **pointwise_activation.RULES,
}
