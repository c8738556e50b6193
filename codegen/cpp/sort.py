"""Template "sort": nests with sorts of short rows, fused with what comes before and after them, scans and reductions included.

Variants: by radix or by merging; rows shared by threads.
"""

from __future__ import annotations

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.kernel_text import Frame
from mkwrap.codegen.cpp.reduction_plan import Plan
from mkwrap.codegen.cpp.scan_loops import prepared
from mkwrap.codegen.cpp.sort_loops import SortLoops
from mkwrap.codegen.cpp.values import Values
from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.template import Template
from mkwrap.ir.analysis import sorts
from mkwrap.ir.nodes import Scan, Sort
from mkwrap.stages import Device, Kernel, Params, Source, Variant

_STEPS = 10
"""Steps of a sort an element, for each that a copy takes."""
_LONG = 128
"""Elements from which on digits are guessed to beat comparisons."""


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Return the variants worth measuring, best guess first."""
    if not sorts(kernel.nest):
        return ()
    values = _values(kernel, device)
    threads = (1,) if device.units == 1 or estimate.serial_us(values) < 1 else (device.units, 1)
    long = estimate.number(values.nest.reduction_axes[-1].extent) >= _LONG
    ways = ("radix", "merge") if long else ("merge", "radix")
    return tuple((("by", way), ("threads", count)) for count in threads for way in ways)


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one kernel with sorts."""
    params = dict(variant.params)
    values = _values(kernel, device)
    team = estimate.team(values, int(params["threads"]), device, _STEPS)
    loops = SortLoops(Plan(values), width=1, threads=team.threads, radix=params["by"] == "radix")
    frame = Frame(
        kernel,
        variant,
        device,
        values.nest,
        loops.units,
        team,
        workspace_bytes=loops.workspace_bytes,
    )
    return frame.source(loops.write)


TEMPLATE = Template("sort", space, render, also=frozenset({Scan, Sort}))


def _values(kernel: Kernel, device: Device) -> Values:
    nest = prepared(kernel.nest)
    return Values(nest, buffers_of(kernel), nest.reduction_axes[-1].symbol, device.vector_bytes)
