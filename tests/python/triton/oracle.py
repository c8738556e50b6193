"""Memory for hand-built kernels, and the numpy interpreter's answer on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from mkwrap.codegen.template import WHOLE_ROW
from mkwrap.codegen.triton import LANGUAGE
from mkwrap.codegen.triton.look_back import SPLIT_SCAN
from mkwrap.codegen.triton.loops import cut, scan_levels
from mkwrap.codegen.triton.persistent import PERSISTENT
from mkwrap.codegen.triton.rows import suited_rows
from mkwrap.codegen.triton.scan_chunks import SCAN_CHUNKS
from mkwrap.codegen.triton.split import SPLIT
from mkwrap.codegen.triton.tile import power_of_two
from mkwrap.codegen.triton.walk import ways as ways_to_walk
from mkwrap.ir.analysis import scans, sorts
from mkwrap.ir.dtypes import DType
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.nodes import Buffer
from mkwrap.ir.numeric import Array
from mkwrap.stages import Access, Device, Kernel, Params, Source, Variant
from tests.python.triton.emulate import run
from tests.python.triton.nests import H100

Memory = dict[int, torch.Tensor]
"""Per parameter, its storage as a flat tensor."""


def torch_dtype(dtype: DType) -> torch.dtype:
    found = getattr(torch, dtype.value)
    assert isinstance(found, torch.dtype)
    return found


def view(flat: torch.Tensor, buffer: Buffer) -> torch.Tensor:
    return torch.as_strided(flat, [int(n) for n in buffer.shape], [int(s) for s in buffer.strides])


def fill(kernel: Kernel, seed: int = 0) -> Memory:
    """Normal floats, small integers; what is written starts as all ones bits."""
    generator = torch.Generator().manual_seed(seed)
    memory: Memory = {}
    for k, parameter in enumerate(kernel.parameters):
        buffer = parameter.buffer
        count, dtype = max(int(buffer.storage_elements), 0), torch_dtype(buffer.dtype)
        if parameter.access is Access.WRITE:
            memory[k] = torch.full((count * buffer.dtype.itemsize,), 0xFF, dtype=torch.uint8).view(dtype)
        elif dtype.is_floating_point:
            memory[k] = torch.randn(count, generator=generator).to(dtype)
        else:
            low, high = (0, 2) if dtype is torch.bool else (-9 if buffer.dtype.is_signed else 0, 10)
            memory[k] = torch.randint(low, high, (count,), generator=generator).to(dtype)
    return memory


def copy(memory: Memory) -> Memory:
    return {k: flat.clone() for k, flat in memory.items()}


def answer(kernel: Kernel, memory: Memory) -> Memory:
    """A copy of the memory after the nest ran in numpy."""
    result = copy(memory)
    arrays = {p.buffer.name: _array(result[k], p.buffer) for k, p in enumerate(kernel.parameters)}
    interpret_nest(kernel.nest, arrays)
    return result


def _array(flat: torch.Tensor, buffer: Buffer) -> Array:
    seen = view(flat, buffer)
    return seen.view(torch.uint16).numpy() if buffer.dtype is DType.BFLOAT16 else np.asarray(seen.numpy())


def sources(kernel: Kernel, device: Device, names: Sequence[str] = (), most: int = 99) -> Iterator[Source]:
    """Render every variant (of the named templates, at most so many of each)."""
    for template in LANGUAGE.templates:
        asked = {type(i) for i in kernel.nest.body} & WHOLE_ROW
        if (names and template.name not in names) or not asked <= template.also:
            continue
        for params in template.space(kernel, device)[:most]:
            yield template.render(kernel, Variant(kernel.name, template.name, params), device)


def check(
    kernel: Kernel,
    folder: Path,
    memory: Memory | None = None,
    names: Sequence[str] = (),
    most: int = 99,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> set[str]:
    """Run variants under Triton's interpreter against the oracle; returns the names of the templates.

    Short splits and walks over few tiles are always among them where the kernel is a reduction: `space` offers them for
    long rows and many rows only, which the interpreter would take minutes for.
    """
    start = fill(kernel) if memory is None else memory
    want = answer(kernel, start)
    seen = set()
    for source in (*sources(kernel, H100, names, most), *short_split(kernel), *walking(kernel)):
        got = copy(start)
        run(source, got, folder)
        compare(kernel, got, want, rtol, atol, source.variant.label)
        seen.add(source.variant.template)
    return seen


def short_split(kernel: Kernel) -> Iterator[Source]:
    """Cut rows of a reduction or scan into up to three chunks of 32 elements or more, in every way that fits."""
    rows = suited_rows(kernel)
    if rows is None or rows.length is None or rows.length <= 32 or sorts(rows.nest):
        return
    params: Params = (("x", 2), ("r", 32), ("chunks", 3), ("num_warps", 1))
    if scans(rows.nest):
        yield from _short_scans(kernel, params)
        return
    loops = cut(rows.nest).loops
    ways: list[Params] = [params, (*params, ("stages", 2))]
    if len(loops) == 1 and loops[0].reduces:
        ways.append((*params, ("single", True)))
    for way in dict.fromkeys([*ways, *ways_to_walk(rows, (params,))]):
        yield SPLIT.render(kernel, Variant(kernel.name, "split", way), H100)


def _short_scans(kernel: Kernel, params: Params) -> Iterator[Source]:
    if scan_levels(kernel.nest):
        yield SCAN_CHUNKS.render(kernel, Variant(kernel.name, "scan_chunks", params), H100)
        for x in (1, 2):
            tile = (("x", x), ("r", 16), ("num_warps", 1))
            yield SPLIT_SCAN.render(kernel, Variant(kernel.name, "split_scan", tile), H100)


def walking(kernel: Kernel) -> Iterator[Source]:
    """Walk over tiles of rows with two programs, for rows that fit one block."""
    rows = suited_rows(kernel)
    if rows is not None and rows.length is not None and 0 < rows.length <= 512:
        params: Params = (("x", 2), ("r", power_of_two(rows.length)), ("num_warps", 1), ("blocks", 1), ("stages", 2))
        yield PERSISTENT.render(kernel, Variant(kernel.name, "persistent", params), replace(H100, units=2))


def compare(kernel: Kernel, got: Memory, want: Memory, rtol: float, atol: float, label: str) -> None:
    """Check every written parameter."""
    for k, parameter in enumerate(kernel.parameters):
        if parameter.access is not Access.READ:
            torch.testing.assert_close(
                view(got[k], parameter.buffer),
                view(want[k], parameter.buffer),
                rtol=rtol,
                atol=atol,
                equal_nan=True,
                msg=partial("{} {} {}: {}".format, kernel.name, label, parameter.buffer.name),
            )
