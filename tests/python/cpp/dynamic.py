"""Runs one text of a kernel with size symbols at many sizes, with every variant proposed at a few points."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import sympy
from tests.python.cpp.matmul_run import compare, distinct
from tests.python.cpp.running import bound, build, copies, entry_of, fill, target

from mkwrap.codegen.template import Template
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import contiguous_strides
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.nodes import Buffer, Expr, Role
from mkwrap.ir.numeric import Array, decode
from mkwrap.points import buffer_at, kernel_at
from mkwrap.stages import Binary, Kernel, Params, SizeArgument, Source, Variant, WorkspaceArgument
from mkwrap.targets.target import Target

Sizes = Mapping[sympy.Symbol, int]
Fill = Callable[[Mapping[str, Array]], None]
"""Changes random inputs in place, where not every value will do."""


def made(name: str, *shape: Expr | int, dtype: DType = DType.FLOAT32) -> Buffer:
    """A contiguous buffer."""
    sizes = tuple(sympy.sympify(n) for n in shape)
    return Buffer(name, dtype, sizes, contiguous_strides(sizes), Role.INPUT)


def proposed(template: Template, k: Kernel, points: Sequence[Sizes], on: Target) -> tuple[Params, ...]:
    """Every distinct choice that the template proposes at some points."""
    found = [params for point in points for params in template.space(kernel_at(k, point), on.device)]
    assert found
    return tuple(dict.fromkeys(found))


def at(expr: Expr | int, sizes: Sizes) -> int:
    """The value of a size."""
    return int(sympy.sympify(expr).xreplace({s: sympy.Integer(n) for s, n in sizes.items()}))


def buffers_at(k: Kernel, sizes: Sizes) -> Kernel:
    """Numbers in place of the symbols of parameters alone: of a size of 0, no index has a value."""
    return replace(k, parameters=tuple(replace(p, buffer=buffer_at(p.buffer, sizes)) for p in k.parameters))


def source_at(source: Source, sizes: Sizes) -> Source:
    """Numbers in place of the symbols of workspaces."""
    launch = source.launches[0]
    args = tuple(replace(a, offset=at(a.offset, sizes)) if isinstance(a, WorkspaceArgument) else a for a in launch.args)
    there = (replace(launch, args=args),)
    return replace(source, launches=there, workspace_bytes=at(source.workspace_bytes, sizes))


def run(binary: Binary, k: Kernel, memory: Mapping[str, Array], sizes: Sizes) -> int:
    """Run a kernel with size symbols in place; returns its status."""
    source = source_at(binary.source, sizes)
    addresses, _alive = bound(source, buffers_at(k, sizes), memory)
    values = [at(a.expr, sizes) for a in source.launches[0].args if isinstance(a, SizeArgument)]
    function = entry_of(binary)
    return int(function((ctypes.c_void_p * len(addresses))(*addresses), (ctypes.c_int64 * len(values))(*values)))


def check_sizes(
    template: Template,
    k: Kernel,
    points: Sequence[Sizes],
    sizes: Sequence[Sizes],
    *,
    tolerance: float = 3e-6,
    adjust: Fill | None = None,
    on: Target | None = None,
    tiles: bool = True,
    form: Params = (),
) -> list[Source]:
    """Compare all buffers with the interpreter's, for every choice at every size where its guards hold.

    Without `tiles`, choices that differ in the sizes of tiles and parts alone are one. `form` goes behind each choice.
    """
    on = on or target()
    choices = proposed(template, k, points, on)
    chosen = choices if tiles else distinct(choices)
    variants = [Variant(k.name, template.name, (*params, *form)) for params in chosen]
    with ThreadPoolExecutor(2) as pool:
        binaries = list(pool.map(lambda variant: build(template, k, variant, on), variants))
    for here in sizes:
        there = buffers_at(k, here)
        rng = np.random.default_rng(0)
        memory = {p.buffer.name: fill(p.buffer, rng, -5, 5) for p in there.parameters}
        if adjust is not None:
            adjust(memory)
        expected = copies(memory)
        interpret_nest(k.nest, expected, here)
        for variant, binary in zip(variants, binaries, strict=True):
            if not all(guard.holds(here) for guard in binary.source.guards):
                continue
            actual = copies(memory)
            assert run(binary, k, actual, here) == 0
            for p in there.parameters:
                pair = [decode(values[p.buffer.name], p.buffer.dtype) for values in (actual, expected)]
                compare(*pair, tolerance, f"{variant.label} {p.buffer.name} at {here}")
    return [binary.source for binary in binaries]
