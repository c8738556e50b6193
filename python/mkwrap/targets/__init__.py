"""Targets: device, language and toolchain joined in one value each."""

from __future__ import annotations

from collections.abc import Sequence

from mkwrap.errors import TargetError
from mkwrap.options import Options
from mkwrap.stages import Device
from mkwrap.targets import cpu, cuda
from mkwrap.targets.target import Family, Target

FAMILIES: tuple[Family, ...] = (cpu.FAMILY, cuda.FAMILY)


def resolve(name: str, options: Options, measured: Sequence[Device] = ()) -> Target:
    """Return the target of that name ("cpu", "cpu:x86-64-v3", …); raises `TargetError` for an unknown one.

    `measured`: devices that a tuning record knows, best first. Where this machine cannot run the target, variants are
    written for the first of its architecture, so that they are those the record chose from.
    """
    for family in FAMILIES:
        if name.split(":", maxsplit=1)[0] == family.prefix:
            return family.resolve(name, options, measured)
    known = ", ".join(family.prefix for family in FAMILIES)
    raise TargetError(f"unknown target {name!r}; a target's name starts with one of: {known}")
