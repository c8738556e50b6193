"""Plans the arena: where each temporary lives.

*Requires* steps in order. *Ensures* temporaries whose lives overlap share no bytes, except that a pointwise step may write
over an input that dies in it, read at the very places it writes, before it writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from mkwrap.fuse.kernels import kind_of
from mkwrap.fuse.offsets import Life, aligned, packed
from mkwrap.ir.analysis import loads, stores
from mkwrap.ir.nodes import Buffer, Expr, Load, Nest, Role, Store
from mkwrap.stages import Kernel, Step, SymbolSpec


@dataclass(frozen=True)
class Arena:
    """Byte offset of each temporary, and the bytes of all."""

    placements: Mapping[str, Expr]
    size: Expr


def plan_memory(
    steps: Sequence[Step],
    kernels: Mapping[str, Kernel],
    buffers: Mapping[str, Buffer],
    symbols: Sequence[SymbolSpec] = (),
) -> Arena:
    """Place temporaries so that those alive at once share no bytes; offsets and size are expressions over `symbols`."""
    shared = _in_place(steps, kernels, buffers)
    packing = packed(_lives(steps, buffers, shared), symbols)
    placements = {name: packing.offsets[_owner(name, shared)] for name in _temporaries(steps, buffers)}
    return Arena(placements, packing.size)


def _is_temporary(name: str, buffers: Mapping[str, Buffer]) -> bool:
    return buffers[name].role is Role.TEMPORARY


def _temporaries(steps: Sequence[Step], buffers: Mapping[str, Buffer]) -> list[str]:
    return list(dict.fromkeys(n for step in steps for n in step.buffers if _is_temporary(n, buffers)))


def _bytes(buffer: Buffer) -> Expr:
    elements = sympy.Integer(0) if any(n == 0 for n in buffer.shape) else buffer.storage_elements
    return aligned(elements * buffer.dtype.itemsize)


def _lives(steps: Sequence[Step], buffers: Mapping[str, Buffer], shared: Mapping[str, str]) -> list[Life]:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    size: dict[str, Expr] = {}
    for k, step in enumerate(steps):
        for name in step.buffers:
            if _is_temporary(name, buffers):
                owner = _owner(name, shared)
                first.setdefault(owner, k)
                last[owner] = k
                # What shares bytes has as many of them.
                size[owner] = _bytes(buffers[name])
    return [Life(name, size[name], first[name], last[name]) for name in first]


def _owner(name: str, shared: Mapping[str, str]) -> str:
    while name in shared:
        name = shared[name]
    return name


def _loads_before(nest: Nest, bound: Mapping[str, str], target: str) -> list[str]:
    """Return the buffers that loads of a nest read before its store to `target`, once per load."""
    end = next(k for k, i in enumerate(nest.body) if isinstance(i, Store) and bound[i.buffer] == target)
    return [bound[i.buffer] for i in nest.body[:end] if isinstance(i, Load)]


def _in_place(steps: Sequence[Step], kernels: Mapping[str, Kernel], buffers: Mapping[str, Buffer]) -> dict[str, str]:
    """Return temporary → the dying temporary it is written over."""
    last_use = {name: k for k, step in enumerate(steps) for name in step.buffers}
    shared: dict[str, str] = {}
    for k, step in enumerate(steps):
        kernel = kernels[step.kernel]
        if kind_of(kernel.nest) != "pointwise":
            continue
        bound = {p.buffer.name: name for p, name in zip(kernel.parameters, step.buffers, strict=True)}
        places = {bound[store.buffer]: store.index for store in stores(kernel.nest)}
        taken: set[str] = set()
        for target, written in places.items():
            if not _is_temporary(target, buffers):
                continue
            before = _loads_before(kernel.nest, bound, target)
            for source in step.buffers:
                indices = [load.index for load in loads(kernel.nest) if bound[load.buffer] == source]
                fits = (
                    _is_temporary(source, buffers)
                    and last_use[source] == k
                    and source not in taken
                    and bool(indices)
                    and all(index == written for index in indices)
                    and len(indices) == before.count(source)
                    and _bytes(buffers[source]) == _bytes(buffers[target])
                    and buffers[source].dtype.itemsize == buffers[target].dtype.itemsize
                )
                if fits:
                    shared[target] = source
                    taken.add(source)
                    break
    return shared
