"""A kernel's parameters and dynamic sizes, as every language asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sympy

from mkwrap.ir.analysis import index_exprs
from mkwrap.ir.nodes import Buffer, Expr, Nest
from mkwrap.stages import Kernel

_LARGE = 4096


def buffers_of(kernel: Kernel) -> Mapping[str, Buffer]:
    """Return a kernel's parameters by name."""
    return {parameter.buffer.name: parameter.buffer for parameter in kernel.parameters}


def magnitude(size: Expr) -> int:
    """Return what a size counts as where only order matters: dynamic ones are large."""
    return int(size.subs(dict.fromkeys(size.free_symbols, _LARGE)))


def size_symbols(nest: Nest, buffers: Iterable[Buffer]) -> tuple[sympy.Symbol, ...]:
    """Return the dynamic sizes that a nest's extents and indices and the strides of some buffers name, by name."""
    axes = (*nest.axes, *nest.reduction_axes)
    exprs: list[Expr] = [axis.extent for axis in axes]
    exprs += [expr for instruction in nest.body for expr in index_exprs(instruction)]
    exprs += [stride for buffer in buffers for stride in buffer.strides]
    # Axes and values may be 0, sizes count as positive: a size may have the name of either.
    free = {symbol for expr in exprs for symbol in expr.free_symbols if symbol.is_positive}
    return tuple(sorted(free, key=lambda symbol: str(symbol.name)))
