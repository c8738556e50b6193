"""Keeping a value per element in memory between the loops over a row, instead of computing it anew from the inputs.

The value goes where the nest stores it anyway, else into an output that is written no earlier than in the last loop
that uses the value, else into a workspace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import sympy

from mkwrap.codegen.triton.loops import Loops, closure
from mkwrap.ir.analysis import defined, dependencies, element_level, loads, stores, value_dtypes
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Axis, Buffer, Compute, Expr, Instruction, Load, Nest, Role, Store
from mkwrap.ir.ops import OPS

# Weight of arithmetic per element (see `ops.Op.cost`) from which storing and loading its result may cost less.
_COSTLY = 40


@dataclass(frozen=True)
class Kept:
    """One value of the first loop, and the memory it is stored to there and loaded from in later loops."""

    value: str
    dtype: DType
    buffer: Buffer
    index: tuple[Expr, ...]
    stored: bool
    """The first loop stores it there already."""
    workspace: bool
    """The memory is none of the kernel's parameters."""


def kept_value(nest: Nest, loops: Loops, buffers: Mapping[str, Buffer], order: tuple[Axis, ...]) -> Kept | None:
    """Choose the value that saves most, or None where computing anew costs no more.

    `order`: the nest's axes as a workspace is laid out, outermost first.
    """
    best: tuple[int, Kept] | None = None
    for value in _crossing(nest, loops):
        kept = _placed(nest, loops, buffers, value, order)
        saved = _saving(loops, keep(nest, loops, kept), kept)
        if saved > 0 and (best is None or saved > best[0]):
            best = (saved, kept)
    return best[1] if best else None


def keep(nest: Nest, loops: Loops, kept: Kept) -> Loops:
    """Store the value in the first loop and load it in those that follow."""
    first = loops.loops[0]
    if not kept.stored:
        first = replace(first, stores=(*first.stores, Store(kept.buffer.name, kept.index, kept.value)))
    inner = element_level(nest)
    load = Load(kept.value, kept.dtype, kept.buffer.name, kept.index)
    later = []
    for loop in loops.loops[1:]:
        needed = closure(nest, inner, (*loop.reduces, *loop.stores), known=kept.value)
        uses = any(kept.value in defined(i) for i in loop.elements)
        later.append(replace(loop, elements=(load, *needed)) if uses else loop)
    return replace(loops, loops=(first, *later))


def _crossing(nest: Nest, loops: Loops) -> list[str]:
    """Values computed in the first loop that a later one uses for what the first does not compute."""
    if not loops.loops:
        return []
    first = loops.loops[0]
    made = {name: instruction for instruction in first.elements for name in defined(instruction)}
    dtypes = value_dtypes(nest)
    found: list[str] = []
    for loop in loops.loops[1:]:
        for instruction in (*loop.elements, *loop.reduces, *loop.stores):
            if instruction not in first.elements:
                found += [
                    _narrowest(made, dtypes, name) for name in dependencies(instruction, set(made)) if name in made
                ]
    return [name for name in dict.fromkeys(found) if isinstance(made[name], Compute)]


def _narrowest(made: Mapping[str, Instruction], dtypes: Mapping[str, DType], name: str) -> str:
    """Look through casts to wider dtypes: the narrow value is kept, the cast repeated."""
    instruction = made[name]
    while isinstance(instruction, Compute) and instruction.op == "cast":
        (source,) = instruction.args
        if source not in made or dtypes[source].itemsize > dtypes[name].itemsize:
            break
        name, instruction = source, made[source]
    return name


def _placed(nest: Nest, loops: Loops, buffers: Mapping[str, Buffer], value: str, order: tuple[Axis, ...]) -> Kept:
    """Choose the memory of a value: where it is stored anyway, an output not written before its last use, a workspace."""
    dtype = value_dtypes(nest)[value]
    symbols = {axis.symbol for axis in order if axis.extent != 1}
    loaded = {load.buffer for load in loads(nest)}
    written = [store.buffer for store in stores(nest)]
    last = max(k for k, loop in enumerate(loops.loops) if any(value in defined(i) for i in loop.elements))
    early = [store for loop in loops.loops[:last] for store in loop.stores]
    for store in sorted(stores(nest), key=lambda store: store.arg != value):
        whole = symbols <= {symbol for expr in store.index for symbol in expr.free_symbols}
        buffer = buffers[store.buffer]
        if whole and buffer.dtype is dtype and store.buffer not in loaded and written.count(store.buffer) == 1:
            stored = store.arg == value and store in loops.loops[0].stores
            if stored or store not in early:
                return Kept(value, dtype, buffer, store.index, stored, workspace=False)
    shape = tuple(axis.extent for axis in order)
    strides = tuple(sympy.Mul(*shape[k + 1 :]) for k in range(len(shape)))
    index = tuple(axis.symbol for axis in order)
    return Kept(value, dtype, Buffer("kept", dtype, shape, strides, Role.TEMPORARY), index, False, workspace=True)


def _saving(before: Loops, after: Loops, kept: Kept) -> int:
    """Bytes per element saved in all later loops, costly arithmetic counted as a load of four bytes."""
    saved = 0 if kept.stored else -kept.dtype.itemsize
    for old, new in zip(before.loops[1:], after.loops[1:], strict=True):
        saved += _bytes(old.elements) - _bytes(new.elements)
        saved += 4 * ((_arithmetic(old.elements) - _arithmetic(new.elements)) // _COSTLY)
    return saved


def _bytes(elements: tuple[Instruction, ...]) -> int:
    return sum(i.dtype.itemsize for i in elements if isinstance(i, Load))


def _arithmetic(elements: tuple[Instruction, ...]) -> int:
    return sum(OPS[i.op].cost for i in elements if isinstance(i, Compute))
