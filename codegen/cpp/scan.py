"""Template "scan": nests with scans, fused with what comes before and after them, reductions included.

Variants: vectors along the row (a scan of the lanes, or lane by lane) or along a parallel axis; rows shared by threads, or
each row cut in parts: one per thread or as many as fit a cache, scanned for their totals first and then again, or scanned
and then added to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import sympy

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.kernel_text import Frame
from mkwrap.codegen.cpp.narrow import guards
from mkwrap.codegen.cpp.reduction_plan import Plan
from mkwrap.codegen.cpp.scan_loops import COSTLY, ScanLoops, prepared, stored_scan
from mkwrap.codegen.cpp.values import Values
from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.template import Template
from mkwrap.ir.analysis import arithmetic_cost, defined, reduces, scans, stores
from mkwrap.ir.nodes import Axis, Nest, Scan
from mkwrap.ir.ops import ASSOCIATIVE
from mkwrap.stages import Device, Kernel, Params, Source, Variant

_PART_BYTES = 256 << 10
"""What a part should hold at most, so that its second walk finds it in the second cache."""
_STREAM_BYTES = 4 << 20
"""Results from which on they are stored past the caches, too."""
_HOPELESS = 4
"""How many times the best axis' cost rules out another."""
_COLUMNS = 4
"""Vectors side by side where they lie across rows."""


@dataclass(frozen=True)
class _Choice:
    """The params of one variant; those at their defaults are not spelled."""

    axis: str
    width: int
    threads: int
    parts: int = 0
    serial: bool = False
    add: bool = False
    stream: bool = False
    lanes: int = 0
    most: int = 0

    def params(self) -> Params:
        """Return the params."""
        values = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return tuple((name, value) for name, value, default in values if value != default)


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Return the variants worth measuring, best guess first."""
    if not scans(kernel.nest):
        return ()
    nest = prepared(kernel.nest)
    row = f"r{len(nest.reduction_axes) - 1}"
    columns = [f"p{k}" for k in range(len(nest.axes))]
    costs = {name: _cost(_values(nest, kernel, device, name), name) for name in (row, *columns)}
    best = sorted(costs, key=lambda name: costs[name])
    # Whatever the best axis is, the row itself and one axis across rows are tried.
    across = [name for name in best if name != row and costs[name] < _HOPELESS * costs[best[0]]]
    names = dict.fromkeys((best[0], row, *across[:1]))
    return tuple(dict.fromkeys(c.params() for name in names for c in _choices(nest, kernel, device, name)))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one kernel with scans."""
    choice = _Choice(**dict(variant.params))  # type: ignore[arg-type]
    nest = prepared(kernel.nest, choice.most)
    values = replace(_values(nest, kernel, device, choice.axis), most_lanes=choice.lanes)
    loops = _loops(values, choice)
    frame = Frame(
        kernel,
        variant,
        device,
        nest,
        loops.units,
        estimate.team(values, choice.threads, device),
        collective=choice.parts > 0,
        workspace_bytes=loops.workspace_bytes,
        streaming=choice.stream,
        guards=guards(kernel, choice.most),
    )
    return frame.source(loops.write)


TEMPLATE = Template("scan", space, render, also=frozenset({Scan}))


def _loops(values: Values, choice: _Choice) -> ScanLoops:
    return ScanLoops(
        Plan(values),
        choice.width,
        parts=choice.parts,
        threads=choice.threads,
        serial=choice.serial,
        add=choice.add,
        streaming=choice.stream,
    )


def _axis(nest: Nest, name: str) -> Axis:
    return (nest.axes if name[0] == "p" else nest.reduction_axes)[int(name[1:])]


def _values(nest: Nest, kernel: Kernel, device: Device, name: str) -> Values:
    return Values(nest, buffers_of(kernel), _axis(nest, name).symbol, device.vector_bytes)


# ── choosing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cost(values: Values, name: str) -> float:
    """Weight of an element's work: along the row, every scan takes log₂ lanes steps on all lanes, or a step a lane."""
    extent = max(1, estimate.number(_axis(values.nest, name).extent))
    vectors = -(-extent // values.lanes) / extent
    work = arithmetic_cost(values.nest) + len(values.nest.body)
    for scan in scans(values.nest):
        weight = 20 if scan.op in COSTLY else 1
        work += weight * values.lanes if scan.op in COSTLY and name[0] == "r" else weight
        if name[0] == "r" and scan.op not in COSTLY:
            work += 3 * (values.lanes.bit_length() - 1)
    return (work + 2 * values.lanes * estimate.irregularity(values)) * vectors - 0.001 * int(name[1:])


def _choices(nest: Nest, kernel: Kernel, device: Device, name: str) -> list[_Choice]:
    values = _values(nest, kernel, device, name)
    threads = estimate.thread_counts(values, device)
    vectors = -(-estimate.number(_axis(nest, name).extent) // values.lanes)
    width = min(_COLUMNS if name[0] == "p" else 2, max(1, vectors))
    base = _Choice(name, width, threads[0], lanes=values.short_lanes)
    units = estimate.number(_loops(values, base).units)
    cut = _cut(values, base) if threads[0] > 1 and units < 4 * threads[0] and _may_cut(nest) else []
    found = [*cut, base] if units < threads[0] else [base, *cut]
    if _stored_bytes(values) >= _STREAM_BYTES:
        found.insert(1, replace(found[0], stream=True))
    found.extend(replace(base, threads=count) for count in threads[1:])
    if vectors > 1:
        found.append(replace(base, width=1 if width > 1 else 4))
    if name[0] == "r" and any(scan.op == ASSOCIATIVE for scan in scans(nest)):
        found.append(replace(base, serial=True))
    return found


def _stored_bytes(values: Values) -> int:
    width = sum(values.buffers[store.buffer].dtype.itemsize for store in stores(values.nest))
    return width * estimate.points(values.nest)


def _may_cut(nest: Nest) -> bool:
    """Whether rows can be cut in parts: no reduction of them is needed, and no scan takes what another gave."""
    given = {dest for scan in scans(nest) for dest in scan.dests}
    values = Values(nest, {}, None, 0)
    behind = {name for i in values.needed(scans(nest), frozenset()) for name in defined(i)}
    return not reduces(nest) and not given & behind


def _cut(values: Values, base: _Choice) -> list[_Choice]:
    """Return the variants that cut rows: one part per thread, and parts that a cache holds until they are walked again."""
    outermost = estimate.number(values.nest.reduction_axes[0].extent)
    row = estimate.number(sympy.Mul(*[axis.extent for axis in values.nest.reduction_axes]))
    if outermost < 2 * base.threads:
        return []
    size = row * estimate.traffic(values) * (1 if base.axis[0] == "r" else values.lanes * base.width)
    rounds = -(-size // (_PART_BYTES * base.threads))
    counts = dict.fromkeys((base.threads, min(base.threads * rounds, outermost)))
    found = [replace(base, parts=count) for count in counts]
    plan = Plan(values)
    if all(stored_scan(plan, store) is not None for store in plan.element_stores):
        found.append(replace(found[0], add=True))
    return found
