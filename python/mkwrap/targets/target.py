"""What a target is: device, language and toolchain joined in one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mkwrap.codegen.template import Language
from mkwrap.options import Options
from mkwrap.stages import Binary, Device, Rejected, Source

Compile: TypeAlias = Callable[[Source], Binary | Rejected]


@dataclass(frozen=True)
class Target:
    """Where a library will run and how its kernels are made."""

    name: str
    """The canonical name, with nothing left open: "cpu:x86-64-v4", "cuda:sm_90"."""
    kind: Literal["cpu", "cuda"]
    device: Device
    language: Language
    compile: Compile
    """Pure function from source to image; picklable (a `functools.partial` of a module-level function)."""
    toolchain: str
    """Compiler, version and flags in one line: with a source's text it decides the bytes, so it is part of every key."""
    features: tuple[str, ...] = ()
    """Instruction set features the machine must have (as /proc/cpuinfo names them), sorted; for the manifest."""
    flags: tuple[str, ...] = ()
    """Compiler flags for other C++ of the same library (host code, link step)."""
    warm_up: Source | None = None
    """The least source, where compiling is done in child processes that have much to do before their first."""
    present: bool = True
    """Whether this machine can run the code, hence measure it."""


def stand_in(device: Device, measured: Sequence[Device]) -> Device:
    """Return what an absent device is written for: the first of its architecture among `measured`, else itself."""
    return next((other for other in measured if (other.kind, other.arch) == (device.kind, device.arch)), device)


@dataclass(frozen=True)
class Family:
    """The targets whose names are `prefix` or start with `prefix:`."""

    prefix: str
    resolve: Callable[[str, Options, Sequence[Device]], Target]
    """From the full name to the target, and devices that may stand for an absent one (see `targets.resolve`); raises
    `TargetError` for an unknown name."""
