"""erf, erfinv, lgamma and digamma on float64 arrays, from the standard library's `math` only; exact rather than fast."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Float64s: TypeAlias = npt.NDArray[np.float64]


def _each(function: Callable[[float], float], x: Float64s) -> Float64s:
    flat = np.fromiter((function(float(v)) for v in x.ravel()), np.float64, x.size)
    return flat.reshape(x.shape)


def erf(x: Float64s) -> Float64s:
    """Error function."""
    return _each(math.erf, x)


def erfc(x: Float64s) -> Float64s:
    """Complementary error function."""
    return _each(math.erfc, x)


def erfinv(x: Float64s) -> Float64s:
    """Inverse of erf; ±inf at ±1, NaN outside."""
    return _each(_erfinv, x)


def lgamma(x: Float64s) -> Float64s:
    """Logarithm of |Γ|; +inf at the poles."""
    return _each(_lgamma, x)


def digamma(x: Float64s) -> Float64s:
    """Logarithmic derivative of Γ; NaN at negative integers, −inf at +0, +inf at −0 (torch's rule)."""
    return _each(_digamma, x)


def _lgamma(x: float) -> float:
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):
        return math.inf


def _erfinv(x: float) -> float:
    size = abs(x)
    if math.isnan(x) or size > 1:
        return math.nan
    if size in (0.0, 1.0):
        return x if size == 0 else math.copysign(math.inf, x)
    # Start: Winitzki's approximation (A handy approximation for the error function and its inverse, 2008).
    log = math.log1p(-size * size)
    half = 2 / (math.pi * 0.147) + log / 2
    y = math.sqrt(math.sqrt(half * half - log / 0.147) - half)
    for _ in range(4):
        # Newton with Halley's correction; erfc near 1, where erf has no digits left.
        error = (1 - size) - math.erfc(y) if size > 0.5 else math.erf(y) - size
        step = error / (2 / math.sqrt(math.pi) * math.exp(-y * y))
        y -= step / (1 + y * step)
    return math.copysign(y, x)


def _digamma(x: float) -> float:
    if x == 0:
        return math.copysign(math.inf, -x)
    if math.isinf(x) or math.isnan(x):
        return math.nan if x == -math.inf else x
    if x < 0:
        if x == math.floor(x):
            return math.nan
        # Reflection: ψ(x) = ψ(1 − x) − π / tan(πx), the tangent's argument reduced first.
        return _digamma(1 - x) - math.pi / math.tan(math.pi * math.fmod(x, 1.0))
    result = 0.0
    while x < 10:
        result -= 1 / x
        x += 1
    # Asymptotic series with Bernoulli numbers (Abramowitz & Stegun 6.3.18).
    y = 1 / (x * x)
    terms = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
    series = sum(term * y ** (k + 1) for k, term in enumerate(terms))
    return result + math.log(x) - 0.5 / x - series
