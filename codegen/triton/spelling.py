"""Op → text in `triton.language`: one row per scalar primitive and class of dtype, with torch's semantics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mkwrap.codegen.triton.prelude import PRELUDE
from mkwrap.errors import UnsupportedOpError, UnsupportedUse
from mkwrap.ir.dtypes import DType
from mkwrap.ir.ops import OPS, Kind

TYPES: Mapping[DType, str] = {
    DType.FLOAT64: "tl.float64",
    DType.FLOAT32: "tl.float32",
    DType.FLOAT16: "tl.float16",
    DType.BFLOAT16: "tl.bfloat16",
    DType.INT64: "tl.int64",
    DType.INT32: "tl.int32",
    DType.INT16: "tl.int16",
    DType.INT8: "tl.int8",
    DType.UINT64: "tl.uint64",
    DType.UINT32: "tl.uint32",
    DType.UINT16: "tl.uint16",
    DType.UINT8: "tl.uint8",
    DType.BOOL: "tl.int1",
}
"""Value types."""

SIGNATURE: Mapping[DType, str] = {
    DType.FLOAT64: "fp64",
    DType.FLOAT32: "fp32",
    DType.FLOAT16: "fp16",
    DType.BFLOAT16: "bf16",
    DType.INT64: "i64",
    DType.INT32: "i32",
    DType.INT16: "i16",
    DType.INT8: "i8",
    DType.UINT64: "u64",
    DType.UINT32: "u32",
    DType.UINT16: "u16",
    DType.UINT8: "u8",
    DType.BOOL: "i1",
}
"""Names in a signature; a `*i1` points to bytes, which loads and stores of Triton handle."""

NARROW_FLOATS = (DType.FLOAT16, DType.BFLOAT16)


@dataclass(frozen=True)
class Spelled:
    """An expression, and the prelude functions it calls."""

    text: str
    needs: tuple[str, ...] = ()


def constant(value: bool | int | float, dtype: DType) -> str:
    """Spell a typed scalar."""
    if dtype is DType.BOOL:
        return f"tl.full([], {bool(value)}, tl.int1)"
    if not dtype.is_float:
        return f"tl.full([], {int(value)}, {TYPES[dtype]})"
    if value == 0 and math.copysign(1, value) < 0:
        # Triton before 3.9 writes the literal -0.0 as 0.0, and negates by subtracting from 0.0.
        bits = 8 * dtype.itemsize
        return f"tl.full([], {-(1 << (bits - 1))}, tl.int{bits}).to({TYPES[dtype]}, bitcast=True)"
    if dtype is DType.BFLOAT16:
        # Triton's interpreter before 3.9 has no bfloat16 constants.
        return f"tl.full([], {float_literal(float(value))}, tl.float32).to({TYPES[dtype]})"
    return f"tl.full([], {float_literal(float(value))}, {TYPES[dtype]})"


def float_literal(value: float) -> str:
    """Spell a Python float that survives the trip, infinities and NaN included."""
    if math.isnan(value):
        return 'float("nan")'
    if math.isinf(value):
        return 'float("inf")' if value > 0 else 'float("-inf")'
    return repr(value)


def dtype_class(dtype: DType) -> str:
    """Return the column of the spelling table: f64, f32 (also for 16-bit floats), int, uint or bool."""
    if dtype is DType.FLOAT64:
        return "f64"
    if dtype.is_float:
        return "f32"
    if dtype is DType.BOOL:
        return "bool"
    return "int" if dtype.is_signed else "uint"


def _libdevice(names: str) -> dict[str, dict[str, str]]:
    rows = {}
    for name in names.split():
        arguments = "{0}, {1}" if OPS[name].arity == 2 else "{0}"
        rows[name] = {"float": f"libdevice.{name}({arguments})"}
    return rows


_NAN_MAX = "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)"
_NAN_MIN = "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)"

# Columns: a dtype class, or "float" (f32 and f64), "integer" (int and uint), "any". {W} is the width in bits, {T} the
# argument's type. tl.exp, tl.log, tl.sqrt and `/` are approximations in float32; libdevice and the _rn forms are not.
_ROWS: Mapping[str, Mapping[str, str]] = {
    **_libdevice("exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh"),
    **_libdevice("erf erfc erfinv lgamma atan2 pow hypot copysign nextafter trunc fmod"),
    "add": {"bool": "({0} | {1})", "any": "({0} + {1})"},
    "sub": {"bool": "({0} ^ {1})", "any": "({0} - {1})"},
    "mul": {"bool": "({0} & {1})", "any": "({0} * {1})"},
    "minimum": {"float": _NAN_MIN, "bool": "({0} & {1})", "integer": "tl.minimum({0}, {1})"},
    "maximum": {"float": _NAN_MAX, "bool": "({0} | {1})", "integer": "tl.maximum({0}, {1})"},
    "div": {"f32": "tl.div_rn({0}, {1})", "f64": "({0} / {1})"},
    "truncdiv": {
        "f32": "libdevice.trunc(tl.div_rn({0}, {1}))",
        "f64": "libdevice.trunc({0} / {1})",
        "integer": "({0} // {1})",
    },
    "floordiv": {"float": "floordiv_float({0}, {1})", "int": "floordiv_int({0}, {1})", "uint": "({0} // {1})"},
    "mod": {"float": "mod_float({0}, {1})", "int": "mod_int({0}, {1})", "uint": "({0} % {1})"},
    "fmod": {"float": "libdevice.fmod({0}, {1})", "integer": "({0} % {1})"},
    # Triton 3.6 writes −x as 0 − x, which loses the sign of zero.
    "neg": {"float": "({0} * -1.0)", "uint": "(0 - {0})", "bool": "{0}", "any": "(-{0})"},
    "abs": {"uint": "{0}", "bool": "{0}", "any": "tl.abs({0})"},
    "sign": {
        "bool": "{0}",
        "uint": "({0} != 0).to({T})",
        "any": "(({0} > 0).to(tl.int8) - ({0} < 0).to(tl.int8)).to({T})",
    },
    "sqrt": {"f32": "tl.sqrt_rn({0})", "f64": "tl.sqrt({0})"},
    "rsqrt": {"float": "libdevice.rsqrt({0})"},
    "reciprocal": {"f32": "tl.div_rn(1.0, {0})", "f64": "(1.0 / {0})"},
    "floor": {"float": "tl.floor({0})"},
    "ceil": {"float": "tl.ceil({0})"},
    "round": {"float": "libdevice.rint({0})"},
    "sigmoid": {"float": "(1.0 / (1.0 + libdevice.exp(-{0})))"},
    "digamma": {"float": "digamma({0})"},
    "isnan": {"float": "({0} != {0})"},
    "isinf": {"float": '(tl.abs({0}) == float("inf"))'},
    "signbit": {"f32": "({0}.to(tl.int32, bitcast=True) < 0)", "f64": "({0}.to(tl.int64, bitcast=True) < 0)"},
    "eq": {"any": "({0} == {1})"},
    "ne": {"any": "({0} != {1})"},
    "lt": {"bool": "({1} & ~{0})", "any": "({0} < {1})"},
    "le": {"bool": "({1} | ~{0})", "any": "({0} <= {1})"},
    "gt": {"bool": "({0} & ~{1})", "any": "({0} > {1})"},
    "ge": {"bool": "({0} | ~{1})", "any": "({0} >= {1})"},
    "bitand": {"bool": "({0} & {1})", "integer": "({0} & {1})"},
    "bitor": {"bool": "({0} | {1})", "integer": "({0} | {1})"},
    "bitxor": {"bool": "({0} ^ {1})", "integer": "({0} ^ {1})"},
    "bitnot": {"uint": "({0} ^ {ONES})", "bool": "(~{0})", "int": "(~{0})"},
    "shl": {"integer": "shl({0}, {1}, {W})"},
    "shr": {"int": "shr_int({0}, {1}, {W})", "uint": "shr_uint({0}, {1}, {W})"},
    "where": {"any": "tl.where({0}, {1}, {2})"},
    "cast": {},
}

# Within some 2 ulp of float32 (exp: relative error |x|·2⁻²⁴): used where the value only ends in 16-bit floats.
_APPROXIMATE: Mapping[str, str] = {
    "div": "({0} / {1})",
    "reciprocal": "(1.0 / {0})",
    "erf": "erf_fast({0})",
    "exp": "tl.exp({0})",
    "exp2": "tl.exp2({0})",
    "log": "tl.log({0})",
    "log2": "tl.log2({0})",
    "sqrt": "tl.sqrt({0})",
    "sigmoid": "(1.0 / (1.0 + tl.exp(-{0})))",
}

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "f32": ("f32", "float", "any"),
    "f64": ("f64", "float", "any"),
    "int": ("int", "integer", "any"),
    "uint": ("uint", "integer", "any"),
    "bool": ("bool", "any"),
}

_KIND_CLASSES: Mapping[Kind, tuple[str, ...]] = {
    Kind.SAME: ("f32", "f64", "int", "uint"),
    Kind.COMPARE: ("f32", "f64", "int", "uint", "bool"),
    Kind.SHIFT: ("int", "uint"),
    Kind.FLOAT: ("f32", "f64"),
    Kind.TEST: ("f32", "f64"),
    Kind.WHERE: ("f32", "f64", "int", "uint", "bool"),
    Kind.CAST: (),
    Kind.BITS: ("int", "uint", "bool"),
}


def unspelled() -> tuple[tuple[str, str], ...]:
    """Return every (op, dtype class) that the grammar allows and this language cannot write."""
    return tuple(
        (op.name, column) for op in OPS.values() for column in _KIND_CLASSES[op.kind] if _row(op.name, column) is None
    )


def spell(op: str, args: Sequence[str], source: DType, dtype: DType, approximate: bool = False) -> Spelled:
    """Spell op(args): `source` is the arguments' dtype (of the last, for `where`), `dtype` the result's.

    Raises `UnsupportedOpError` for an op that has no spelling for the dtype.
    """
    if op == "cast":
        return Spelled(cast(args[0], source, dtype))
    form = _APPROXIMATE.get(op) if approximate and dtype is DType.FLOAT32 else None
    form = form or _row(op, dtype_class(source))
    if form is None:
        reason = f"no spelling in Triton for {source.value}"
        raise UnsupportedOpError([UnsupportedUse(op, reason, "generated kernel")])
    text = form.format(*args, W=8 * source.itemsize, T=TYPES[source], ONES=2 ** (8 * source.itemsize) - 1)
    called = form.split("(", 1)[0]
    return Spelled(text, (called,) if called in PRELUDE else ())


def cast(arg: str, source: DType, dtype: DType) -> str:
    """Spell a conversion: float to integer truncates, anything to bool is != 0."""
    if dtype is DType.BOOL:
        return f"({arg} != 0)"
    if source.is_float and dtype.is_integer and dtype.itemsize < 4:
        # Through int64, as torch does: a negative or large float wraps instead of being undefined.
        return f"{arg}.to(tl.int64).to({TYPES[dtype]})"
    return f"{arg}.to({TYPES[dtype]})"


def _row(op: str, column: str) -> str | None:
    row = _ROWS.get(op, {})
    return next((row[name] for name in _COLUMNS[column] if name in row), None)
