"""Pointwise math functions: one row each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import sympy
import torch

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.lower.elementwise import (
    ALWAYS_BOOL,
    DEFAULT,
    INT_TO_FLOAT,
    Formula,
    Row,
    elementwise,
    promote,
    rule,
)
from mkwrap.lower.lowering import Lowering, Operand, Rule, Scalar, Unsupported
from mkwrap.lower.tensor import TensorValue
from mkwrap.lower.term import Term

aten = torch.ops.aten

# ATen name → primitive; integers are promoted to float first.
_FLOAT_FUNCTIONS = (
    "sqrt",
    "rsqrt",
    "reciprocal",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "erf",
    "erfc",
    "erfinv",
    "sigmoid",
    "lgamma",
    "digamma",
)


def _unary(op: str) -> Formula:
    return lambda x: x.apply(op)


def _float_only(op: str) -> Formula:
    """Apply a primitive to floats; integers are returned as they are."""
    return lambda x: x.apply(op) if x.dtype.is_float else x


def _float_test(op: str) -> Formula:
    """Test a float; no integer is NaN or infinite."""
    return lambda x: x.apply(op) if x.dtype.is_float else Term(x.writer, x.writer.constant(False, DType.BOOL))


def _abs(x: Term) -> Term:
    return x.apply("abs") if x.dtype.is_signed else x


def _sign(x: Term) -> Term:
    return x if x.dtype is DType.BOOL else x.apply("sign")


def _signbit(x: Term) -> Term:
    if x.dtype is DType.BOOL:
        return Term(x.writer, x.writer.constant(False, DType.BOOL))
    return x.apply("signbit") if x.dtype.is_float else x < 0


def _round_decimals(x: Term, *, decimals: int) -> Term:
    """Round to `decimals` places; as eager, a negative count divides first."""
    if not x.dtype.is_float or decimals == 0:
        return _float_only("round")(x)
    scale = 10.0 ** abs(decimals)
    return (x * scale).apply("round") / scale if decimals > 0 else (x / scale).apply("round") * scale


def _logaddexp(exp: str, log: str) -> Formula:
    """log(exp(a) + exp(b)) without overflow; equal infinities give themselves."""

    def formula(a: Term, b: Term) -> Term:
        high = a.apply("maximum", b)
        same = a.equals(b) & a.apply("isinf")
        return same.where(a, high + (1 + (-(a - b).apply("abs")).apply(exp)).apply(log))

    return formula


def _angle(x: Term) -> Term:
    """Angle of a real number: π where it is negative, NaN where it is NaN."""
    return x.apply("isnan").where(x, (x < 0).where(x.like(math.pi), x.like(0)))


def _xlogy(a: Term, b: Term) -> Term:
    """a·log(b): 0 where a is 0, NaN where b is NaN."""
    product = a.equals(0).where(a.like(0), a * b.apply("log"))
    return b.apply("isnan").where(b, product)


# ── pow ──────────────────────────────────────────────────────────────────────────────────────────────────


def _float_power(x: Term, exponent: float, common: DType) -> Term:
    """Raise to a known exponent, through the short forms eager uses."""
    # Eager rounds the square to bfloat16, but keeps float32 for float16.
    between = common if common is DType.BFLOAT16 else x.dtype
    match exponent:
        case 0.5:
            return x.apply("sqrt")
        case -0.5:
            return x.apply("rsqrt")
        case 1.0:
            return x
        case 2.0:
            return x * x
        case 3.0:
            return (x * x).cast(between).cast(x.dtype) * x
        case -1.0:
            return x.apply("reciprocal")
        case -2.0:
            return (x * x).cast(between).cast(x.dtype).apply("reciprocal")
    return x.apply("pow", exponent)


def _integer_power(x: Term, exponent: int) -> Term:
    """Multiply by squaring; wraps on overflow."""
    result: Term | None = None
    square = x
    while exponent:
        if exponent & 1:
            result = square if result is None else result * square
        exponent >>= 1
        if exponent:
            square = square * square
    return x.like(1) if result is None else result


def _integer_power_by_bits(base: Term, exponent: Term) -> Term:
    """Raise an integer to an integer: by squaring over all bits; a negative exponent gives 0 unless the base is ±1."""
    dtype = base.dtype
    result, square = base.like(1), base
    for bit in range(8 * dtype.itemsize - dtype.is_signed):
        chosen = (exponent.apply("shr", bit) & exponent.like(1)).equals(1)
        result = chosen.where(result * square, result)
        square = square * square
    if not dtype.is_signed:
        return result
    odd = (exponent & exponent.like(1)).equals(1)
    of_minus_one = odd.where(base.like(-1), base.like(1))
    inverse = base.equals(1).where(base.like(1), base.equals(-1).where(of_minus_one, base.like(0)))
    return (exponent < 0).where(inverse, result)


def _pow_scalar(low: Lowering, x: TensorValue, exponent: Scalar | Expr) -> TensorValue:
    if isinstance(exponent, sympy.Expr):
        return _pow(low, x, exponent)
    common = promote((x, exponent), DEFAULT)
    if isinstance(exponent, int) and not common.is_float and exponent < 0:
        raise Unsupported("an integer to a negative integer power")

    def formula(value: Term) -> Term:
        if exponent == 0:
            return value.like(1)
        if common is DType.BOOL:
            return value
        if not common.is_float:
            return _integer_power(value, int(exponent))
        # Eager has no short form of roots for float16, and only pow takes −inf to +inf.
        root = common is DType.FLOAT16 and abs(exponent) == 0.5
        return value.apply("pow", exponent) if root else _float_power(value, float(exponent), common)

    return elementwise(low, (x,), formula, common, common)


def _pow(low: Lowering, base: Operand, exponent: Operand) -> TensorValue:
    common = promote((base, exponent), DEFAULT)
    if common is DType.BOOL:
        raise Unsupported("pow of bool tensors")

    def formula(x: Term, y: Term) -> Term:
        return x.apply("pow", y) if common.is_float else _integer_power_by_bits(x, y)

    return elementwise(low, (base, exponent), formula, common, common)


def _nextafter(low: Lowering, a: Operand, b: Operand) -> TensorValue:
    common = promote((a, b), DEFAULT)
    if common.compute is not common:
        raise Unsupported(f"nextafter of {common.value}: it is computed in float32, whose neighbours are nearer")
    return elementwise(low, (a, b), lambda x, y: x.apply("nextafter", y), common, common)


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    **{getattr(aten, name).default: rule(Row(_unary(name), 1, INT_TO_FLOAT)) for name in _FLOAT_FUNCTIONS},
    **{getattr(aten, name).default: rule(Row(_float_only(name))) for name in ("floor", "ceil", "round", "trunc")},
    **{getattr(aten, name).default: rule(Row(_float_test(name), 1, ALWAYS_BOOL)) for name in ("isnan", "isinf")},
    aten.round.decimals: rule(Row(_round_decimals)),
    aten.abs.default: rule(Row(_abs)),
    aten.neg.default: rule(Row(_unary("neg"))),
    aten.sign.default: rule(Row(_sign)),
    aten.sgn.default: rule(Row(_sign)),
    aten.signbit.default: rule(Row(_signbit, 1, ALWAYS_BOOL)),
    aten.frac.default: rule(Row(lambda x: x - x.apply("trunc"))),
    aten.deg2rad.default: rule(Row(lambda x: x * (math.pi / 180), 1, INT_TO_FLOAT)),
    aten.rad2deg.default: rule(Row(lambda x: x * (180 / math.pi), 1, INT_TO_FLOAT)),
    aten.atan2.default: rule(Row(lambda a, b: a.apply("atan2", b), 2, INT_TO_FLOAT)),
    aten.hypot.default: rule(Row(lambda a, b: a.apply("hypot", b), 2)),
    aten.nextafter.default: _nextafter,
    **{
        op: rule(Row(lambda a, b: a.apply("copysign", b), 2, INT_TO_FLOAT))
        for op in (aten.copysign.Tensor, aten.copysign.Scalar)
    },
    aten.logaddexp.default: rule(Row(_logaddexp("exp", "log"), 2, INT_TO_FLOAT)),
    aten.logaddexp2.default: rule(Row(_logaddexp("exp2", "log2"), 2, INT_TO_FLOAT)),
    **{
        op: rule(Row(_xlogy, 2, INT_TO_FLOAT))
        for op in (aten.xlogy.Tensor, aten.xlogy.Scalar_Self, aten.xlogy.Scalar_Other)
    },
    aten.ldexp.Tensor: rule(Row(lambda a, b: a * b.apply("exp2"), 2, INT_TO_FLOAT)),
    aten.angle.default: rule(Row(_angle, 1, INT_TO_FLOAT)),
    aten.pow.Tensor_Scalar: _pow_scalar,
    aten.pow.Tensor_Tensor: _pow,
    aten.pow.Scalar: _pow,
}
