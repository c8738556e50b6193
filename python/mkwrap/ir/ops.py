"""The scalar primitives, reductions and scans: one row each, the only list of what a nest may compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from mkwrap.ir.dtypes import DType


class Kind(Enum):
    """Which dtypes an op accepts and what it returns."""

    SAME = "all arguments and the result have one dtype"
    COMPARE = "arguments have one dtype, the result is bool"
    SHIFT = "integers, all of one dtype"
    FLOAT = "float32 or float64, all of one dtype"
    TEST = "one float32 or float64 argument, the result is bool"
    WHERE = "bool, then two of the result's dtype"
    CAST = "any dtype to any dtype"
    BITS = "bool or integer, all of one dtype"


@dataclass(frozen=True)
class Op:
    """A scalar primitive. `cost` is a rough weight in vector instructions, used by fusion and variants as a prior."""

    name: str
    arity: int
    kind: Kind
    cost: int = 1


def _rows(kind: Kind, arity: int, names: str, cost: int = 1) -> list[Op]:
    return [Op(name, arity, kind, cost) for name in names.split()]


# Semantics follow torch: minimum/maximum propagate NaN; div on integers is not allowed (use truncdiv / floordiv);
# floordiv and mod follow Python's sign rule, truncdiv and fmod follow C's; round is half to even;
# cast float → int truncates, any → bool is != 0; signed overflow wraps; shifts by ≥ the width follow torch on CPU.
OPS: Mapping[str, Op] = {
    op.name: op
    for op in (
        *_rows(Kind.SAME, 2, "add sub mul minimum maximum"),
        *_rows(Kind.SAME, 2, "floordiv truncdiv mod fmod", cost=8),
        *_rows(Kind.FLOAT, 2, "div", cost=4),
        *_rows(Kind.SAME, 1, "neg abs sign"),
        *_rows(Kind.FLOAT, 1, "sqrt rsqrt reciprocal", cost=4),
        *_rows(Kind.FLOAT, 1, "floor ceil round trunc"),
        *_rows(Kind.FLOAT, 1, "exp exp2 expm1 log log2 log10 log1p", cost=12),
        *_rows(Kind.FLOAT, 1, "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh", cost=20),
        *_rows(Kind.FLOAT, 1, "erf erfc sigmoid", cost=20),
        *_rows(Kind.FLOAT, 1, "erfinv lgamma digamma", cost=40),
        *_rows(Kind.FLOAT, 2, "atan2 pow hypot", cost=30),
        *_rows(Kind.FLOAT, 2, "copysign nextafter"),
        *_rows(Kind.TEST, 1, "isnan isinf signbit"),
        *_rows(Kind.COMPARE, 2, "eq ne lt le gt ge"),
        *_rows(Kind.BITS, 2, "bitand bitor bitxor"),
        *_rows(Kind.BITS, 1, "bitnot"),
        *_rows(Kind.SHIFT, 2, "shl shr"),
        *_rows(Kind.WHERE, 3, "where"),
        *_rows(Kind.CAST, 1, "cast"),
    )
}


@dataclass(frozen=True)
class Reduction:
    """An associative reduction.

    `results` maps the argument dtype to the dtypes of the results. Sums of integers wrap. `maximum` and `minimum`
    propagate NaN. `argmax`/`argmin` give (value, int64 linear position over the reduction axes): the first NaN wins, ties
    give the lowest position. `welford` gives (mean, Σ(x − mean)²). `dot` is Σ a·b of two arguments of one dtype,
    accumulated in and returned as the result dtype (float32 for the 16-bit floats).
    """

    name: str
    arity: int
    results: Callable[[DType], tuple[DType, ...]]


def _same(dtype: DType) -> tuple[DType, ...]:
    return (dtype,)


def _position(dtype: DType) -> tuple[DType, ...]:
    return (dtype, DType.INT64)


def _pair(dtype: DType) -> tuple[DType, ...]:
    return (dtype, dtype)


def _accumulator(dtype: DType) -> tuple[DType, ...]:
    return (dtype.compute,)


# any / all are maximum / minimum over bool.
REDUCTIONS: Mapping[str, Reduction] = {
    reduction.name: reduction
    for reduction in (
        Reduction("sum", 1, _same),
        Reduction("prod", 1, _same),
        Reduction("maximum", 1, _same),
        Reduction("minimum", 1, _same),
        Reduction("argmax", 1, _position),
        Reduction("argmin", 1, _position),
        Reduction("welford", 1, _pair),
        Reduction("dot", 2, _accumulator),
    )
}


@dataclass(frozen=True)
class ScanOp:
    """An inclusive scan of one argument; `results` maps the argument dtype to the dtypes of the results.

    Arguments are integers, float32 or float64, for `logaddexp` float32 or float64. `sum` and `prod` of integers wrap.
    `cummax`/`cummin` give (value, int64 linear position over the reduction axes): of equal values the latest wins; once a
    NaN was met the value stays NaN, and a later NaN takes the position. `logaddexp` is log Σ exp: of −inf alone it is −inf.
    """

    name: str
    results: Callable[[DType], tuple[DType, ...]]
    floats_only: bool = False


SCANS: Mapping[str, ScanOp] = {
    scan.name: scan
    for scan in (
        ScanOp("sum", _same),
        ScanOp("prod", _same),
        ScanOp("cummax", _position),
        ScanOp("cummin", _position),
        ScanOp("logaddexp", _same, floats_only=True),
    )
}

ASSOCIATIVE = "associative"
"""The op of a Scan that brings its own `Combine`; its arguments have any dtypes but the 16-bit floats."""

SORT_LIMIT = 4096
"""Elements of the longest row a Sort takes: it is sorted inside one block. Its argument has a dtype a scan's may have."""
