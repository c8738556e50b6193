"""What host code needs to know of a driver: how a step is called and how buffers are addressed there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mkwrap.codegen.wrapper.blobs import Constants
from mkwrap.codegen.wrapper.sizes import spell_size
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.nodes import Role
from mkwrap.stages import (
    Binary,
    BufferArgument,
    Device,
    Kernel,
    OutputKind,
    OutputSpec,
    Program,
    Selection,
    SizeArgument,
    Step,
    SymbolSpec,
    WorkspaceArgument,
)


@dataclass(frozen=True)
class Layout:
    """Where everything of a library lies: constants, and a context's scratch (arena, then workspace; bytes)."""

    constants: Constants
    arena_bytes: int
    workspace_bytes: int

    @property
    def scratch_bytes(self) -> int:
        """Bytes of one context."""
        return self.arena_bytes + self.workspace_bytes


@dataclass(frozen=True)
class Call:
    """One step with all it refers to."""

    number: int
    step: Step
    kernel: Kernel
    binary: Binary
    selection: Selection
    layout: Layout
    images: Sequence[str]
    """Digests of the distinct images, in the order the model holds them (CUDA)."""

    @property
    def program(self) -> Program:
        """The program whose buffers the step binds."""
        return self.selection.schedule.program


@dataclass(frozen=True)
class Launcher:
    """How a target's steps are written."""

    header: str
    """The runtime header an emitted model includes."""
    device_type: str
    alignment: int
    """Bytes every part of the scratch memory is aligned to."""
    workspace: Callable[[Binary, Sequence[SymbolSpec]], int]
    """Bytes of scratch one step with this binary needs."""
    declare: Callable[[Writer, Selection, Layout, Device, Sequence[str]], None]
    """Write declarations and `kPlan`; the last argument names the instruction set features needed."""
    begin: Callable[[Writer, Program, bool], None]
    """Write the start of `run`: `stream` handling and the local names `arena` and `workspace`."""
    address: str
    """The function that turns a tensor into an address."""
    pointer: str
    """The C++ type of an address."""
    step: Callable[[Writer, Call], None]


def spell_argument(call: Call, argument: BufferArgument | WorkspaceArgument | SizeArgument, constant: str) -> str:
    """Spell an argument's value; `constant` is a format with fields `symbol` and `offset` for embedded constants."""
    match argument:
        case SizeArgument(expr=expr):
            return spell_size(expr)
        case WorkspaceArgument(offset=offset):
            return _plus("workspace", spell_size(offset))
        case BufferArgument(parameter=parameter, packing=packing):
            name = call.step.buffers[parameter]
            if call.program.buffers[name].role is Role.CONSTANT:
                placed = call.layout.constants.find(name, packing)
                return constant.format(symbol=placed.symbol, offset=placed.offset)
            return spell_buffer(call, name)


def spell_buffer(call: Call, name: str) -> str:
    """Spell the address of an input, output or temporary."""
    match call.program.buffers[name].role:
        case Role.INPUT:
            return f"in{input_number(call.program, name)}"
        case Role.OUTPUT:
            return f"out{output_number(call.program, name)}"
        case Role.TEMPORARY if name in call.selection.schedule.placements:
            return _plus("arena", spell_size(call.selection.schedule.placements[name]))
        case role:
            raise InternalError(f"step {call.number} ({call.kernel.name}) binds {name}, a {role.value} without a place")


def input_number(program: Program, name: str) -> int:
    """Return the position of an input."""
    for number, spec in enumerate(program.inputs):
        if spec.name == name:
            return number
    raise InternalError(f"{name} is no input of the program")


def output_buffers(program: Program) -> tuple[OutputSpec, ...]:
    """Return the outputs that callers provide, in order."""
    return tuple(spec for spec in program.outputs if spec.kind is OutputKind.BUFFER)


def output_number(program: Program, name: str) -> int:
    """Return the position of an output buffer in the C ABI."""
    for number, spec in enumerate(output_buffers(program)):
        if spec.buffer == name:
            return number
    raise InternalError(f"{name} is no output of the program")


def used_buffers(selection: Selection) -> frozenset[str]:
    """Return the buffers that any step passes to a kernel or sizes a launch by."""
    return frozenset(name for step in selection.schedule.steps for name in step.buffers)


def step_title(call: Call) -> str:
    """Return what a step is, for a comment: number, kernel, variant and where it comes from."""
    origin = f" from {call.step.origins[0]}" if call.step.origins else ""
    return f"{call.number}: {call.kernel.name} {call.binary.source.variant.label}{origin}"


def _plus(base: str, offset: str) -> str:
    return base if offset == "0" else f"{base} + {offset}"
