"""Cuts a nest with reductions into loops over its reduction axes, for templates that walk a row more than once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mkwrap.ir.analysis import (
    defined,
    dependencies,
    element_level,
    phases,
    reduces,
    sorts,
    stores,
    stores_elements,
)
from mkwrap.ir.nodes import Instruction, Load, Nest, Reduce, Scan, Store


@dataclass(frozen=True)
class Loop:
    """One walk over the reduction axes: `rows` first, then per element `elements`, `reduces` and `stores`."""

    rows: tuple[Instruction, ...]
    elements: tuple[Instruction, ...]
    reduces: tuple[Reduce, ...]
    stores: tuple[Store, ...]


@dataclass(frozen=True)
class Loops:
    """The loops in order, then what is computed and stored once per row."""

    loops: tuple[Loop, ...]
    rows: tuple[Instruction, ...]
    row_stores: tuple[Store, ...]


def cut(nest: Nest) -> Loops:
    """Cut a nest: every value per element is computed anew in each loop that needs it, values per row once.

    A store per element waits for the last loop that loads the same buffer, since those loads want the old contents.
    Stores per row come last.
    """
    inner, phase = element_level(nest), phases(nest)
    values = set(phase)
    element_stores = [i for i in nest.body if isinstance(i, Store) and _per_element(nest, i, inner)]
    row_stores = tuple(i for i in nest.body if isinstance(i, Store) and i not in element_stores)
    row_ends = reduces(nest)
    when = {id(r): phase[r.dests[0]] - 1 for r in row_ends}
    for store in element_stores:
        when[id(store)] = max((phase[name] for name in dependencies(store, values)), default=0)
    _delay(nest, inner, phase, (*row_ends, *element_stores), when)
    count = max(when.values(), default=-1) + 1
    row_values = [i for i in nest.body if not isinstance(i, Reduce | Store) and not inner.intersection(defined(i))]
    loops = []
    for number in range(count):
        both: tuple[Instruction, ...] = (*row_ends, *element_stores)
        ends = [i for i in both if when[id(i)] == number]
        loops.append(
            Loop(
                rows=tuple(i for i in row_values if phase[defined(i)[0]] == number),
                elements=closure(nest, inner, ends),
                reduces=tuple(i for i in ends if isinstance(i, Reduce)),
                stores=tuple(i for i in ends if isinstance(i, Store)),
            )
        )
    rest = tuple(i for i in row_values if phase[defined(i)[0]] >= count)
    return Loops(tuple(loops), rest, row_stores)


def races_when_split(nest: Nest, loops: Loops) -> bool:
    """Whether, with rows cut into chunks, one program would read what another of the same row has overwritten."""
    if not loops.loops or loops.loops[-1].reduces:
        return False
    stored = {store.buffer for store in loops.row_stores}
    return any(isinstance(i, Load) and i.buffer in stored for i in nest.body)


def _per_element(nest: Nest, store: Store, inner: frozenset[str]) -> bool:
    names = {symbol.name for expr in store.index for symbol in expr.free_symbols}
    return stores_elements(nest, store) or store.arg in inner or bool(names & inner)


def scan_levels(nest: Nest) -> tuple[tuple[Scan, ...], ...]:
    """The scans by how many other scans each builds on, where chunks of a row can be scanned apart; else ().

    They cannot where a reduction or a sort needs the whole row, or something is stored once per row.
    """
    inner = element_level(nest)
    if reduces(nest) or sorts(nest) or not all(_per_element(nest, store, inner) for store in stores(nest)):
        return ()
    depth: dict[str, int] = {}
    levels: list[list[Scan]] = []
    for instruction in nest.body:
        below = max((depth[name] for name in dependencies(instruction, depth.keys() | set())), default=0)
        if isinstance(instruction, Scan):
            levels += [[]] if below == len(levels) else []
            levels[below].append(instruction)
        depth.update(dict.fromkeys(defined(instruction), below + isinstance(instruction, Scan)))
    return tuple(tuple(level) for level in levels)


def closure(nest: Nest, inner: frozenset[str], ends: Iterable[Instruction], known: str = "") -> tuple[Instruction, ...]:
    """The instructions per element that some reductions and stores need, in order, where `known` is at hand."""
    needed = {name for end in ends for name in dependencies(end, set(inner)) if name in inner}
    picked: list[Instruction] = []
    for instruction in reversed(nest.body):
        if (needed - {known}).intersection(defined(instruction)) and not isinstance(instruction, Reduce):
            picked.append(instruction)
            needed.update(name for name in dependencies(instruction, set(inner)) if name in inner)
    return tuple(reversed(picked))


def _delay(
    nest: Nest, inner: frozenset[str], phase: dict[str, int], ends: Iterable[Instruction], when: dict[int, int]
) -> None:
    """Move stores to the last loop that loads their buffer, until nothing moves."""
    ends = tuple(ends)
    moved = True
    while moved:
        moved = False
        last: dict[str, int] = {}
        for end in ends:
            for load in closure(nest, inner, [end]):
                if isinstance(load, Load):
                    last[load.buffer] = max(last.get(load.buffer, 0), when[id(end)])
        for load in nest.body:
            if isinstance(load, Load) and load.dest not in inner:
                last[load.buffer] = max(last.get(load.buffer, 0), phase[load.dest])
        for end in ends:
            if isinstance(end, Store) and last.get(end.buffer, 0) > when[id(end)]:
                when[id(end)] = last[end.buffer]
                moved = True
