"""Softmax's maximum and sum of exponentials in one walk of a row (Milakov, Gimelshein 2018), as a rewrite of a nest.

`exp_sum` and `exp_sum_fast` are reductions that only these templates know: of values x they give m = max x and
Σ exp(x − m), kept per lane as (m, sum) and merged by rescaling the sum of the lower maximum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mkwrap.codegen.triton.precision import approximable
from mkwrap.ir.analysis import defined
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Compute, Constant, Instruction, Nest, Reduce


@dataclass(frozen=True)
class _Pair:
    """A maximum and the sum of exponentials below it; `shifted` where an infinite maximum was replaced by 0."""

    top: Reduce
    total: Reduce
    shifted: bool


def online(nest: Nest) -> Nest | None:
    """Merge each maximum with one sum of exp(x − maximum) over the same x; None where there is none.

    Requires: a nest as lowered. Ensures: equal results, infinities and NaN included; what needs the merged sum needs
    one loop fewer, further sums below the same maximum stay as they are.
    """
    made = {name: instruction for instruction in nest.body for name in defined(instruction)}
    pairs = [pair for i in nest.body if isinstance(i, Reduce) and (pair := _pair(i, made)) is not None]
    if not pairs:
        return None
    fast = approximable(nest)
    tops: dict[str, _Pair] = {}
    # Softmax's sum is needed for every element, the shifted one of logsumexp once per row: it can wait for the next loop.
    for pair in sorted(pairs, key=lambda pair: pair.shifted):
        tops.setdefault(pair.top.dests[0], pair)
    totals = {pair.total.dests[0]: pair for pair in tops.values()}
    body: list[Instruction] = []
    for instruction in nest.body:
        dest = instruction.dests[0] if isinstance(instruction, Reduce) else ""
        if dest in tops:
            body.append(_merged(tops[dest], tops[dest].total.args[0] in fast))
        elif dest in totals:
            body.extend(_completed(totals[dest]))
        else:
            body.append(instruction)
    return replace(nest, body=tuple(body))


def _pair(total: Reduce, made: Mapping[str, Instruction]) -> _Pair | None:
    if total.op != "sum":
        return None
    match made.get(total.args[0]):
        case Compute(op="exp", args=(apart,)):
            pass
        case _:
            return None
    match made.get(apart):
        case Compute(op="sub", args=(element, shift)):
            pass
        case _:
            return None
    match made.get(shift):
        case Reduce(op="maximum", args=args) as top if args == (element,):
            return _Pair(top, total, shifted=False)
        case Compute(op="where", args=(infinite, zero, name)) if _is_shift(made, infinite, zero, name):
            match made.get(name):
                case Reduce(op="maximum", args=args) as top if args == (element,):
                    return _Pair(top, total, shifted=True)
    return None


def _is_shift(made: Mapping[str, Instruction], infinite: str, zero: str, name: str) -> bool:
    """Whether `where(infinite, zero, name)` replaces infinities by 0."""
    match made.get(infinite), made.get(zero):
        case Compute(op="isinf", args=args), Constant(value=value):
            return args == (name,) and value == 0
    return False


def _merged(pair: _Pair, fast: bool) -> Reduce:
    dests = (pair.top.dests[0], _raw(pair))
    dtypes = (pair.top.dtypes[0], pair.total.dtypes[0])
    return Reduce(dests, dtypes, "exp_sum_fast" if fast else "exp_sum", pair.top.args)


def _completed(pair: _Pair) -> tuple[Instruction, ...]:
    """Under an infinite maximum m the sum is what eager makes of it: NaN (∞ − ∞), or exp(m) where nothing was taken off."""
    (top,), (total,), (dtype,) = pair.top.dests, pair.total.dests, pair.total.dtypes
    infinite, special = f"{total}_infinite", f"{total}_special"
    value: Instruction = Constant(special, dtype, math.nan)
    if pair.shifted:
        value = Compute(special, dtype, "exp", (top,))
    test = Compute(infinite, DType.BOOL, "isinf", (top,))
    return test, value, Compute(total, dtype, "where", (infinite, special, _raw(pair)))


def _raw(pair: _Pair) -> str:
    return f"{pair.total.dests[0]}_raw"
