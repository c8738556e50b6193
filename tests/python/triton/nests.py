"""Kernels built by hand, with numpy's answer to each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sympy

from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol, contiguous_strides
from mkwrap.ir.nodes import Axis, Buffer, Expr, Nest, Role
from mkwrap.stages import Access, Kernel, Parameter

Array = npt.NDArray[np.generic]
I, J, K, R, Q = (axis_symbol(name) for name in ("i0", "i1", "i2", "r0", "r1"))
F32, F64, F16, BF16 = DType.FLOAT32, DType.FLOAT64, DType.FLOAT16, DType.BFLOAT16


def axes(*pairs: tuple[sympy.Symbol, int]) -> tuple[Axis, ...]:
    return tuple(Axis(symbol, sympy.Integer(extent)) for symbol, extent in pairs)


def buffer(
    name: str, dtype: DType, shape: Sequence[int], strides: Sequence[int] | None = None, role: Role = Role.INPUT
) -> Buffer:
    sizes = tuple(sympy.Integer(n) for n in shape)
    steps = contiguous_strides(sizes) if strides is None else tuple(sympy.Integer(s) for s in strides)
    return Buffer(name, dtype, sizes, steps, role)


def kernel(
    nest: Nest,
    reads: Sequence[Buffer],
    writes: Sequence[Buffer],
    updates: Sequence[Buffer] = (),
) -> Kernel:
    parameters = [Parameter(b, Access.READ) for b in reads]
    parameters += [Parameter(b, Access.READ_WRITE) for b in updates]
    parameters += [Parameter(b, Access.WRITE) for b in writes]
    return Kernel(nest.name, nest, tuple(parameters))


@dataclass(frozen=True)
class Case:
    """A kernel, the arrays bound to its parameters (in their logical shape), and the expected written ones."""

    kernel: Kernel
    arrays: Mapping[str, Array]
    expected: Mapping[str, Array]
    tolerance: float = 1e-5


def unary(op: str, dtype: DType, n: int) -> Kernel:
    body = BodyBuilder()
    body.store("arg1", (I,), body.compute(op, body.load("arg0", dtype, (I,))))
    result = body.dtype(f"v{1}")
    return kernel(Nest("unary", axes((I, n)), (), body.body()), [buffer("arg0", dtype, [n])], [buffer("arg1", result, [n])])
