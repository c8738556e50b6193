"""How C++ spells dtypes, literals and the scalar primitives: functions of simd.h, alike for scalars and vectors."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

from mkwrap.errors import VerifyError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.ops import OPS, Kind

CTYPES: Mapping[DType, str] = {
    DType.FLOAT64: "double",
    DType.FLOAT32: "float",
    DType.FLOAT16: "mkw::f16",
    DType.BFLOAT16: "mkw::bf16",
    DType.INT64: "int64_t",
    DType.INT32: "int32_t",
    DType.INT16: "int16_t",
    DType.INT8: "int8_t",
    DType.UINT64: "uint64_t",
    DType.UINT32: "uint32_t",
    DType.UINT16: "uint16_t",
    DType.UINT8: "uint8_t",
    DType.BOOL: "bool",
}

_HALVES = (DType.FLOAT16, DType.BFLOAT16)

_CORE, _MATH, _SPECIAL = "simd.h", "simd_math.h", "simd_special.h"

# Ops whose C++ name is not their own: alternative tokens of the language (bitand, bitor) and their kin.
_RENAMED: Mapping[str, str] = {"bitand": "bitand_", "bitor": "bitor_", "bitxor": "bitxor_"}

_HEADERS: Mapping[str, str] = {
    **dict.fromkeys(
        ["add", "sub", "mul", "div", "minimum", "maximum", "floordiv", "truncdiv", "mod", "fmod", "neg", "abs", "sign"],
        _CORE,
    ),
    **dict.fromkeys(
        [
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "bitand",
            "bitor",
            "bitxor",
            "bitnot",
            "shl",
            "shr",
            "where",
            "cast",
            "isnan",
        ],
        _CORE,
    ),
    **dict.fromkeys(
        [
            "sqrt",
            "rsqrt",
            "reciprocal",
            "floor",
            "ceil",
            "round",
            "trunc",
            "exp",
            "exp2",
            "expm1",
            "log",
            "log2",
            "log10",
            "log1p",
        ],
        _MATH,
    ),
    **dict.fromkeys(
        [
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
            "sigmoid",
        ],
        _MATH,
    ),
    **dict.fromkeys(["atan2", "pow", "hypot", "copysign", "nextafter", "isinf", "signbit"], _MATH),
    **dict.fromkeys(["erfinv", "lgamma", "digamma"], _SPECIAL),
}

# On bool as they stand; all other arithmetic on bool goes through uint8.
_ON_BOOL = frozenset(["minimum", "maximum", "bitand", "bitor", "bitxor", "bitnot", "where", "cast"])


def header(op: str) -> str:
    """Return the header under csrc/include/mkwrap that declares an op; raises `VerifyError` for an unknown op."""
    if op not in _HEADERS:
        raise VerifyError(f"op {op!r} has no C++ spelling")
    return _HEADERS[op]


def spell(op: str, dtype: DType, result: DType, args: Sequence[str]) -> str:
    """Spell op(args) in C++.

    `dtype` is the type of the (last) argument, `result` that of the value. Arguments are all scalars or all vectors of
    equally many lanes. The 16-bit floats are computed in float32 and rounded once.
    """
    header(op)
    name = f"mkw::{_RENAMED.get(op, op)}"
    if op == "cast":
        return _convert(args[0], result)
    if op == "where":
        return f"{name}({', '.join(args)})"
    through = _through(op, dtype)
    if through is dtype:
        return f"{name}({', '.join(args)})"
    inner = f"{name}({', '.join(_convert(arg, through) for arg in args)})"
    return inner if OPS[op].kind in (Kind.COMPARE, Kind.TEST) else _convert(inner, result)


def _through(op: str, dtype: DType) -> DType:
    """Return the dtype an op on `dtype` is computed in."""
    if dtype in _HALVES:
        return DType.FLOAT32
    return DType.UINT8 if dtype is DType.BOOL and op not in _ON_BOOL else dtype


def _convert(value: str, dtype: DType) -> str:
    return f"mkw::to<{CTYPES[dtype]}>({value})"


def literal(value: bool | int | float, dtype: DType) -> str:
    """Spell a constant as a C++ expression of exactly that dtype; floats are rounded to it, overflow gives infinity."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype.is_integer:
        return _integer(int(value), dtype)
    if dtype in _HALVES:
        return _convert(literal(value, DType.FLOAT32), dtype)
    suffix = "" if dtype is DType.FLOAT64 else "f"
    number = float(value) if dtype is DType.FLOAT64 else _float32(float(value))
    if math.isnan(number):
        return f'__builtin_nan{suffix}("")'
    if math.isinf(number):
        return f"{'-' if number < 0 else ''}__builtin_inf{suffix}()"
    return f"{number!r}{suffix}"


def _float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _integer(value: int, dtype: DType) -> str:
    bits = 8 * dtype.itemsize
    wrapped = value % (1 << bits)
    if dtype.is_signed and wrapped >= 1 << (bits - 1):
        wrapped -= 1 << bits
    # The most negative number has no literal of its own: its digits alone overflow.
    text = f"(-{-wrapped - 1} - 1)" if wrapped == -(1 << 63) else str(wrapped)
    suffix = "" if abs(wrapped) < 1 << 31 else "ull" if dtype is DType.UINT64 else "ll"
    text = text.replace(" - 1)", "ll - 1)") if wrapped == -(1 << 63) else text + suffix
    return f"({CTYPES[dtype]}){text}" if wrapped >= 0 else f"({CTYPES[dtype]})({text})"
