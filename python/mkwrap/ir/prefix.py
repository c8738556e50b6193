"""Scans and sorts in numpy: the meaning of `ops.SCANS`, of `Combine` and of `Sort`.

Values of dtype bfloat16 are float32 arrays, as in `numeric`. Floats are accumulated in float64 and rounded once, as eager does
on the CPU; positions and whatever else needs no rounding is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Combine, Compute
from mkwrap.ir.numeric import SCALAR, Array, convert, value_type


def _accumulated(function: np.ufunc) -> Callable[[Array], tuple[Array, ...]]:
    def scan(x: Array) -> tuple[Array, ...]:
        wide = np.float64 if np.issubdtype(x.dtype, np.floating) else x.dtype
        return (np.asarray(function.accumulate(x, axis=-1, dtype=wide)).astype(x.dtype),)

    return scan


def _extremum(function: np.ufunc) -> Callable[[Array], tuple[Array, ...]]:
    def scan(x: Array) -> tuple[Array, ...]:
        best = function.accumulate(x, axis=-1)
        # An element is the best so far where it equals it (zeros of both signs are equal) or is NaN itself.
        wins = (x == best) | np.isnan(x) if np.issubdtype(x.dtype, np.floating) else x == best
        places = np.where(wins, np.arange(x.shape[-1], dtype=np.int64), 0)
        position = np.maximum.accumulate(places, axis=-1)
        return np.take_along_axis(x, position, -1), position

    return scan


SCAN: Mapping[str, Callable[[Array], tuple[Array, ...]]] = {
    "sum": _accumulated(np.add),
    "prod": _accumulated(np.multiply),
    "cummax": _extremum(np.maximum),
    "cummin": _extremum(np.minimum),
    "logaddexp": _accumulated(np.logaddexp),
}
"""Every scan of one argument, over the last axis."""


def evaluate(combine: Combine, dtypes: Sequence[DType], left: Sequence[Array], right: Sequence[Array]) -> list[Array]:
    """Apply a combining function to arrays of arguments, whose dtypes are `dtypes` on either side."""
    names = (*combine.left, *combine.right)
    values = dict(zip(names, (*left, *right), strict=True))
    kinds = dict(zip(names, (*dtypes, *dtypes), strict=True))
    for i in combine.body:
        if not isinstance(i, Compute):
            value = np.asarray(i.value).astype(value_type(i.dtype))
        elif i.op == "cast":
            value = np.asarray(convert(values[i.args[0]], kinds[i.args[0]], i.dtype))
        else:
            value = np.asarray(SCALAR[i.op](*[values[arg] for arg in i.args]))
        values[i.dest], kinds[i.dest] = value, i.dtype
    return [values[name] for name in combine.results]


def associative(combine: Combine, dtypes: Sequence[DType], args: Sequence[Array]) -> tuple[Array, ...]:
    """Scan the last axis of args (of equal shapes) one element after another."""
    results = [np.array(arg) for arg in args]
    for k in range(1, args[0].shape[-1]):
        before, here = [r[..., k - 1] for r in results], [arg[..., k] for arg in args]
        for result, value in zip(results, evaluate(combine, dtypes, before, here), strict=True):
            result[..., k] = value
    return tuple(results)


def sort(x: Array, descending: bool) -> tuple[Array, Array]:
    """Sort the last axis, stably; NaN is the largest. Returns the values and the positions they had."""
    if descending:
        # Reversed before and after, an ascending stable sort keeps equal values in their order.
        places = x.shape[-1] - 1 - np.flip(np.argsort(np.flip(x, -1), axis=-1, kind="stable"), -1)
    else:
        places = np.argsort(x, axis=-1, kind="stable")
    position = places.astype(np.int64)
    return np.take_along_axis(x, position, -1), position
