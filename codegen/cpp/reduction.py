"""Template "reduction": nests with reductions, fused with what comes before and after them.

Variants: vectors along the reduced row or along a parallel axis; rows shared by threads or each row split between them;
values kept between the loops or computed again; variances in one pass or two; streaming stores; rows fetched ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.kernel_text import Frame
from mkwrap.codegen.cpp.narrow import guards, narrowed
from mkwrap.codegen.cpp.prefetch import fetched
from mkwrap.codegen.cpp.reduction_loops import ReductionLoops
from mkwrap.codegen.cpp.reduction_plan import Plan
from mkwrap.codegen.cpp.statements import SUPPORTED_REDUCTIONS
from mkwrap.codegen.cpp.two_pass import two_pass
from mkwrap.codegen.cpp.values import Values
from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.template import Template
from mkwrap.ir.analysis import arithmetic_cost, reduces
from mkwrap.ir.nodes import Nest
from mkwrap.stages import Device, Kernel, Params, Source, Variant

_STACK_BYTES = 64 << 10
_STREAM_BYTES = 4 << 20
_AHEAD_BYTES = 16 << 10
"""How far ahead rows are fetched: beyond the latency of memory, and little enough to stay in the first cache."""
_REGISTERS = 16
"""Vectors of accumulators that stay in registers beside what the loop computes with."""
_WIDE_COLUMNS, _MANY_COLUMNS = 64, 8
"""Vectors side by side: long strips of each row where it is read once; few, so that what lies between the loops stays in
cache, where there are several loops."""
_MAX_VARIANTS = 8
_FIELDS = {"argmax": 2, "argmin": 2, "welford": 3}
"""Vectors of one accumulator, where they are more than one."""


@dataclass(frozen=True)
class _Choice:
    """The params of one variant, as fields."""

    axis: str
    width: int
    threads: int
    split: bool = False
    keep: str = "no"
    passes: int = 1
    stream: bool = False
    ahead: int = 0
    lanes: int = 0
    most: int = 0

    def params(self) -> Params:
        """Return the params, those at their defaults left out."""
        result: list[tuple[str, int | str | bool]] = [
            ("axis", self.axis),
            ("width", self.width),
            ("threads", self.threads),
        ]
        for name in ("split", "keep", "passes", "stream", "ahead", "lanes", "most"):
            value = getattr(self, name)
            if value != getattr(_Choice, name):
                result.append((name, value))
        return tuple(result)


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Return the variants worth measuring, best guess first."""
    found = reduces(kernel.nest)
    if not found or any(r.op not in SUPPORTED_REDUCTIONS for r in found):
        return ()
    nest = narrowed(kernel.nest)
    ranked = _ranked_axes(nest, kernel, device)
    choices: list[_Choice] = []
    for name in ranked[:2]:
        choices.extend(_choices(nest, kernel, device, name))
    first = [c for c in choices if c.axis == ranked[0]]
    second = [c for c in choices if c.axis != ranked[0]][:1]
    ordered = [*first[: _MAX_VARIANTS - len(second)], *second]
    return tuple(dict.fromkeys(c.params() for c in ordered))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one kernel with reductions."""
    choice = _Choice(**dict(variant.params))  # type: ignore[arg-type]
    nest = narrowed(kernel.nest, choice.most)
    if choice.passes == 2:
        nest = two_pass(nest)
    loops = _loops(nest, kernel, device, choice)
    frame = Frame(
        kernel,
        variant,
        device,
        nest,
        loops.units,
        _team(loops.plan.values, device, choice),
        collective=choice.split,
        workspace_bytes=loops.workspace_bytes,
        streaming=choice.stream,
        guards=guards(kernel, choice.most),
    )
    return frame.source(loops.write)


TEMPLATE = Template("reduction", space, render)


def _loops(nest: Nest, kernel: Kernel, device: Device, choice: _Choice) -> ReductionLoops:
    values = replace(_values(nest, kernel, device, choice.axis), most_lanes=choice.lanes)
    return ReductionLoops(
        Plan(values, keep=choice.keep != "no", most=choice.most),
        choice.width,
        parts=choice.threads if choice.split else 0,
        streaming=choice.stream,
        kept_in_workspace=choice.keep == "workspace",
        threads=_team(values, device, choice).threads,
        ahead=choice.ahead,
    )


def _team(values: Values, device: Device, choice: _Choice) -> estimate.Team:
    return estimate.team(values, choice.threads, device)


def _values(nest: Nest, kernel: Kernel, device: Device, name: str) -> Values:
    axes = nest.axes if name[0] == "p" else nest.reduction_axes
    return Values(nest, buffers_of(kernel), axes[int(name[1:])].symbol, device.vector_bytes)


# ── choosing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ranked_axes(nest: Nest, kernel: Kernel, device: Device) -> list[str]:
    """Return the names of the axes vectors may lie along, best first; those far worse than the best are left out."""
    names = [f"r{k}" for k, a in enumerate(nest.reduction_axes)] + [f"p{k}" for k, a in enumerate(nest.axes)]
    costs = {name: _cost(_values(nest, kernel, device, name), name) for name in names}
    ranked = sorted(names, key=lambda name: costs[name])
    return [name for name in ranked if costs[name] <= 1.5 * costs[ranked[0]]]


def _cost(values: Values, name: str) -> float:
    axes = values.nest.axes if name[0] == "p" else values.nest.reduction_axes
    extent = max(1, estimate.number(axes[int(name[1:])].extent))
    vectors = -(-extent // values.lanes) / extent
    work = arithmetic_cost(values.nest) + len(values.nest.body)
    # Along a row, lanes are merged at the end of each: some 20 instructions.
    ending = 20 / extent if name[0] == "r" else 0
    return (work + 2 * values.lanes * estimate.irregularity(values)) * vectors + ending - 0.001 * int(name[1:])


def _choices(nest: Nest, kernel: Kernel, device: Device, name: str) -> list[_Choice]:
    values = _values(nest, kernel, device, name)
    threads = estimate.thread_counts(values, device)
    width = _width(values, name, threads[0])
    base = _Choice(name, width, threads[0], lanes=values.short_lanes)
    units = estimate.number(ReductionLoops(Plan(values), width).units)
    may_split = threads[0] > 1 and units < 4 * threads[0]
    if may_split and units < threads[0]:
        base = _with(base, split=True)
    has_welford = any(r.op == "welford" for r in reduces(nest))
    first = _with(base, passes=2) if has_welford and name[0] == "r" and not base.split else base
    kept = _kept(nest, kernel, device, first)
    found = [*_from_memory(values, (kept or [first])[0]), first, *kept, base]
    if may_split and not base.split:
        found.append(_with(base, split=True))
    found.extend(_with(first, threads=count, split=False) for count in threads[1:])
    found.extend(_with(first, width=other) for other in _other_widths(values, width, name))
    return found


def _from_memory(values: Values, best: _Choice) -> list[_Choice]:
    """Return the variants for data that no cache holds: results past the caches, rows fetched ahead."""
    if best.split:
        return []
    found = []
    ahead = _ahead(values) if estimate.points(values.nest) * estimate.traffic(values) >= _STREAM_BYTES else 0
    if _element_bytes(values) >= _STREAM_BYTES:
        found.append(_with(best, stream=True, ahead=ahead))
    if ahead:
        found.append(_with(best, ahead=ahead))
    return found


def _ahead(values: Values) -> int:
    """Return how many rows ahead to fetch; 0 where one loop does all and the processor sees the pattern itself."""
    plan = Plan(values)
    row = estimate.number(sympy.Mul(*[axis.extent for axis in values.nest.reduction_axes]))
    size = row * sum(values.buffers[i.buffer].dtype.itemsize for i in fetched(plan))
    return max(1, _AHEAD_BYTES // size) if plan.loops > 1 and size else 0


def _with(choice: _Choice, **changes: int | str | bool) -> _Choice:
    return _Choice(**{**choice.__dict__, **changes})


def _kept(nest: Nest, kernel: Kernel, device: Device, base: _Choice) -> list[_Choice]:
    """Return the variants that keep values between loops, where there are any and rows are short enough."""
    if base.split or base.axis[0] == "p" or any(not a.extent.is_Integer for a in nest.reduction_axes):
        return []
    found = []
    for passes in dict.fromkeys((base.passes, 1)):
        choice = _with(base, keep="stack", passes=passes)
        loops = _loops(two_pass(nest) if passes == 2 else nest, kernel, device, choice)
        if not loops.plan.kept:
            continue
        size = loops.kept_bytes()
        if size <= _STACK_BYTES:
            found.append(choice)
        elif size <= device.l2_bytes:
            found.append(_with(choice, keep="workspace"))
    return found


def _width(values: Values, name: str, threads: int) -> int:
    """Return how many accumulators take turns, or lie side by side."""
    axes = values.nest.axes if name[0] == "p" else values.nest.reduction_axes
    extent = estimate.number(axes[int(name[1:])].extent)
    vectors = max(1, -(-extent // values.lanes))
    if name[0] == "p":
        most = _columns_in_registers(values) if Plan(values).loops == 1 else _MANY_COLUMNS
        return min(most, max(1, -(-vectors // threads))) if vectors > 8 else min(4, vectors)
    weight = arithmetic_cost(values.nest)
    return min(4 if weight <= 16 else 2, vectors)


def _columns_in_registers(values: Values) -> int:
    """Return how many vectors side by side have their accumulators in registers."""
    fields = sum(_FIELDS.get(r.op, 1) for r in reduces(values.nest))
    return max(1, _REGISTERS // max(1, fields))


def _other_widths(values: Values, width: int, name: str) -> tuple[int, ...]:
    if name[0] == "r":
        return (1 if width > 1 else 4,)
    if Plan(values).loops > 1:
        return (4 if width != 4 else 8,)
    vectors = -(-estimate.number(Plan(values).vector.extent) // values.lanes)
    return tuple(w for w in (max(1, width // 2), _WIDE_COLUMNS) if w != width and w <= vectors)


def _element_bytes(values: Values) -> int:
    plan = Plan(values)
    width = sum(values.buffers[s.buffer].dtype.itemsize for s in plan.element_stores)
    return width * estimate.points(values.nest)
