"""Normalises dims, positions and slice ranges as torch does: negative ones count from the end."""

from __future__ import annotations

import sympy

from mkwrap.ir.index import FloorDiv
from mkwrap.ir.nodes import Expr
from mkwrap.lower.lowering import Unsupported

_BEYOND_ANY_SIZE = 1 << 62


def wrap_dim(dim: int, rank: int) -> int:
    """Make a dim non-negative; a 0-d tensor counts as 1-d."""
    return dim % max(rank, 1)


def wrap_index(index: int | Expr, extent: Expr) -> Expr:
    """Make a position non-negative."""
    position = sympy.sympify(index)
    if position.is_negative:
        return position + extent
    if position.is_nonnegative:
        return position
    raise Unsupported(f"position {position} of unknown sign")


def slice_range(extent: Expr, start: int | Expr | None, end: int | Expr | None, step: int) -> tuple[Expr, Expr]:
    """First element and number of elements of start:end:step over a dim, ends clamped into it."""
    first = _clamp(sympy.Integer(0) if start is None else sympy.sympify(start), extent)
    last = extent if end is None else _clamp(sympy.sympify(end), extent)
    span = last - first
    if span.is_Integer and span <= 0:
        return sympy.Integer(0) if first == extent else first, sympy.Integer(0)
    if not span.is_nonnegative:
        raise Unsupported(f"slice {first}:{last} of unknown length")
    return first, FloorDiv(span + step - 1, sympy.Integer(step))


def _clamp(position: Expr, extent: Expr) -> Expr:
    """Clamp a slice end into 0 … extent; an end beyond any possible size (torch writes 2⁶³ − 1) is the extent."""
    if position.is_Integer and position >= _BEYOND_ANY_SIZE:
        return extent
    wrapped = position + extent if position.is_negative else position
    if wrapped.is_negative:
        return sympy.Integer(0)
    beyond = wrapped - extent
    if beyond.is_nonnegative:
        return extent
    if beyond.is_nonpositive and wrapped.is_nonnegative:
        return wrapped
    raise Unsupported(f"slice end {position} against a dim of size {extent}")
