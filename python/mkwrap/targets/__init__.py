"""Targets: device, language and toolchain joined in one value each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def resolve_all(names: str | Sequence[str], options: Options, measured: Sequence[Device] = ()) -> tuple[Target, ...]:
    """Return the targets of one library, at least one: one name, or several GPU architectures (`measured`: see `resolve`).

    Raises `TargetError` for what is no name, an unknown one, one that is given twice, and for targets that no library joins.
    """
    listed = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else ()
    if not all(isinstance(name, str) for name in listed) or not isinstance(names, Iterable):
        raise TargetError(f"target is {names!r}; expected a name, as 'cpu' or 'cuda:sm_90', or a list of names")
    if not listed:
        raise TargetError("no target is given")
    found = tuple(resolve(name, options, measured) for name in listed)
    if len(found) > 1 and any(target.kind != "cuda" for target in found):
        raise TargetError(f"one library joins several GPU architectures, not {' and '.join(t.name for t in found)}")
    names_found = [target.name for target in found]
    for name in names_found:
        if names_found.count(name) > 1:
            raise TargetError(f"the target {name} is given twice")
    return found
