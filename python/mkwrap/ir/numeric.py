"""The scalar primitives and reductions in numpy: the meaning of `ops.OPS` and `ops.REDUCTIONS`.

Values of dtype bfloat16 are float32 arrays that hold only values a bfloat16 has; in memory they are uint16 bit patterns.
Transcendental functions and sums of float32 are computed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from mkwrap.ir import special
from mkwrap.ir.dtypes import DType

Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[Any]]"
Scalar1: TypeAlias = Callable[[Array], Array]
Scalar2: TypeAlias = Callable[[Array, Array], Array]


def storage_type(dtype: DType) -> np.dtype[Any]:
    """Return the numpy dtype of a buffer in memory: uint16 bits for bfloat16."""
    return np.dtype(np.uint16 if dtype is DType.BFLOAT16 else dtype.value)


def value_type(dtype: DType) -> np.dtype[Any]:
    """Return the numpy dtype of values in a nest: float32 for bfloat16."""
    return np.dtype(np.float32 if dtype is DType.BFLOAT16 else dtype.value)


def decode(memory: Array, dtype: DType) -> Array:
    """Convert elements in memory to values."""
    if dtype is not DType.BFLOAT16:
        return memory
    return (memory.astype(np.uint32) << 16).view(np.float32)


def encode(values: Array, dtype: DType) -> Array:
    """Convert values of a dtype to elements in memory; float32 values are rounded half to even to bfloat16."""
    if dtype is not DType.BFLOAT16:
        return values.astype(storage_type(dtype), copy=False)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).reshape(values.shape)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def convert(x: Array, source: DType, dtype: DType) -> Array:
    """Cast: to bool is != 0, float to integer truncates (through int64 for narrow integers, as torch does)."""
    if dtype is DType.BOOL:
        return np.not_equal(x, 0)
    # To the 16-bit floats, float64 and int64 are rounded to float32 first: torch's conversion does so too.
    if dtype is DType.BFLOAT16:
        return decode(encode(x.astype(np.float32), dtype), dtype)
    if dtype is DType.FLOAT16:
        return x.astype(np.float32).astype(np.float16)
    if source.is_float and dtype.is_integer and dtype.itemsize < 4:
        return x.astype(np.int64).astype(dtype.value)
    return x.astype(dtype.value)


def _wide(function: Scalar1) -> Scalar1:
    """Compute in float64 and round once."""
    return lambda x: np.asarray(function(x.astype(np.float64))).astype(x.dtype)


def _wide2(function: Scalar2) -> Scalar2:
    return lambda x, y: np.asarray(function(x.astype(np.float64), y.astype(np.float64))).astype(x.dtype)


def _is_float(x: Array) -> bool:
    return bool(np.issubdtype(x.dtype, np.floating))


def _mod(x: Array, y: Array) -> Array:
    if not _is_float(x):
        return np.remainder(x, y)
    rest = np.fmod(x, y)
    return np.where((rest != 0) & ((y < 0) != (rest < 0)), rest + y, rest)


def _truncdiv(x: Array, y: Array) -> Array:
    if _is_float(x):
        return np.trunc(x / y)
    quotient = np.floor_divide(x, y)
    inexact = np.remainder(x, y) != 0
    result: Array = np.add(quotient, (inexact & ((x < 0) != (y < 0))).astype(x.dtype))
    return result


def _sign(x: Array) -> Array:
    if x.dtype == np.bool_:
        return x
    result: Array = np.subtract((x > 0).astype(x.dtype), (x < 0).astype(x.dtype))
    return result


def _shl(x: Array, y: Array) -> Array:
    width = x.dtype.itemsize * 8
    inside = (y >= 0) & (y < width)
    return np.where(inside, np.left_shift(x, np.where(inside, y, 0)), 0).astype(x.dtype)


def _shr(x: Array, y: Array) -> Array:
    """Arithmetic for signed integers; a count out of range shifts every bit but the sign out."""
    signed = np.issubdtype(x.dtype, np.signedinteger)
    width = x.dtype.itemsize * 8
    inside = (y >= 0) & (y < width)
    beyond = np.right_shift(x, width - 1) if signed else np.zeros_like(x)
    return np.where(inside, np.right_shift(x, np.where(inside, y, 0)), beyond).astype(x.dtype)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _reciprocal(x: Array) -> Array:
    return np.ones_like(x) / x


SCALAR: Mapping[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "floordiv": np.floor_divide,
    "truncdiv": _truncdiv,
    "mod": _mod,
    "fmod": np.fmod,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "sign": _sign,
    "sqrt": np.sqrt,
    "rsqrt": _wide(lambda x: 1 / np.sqrt(x)),
    "reciprocal": _reciprocal,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    **{name: _wide(getattr(np, name)) for name in ["exp", "exp2", "expm1", "log", "log2", "log10", "log1p"]},
    **{name: _wide(getattr(np, name)) for name in ["sin", "cos", "tan", "sinh", "cosh", "tanh"]},
    **{name: _wide(getattr(np, f"arc{name[1:]}")) for name in ["asin", "acos", "atan", "asinh", "acosh", "atanh"]},
    "erf": _wide(special.erf),
    "erfc": _wide(special.erfc),
    "erfinv": _wide(special.erfinv),
    "lgamma": _wide(special.lgamma),
    "digamma": _wide(special.digamma),
    "sigmoid": _wide(_sigmoid),
    "atan2": _wide2(np.arctan2),
    "pow": _wide2(np.power),
    "hypot": _wide2(np.hypot),
    "copysign": np.copysign,
    "nextafter": np.nextafter,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "signbit": np.signbit,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "bitand": np.bitwise_and,
    "bitor": np.bitwise_or,
    "bitxor": np.bitwise_xor,
    "bitnot": np.invert,
    "shl": _shl,
    "shr": _shr,
    "where": np.where,
}
"""Every op but `cast`, which is `convert`."""


def lowest(dtype: np.dtype[Any]) -> bool | int | float:
    """Identity of maximum."""
    if dtype == np.bool_:
        return False
    return float("-inf") if np.issubdtype(dtype, np.floating) else int(np.iinfo(dtype).min)


def highest(dtype: np.dtype[Any]) -> bool | int | float:
    """Identity of minimum."""
    if dtype == np.bool_:
        return True
    return float("inf") if np.issubdtype(dtype, np.floating) else int(np.iinfo(dtype).max)


def _accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64) if np.issubdtype(dtype, np.floating) else dtype


def _sum(x: Array) -> tuple[Array, ...]:
    if x.dtype == np.bool_:
        return (np.any(x, axis=-1),)
    return (np.sum(x, axis=-1, dtype=_accumulator(x.dtype)).astype(x.dtype),)


def _argument(pick: Callable[..., Any], identity: Callable[[np.dtype[Any]], bool | int | float]) -> Scalar1:
    def reduce(x: Array) -> tuple[Array, ...]:
        if x.shape[-1] == 0:
            return np.full(x.shape[:-1], identity(x.dtype), x.dtype), np.zeros(x.shape[:-1], np.int64)
        # numpy's argmax and argmin take the first NaN for the extremum, as torch does.
        position = pick(x, axis=-1, keepdims=True)
        return np.take_along_axis(x, position, -1)[..., 0], position[..., 0].astype(np.int64)

    return reduce  # type: ignore[return-value]


def _welford(x: Array) -> tuple[Array, ...]:
    wide = x.astype(np.float64)
    mean = wide.sum(-1, keepdims=True) / max(x.shape[-1], 1)
    squares = np.square(wide - mean).sum(-1)
    return mean[..., 0].astype(x.dtype), squares.astype(x.dtype)


REDUCE: Mapping[str, Callable[[Array], Any]] = {
    "sum": _sum,
    "prod": lambda x: (np.prod(x, axis=-1, dtype=x.dtype),),
    "maximum": lambda x: (np.max(x, axis=-1, initial=lowest(x.dtype)),),
    "minimum": lambda x: (np.min(x, axis=-1, initial=highest(x.dtype)),),
    "argmax": _argument(np.argmax, lowest),
    "argmin": _argument(np.argmin, highest),
    "welford": _welford,
}
"""Every reduction of one argument, over the last axis; `dot` is `contract`."""


def _extent(x: int, y: int) -> int:
    return y if x == 1 else x


def contract(a: Array, b: Array, rows: int) -> Array:
    """Σ a·b over all axes from `rows` on (of equal extents); the first `rows` axes broadcast; as a product of matrices.

    Floats are accumulated and returned in float64, integers in their own dtype.
    """
    axes = range(rows)
    both = [k for k in axes if a.shape[k] != 1 and b.shape[k] != 1]
    left = [k for k in axes if a.shape[k] != 1 and b.shape[k] == 1]
    right = [k for k in axes if a.shape[k] == 1 and b.shape[k] != 1]
    unit = [k for k in axes if a.shape[k] == 1 and b.shape[k] == 1]
    wide = _accumulator(a.dtype)
    x = _matrices(a, (both, left, [*range(rows, a.ndim), *right, *unit])).astype(wide)
    y = _matrices(b, (both, right, [*range(rows, b.ndim), *left, *unit])).astype(wide)
    order = [*both, *left, *right, *unit]
    product: Array = np.matmul(x, np.swapaxes(y, -1, -2))
    extents = [_extent(a.shape[k], b.shape[k]) for k in order]
    return product.reshape(extents).transpose([order.index(k) for k in axes])


def _matrices(x: Array, groups: tuple[list[int], ...]) -> Array:
    """Group axes: one axis of the result per group."""
    extents = [int(np.prod([x.shape[k] for k in group], dtype=np.int64)) for group in groups]
    return x.transpose([k for group in groups for k in group]).reshape(extents)
