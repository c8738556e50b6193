"""The parts of kernels that tests build by hand."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import contiguous_strides
from mkwrap.ir.nodes import Axis, Buffer, Nest, Role
from mkwrap.stages import Access, Kernel, Parameter


def axes(*pairs: tuple[sympy.Symbol, int]) -> tuple[Axis, ...]:
    return tuple(Axis(symbol, sympy.Integer(extent)) for symbol, extent in pairs)


def buffer(name: str, dtype: DType, shape: Sequence[int], strides: Sequence[int] | None = None) -> Buffer:
    sizes = tuple(sympy.Integer(n) for n in shape)
    steps = contiguous_strides(sizes) if strides is None else tuple(sympy.Integer(s) for s in strides)
    return Buffer(name, dtype, sizes, steps, Role.INPUT)


def kernel(nest: Nest, reads: Sequence[Buffer], writes: Sequence[Buffer], updates: Sequence[Buffer] = ()) -> Kernel:
    parameters = [Parameter(b, Access.READ) for b in reads]
    parameters += [Parameter(b, Access.READ_WRITE) for b in updates]
    parameters += [Parameter(b, Access.WRITE) for b in writes]
    return Kernel(nest.name, nest, tuple(parameters))
