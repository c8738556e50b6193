"""What a template and a language are: the values that `variants` enumerates and `render` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mkwrap.ir.nodes import Instruction, Nest, Scan, Sort
from mkwrap.stages import Device, Kernel, Params, Source, Variant

if TYPE_CHECKING:
    import sympy

Space: TypeAlias = Callable[[Kernel, Device], tuple[Params, ...]]
Render: TypeAlias = Callable[[Kernel, Variant, Device], Source]
Forms: TypeAlias = Callable[[Kernel, "Mapping[sympy.Symbol, int]"], tuple[Params, ...]]


WHOLE_ROW: frozenset[type[Instruction]] = frozenset({Scan, Sort})
"""Instructions that need the row in order, which takes a template made for them."""


@dataclass(frozen=True)
class Template:
    """A way to write a kernel.

    `space` returns the legal params, best guess first, or () where the template does not fit the kernel. Of a kernel with
    dynamic sizes it is asked at points: with numbers of at least 2 in place of its symbols.
    `render` is pure: equal kernel, variant and device give equal text. A kernel with dynamic sizes is written as it stands,
    for all sizes at which the guards of the source hold. What such a kernel cannot be written as though a point of it can,
    is refused with `DynamicShapeError`.
    """

    name: str
    space: Space
    render: Render
    also: frozenset[type[Instruction]] = frozenset()
    """Of `WHOLE_ROW`, the instructions that it can write; a kernel with others is not offered to it."""

    def takes(self, nest: Nest) -> bool:
        """Whether it can write every instruction of a nest."""
        return {type(i) for i in nest.body} & WHOLE_ROW <= self.also


def one_form(kernel: Kernel, limits: Mapping[sympy.Symbol, int]) -> tuple[Params, ...]:
    """Write every variant of any kernel in one way: without further params."""
    del kernel, limits
    return ((),)


@dataclass(frozen=True)
class Language:
    """A kernel language: its templates in order of preference (the first legal variant is the safe default).

    `forms` returns, for a kernel with dynamic sizes and the symbols' upper ends (a symbol that is missing has none), the
    params that are put behind those of every variant, one text each, best first. Texts of the last are right for all sizes
    up to the limits unless the variant's own params ask for guards; equal texts are one candidate.

    `alike` is how many of a template's best guesses are as good as each other, as far as their order tells.
    """

    name: str
    templates: tuple[Template, ...]
    forms: Forms = one_form
    alike: int = 1
