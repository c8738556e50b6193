"""How each reduction is written: accumulators, how an element enters them, how they merge, how a row ends.

A fold keeps one or more parts per lane. `lift` gives the parts of the elements at hand (neutral where masked off),
`merge` joins two sets of parts lane by lane, `collapse` reduces the lanes of a tile along the reduction dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mkwrap.codegen.triton.spelling import NARROW_FLOATS, TYPES, float_literal
from mkwrap.errors import InternalError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Reduce

Texts: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One accumulator: its dtype and the literal that changes nothing when merged."""

    dtype: DType
    neutral: str


@dataclass(frozen=True)
class Fold:
    """A reduction over arguments of one dtype; `parts` include what `results` do not need (Welford's count)."""

    op: str
    source: DType
    parts: tuple[Part, ...]
    results: tuple[DType, ...]
    needs: tuple[str, ...]

    def names(self, stem: str) -> Texts:
        """Names for the parts."""
        return tuple(f"{stem}_{k}" for k in range(len(self.parts)))

    def lift(self, args: Sequence[str], mask: str, position: str, shape: str) -> Texts:
        """Parts of elements: `mask` is "" where all count, `position` their place along the reduction axes."""
        first = self.parts[0]
        if self.op == "dot":
            value = f"({widen(args[0], self.source, first.dtype)} * {widen(args[1], self.source, first.dtype)})"
        else:
            value = widen(args[0], self.source, first.dtype)
        lifted = [f"tl.where({mask}, {value}, {first.neutral})" if mask else value]
        if self.op in _POSITIONED:
            last = self.parts[1].neutral
            place = f"tl.where({mask}, {position}, {last})" if mask else position
            lifted.append(f"tl.broadcast_to({place}, {shape})")
        elif self.op in EXP_SUMS:
            one = f"tl.full({shape}, 1, {TYPES[first.dtype]})"
            lifted.append(f"tl.where({mask}, {one}, 0)" if mask else one)
        return tuple(lifted)

    def merge(self, a: Texts, b: Texts) -> str:
        """Expression of the merged parts, a tuple where there are several."""
        return _MERGE[_family(self.op, self.parts[0].dtype)](a, b)

    def collapse(self, parts: Texts, axis: int) -> str:
        """Expression of the parts of each row, the reduction dimension kept with length 1."""
        return _COLLAPSE[_family(self.op, self.parts[0].dtype)](parts, axis)

    def result_texts(self, parts: Texts) -> Texts:
        """Results in their dtypes."""
        return tuple(
            part if dtype is own.dtype else _narrow(part, dtype)
            for part, dtype, own in zip(parts, self.results, self.parts, strict=False)
        )


def fold_of(reduce: Reduce, source: DType, wide: bool) -> Fold:
    """Choose the fold of a reduction whose arguments have dtype `source`; `wide`: positions may leave int32."""
    accumulator = source
    if source in NARROW_FLOATS:
        accumulator = DType.FLOAT32
    elif source is DType.BOOL or source.itemsize < 4:
        accumulator = DType.INT32
    if reduce.op == "dot":
        accumulator = reduce.dtypes[0] if reduce.dtypes[0].itemsize >= 4 else accumulator
    value = Part(accumulator, _neutral(reduce.op, source if source is DType.BOOL else accumulator))
    parts: tuple[Part, ...] = (value,)
    if reduce.op in _POSITIONED:
        position = DType.INT64 if wide else DType.INT32
        parts = (value, Part(position, str(2 ** (8 * position.itemsize - 1) - 1)))
    elif reduce.op == "welford":
        parts = (value, value, value)
    elif reduce.op in EXP_SUMS:
        parts = (value, Part(accumulator, "0"))
    return Fold(reduce.op, source, parts, reduce.dtypes, _NEEDS.get(_family(reduce.op, accumulator), ()))


def widen(arg: str, source: DType, dtype: DType) -> str:
    """Convert an argument to the accumulator's dtype."""
    return arg if source is dtype else f"{arg}.to({TYPES[dtype]})"


def _narrow(part: str, dtype: DType) -> str:
    return f"({part} != 0)" if dtype is DType.BOOL else f"{part}.to({TYPES[dtype]})"


EXP_SUMS = ("exp_sum", "exp_sum_fast")
"""Maximum and sum of exponentials below it, in one walk (see `online`)."""
_POSITIONED = ("argmax", "argmin")
_LARGEST = ("maximum", "argmax", *EXP_SUMS)


def _neutral(op: str, dtype: DType) -> str:
    if op in ("sum", "dot", "welford"):
        return "0"
    if op == "prod":
        return "1"
    if dtype.is_float:
        return float_literal(float("-inf") if op in _LARGEST else float("inf"))
    if dtype is DType.BOOL:
        return "0" if op in _LARGEST else "1"
    bits = 8 * dtype.itemsize
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.is_signed else (0, 2**bits - 1)
    return str(low if op in _LARGEST else high)


def _family(op: str, dtype: DType) -> str:
    if op == "dot":
        return "sum"
    if op in ("maximum", "minimum"):
        return f"{op}_float" if dtype.is_float else op
    if op in _COLLAPSE:
        return op
    raise InternalError(f"reduction {op} has no fold")


def _tuple_reduce(combine: str) -> Callable[[Texts, int], str]:
    return lambda parts, axis: f"tl.reduce(({', '.join(parts)}), {axis}, {combine}, keep_dims=True)"


def _single(form: str) -> Callable[[Texts, int], str]:
    return lambda parts, axis: form.format(parts[0], axis)


def _call(combine: str) -> Callable[[Texts, Texts], str]:
    return lambda a, b: f"{combine}({', '.join((*a, *b))})"


def _infix(form: str) -> Callable[[Texts, Texts], str]:
    return lambda a, b: form.format(a[0], b[0])


_COLLAPSE: Mapping[str, Callable[[Texts, int], str]] = {
    "sum": _single("tl.reduce({0}, {1}, add, keep_dims=True)"),
    "prod": _single("tl.reduce({0}, {1}, multiply, keep_dims=True)"),
    "maximum": _single("tl.reduce({0}, {1}, maximum_int, keep_dims=True)"),
    "minimum": _single("tl.reduce({0}, {1}, minimum_int, keep_dims=True)"),
    "maximum_float": _single("tl.reduce({0}, {1}, maximum_float, keep_dims=True)"),
    "minimum_float": _single("tl.reduce({0}, {1}, minimum_float, keep_dims=True)"),
    "argmax": _tuple_reduce("argmax"),
    "argmin": _tuple_reduce("argmin"),
    "welford": _tuple_reduce("welford"),
    "exp_sum": _tuple_reduce("exp_sum"),
    "exp_sum_fast": _tuple_reduce("exp_sum_fast"),
}

_MERGE: Mapping[str, Callable[[Texts, Texts], str]] = {
    "sum": _infix("{0} + {1}"),
    "prod": _infix("{0} * {1}"),
    "maximum": _infix("tl.maximum({0}, {1})"),
    "minimum": _infix("tl.minimum({0}, {1})"),
    "maximum_float": _call("maximum_float"),
    "minimum_float": _call("minimum_float"),
    "argmax": _call("argmax"),
    "argmin": _call("argmin"),
    "welford": _call("welford"),
    "exp_sum": _call("exp_sum"),
    "exp_sum_fast": _call("exp_sum_fast"),
}

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "sum": ("add",),
    "maximum": ("maximum_int",),
    "minimum": ("minimum_int",),
    "prod": ("multiply",),
    "maximum_float": ("maximum_float",),
    "minimum_float": ("minimum_float",),
    "argmax": ("argmax",),
    "argmin": ("argmin",),
    "welford": ("welford",),
    "exp_sum": ("exp_sum",),
    "exp_sum_fast": ("exp_sum_fast",),
}
