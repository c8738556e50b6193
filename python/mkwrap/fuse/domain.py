"""Expresses one nest's axes through another's: the maps between iteration domains that fusion relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy

from mkwrap.ir.index import FloorDiv, Mod, Ranges, delinearize, linearize
from mkwrap.ir.nodes import Axis, Expr

AxisMap = Mapping[sympy.Symbol, Expr]
"""Symbol of a nest's axis → expression over another nest's axes."""


def by_position(inner: Sequence[Axis], outer: Sequence[Axis]) -> AxisMap | None:
    """Map axes one to one, in order, where the extents agree."""
    if [axis.extent for axis in inner] != [axis.extent for axis in outer]:
        return None
    return {a.symbol: b.symbol for a, b in zip(inner, outer, strict=True)}


def by_row_major(inner: Sequence[Axis], outer: Sequence[Axis], ranges: Ranges) -> AxisMap | None:
    """Map axes so that the row-major positions agree, where both domains have equally many points."""
    inner_shape, outer_shape = [a.extent for a in inner], [a.extent for a in outer]
    if sympy.Mul(*inner_shape) != sympy.Mul(*outer_shape):
        return None
    position = linearize([axis.symbol for axis in outer], outer_shape)
    return dict(zip([a.symbol for a in inner], delinearize(position, inner_shape, ranges), strict=True))


def by_access(
    inner: Sequence[Axis], read: Sequence[Expr], written: Sequence[Expr], outer: Sequence[Axis]
) -> AxisMap | None:
    """Map axes so that the element read at `read` (over inner) is the one written at `written` (over outer).

    Each `written` expression is one outer axis or 0; each `read` expression a mixed-radix number of inner axes
    (Σ coefficient·axis, where every coefficient is the product of the extents below it). None where that does not fit.
    """
    extents = {axis.symbol: axis.extent for axis in inner}
    outer_extents = {axis.symbol: axis.extent for axis in outer}
    result: dict[sympy.Symbol, Expr] = {}
    for source, target in zip(read, written, strict=True):
        if target.is_Integer:
            if source != target:
                return None
            continue
        digits = _digits(source, extents)
        if target not in outer_extents or digits is None or any(symbol in result for symbol, _ in digits):
            return None
        total: Expr = sympy.Integer(1)
        for symbol, coefficient in digits:
            if coefficient != total:
                return None
            result[symbol] = FloorDiv(target, coefficient)
            total = total * extents[symbol]
        if total != outer_extents[target]:
            return None
        for symbol, _ in digits[:-1]:
            result[symbol] = Mod(result[symbol], extents[symbol])
    return result if len(result) == len(inner) else None


def _digits(expr: Expr, extents: Mapping[sympy.Symbol, Expr]) -> list[tuple[sympy.Symbol, Expr]] | None:
    """Return (axis, coefficient) pairs of a sum, least significant first; None if it is not such a sum."""
    pairs: list[tuple[sympy.Symbol, Expr]] = []
    for term in sympy.Add.make_args(expr):
        symbols = [s for s in term.free_symbols if s in extents]
        if len(symbols) != 1:
            return None
        coefficient = term / symbols[0]
        if coefficient.free_symbols & extents.keys():
            return None
        pairs.append((symbols[0], coefficient))
    if all(coefficient.is_Integer for _, coefficient in pairs):
        return sorted(pairs, key=lambda pair: int(pair[1]))
    return sorted(pairs, key=lambda pair: len(pair[1].free_symbols))


def strides_through(
    inner: Sequence[Axis], read: Sequence[Expr], written_strides: Sequence[Expr]
) -> Mapping[sympy.Symbol, Expr]:
    """Return each inner axis' step in a dense layout of the written domain: Σ_k stride_k · d(read_k)/d(axis)."""
    steps: dict[sympy.Symbol, Expr] = {}
    for axis in inner:
        steps[axis.symbol] = sympy.Add(
            *[stride * source.coeff(axis.symbol) for source, stride in zip(read, written_strides, strict=True)]
        )
    return steps
