"""Activation functions: one row each. Formulas and constants are those of eager's documentation."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from mkwrap.lower.elementwise import INT_TO_FLOAT, Row, rule
from mkwrap.lower.lowering import Lowering, Rule, Scalar, Unsupported
from mkwrap.lower.tensor import TensorValue
from mkwrap.lower.term import Term

aten = torch.ops.aten


def _clip(x: Term, low: Scalar, high: Scalar) -> Term:
    return x.apply("maximum", low).apply("minimum", high)


def _relu(x: Term) -> Term:
    return x.apply("maximum", 0) if x.dtype.is_signed else x


def _gelu(x: Term, *, approximate: str = "none") -> Term:
    if approximate == "none":
        return x * 0.5 * (1 + (x * math.sqrt(0.5)).apply("erf"))
    inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
    return x * 0.5 * (1 + inner.apply("tanh"))


def _leaky_relu(x: Term, negative_slope: Scalar = 0.01) -> Term:
    return (x > 0).where(x, x * negative_slope)


def _elu(x: Term, alpha: Scalar = 1, scale: Scalar = 1, input_scale: Scalar = 1) -> Term:
    negative = (x * input_scale).apply("expm1") * (float(alpha) * float(scale))
    return (x <= 0).where(negative, x * scale)


def _celu(x: Term, alpha: Scalar = 1) -> Term:
    return _elu(x, alpha, 1, 1 / alpha)


def _selu(x: Term) -> Term:
    """Constants of Klambauer et al., Self-Normalizing Neural Networks (2017)."""
    return _elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def _softplus(x: Term, beta: Scalar = 1, threshold: Scalar = 20) -> Term:
    scaled = x * beta
    return (scaled > threshold).where(x, scaled.apply("exp").apply("log1p") / beta)


def _mish(x: Term) -> Term:
    return x * _softplus(x).apply("tanh")


def _silu(x: Term) -> Term:
    return x * x.apply("sigmoid")


def _hardtanh(x: Term, min_val: Scalar = -1, max_val: Scalar = 1) -> Term:
    return _clip(x, min_val, max_val)


def _hardswish(x: Term) -> Term:
    return x * _clip(x + 3, 0, 6) / 6


def _threshold(x: Term, threshold: Scalar, value: Scalar) -> Term:
    return (x <= threshold).where(x.like(value), x)


def _hardshrink(x: Term, lambd: Scalar = 0.5) -> Term:
    """NaN is kept: only numbers within ±lambd become 0."""
    return ((x >= -lambd) & (x <= lambd)).where(x.like(0), x)


def _softshrink(x: Term, lambd: Scalar = 0.5) -> Term:
    return (x > lambd).where(x - lambd, (x < -lambd).where(x + lambd, x * 0))


def _log_sigmoid(x: Term) -> Term:
    return x.apply("minimum", 0) - (-x.apply("abs")).apply("exp").apply("log1p")


def _log_sigmoid_forward(low: Lowering, x: TensorValue) -> tuple[TensorValue, None]:
    """Lower log_sigmoid_forward; its second result only serves the backward pass."""
    result = rule(Row(_log_sigmoid))(low, x)
    assert isinstance(result, TensorValue)
    return result, None


def _float(formula: Row) -> Rule:
    """Refuse integers, which eager refuses as well."""
    lower = rule(formula)

    def checked(low: Lowering, x: TensorValue, *args: object, **params: object) -> TensorValue:
        if not x.dtype.is_float:
            raise Unsupported(f"this activation on {x.dtype.value}")
        result = lower(low, x, *args, **params)
        assert isinstance(result, TensorValue)
        return result

    return checked


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.relu.default: rule(Row(_relu)),
    aten.relu6.default: rule(Row(lambda x: _clip(x, 0, 6))),
    aten.gelu.default: _float(Row(_gelu)),
    aten.silu.default: _float(Row(_silu)),
    aten.leaky_relu.default: _float(Row(_leaky_relu)),
    aten.elu.default: _float(Row(_elu)),
    aten.celu.default: _float(Row(_celu)),
    aten.selu.default: _float(Row(_selu)),
    aten.softplus.default: _float(Row(_softplus)),
    aten.mish.default: _float(Row(_mish)),
    aten.hardtanh.default: rule(Row(_hardtanh)),
    aten.hardsigmoid.default: _float(Row(lambda x: _clip(x + 3, 0, 6) / 6)),
    aten.hardswish.default: _float(Row(_hardswish)),
    aten.threshold.default: rule(Row(_threshold)),
    aten.hardshrink.default: _float(Row(_hardshrink)),
    aten.softshrink.default: _float(Row(_softshrink)),
    aten.log_sigmoid_forward.default: _log_sigmoid_forward,
    aten._prelu_kernel.default: rule(Row(lambda x, w: (x > 0).where(x, w * x), 2)),
    aten.logit.default: rule(Row(lambda x, eps=None: _logit(x, eps), 1, INT_TO_FLOAT)),
}


def _logit(x: Term, eps: float | None) -> Term:
    clipped = x if eps is None or eps < 0 else _clip(x, eps, 1 - eps)
    return (clipped / (1 - clipped)).apply("log")
