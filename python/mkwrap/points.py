"""Numbers in place of size symbols: a kernel, a variant's text or a schedule as it is at one point.

What is written for static shapes (template spaces, cost model, contests, oracle) sees static values this way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import sympy

from mkwrap.ir.analysis import defined, index_exprs
from mkwrap.ir.index import axis_ranges, simplify
from mkwrap.ir.nodes import Axis, BoundsCheck, Buffer, Expr, IndexValue, Instruction, Load, Nest, Store
from mkwrap.stages import (
    Argument,
    Binary,
    Kernel,
    Launch,
    Parameter,
    Point,
    Schedule,
    SizeArgument,
    Source,
    WorkspaceArgument,
)

Values: TypeAlias = Mapping[sympy.Symbol, int]
"""A number for each size symbol."""
Ranges: TypeAlias = Mapping[sympy.Symbol, tuple[int, int]]
"""The inclusive range of each size symbol."""
Ends: TypeAlias = Sequence[tuple[int, int | None]]
"""Of each of a kernel's symbols the least and the greatest size, None where nobody bounded it."""

Size = TypeVar("Size", Expr, "Expr | int")


def kernel_symbols(kernel: Kernel) -> tuple[sympy.Symbol, ...]:
    """Return the size symbols of a kernel, by name: those of its extents and indices and of its buffers' shapes and strides."""
    nest = kernel.nest
    axes = (*nest.axes, *nest.reduction_axes)
    exprs: list[Expr] = [axis.extent for axis in axes]
    exprs += [expr for instruction in nest.body for expr in index_exprs(instruction)]
    for parameter in kernel.parameters:
        exprs += [*parameter.buffer.shape, *parameter.buffer.strides]
    inside = {axis.symbol.name for axis in axes}
    inside.update(name for instruction in nest.body for name in defined(instruction))
    free = {symbol for expr in exprs for symbol in expr.free_symbols if symbol.name not in inside}
    return tuple(sorted(free, key=lambda symbol: str(symbol.name)))


def values_at(symbols: Collection[sympy.Symbol], point: Point) -> Values:
    """Return a point's coordinates by symbol; `symbols` are in the order of the point."""
    return dict(zip(symbols, point, strict=True))


def odd_size(size: int) -> int:
    """Return the odd size that stands for those that a point is run for and no vector divides: three quarters of the point's.

    What is made for rows of up to 128 runs those of 65 to 128.
    """
    return size * 3 // 4 | 1


def projected(values: Values, symbols: Collection[sympy.Symbol]) -> Point:
    """Return the point of some symbols."""
    return tuple(values[symbol] for symbol in symbols)


def size_at(expr: Size, values: Values) -> Size:
    """Return an expression with numbers for the symbols that have a value."""
    if isinstance(expr, int) or not expr.free_symbols:
        return expr
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


def source_at(source: Source, values: Values) -> Source:
    """Return a variant's text with its grids, size arguments and workspace at a point, where its guards hold."""
    return replace(
        source,
        launches=tuple(_launch_at(launch, values) for launch in source.launches),
        workspace_bytes=size_at(source.workspace_bytes, values),
        guards=(),
    )


def _launch_at(launch: Launch, values: Values) -> Launch:
    x, y, z = (size_at(extent, values) for extent in launch.grid)
    return replace(launch, args=tuple(_argument_at(argument, values) for argument in launch.args), grid=(x, y, z))


def _argument_at(argument: Argument, values: Values) -> Argument:
    match argument:
        case SizeArgument():
            return replace(argument, expr=size_at(argument.expr, values))
        case WorkspaceArgument():
            return replace(argument, offset=size_at(argument.offset, values))
        case _:
            return argument


def binary_at(binary: Binary, values: Values) -> Binary:
    """Return a binary with its source at a point; the images are the same."""
    return Binary(source_at(binary.source, values), binary.images)


def schedule_at(schedule: Schedule, values: Values, kernels: Collection[str] | None = None) -> Schedule:
    """Return a schedule at a point, with the kernels named in `kernels` alone (None: all).

    Of the program, buffers, constants and signature are kept; its nests, which the kernels hold, are left out.
    """
    program = schedule.program
    buffers = {name: buffer_at(buffer, values) for name, buffer in program.buffers.items()}
    names = schedule.kernels if kernels is None else kernels
    return replace(
        schedule,
        program=replace(program, buffers=buffers, nests=()),
        kernels={name: kernel_at(schedule.kernels[name], values) for name in names},
        placements={name: size_at(offset, values) for name, offset in schedule.placements.items()},
        arena_bytes=size_at(schedule.arena_bytes, values),
    )
