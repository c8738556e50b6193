"""Who writes and who reads which buffer, and which nest must run before which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from mkwrap.ir.nodes import Buffer, Nest, Role


def reads(nest: Nest) -> frozenset[str]:
    """Names of the buffers a nest loads from."""
    return nest.reads


def writes(nest: Nest) -> frozenset[str]:
    """Names of the buffers a nest stores to."""
    return nest.writes


@dataclass(frozen=True)
class NestGraph:
    """Nests by position, and for each the positions it must run after (true and anti dependences)."""

    nests: tuple[Nest, ...]
    before: Mapping[int, frozenset[int]]

    def depends(self, later: int, earlier: int) -> bool:
        """Whether `later` needs `earlier`, directly or through others."""
        seen: set[int] = set()
        stack = [later]
        while stack:
            for k in self.before[stack.pop()]:
                if k == earlier:
                    return True
                if k not in seen:
                    seen.add(k)
                    stack.append(k)
        return False

    def has_path_around(self, earlier: int, later: int) -> bool:
        """Whether a third nest lies between: joining the two would make a cycle."""
        return any(k != earlier and self.depends(k, earlier) for k in self.before[later])


def nest_graph(nests: Sequence[Nest], buffers: Mapping[str, Buffer]) -> NestGraph:
    """Find the dependences between nests given in a legal order."""
    writer = {name: k for k, nest in enumerate(nests) for name in writes(nest)}
    before: dict[int, set[int]] = {k: set() for k in range(len(nests))}
    for k, nest in enumerate(nests):
        for name in reads(nest):
            if name not in writer or writer[name] == k:
                continue
            if buffers[name].role is Role.INPUT:
                before[writer[name]].add(k)
            else:
                before[k].add(writer[name])
    return NestGraph(tuple(nests), {k: frozenset(v) for k, v in before.items()})


def ordered(nests: Sequence[Nest], buffers: Mapping[str, Buffer]) -> tuple[Nest, ...]:
    """Return the nests in a legal order that stays close to the given one (deterministic)."""
    writer = {name: k for k, nest in enumerate(nests) for name in writes(nest)}
    pairs = [
        (k, writer[name]) if buffers[name].role is Role.INPUT else (writer[name], k)
        for k, nest in enumerate(nests)
        for name in reads(nest)
        if name in writer and writer[name] != k
    ]
    # Nothing stays closer to the given order than itself, and most merges keep it legal.
    if all(earlier < later for earlier, later in pairs):
        return tuple(nests)
    sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(range(len(nests)), ()))
    for earlier, later in sorted(pairs):
        sorter.add(later, earlier)
    sorter.prepare()
    order: list[int] = []
    ready = sorted(sorter.get_ready())
    while ready:
        first = ready.pop(0)
        order.append(first)
        sorter.done(first)
        ready = sorted([*ready, *sorter.get_ready()])
    return tuple(nests[k] for k in order)


def readers(nests: Iterable[Nest]) -> dict[str, list[int]]:
    """Positions of the nests that load from each buffer."""
    result: dict[str, list[int]] = {}
    for k, nest in enumerate(nests):
        for name in sorted(reads(nest)):
            result.setdefault(name, []).append(k)
    return result
