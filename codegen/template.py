"""What a template and a language are: the values that `variants` enumerates and `render` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mkwrap.ir.nodes import Instruction, Nest, Scan, Sort
from mkwrap.stages import Device, Kernel, Params, Source, Variant

Space: TypeAlias = Callable[[Kernel, Device], tuple[Params, ...]]
Render: TypeAlias = Callable[[Kernel, Variant, Device], Source]


WHOLE_ROW: frozenset[type[Instruction]] = frozenset({Scan, Sort})
"""Instructions that need the row in order, which takes a template made for them."""


@dataclass(frozen=True)
class Template:
    """A way to write a kernel.

    `space` returns the legal params, best guess first, or () where the template does not fit the kernel.
    `render` is pure: equal kernel, variant and device give equal text.
    """

    name: str
    space: Space
    render: Render
    also: frozenset[type[Instruction]] = frozenset()
    """Of `WHOLE_ROW`, the instructions that it can write; a kernel with others is not offered to it."""

    def takes(self, nest: Nest) -> bool:
        """Whether it can write every instruction of a nest."""
        return {type(i) for i in nest.body} & WHOLE_ROW <= self.also


@dataclass(frozen=True)
class Language:
    """A kernel language: its templates in order of preference (the first legal variant is the safe default)."""

    name: str
    templates: tuple[Template, ...]
