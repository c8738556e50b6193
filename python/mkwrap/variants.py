"""The variants and render stages: every way a target's language can write each kernel, then its text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mkwrap.codegen.template import WHOLE_ROW
from mkwrap.errors import InternalError, MkwrapError, OptionError, UnsupportedOpError, UnsupportedUse
from mkwrap.spaces import kernel_points, propose, upper_ends
from mkwrap.stages import Candidates, Hints, Kernel, Point, Rejected, Schedule, Source, Variant
from mkwrap.targets.target import Target
from mkwrap.toolchain.rejection import rejection

_NO_HINTS = Hints()
MOST = 16
"""Variants of a kernel that are built; templates come best first, so that what lies beyond is unlikely to win."""


def variants(
    schedule: Schedule,
    target: Target,
    force: Mapping[str, str] = MappingProxyType({}),
    hints: Hints = _NO_HINTS,
) -> Candidates:
    """Return each kernel's variants in the order of the language's templates: distinct, and at most `MOST`.

    Every template that fits a kernel has its best guess among them. Of a kernel with dynamic sizes the variants are those that
    are proposed at its points, the best first (`spaces.propose`); where each is right is known once it is written.

    Raises `UnsupportedOpError` where the language has no template yet for an instruction of the kernel, `InternalError` where no
    template fits for another reason, `OptionError` where `force` (see `Options.force`) names a kernel or a variant that does not
    exist.
    """
    limits = upper_ends(schedule.program)
    found: dict[str, tuple[Variant, ...]] = {}
    points: dict[str, Mapping[Point, tuple[Variant, ...]]] = {}
    for name, kernel in schedule.kernels.items():
        own = kernel_points(kernel, hints)
        if own:
            forms, alike = target.language.forms(kernel, limits), target.language.alike
            relations = schedule.program.relations
            found[name], points[name] = propose(
                kernel, own, forms, lambda fixed: _variants(fixed, target), alike, relations
            )
        else:
            found[name] = _variants(kernel, target)
    candidates = Candidates(schedule, found, points, hints)
    _check_force(candidates, force)
    return candidates


def _check_force(candidates: Candidates, force: Mapping[str, str]) -> None:
    for kernel, label in force.items():
        if kernel not in candidates.variants:
            known = ", ".join(candidates.variants)
            raise OptionError(f"Options.force names the kernel {kernel!r}; the kernels are: {known}")
        labels = [variant.label for variant in candidates.variants[kernel]]
        if label not in labels:
            listing = ", ".join(labels)
            raise OptionError(f"Options.force names the variant {label!r} of {kernel}; its variants are: {listing}")


def _variants(kernel: Kernel, target: Target) -> tuple[Variant, ...]:
    spaces = [
        [Variant(kernel.name, template.name, params) for params in dict.fromkeys(template.space(kernel, target.device))]
        for template in target.language.templates
        if template.takes(kernel.nest)
    ]
    every = [variant for space in spaces for variant in space]
    if not every:
        raise _unwritten(kernel, target)
    best = {space[0] for space in spaces if space}
    spare = MOST - len(best)
    kept = []
    for variant in every:
        if variant in best:
            kept.append(variant)
        elif spare > 0:
            kept.append(variant)
            spare -= 1
    return tuple(kept)


def _unwritten(kernel: Kernel, target: Target) -> MkwrapError:
    """Say that no template writes a kernel: a program asks for too much at once, or we lack one that should be there."""
    asked = {type(i) for i in kernel.nest.body} & WHOLE_ROW
    if asked:
        words = " and a ".join(sorted(kind.__name__.lower() for kind in asked))
        reason = f"the {target.name} target has no kernel for a {words} as it stands here, fused with what surrounds it"
        return UnsupportedOpError([UnsupportedUse(o.op, reason, o.location) for o in kernel.nest.origins])
    names = ", ".join(template.name for template in target.language.templates)
    ops = ", ".join(dict.fromkeys(origin.op for origin in kernel.nest.origins)) or "no known operation"
    return InternalError(f"no template of {target.name} ({names}) fits kernel {kernel.name} ({ops})")


def render(candidates: Candidates, target: Target) -> Mapping[str, tuple[Source | Rejected, ...]]:
    """Write every variant as text; what a template refuses by an error of its own is rejected with that reason."""
    templates = {template.name: template for template in target.language.templates}
    sources: dict[str, tuple[Source | Rejected, ...]] = {}
    for name, kernel in candidates.schedule.kernels.items():
        written: list[Source | Rejected] = []
        for variant in candidates.variants[name]:
            try:
                written.append(templates[variant.template].render(kernel, variant, target.device))
            except InternalError:
                raise
            except MkwrapError as error:
                written.append(rejection(variant, str(error)))
        sources[name] = tuple(written)
    return sources
