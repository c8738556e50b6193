"""Long sums are made of stretches, merged one after another: that bounds the rounding error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import sympy

from mkwrap.codegen.cpp.indexing import AtLeastOne
from mkwrap.ir.index import FloorDiv
from mkwrap.ir.nodes import Axis, Expr

CASCADE = 512
"""Terms that one lane sums up before the sum is put away."""


def stretches(order: Sequence[Axis], vector: Axis, grain: int) -> tuple[int, Expr] | None:
    """Return the depth of the axis to cut in stretches, and their length along it; None where sums are known to be short.

    `order` are the axes of the loops, outermost first; `grain` terms next to each other go to sums of their own.
    """
    if not all(axis.extent.is_Integer for axis in order):
        return _dynamic(order, vector, grain)
    extents = [int(axis.extent) for axis in order]
    length = CASCADE * grain
    if math.prod(extents) <= 2 * length:
        return None
    depth = max(range(len(extents)), key=lambda k: extents[k])
    stretch = max(1, length // math.prod(extents[depth + 1 :]))
    if order[depth] == vector:
        stretch = -(-stretch // grain) * grain
    return depth, sympy.Integer(stretch)


def _dynamic(order: Sequence[Axis], vector: Axis, grain: int) -> tuple[int, Expr]:
    """Cut the innermost axis of dynamic extent, but the vector axis only where there is no other."""
    dynamic = [k for k, axis in enumerate(order) if not axis.extent.is_Integer]
    depth = max([k for k in dynamic if order[k] != vector] or dynamic)
    length = sympy.Integer(CASCADE * grain)
    if order[depth] == vector:
        return depth, length
    inner = sympy.Mul(*[axis.extent for axis in order[depth + 1 :]])
    return depth, AtLeastOne(FloorDiv(length, AtLeastOne(inner)))
