"""Nests and programs as text: stable, one instruction a line, for golden tests and dumps.

nest n0 [i0: 8, i1: 4 | r0: 16]        parallel axes | reduction axes
  from aten.sum.dim_IntList at model.py:3: y = x.sum(-1)
  v0: float32 = load x[i0, r0]
  v1: float32 = reduce sum v0
  store t0[i0, i1] = v1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import (
    Axis,
    BoundsCheck,
    Buffer,
    Combine,
    Compute,
    Constant,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Nest,
    Reduce,
    Scan,
    Sort,
    Store,
)


def print_nest(nest: Nest) -> str:
    """Spell a nest, its origins included; ends without a newline."""
    reduction = f" | {_axes(nest.reduction_axes)}" if nest.reduction_axes else ""
    lines = [f"nest {nest.name} [{_axes(nest.axes)}{reduction}]"]
    lines += [
        f"  from {origin.op} at {origin.location}" if origin.location else f"  from {origin.op}"
        for origin in nest.origins
    ]
    lines += [f"  {print_instruction(instruction)}" for instruction in nest.body]
    return "\n".join(lines)


def print_instruction(instruction: Instruction) -> str:
    """Spell one instruction."""
    match instruction:
        case Constant(dest, dtype, value):
            return f"{dest}: {dtype.value} = {value!r}"
        case IndexValue(dest, dtype, expr):
            return f"{dest}: {dtype.value} = index {expr}"
        case Load(dest, dtype, buffer, index, mask):
            return f"{dest}: {dtype.value} = load {buffer}{_bracket(index)}{_if(mask)}"
        case BoundsCheck(dest, arg, extent, mask):
            return f"{dest}: int64 = check {arg} < {extent}{_if(mask)}"
        case Compute(dest, dtype, op, args):
            return f"{dest}: {dtype.value} = {op} {', '.join(args)}"
        case Reduce(dests, dtypes, op, args):
            return f"{_typed(dests, dtypes)} = reduce {op} {', '.join(args)}"
        case Scan(dests, dtypes, op, args, combine):
            by = "" if combine is None else f" by {_combine(combine)}"
            return f"{_typed(dests, dtypes)} = scan {op} {', '.join(args)}{by}"
        case Sort(dests, dtypes, arg, descending):
            return f"{_typed(dests, dtypes)} = sort {arg}{' descending' if descending else ''}"
        case Store(buffer, index, arg):
            return f"store {buffer}{_bracket(index)} = {arg}"


def _typed(dests: Iterable[str], dtypes: Iterable[DType]) -> str:
    return ", ".join(f"{dest}: {dtype.value}" for dest, dtype in zip(dests, dtypes, strict=True))


def _combine(combine: Combine) -> str:
    body = "".join(f"{print_instruction(instruction)}; " for instruction in combine.body)
    left, right, results = (", ".join(names) for names in (combine.left, combine.right, combine.results))
    return f"({left} | {right}) {{ {body}{results} }}"


def print_buffer(buffer: Buffer) -> str:
    """Spell a buffer's role, name, dtype, shape, strides and alignment."""
    return (
        f"{buffer.role.value} {buffer.name}: {buffer.dtype.value}{_bracket(buffer.shape)} "
        f"strides {_bracket(buffer.strides)} align {buffer.alignment}"
    )


class _Output(Protocol):
    @property
    def kind(self) -> Enum: ...
    @property
    def buffer(self) -> str: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def shape(self) -> Sequence[Expr]: ...
    @property
    def strides(self) -> Sequence[Expr]: ...
    @property
    def offset(self) -> Expr | int: ...
    @property
    def same_as(self) -> int: ...
    @property
    def value(self) -> bool | int | float | str | None: ...


class ProgramView(Protocol):
    """What is printed of a `stages.Program`, which is a layer above."""

    @property
    def buffers(self) -> Mapping[str, Buffer]:
        """All buffers by name."""

    @property
    def nests(self) -> Sequence[Nest]:
        """In the order of execution."""

    @property
    def outputs(self) -> Sequence[_Output]:
        """Leaves of the result."""


def print_program(program: ProgramView) -> str:
    """Spell the buffers, the nests in order, and where each result comes from; ends with a newline."""
    blocks = ["\n".join(print_buffer(buffer) for buffer in program.buffers.values())]
    blocks += [print_nest(nest) for nest in program.nests]
    blocks.append("\n".join(f"return {k}: {_output(output)}" for k, output in enumerate(program.outputs)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _output(output: _Output) -> str:
    match output.kind.name:
        case "BUFFER":
            return output.buffer
        case "INPUT_VIEW":
            view = f"{_bracket(output.shape)} strides {_bracket(output.strides)} offset {output.offset}"
            return f"view of {output.buffer}: {output.dtype.value}{view}"
        case "SAME":
            return f"same as {output.same_as}"
    return repr(output.value)


def _axes(axes: Iterable[Axis]) -> str:
    return ", ".join(f"{axis.symbol}: {axis.extent}" for axis in axes)


def _bracket(exprs: Iterable[Expr]) -> str:
    return f"[{', '.join(str(expr) for expr in exprs)}]"


def _if(mask: str | None) -> str:
    return "" if mask is None else f" if {mask}"
