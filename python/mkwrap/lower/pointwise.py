"""Pointwise ATen ops: arithmetic, comparison, logic, selection, conversion. Math and activations: their own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy
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
    round_scalar,
    rule,
)
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Operand, Rule, Scalar, Unsupported, dtype_of
from mkwrap.lower.tensor import TensorValue
from mkwrap.lower.term import Term

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
    shape = broadcast_shape([v.shape for v in (condition, a, b) if isinstance(v, TensorValue)])

    def write(writer: NestWriter, index: Index) -> list[str]:
        chosen = Term(writer, writer.read(condition.broadcast(shape), index, dtype=DType.BOOL))
        return [chosen.where(*(_element(writer, v, shape, index, common) for v in (a, b))).name]

    return low.pointwise(shape, [common], write)[0]


def _element(writer: NestWriter, value: Operand, shape: Sequence[sympy.Expr], index: Index, dtype: DType) -> Term:
    if isinstance(value, TensorValue):
        return Term(writer, writer.read(value.broadcast(shape), index, dtype=dtype))
    return Term(writer, writer.constant(round_scalar(value, dtype), dtype))


def _clamp(
    low: Lowering, x: TensorValue, low_end: Operand | None = None, high_end: Operand | None = None
) -> TensorValue:
    """Lower clamp with numbers or tensors as bounds; NaN propagates, and min > max gives max."""
    given = [bound for bound in (low_end, high_end) if bound is not None]
    common = promote((x, *given), DEFAULT)

    def formula(value: Term, *bounds: Term) -> Term:
        ends = iter(bounds)
        if low_end is not None:
            value = _maximum(value, next(ends))
        return value if high_end is None else _minimum(value, next(ends))

    return elementwise(low, (x, *given), formula, common, common)


def _clamp_rule(low: Lowering, x: TensorValue, min: Operand | None = None, max: Operand | None = None) -> TensorValue:
    return _clamp(low, x, min, max)


def _clamp_max(low: Lowering, x: TensorValue, max: Operand) -> TensorValue:
    return _clamp(low, x, None, max)


def _masked_fill(low: Lowering, x: TensorValue, mask: TensorValue, value: Operand) -> TensorValue:
    """Lower masked_fill; the result keeps x's dtype, whatever the value's."""

    def formula(element: Term, chosen: Term, filler: Term) -> Term:
        return chosen.where(filler.cast(x.dtype), element)

    shape = broadcast_shape([x.shape, mask.shape])

    def write(writer: NestWriter, index: Index) -> list[str]:
        chosen = _element(writer, mask, shape, index, DType.BOOL)
        return [
            formula(
                _element(writer, x, shape, index, x.dtype), chosen, _element(writer, value, shape, index, x.dtype)
            ).name
        ]

    return low.pointwise(shape, [x.dtype], write)[0]


# ── conversion and copies ────────────────────────────────────────────────────────────────────────────────


def convert(low: Lowering, x: TensorValue, dtype: torch.dtype) -> TensorValue:
    """Convert to another dtype; a copy where the dtype is the same."""
    target = dtype_of(dtype)
    if target is x.dtype:
        return _copy_of(x)
    return elementwise(low, (x,), lambda value: value, x.dtype, target, wide=False)


def _copy_of(x: TensorValue) -> TensorValue:
    return TensorValue(x.buffer, x.shape, x.axes, x.index, fresh=True)


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


def _both(packet: torch._ops.OpOverloadPacket) -> tuple[torch._ops.OpOverload, torch._ops.OpOverload]:
    return packet.Tensor, packet.Scalar


def _rows(
    packets: Sequence[torch._ops.OpOverloadPacket], formula: Formula, kind: Kind = DEFAULT, exact: bool = False
) -> dict[torch._ops.OpOverload, Rule]:
    row = rule(Row(formula, 2, kind, exact))
    return {overload: row for packet in packets for overload in _both(packet)}


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    **_rows([aten.add], _add),
    **_rows([aten.sub], _sub),
    **_rows([aten.rsub], _rsub),
    **_rows([aten.mul], _mul, exact=True),
    **_rows([aten.fmod], _primitive("fmod")),
    **_rows([aten.remainder], _primitive("mod")),
    aten.remainder.Scalar_Tensor: rule(Row(_primitive("mod"), 2)),
    **{op: _divide for packet in (aten.div,) for op in (*_both(packet), packet.Tensor_mode, packet.Scalar_mode)},
    aten.floor_divide.default: _floor_divide,
    aten.floor_divide.Scalar: _floor_divide,
    aten.maximum.default: rule(Row(_maximum, 2)),
    aten.minimum.default: rule(Row(_minimum, 2)),
    aten.fmax.default: rule(Row(_fmax, 2)),
    aten.fmin.default: rule(Row(_fmin, 2)),
    aten.addcmul.default: rule(Row(_addcmul, 3)),
    aten.addcdiv.default: rule(Row(_addcdiv, 3)),
    aten.lerp.Scalar: rule(Row(_lerp, 3, exact_scalars=True)),
    aten.lerp.Tensor: rule(Row(_lerp, 3)),
    **{
        o: r
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
        for o, r in _rows([getattr(aten, name)], _primitive(name), ALWAYS_BOOL).items()
    },
    **_rows([aten.bitwise_and], _primitive("bitand")),
    **_rows([aten.bitwise_or], _primitive("bitor")),
    **_rows([aten.bitwise_xor], _primitive("bitxor")),
    **{
        op: rule(Row(_primitive("shl"), 2))
        for op in (aten.bitwise_left_shift.Tensor, aten.bitwise_left_shift.Tensor_Scalar)
    },
    **{
        op: rule(Row(_primitive("shr"), 2))
        for op in (aten.bitwise_right_shift.Tensor, aten.bitwise_right_shift.Tensor_Scalar)
    },
    aten.bitwise_not.default: rule(Row(_primitive("bitnot"))),
    aten.logical_not.default: rule(Row(_logical("bitnot"), 1, ALWAYS_BOOL)),
    aten.logical_and.default: rule(Row(_logical("bitand"), 2, ALWAYS_BOOL)),
    aten.logical_or.default: rule(Row(_logical("bitor"), 2, ALWAYS_BOOL)),
    aten.logical_xor.default: rule(Row(_logical("bitxor"), 2, ALWAYS_BOOL)),
    **dict.fromkeys((aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar), _where),
    aten.clamp.default: _clamp_rule,
    aten.clamp.Tensor: _clamp_rule,
    aten.clamp_min.default: _clamp_rule,
    aten.clamp_min.Tensor: _clamp_rule,
    aten.clamp_max.default: _clamp_max,
    aten.clamp_max.Tensor: _clamp_max,
    aten.masked_fill.Scalar: _masked_fill,
    aten.masked_fill.Tensor: _masked_fill,
    aten._to_copy.default: _to_copy,
    prims.convert_element_type.default: convert,
    aten.clone.default: _clone,
    aten.lift_fresh_copy.default: _clone,
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.lift_fresh.default: _same,
    aten.copy.default: _copy,
    aten.native_dropout.default: _native_dropout,
    **pointwise_math.RULES,
    **pointwise_activation.RULES,
}
