"""Turns fused nests into distinct kernels over canonical parameters, and the steps that use them.

*Requires* fused nests in order. *Ensures* equal work (up to the names of buffers, axes and values) is one kernel, so that it
is rendered, built, measured and shipped once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import sympy

from mkwrap.fuse.inline import is_dot
from mkwrap.fuse.loops import simplify_loops
from mkwrap.ir.analysis import loads, reduces, scans, sorts, stores
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import axis_ranges, axis_symbol
from mkwrap.ir.nodes import Axis, Buffer, Expr, Instruction, Load, Nest, Role, Store
from mkwrap.ir.rewrite import Replay
from mkwrap.stages import Access, Kernel, Parameter, Program, Step

# The widest load that a template chooses by alignment (Triton's `divisible_by_16`).
_ALIGNMENT = 16


def make_kernels(program: Program) -> tuple[Mapping[str, Kernel], tuple[Step, ...]]:
    """Return the kernels by name and one step per nest, in order."""
    kernels: dict[str, Kernel] = {}
    by_body: dict[tuple[Nest, tuple[Parameter, ...]], str] = {}
    steps: list[Step] = []
    counts: dict[str, int] = {}
    for nest in program.nests:
        canonical = _canonical(nest, program.buffers)
        key = (replace(canonical.nest, name="", origins=()), canonical.parameters)
        if key not in by_body:
            kind = kind_of(nest)
            name = f"{kind}_{counts.get(kind, 0)}"
            counts[kind] = counts.get(kind, 0) + 1
            by_body[key] = name
            kernels[name] = Kernel(name, replace(canonical.nest, name=name), canonical.parameters)
        origins = tuple(f"{o.op} {o.location}".strip() for o in nest.origins)
        steps.append(Step(by_body[key], canonical.buffers, origins))
    return kernels, tuple(steps)


def kind_of(nest: Nest) -> str:
    """Return what family of templates a nest asks for: "matmul", "scan", "sort", "reduction" or "pointwise"."""
    if is_dot(nest):
        return "matmul"
    if scans(nest) or sorts(nest):
        return "scan" if scans(nest) else "sort"
    return "reduction" if reduces(nest) else "pointwise"


@dataclass(frozen=True)
class _Canonical:
    nest: Nest
    parameters: tuple[Parameter, ...]
    buffers: tuple[str, ...]


def _canonical(nest: Nest, buffers: Mapping[str, Buffer]) -> _Canonical:
    simple, geometry = simplify_loops(nest, buffers)
    order = tuple(dict.fromkeys(i.buffer for i in simple.body if isinstance(i, Load | Store)))
    names = {name: f"arg{k}" for k, name in enumerate(order)}
    loaded = {load.buffer for load in loads(simple)}
    stored = {store.buffer for store in stores(simple)}
    parameters = tuple(
        Parameter(
            buffer=_anonymous(geometry[name], names[name]),
            access=_access(name in loaded, name in stored),
            constant=buffers[name].role is Role.CONSTANT,
        )
        for name in order
    )
    return _Canonical(_renamed(simple, names), parameters, order)


def _anonymous(buffer: Buffer, name: str) -> Buffer:
    """Return a buffer without what no template asks for: what it is to the program, and alignment beyond 16 bytes."""
    return replace(buffer, name=name, role=Role.TEMPORARY, alignment=math.gcd(buffer.alignment, _ALIGNMENT))


def _access(read: bool, written: bool) -> Access:
    if read and written:
        return Access.READ_WRITE
    return Access.WRITE if written else Access.READ


def _renamed(nest: Nest, names: Mapping[str, str]) -> Nest:
    """Rename axes to p0…, r0…, values to v0…, buffers to the parameters."""
    axes, axis_map = _numbered("p", nest.axes)
    reduction_axes, reduction_map = _numbered("r", nest.reduction_axes)
    builder = BodyBuilder()
    ranges = axis_ranges((*axes, *reduction_axes))
    Replay(builder, {**axis_map, **reduction_map}, ranges).run(nest)
    body: tuple[Instruction, ...] = tuple(
        replace(i, buffer=names[i.buffer]) if isinstance(i, Load | Store) else i for i in builder.body()
    )
    return replace(nest, axes=axes, reduction_axes=reduction_axes, body=body)


def _numbered(prefix: str, axes: tuple[Axis, ...]) -> tuple[tuple[Axis, ...], dict[sympy.Symbol, Expr]]:
    renamed = tuple(Axis(axis_symbol(f"{prefix}{k}"), axis.extent) for k, axis in enumerate(axes))
    return renamed, {old.symbol: new.symbol for old, new in zip(axes, renamed, strict=True)}
