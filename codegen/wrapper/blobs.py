"""Which bytes a library embeds: constants as its kernels read them, cubins and the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mkwrap.codegen.wrapper.sizes import largest, round_up
from mkwrap.errors import CaptureError, InternalError
from mkwrap.ir.nodes import Role
from mkwrap.stages import (
    Access,
    Binary,
    Blob,
    BufferArgument,
    EmbeddedConstant,
    Kernel,
    Packing,
    Program,
    Selection,
    Step,
)

_DEVICE_ALIGNMENT = 256
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PlacedConstant:
    """One constant in one layout: the file it is embedded from, its symbol, and its place in device memory (bytes)."""

    constant: str
    packing: Packing | None
    file: str
    symbol: str
    size: int
    offset: int


@dataclass(frozen=True)
class Constants:
    """Every constant the steps read, once per layout."""

    placed: tuple[PlacedConstant, ...]

    @property
    def total(self) -> int:
        """Bytes of device memory that hold them all."""
        return max((round_up(c.offset + c.size, _DEVICE_ALIGNMENT) for c in self.placed), default=0)

    @property
    def names(self) -> frozenset[str]:
        """Names of the constants in use."""
        return frozenset(c.constant for c in self.placed)

    def find(self, name: str, packing: Packing | None) -> PlacedConstant:
        """Return the place of a constant in a layout."""
        for placed in self.placed:
            if placed.constant == name and placed.packing == packing:
                return placed
        raise InternalError(f"the constant {name} is not embedded in the layout a step reads")


def binary_of(selection: Selection, kernel: str) -> Binary:
    """Return a kernel's winner; raises `InternalError` for a dispatch over several (sizes are static here)."""
    dispatch = selection.winners[kernel]
    if len(dispatch.rows) != 1:
        raise InternalError(f"the kernel {kernel} has {len(dispatch.rows)} winners; host code calls one")
    return dispatch.only


def place_constants(selection: Selection) -> Constants:
    """Collect the constants of all steps in order of first use; the same layout of one constant is placed once."""
    program = selection.schedule.program
    wanted: dict[tuple[str, Packing | None], None] = {}
    for step in selection.schedule.steps:
        kernel = selection.schedule.kernels[step.kernel]
        for launch in binary_of(selection, step.kernel).source.launches:
            for argument in launch.args:
                if isinstance(argument, BufferArgument):
                    name = _constant(program, kernel, step, argument)
                    if name is not None:
                        wanted.setdefault((name, argument.packing))
    placed: list[PlacedConstant] = []
    offset = 0
    for number, (name, packing) in enumerate(wanted):
        size = _bytes(program, name, packing)
        file, symbol = f"constant_{number}.bin", f"mkw_constant_{number}"
        placed.append(PlacedConstant(name, packing, file, symbol, size, offset))
        offset = round_up(offset + size, _DEVICE_ALIGNMENT)
    return Constants(tuple(placed))


def embedded(constants: Constants) -> Mapping[str, Blob]:
    """Return the files to embed, by name."""
    return {c.file: EmbeddedConstant(c.constant, c.packing) for c in constants.placed}


def _constant(program: Program, kernel: Kernel, step: Step, argument: BufferArgument) -> str | None:
    name = step.buffers[argument.parameter]
    if program.buffers[name].role is not Role.CONSTANT:
        if argument.packing is not None:
            raise InternalError(f"{kernel.name} packs {name}, which is no constant")
        return None
    if kernel.parameters[argument.parameter].access is not Access.READ:
        raise CaptureError(
            f"the program writes to {name}, a parameter or buffer of the module; pass it as an argument instead"
        )
    return name


def _bytes(program: Program, name: str, packing: Packing | None) -> int:
    if packing is None:
        return int(program.constants[name].data.nbytes)
    elements = 1
    for extent in packing.shape:
        elements *= extent
    return largest(elements, ()) * packing.dtype.itemsize
