"""Strides of a nest's accesses along its axes: which axis is contiguous, and in which order axes are best flattened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy

from mkwrap.codegen.parameters import magnitude
from mkwrap.ir.analysis import loads, reduces, scans, sorts, stores
from mkwrap.ir.nodes import Axis, Buffer, Expr, Load, Nest, Store

Strides = Mapping[sympy.Symbol, Expr | None]
"""Per axis, the stride in elements; None where the offset is not linear in the axis."""


def access_strides(nest: Nest, buffers: Mapping[str, Buffer], access: Load | Store) -> Strides:
    """Strides of one access along every axis of extent above 1."""
    flat = sympy.expand(buffers[access.buffer].flat_index(access.index))
    result: dict[sympy.Symbol, Expr | None] = {}
    for axis in (*nest.axes, *nest.reduction_axes):
        if axis.extent == 1:
            continue
        factor = flat.coeff(axis.symbol, 1)
        rest = sympy.expand(flat - factor * axis.symbol)
        result[axis.symbol] = None if axis.symbol in factor.free_symbols | rest.free_symbols else factor
    return result


def innermost(strides: Strides) -> sympy.Symbol | None:
    """The axis along which an access is contiguous (stride 1), or None."""
    return next((symbol for symbol, stride in strides.items() if stride == 1), None)


def main_access(nest: Nest, buffers: Mapping[str, Buffer]) -> Load | Store | None:
    """The access that moves most memory: it touches the most points, then the most bytes; the first of equals."""
    best: tuple[int, Load | Store] | None = None
    extents = {axis.symbol: axis.extent for axis in (*nest.axes, *nest.reduction_axes)}
    accesses: tuple[Load | Store, ...] = (*loads(nest), *stores(nest))
    for access in accesses:
        strides = access_strides(nest, buffers, access)
        points = sympy.Mul(*[extents[symbol] for symbol, stride in strides.items() if stride != 0])
        size = magnitude(points) * buffers[access.buffer].dtype.itemsize
        if best is None or size > best[0]:
            best = (size, access)
    return best[1] if best else None


def by_descending_stride(nest: Nest, buffers: Mapping[str, Buffer]) -> Nest:
    """Order the axes so that flattening them walks the main access's memory forward; parallel axes commute.

    Reduction axes commute too, unless a result is a position among them or depends on their order.
    """
    access = stores(nest)[0] if not nest.reduction_axes and stores(nest) else main_access(nest, buffers)
    if access is None:
        return nest
    strides = access_strides(nest, buffers, access)
    axes = _ordered(nest.axes, strides)
    if scans(nest) or sorts(nest) or any(reduce.op in ("argmax", "argmin") for reduce in reduces(nest)):
        return replace(nest, axes=axes)
    return replace(nest, axes=axes, reduction_axes=_ordered(nest.reduction_axes, strides))


def _ordered(axes: Sequence[Axis], strides: Strides) -> tuple[Axis, ...]:
    """Sort by stride, the largest first; axes without a known stride keep their place among the outermost."""

    def key(axis: Axis) -> tuple[int, int]:
        stride = strides.get(axis.symbol)
        if stride is None or stride == 0:
            return (0, 0)
        return (1, -abs(magnitude(stride)))

    known = all(strides.get(axis.symbol) is not None for axis in axes if axis.extent != 1)
    return tuple(sorted(axes, key=key)) if known else tuple(axes)
