"""Checks that the nests of a program are legal and fit together; runs after every stage that makes them.

Rules of a program:
    names     nests, inputs, outputs and constants name distinct, existing buffers of the right role
    writers   a temporary that is read and every output has one writer; only mutated inputs are written, by one nest
    order     a value is written before it is read, and an input is not read once it has its new value
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

import sympy

from mkwrap.errors import VerifyError
from mkwrap.ir.analysis import loads, stores
from mkwrap.ir.nodes import Buffer, Nest, Role
from mkwrap.ir.verify import verify_all


class _Input(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def mutated(self) -> bool: ...


class _Output(Protocol):
    @property
    def kind(self) -> Enum: ...
    @property
    def buffer(self) -> str: ...


class _Size(Protocol):
    @property
    def symbol(self) -> sympy.Symbol: ...


class ProgramView(Protocol):
    """What is checked of a `stages.Program`, which is a layer above."""

    @property
    def buffers(self) -> Mapping[str, Buffer]:
        """All buffers by name."""

    @property
    def nests(self) -> Sequence[Nest]:
        """In the order of execution."""

    @property
    def inputs(self) -> Sequence[_Input]:
        """Tensor arguments."""

    @property
    def outputs(self) -> Sequence[_Output]:
        """Leaves of the result."""

    @property
    def constants(self) -> Mapping[str, object]:
        """Data of the constant buffers."""

    @property
    def symbols(self) -> Sequence[_Size]:
        """Dynamic sizes."""


def verify_program(program: ProgramView) -> None:
    """Check every nest of a program and how they fit together. Raises `VerifyError` naming the rule."""
    sizes = {spec.symbol for spec in program.symbols}
    verify_all(program.nests, program.buffers, sizes)
    _check_names(program)
    _check_writers(program)
    _check_order(program)


def _broken(rule: str, message: str) -> VerifyError:
    return VerifyError(f"the program breaks the rule '{rule}': {message}")


def _check_names(program: ProgramView) -> None:
    for key, buffer in program.buffers.items():
        if key != buffer.name:
            raise _broken("names", f"buffer {buffer.name} is listed as {key}")
    nests = [nest.name for nest in program.nests]
    if len(set(nests)) != len(nests):
        raise _broken("names", "two nests have the same name")
    named = {
        Role.INPUT: [spec.name for spec in program.inputs],
        Role.OUTPUT: [spec.buffer for spec in program.outputs if spec.kind.name == "BUFFER"],
        Role.CONSTANT: list(program.constants),
    }
    for role, names in named.items():
        present = sorted(buffer.name for buffer in program.buffers.values() if buffer.role is role)
        if sorted(names) != present:
            raise _broken("names", f"{role.value} buffers are {present}, listed are {sorted(names)}")
    for spec in program.outputs:
        if spec.kind.name == "INPUT_VIEW" and spec.buffer not in named[Role.INPUT]:
            raise _broken("names", f"an output is a view of {spec.buffer}, which is no input")


def _check_writers(program: ProgramView) -> None:
    writers: dict[str, list[str]] = {}
    read = {load.buffer for nest in program.nests for load in loads(nest)}
    for nest in program.nests:
        for name in {store.buffer for store in stores(nest)}:
            writers.setdefault(name, []).append(nest.name)
    mutated = {spec.name for spec in program.inputs if spec.mutated}
    for name, buffer in program.buffers.items():
        by = writers.get(name, [])
        if len(by) > 1:
            raise _broken("writers", f"{name} is written by {', '.join(by)}")
        if buffer.role is Role.INPUT and by and name not in mutated:
            raise _broken("writers", f"input {name} is written by {by[0]}, but is not a mutated one")
        if not by and (buffer.role is Role.OUTPUT or (buffer.role is Role.TEMPORARY and name in read)):
            raise _broken("writers", f"{buffer.role.value} {name} is written by no nest")


def _check_order(program: ProgramView) -> None:
    written: set[str] = set()
    for nest in program.nests:
        own = {store.buffer: store.index for store in stores(nest)}
        for load in loads(nest):
            role = program.buffers[load.buffer].role
            if role in (Role.TEMPORARY, Role.OUTPUT) and load.buffer not in written:
                raise _broken("order", f"{nest.name} reads {load.buffer} before it is written")
            if role is Role.INPUT and load.buffer in written:
                raise _broken("order", f"{nest.name} reads input {load.buffer} after its new value was written")
            if load.buffer in own and load.index != own[load.buffer]:
                raise _broken("order", f"{nest.name} writes input {load.buffer} and reads it at another index")
        written.update(own)
