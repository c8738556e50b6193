"""Normalises dims, positions and slice ranges as torch does: negative ones count from the end."""

from __future__ import annotations

import sympy

from mkwrap.ir.index import FloorDiv
from mkwrap.ir.nodes import Expr
from mkwrap.lower.lowering import Lowering, Unsupported
from mkwrap.lower.tensor import ZERO

_BEYOND_ANY_SIZE = 1 << 62


def wrap_dim(dim: int, rank: int) -> int:
    """Make a dim non-negative; a 0-d tensor counts as 1-d."""
    return dim % max(rank, 1)


def wrap_index(low: Lowering, index: int | Expr, extent: Expr) -> Expr:
    """Make a position non-negative; calls in which it is not in 0 … extent − 1 are refused."""
    position = sympy.sympify(index)
    if not low.surely(0, "<=", position):
        if not position.is_negative:
            raise Unsupported(_undecided(f"the position {position}"))
        position = position + extent
        low.need(0, "<=", position)
    if extent != 0 and not extent.is_Integer:
        low.need(position + 1, "<=", extent)
    return position


def _undecided(what: str) -> str:
    return f"{what} is negative for some sizes in range; give a Dim the min or max that decides its sign"


def slice_range(
    low: Lowering, extent: Expr, start: int | Expr | None, end: int | Expr | None, step: int
) -> tuple[Expr, Expr]:
    """First element and number of elements of start:end:step over a dim, ends clamped into it."""
    first = ZERO if start is None else _clamp(low, sympy.sympify(start), extent)
    last = extent if end is None else _clamp(low, sympy.sympify(end), extent)
    span = _distance(low, first, last)
    if span == 0:
        return ZERO if first == extent else first, ZERO
    return first, FloorDiv(span + step - 1, sympy.Integer(step))


def _distance(low: Lowering, first: Expr, last: Expr) -> Expr:
    """Return max(last − first, 0)."""
    if isinstance(first, sympy.Max) and len(first.args) == 2 and ZERO in first.args:
        # last − max(0, x) = min(last, last − x): the length of a tail like x[-2:].
        other = next(arg for arg in first.args if arg != 0)
        return low.larger(ZERO, low.smaller(last, last - other))
    span = sympy.expand(last - first)
    if low.surely(first, "<=", last):
        return span
    return low.larger(ZERO, span)


def _clamp(low: Lowering, position: Expr, extent: Expr) -> Expr:
    """Clamp a slice end into 0 … extent; an end beyond any possible size (torch writes 2⁶³ − 1) is the extent."""
    if position.is_Integer and position >= _BEYOND_ANY_SIZE:
        return extent
    if low.surely(0, "<=", position):
        return low.smaller(position, extent)
    if not position.is_Integer:
        raise Unsupported(_undecided(f"the slice end {position} of a dim of size {extent}"))
    return low.larger(ZERO, position + extent)
