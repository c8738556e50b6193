"""A kernel of dynamic sizes as its choice sees it: points, the variants worth running at each, and where each is right. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy

from mkwrap.ir.nearest import distance
from mkwrap.ir.relations import limits_of
from mkwrap.ir.signature import upper_end
from mkwrap.points import Ends, Ranges, kernel_symbols, values_at
from mkwrap.spaces import OpenGuards, open_guards
from mkwrap.stages import Binary, Candidates, Kernel, Point, PointChoice, Rejected, Source, Variant
from mkwrap.tune.cost import is_pruned
from mkwrap.tune.table import Table, table_of


@dataclass(frozen=True)
class Field:
    """The points of a kernel and the variants that can run."""

    kernel: Kernel
    symbols: tuple[sympy.Symbol, ...]
    worth: Mapping[Point, tuple[Variant, ...]]
    """The points asked for, the example's first, and the variants worth running there, best first."""
    guards: OpenGuards
    """Of every variant that can run, in order: the guards that may fail."""
    ends: Ends
    """Those of `symbols`."""

    @property
    def free(self) -> tuple[Variant, ...]:
        """Return the variants that are right for all sizes."""
        return tuple(variant for variant, guards in self.guards.items() if not guards)

    def at(self, point: Point) -> Mapping[str, int]:
        """Name the coordinates of a point."""
        return {str(symbol.name): size for symbol, size in zip(self.symbols, point, strict=True)}

    def legal(self, point: Point, variant: Variant) -> bool:
        """Whether a variant can run, and is right at a point."""
        values = values_at(self.symbols, point)
        return variant in self.guards and all(guard.holds(values) for guard in self.guards[variant])

    def runners(self, point: Point) -> tuple[Variant, ...]:
        """Return the variants worth running at any point, best first, at least one: what is so at the points around it."""
        around = [point] if point in self.worth else sorted(self.worth, key=lambda p: (distance(p, point), p))[:2]
        near = dict.fromkeys(variant for p in around for variant in self.worth[p] if self.legal(point, variant))
        return tuple(near) if set(near) & set(self.free) else (*near, self.free[0])

    def table(self, choices: Sequence[PointChoice]) -> Table:
        """Return the dispatch table of choices."""
        rejected = [entry for choice in choices for entry in choice.rejected]
        return table_of(self.symbols, choices, self.worth, self.without(rejected).guards)

    def without(self, rejected: Iterable[Rejected]) -> Field:
        """Return the field without variants that are wrong somewhere: no other place trusts them.

        What promised little at one point, or had no memory or time there, runs elsewhere.
        """
        out = {entry.variant for entry in rejected if not (entry.transient or is_pruned(entry))}
        return replace(self, guards={v: guards for v, guards in self.guards.items() if v not in out})

    def defaults(self, reason: str, forced: Variant | None = None) -> tuple[PointChoice, ...]:
        """Choose at each point without measuring: the forced variant where it is right, else the best guess."""
        winners = {point: self.runners(point)[0] for point in self.worth}
        if forced is not None:
            winners = {p: forced if self.legal(p, forced) else self.free[0] for p in self.worth}
        return tuple(PointChoice(self.at(point), winner, reason) for point, winner in sorted(winners.items()))


def field_of(candidates: Candidates, name: str, items: Sequence[Source | Binary | Rejected]) -> Field:
    """Return the field of a kernel of which these variants are written, or built; no variant may be `free` there."""
    kernel = candidates.schedule.kernels[name]
    ranges = limits_of(candidates.schedule.program.symbols)
    sources = [item.source if isinstance(item, Binary) else item for item in items if not isinstance(item, Rejected)]
    guards = {source.variant: open_guards(source, ranges) for source in sources}
    symbols = kernel_symbols(kernel)
    return Field(kernel, symbols, candidates.points[name], guards, ends_of(symbols, ranges))


def ends_of(symbols: Iterable[sympy.Symbol], ranges: Ranges) -> Ends:
    """Return the ends of a kernel's symbols, from the ranges of its program's."""
    return tuple((ranges[symbol][0], upper_end(ranges[symbol][1])) for symbol in symbols)
