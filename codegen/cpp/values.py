"""What a nest's values are to a vectorised kernel: dtype, the axes they vary along, and the width of the vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy

from mkwrap.codegen.cpp.indexing import step_along
from mkwrap.ir.analysis import defined, dependencies, element_level, index_exprs, phases, value_dtypes
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_ranges
from mkwrap.ir.nodes import (
    Buffer,
    Expr,
    Instruction,
    Load,
    Nest,
    Reduce,
    Scan,
    Sort,
    Store,
)

_NARROWEST_POSITION = 4  # bytes: positions of argmax are int32 at least


@dataclass(frozen=True)
class Values:
    """The values of a nest whose vectors lie along `axis` (None: no vectors, everything is scalar)."""

    nest: Nest
    buffers: Mapping[str, Buffer]
    axis: sympy.Symbol | None
    vector_bytes: int
    most_lanes: int = 0
    """Lanes of a vector at most, as chosen for an axis that is or may be short; 0: as the axis' extent says."""

    @cached_property
    def ranges(self) -> Ranges:
        """Bounds of the axis symbols."""
        return axis_ranges((*self.nest.axes, *self.nest.reduction_axes))

    @cached_property
    def dtypes(self) -> Mapping[str, DType]:
        """Dtype of each value."""
        return value_dtypes(self.nest)

    @cached_property
    def axes_of(self) -> Mapping[str, frozenset[sympy.Symbol]]:
        """Axes each value varies along, directly or through other values."""
        parallel = frozenset(axis.symbol for axis in self.nest.axes)
        every = frozenset(self.ranges)
        found: dict[str, frozenset[sympy.Symbol]] = {}
        for i in self.nest.body:
            symbols = frozenset[sympy.Symbol]().union(*(e.free_symbols & every for e in index_exprs(i)))
            symbols = symbols.union(*(found[name] for name in dependencies(i, found.keys() | set())))
            for name in defined(i):
                found[name] = parallel if isinstance(i, Reduce) else every if isinstance(i, Scan | Sort) else symbols
        return found

    @cached_property
    def element(self) -> frozenset[str]:
        """Values that vary along a reduction axis."""
        return element_level(self.nest)

    @cached_property
    def phase(self) -> Mapping[str, int]:
        """Number of loops over the reduction axes that must end before each value is known."""
        return phases(self.nest)

    def varies(self, name: str) -> bool:
        """Whether a value is a vector."""
        return self.axis is not None and self.axis in self.axes_of[name]

    def flat(self, access: Load | Store) -> Expr:
        """Offset in elements that a load or store addresses."""
        return sympy.expand(self.buffers[access.buffer].flat_index(access.index))

    def varying_values(self, expr: Expr) -> frozenset[sympy.Symbol]:
        """Data-dependent indices in an expression that are vectors."""
        return frozenset(s for s in expr.free_symbols if s.name in self.dtypes and self.varies(s.name))

    def step(self, expr: Expr) -> Expr | None:
        """Return how much an index grows per lane: 0 uniform, None where it does so irregularly."""
        if self.axis is None:
            return sympy.Integer(0)
        if self.varying_values(expr):
            return None
        return step_along(expr, self.axis, self.lanes, self.ranges)

    @cached_property
    def lanes(self) -> int:
        """Lanes of every vector: as many as the widest element type of the inner loop leaves room for.

        Along an axis of a reduction that is shorter, no more than it takes: whole vectors are read and written faster than
        the first lanes of wide ones.
        """
        if self.axis is None:
            return 1
        if self.most_lanes:
            return min(self._room, self.most_lanes)
        axes = (*self.nest.axes, *self.nest.reduction_axes)
        extent = next(axis.extent for axis in axes if axis.symbol == self.axis)
        if not self.nest.reduction_axes or not extent.is_Integer:
            return self._room
        return min(self._room, max(2, 1 << (int(extent) - 1).bit_length()))

    @cached_property
    def _room(self) -> int:
        widths = [self.dtypes[n].itemsize for n in self.dtypes if self._in_inner_loop(n) and self.varies(n)]
        for i in self.nest.body:
            if isinstance(i, Store) and self.axis in self.flat(i).free_symbols:
                widths.append(self.buffers[i.buffer].dtype.itemsize)
            elif isinstance(i, Reduce):
                widths.append(self._accumulator_bytes(i))
        return max(2, self.vector_bytes // max(widths, default=self.vector_bytes))

    @property
    def short_lanes(self) -> int:
        """The lanes to choose where the axis is too short for wider vectors; else 0."""
        return self.lanes if self.lanes < self._room else 0

    def _in_inner_loop(self, name: str) -> bool:
        return not self.nest.reduction_axes or name in self.element

    def _accumulator_bytes(self, reduce: Reduce) -> int:
        width = self.dtypes[reduce.args[0]].compute.itemsize
        return max(width, _NARROWEST_POSITION) if reduce.op.startswith("arg") else width

    def needed(self, sinks: Iterable[Instruction], known: frozenset[str] | set[str]) -> tuple[Instruction, ...]:
        """Return, in order, what must be computed for `sinks` (themselves excluded), given the values in `known`."""
        wanted = {name for sink in sinks for name in dependencies(sink, set(self.dtypes))} - known
        chosen: list[Instruction] = []
        for i in reversed(self.nest.body):
            if wanted.intersection(defined(i)):
                chosen.append(i)
                wanted.update(name for name in dependencies(i, set(self.dtypes)) if name not in known)
        return tuple(reversed(chosen))
