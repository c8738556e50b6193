"""The parts of kernels that tests build by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import sympy

from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import contiguous_strides
from mkwrap.ir.nodes import Axis, Buffer, Expr, Nest, Role
from mkwrap.stages import Access, Kernel, Parameter

Size: TypeAlias = int | Expr
"""A number, or an expression over the symbols of dynamic sizes."""


def axes(*pairs: tuple[sympy.Symbol, Size]) -> tuple[Axis, ...]:
    return tuple(Axis(symbol, sympy.sympify(extent)) for symbol, extent in pairs)


def buffer(name: str, dtype: DType, shape: Sequence[Size], strides: Sequence[Size] | None = None) -> Buffer:
    sizes = tuple(sympy.sympify(n) for n in shape)
    steps = contiguous_strides(sizes) if strides is None else tuple(sympy.sympify(s) for s in strides)
    return Buffer(name, dtype, sizes, steps, Role.INPUT)


def kernel(nest: Nest, reads: Sequence[Buffer], writes: Sequence[Buffer], updates: Sequence[Buffer] = ()) -> Kernel:
    parameters = [Parameter(b, Access.READ) for b in reads]
    parameters += [Parameter(b, Access.READ_WRITE) for b in updates]
    parameters += [Parameter(b, Access.WRITE) for b in writes]
    return Kernel(nest.name, nest, tuple(parameters))
