"""What host code needs to know of a driver: how a step is called and how buffers are addressed there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mkwrap.artifact import Row
from mkwrap.codegen.wrapper.blobs import Parts
from mkwrap.codegen.wrapper.contents import Contents
from mkwrap.codegen.wrapper.sizes import Values
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.nodes import Expr, Role
from mkwrap.stages import (
    Argument,
    Binary,
    BufferArgument,
    Device,
    FaultArgument,
    Kernel,
    OutputKind,
    OutputSpec,
    Program,
    Schedule,
    SizeArgument,
    Step,
    WorkspaceArgument,
)

_FAULT_BYTES = 4


@dataclass(frozen=True)
class CheckedStep:
    """A step with an alternative that reports indices out of range, in a word of its own in each context."""

    number: int
    kernel: str
    origin: str


@dataclass(frozen=True)
class Layout:
    """Where everything of a library lies: its parts, and a context's scratch (arena, then workspace; bytes)."""

    parts: Parts
    arena_bytes: Expr
    scratch: Mapping[str, tuple[Expr, ...]]
    """Workspace that each alternative of a kernel asks for."""
    rows: tuple[Row, ...]
    checked_steps: tuple[CheckedStep, ...]
    values: Values
    """The sizes that host code computes in a run."""

    @property
    def has_workspace(self) -> bool:
        """Whether any alternative asks for a workspace."""
        return any(size != 0 for sizes in self.scratch.values() for size in sizes)


@dataclass(frozen=True)
class Call:
    """One step by one of its kernel's alternatives, with all it refers to."""

    number: int
    step: Step
    alternative: int
    contents: Contents
    layout: Layout

    @property
    def program(self) -> Program:
        """The program whose buffers the step binds."""
        return self.contents.schedule.program

    @property
    def kernel(self) -> Kernel:
        """The kernel that the step calls."""
        return self.contents.schedule.kernels[self.step.kernel]

    @property
    def binary(self) -> Binary:
        """The alternative's binary."""
        return self.contents.kernels[self.step.kernel][self.alternative].binary


@dataclass(frozen=True)
class Launcher:
    """How a target's steps are written."""

    header: str
    """The runtime header an emitted model includes."""
    device_type: str
    alignment: int
    """Bytes every part of the scratch memory is aligned to."""
    workspace: Callable[[Binary], Expr]
    """Bytes of scratch one step with this binary needs."""
    images: bool
    """Whether images are parts that are loaded at run time; else they are linked."""
    declare: Callable[[Writer, Contents, Layout], None]
    """Write the declarations that stand before the model's namespace, if any."""
    plan: Callable[[Writer, Contents, Layout, Sequence[Device], Sequence[str], str], None]
    """Write `kPlan` and its tables; given are each target's device, the instruction set features needed, and what a context
    keeps of dynamic sizes (an initialiser; "" for a static program)."""
    begin: Callable[[Writer, Program, Layout], None]
    """Write the start of `run`: `stream` handling, scratch memory that grows with dynamic sizes, and the local names `arena`
    and `workspace`."""
    address: str
    """The function that turns a tensor into an address."""
    pointer: str
    """The C++ type of an address."""
    step: Callable[[Writer, Call], None]


def spell_argument(call: Call, argument: Argument, constant: str) -> str:
    """Spell an argument's value; `constant` is a format with fields `part` and `offset` for embedded constants."""
    match argument:
        case SizeArgument(expr=expr):
            return call.layout.values.spell(expr)
        case WorkspaceArgument(offset=offset):
            return _plus("workspace", call.layout.values.spell(offset))
        case FaultArgument():
            place = [step.number for step in call.layout.checked_steps].index(call.number)
            return _plus("context->device_faults", str(_FAULT_BYTES * place))
        case BufferArgument(parameter=parameter, packing=packing):
            name = call.step.buffers[parameter]
            if call.program.buffers[name].role is Role.CONSTANT:
                placed = call.layout.parts.constants.find(name, packing)
                return constant.format(part=placed.part, offset=placed.offset)
            return spell_buffer(call, name)


def spell_buffer(call: Call, name: str) -> str:
    """Spell the address of an input, output or temporary."""
    match call.program.buffers[name].role:
        case Role.INPUT:
            return f"in{input_number(call.program, name)}"
        case Role.OUTPUT:
            return f"out{output_number(call.program, name)}"
        case Role.TEMPORARY if name in call.contents.schedule.placements:
            return _plus("arena", call.layout.values.spell(call.contents.schedule.placements[name]))
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


def used_buffers(schedule: Schedule) -> frozenset[str]:
    """Return the buffers that any step passes to a kernel or sizes a launch by."""
    return frozenset(name for step in schedule.steps for name in step.buffers)


def checked_steps(contents: Contents) -> tuple[CheckedStep, ...]:
    """Return the steps whose kernels report indices out of range."""
    checked = {
        name
        for name, alternatives in contents.kernels.items()
        for alternative in alternatives
        for launch in alternative.binary.source.launches
        if any(isinstance(argument, FaultArgument) for argument in launch.args)
    }
    return tuple(
        CheckedStep(number, step.kernel, step_origin(step))
        for number, step in enumerate(contents.schedule.steps)
        if step.kernel in checked
    )


def write_checked(writer: Writer, expression: str) -> None:
    """Write a call whose failure is the function's own."""
    writer.line(f"if (const mkw_status status = {expression}) return status;")


def step_origin(step: Step) -> str:
    """Return where a step comes from, for messages; "" where nothing is known."""
    return step.origins[0] if step.origins else ""


def step_title(call: Call) -> str:
    """Return what a step is, for a comment: number, kernel, variant and where it comes from."""
    origin = f" from {step_origin(call.step)}" if call.step.origins else ""
    return f"{call.number}: {call.kernel.name} {call.binary.source.variant.label}{origin}"


def _plus(base: str, offset: str) -> str:
    return base if offset == "0" else f"{base} + {offset}"
