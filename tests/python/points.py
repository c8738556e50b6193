"""Numbers in place of size symbols: a kernel as it is at one point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import sympy

from mkwrap.ir.index import axis_ranges, simplify
from mkwrap.ir.nodes import Axis, BoundsCheck, Buffer, Expr, IndexValue, Instruction, Load, Nest, Store
from mkwrap.stages import Kernel, Parameter

Values: TypeAlias = Mapping[sympy.Symbol, int]


def size_at(expr: Expr, values: Values) -> Expr:
    """Return an expression with numbers for the symbols that have a value."""
    return expr.xreplace({symbol: sympy.Integer(value) for symbol, value in values.items()})


def buffer_at(buffer: Buffer, values: Values) -> Buffer:
    """Return a buffer with its shape and strides at a point."""
    shape = tuple(size_at(extent, values) for extent in buffer.shape)
    return replace(buffer, shape=shape, strides=tuple(size_at(stride, values) for stride in buffer.strides))


def kernel_at(kernel: Kernel, values: Values) -> Kernel:
    """Return a kernel at a point; static where `values` has all its symbols."""
    parameters = tuple(
        Parameter(buffer_at(parameter.buffer, values), parameter.access, parameter.constant)
        for parameter in kernel.parameters
    )
    return Kernel(kernel.name, _nest_at(kernel.nest, values), parameters)


def _nest_at(nest: Nest, values: Values) -> Nest:
    axes = tuple(Axis(axis.symbol, size_at(axis.extent, values)) for axis in nest.axes)
    reduction_axes = tuple(Axis(axis.symbol, size_at(axis.extent, values)) for axis in nest.reduction_axes)
    ranges = axis_ranges((*axes, *reduction_axes))

    def index_at(expr: Expr) -> Expr:
        found = size_at(expr, values)
        # With numbers more divisions are trivial, as they are in a program of static shapes.
        return found if found is expr else simplify(found, ranges)

    def instruction_at(instruction: Instruction) -> Instruction:
        match instruction:
            case Load() | Store():
                return replace(instruction, index=tuple(index_at(expr) for expr in instruction.index))
            case IndexValue():
                return replace(instruction, expr=index_at(instruction.expr))
            case BoundsCheck():
                return replace(instruction, extent=size_at(instruction.extent, values))
            case _:
                return instruction

    body = tuple(instruction_at(instruction) for instruction in nest.body)
    return Nest(nest.name, axes, reduction_axes, body, nest.origins)
