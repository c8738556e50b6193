"""How a nest with reductions is run: loops over the reduction axes, what each computes, and what is kept between them.

Loop n holds the reductions whose arguments need n loops before. All element stores are in the last loop: an earlier one
might overwrite, in place, what a later loop still loads. What a loop needs of an earlier one's elements is computed again
from the loads, or kept in a row buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy

from mkwrap.codegen.cpp.narrow import largest
from mkwrap.codegen.cpp.statements import Accumulator, axis_names
from mkwrap.codegen.cpp.values import Values
from mkwrap.ir.analysis import defined, reduces, sorts, stores, stores_elements
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import linearize
from mkwrap.ir.nodes import Axis, BoundsCheck, Compute, Constant, Expr, Instruction, Load, Reduce, Sort, Store
from mkwrap.ir.ops import OPS

_CHEAP = 3
"""Weight below which computing a value again beats keeping it."""


@dataclass(frozen=True)
class Plan:
    """The loops of a nest with reductions, for vectors along `values.axis`.

    `keep`: keep costly values between loops. `most`: what dynamic sizes are at most; 0: any.
    """

    values: Values
    keep: bool = False
    most: int = 0

    @cached_property
    def names(self) -> Mapping[sympy.Symbol, str]:
        """C++ names of the axes."""
        return axis_names(self.values)

    @cached_property
    def vector(self) -> Axis:
        """The axis vectors lie along."""
        nest = self.values.nest
        return next(a for a in (*nest.axes, *nest.reduction_axes) if a.symbol == self.values.axis)

    @cached_property
    def by_rows(self) -> bool:
        """Whether vectors lie along a reduction axis."""
        return self.vector in self.values.nest.reduction_axes

    @cached_property
    def outer(self) -> tuple[Axis, ...]:
        """Parallel axes other than the vector axis."""
        return tuple(a for a in self.values.nest.axes if a != self.vector)

    @cached_property
    def walked(self) -> tuple[Axis, ...]:
        """Reduction axes other than the vector axis, outermost first."""
        return tuple(a for a in self.values.nest.reduction_axes if a != self.vector)

    @cached_property
    def position(self) -> Expr:
        """Linear position over the reduction axes."""
        axes = self.values.nest.reduction_axes
        return linearize([a.symbol for a in axes], [a.extent for a in axes])

    @cached_property
    def ascending(self) -> bool:
        """Whether a loop meets the positions of a lane in their order."""
        return not self.by_rows or self.vector == self.values.nest.reduction_axes[-1]

    @cached_property
    def loops(self) -> int:
        """Number of loops over the reduction axes."""
        last = [self._loop(r) for r in reduces(self.values.nest)]
        last += [self._loop(s) for s in sorts(self.values.nest)]
        last += [self._phase_of_store(s) for s in self.element_stores]
        return max(last) + 1

    def _loop(self, i: Reduce | Sort) -> int:
        return self.values.phase[i.dests[0]] - 1

    def sorted_after(self, loop: int) -> tuple[Sort, ...]:
        """Return the sorts whose rows a loop gathers."""
        return tuple(i for i in sorts(self.values.nest) if self._loop(i) == loop)

    def sorted_before(self, loop: int) -> tuple[Sort, ...]:
        """Return the sorts whose results a loop may read."""
        return tuple(i for i in sorts(self.values.nest) if self._loop(i) < loop)

    def _phase_of_store(self, store: Store) -> int:
        values = self.values
        names = {store.arg, *(s.name for e in store.index for s in e.free_symbols if s.name in values.dtypes)}
        return max(values.phase[name] for name in names)

    @cached_property
    def element_stores(self) -> tuple[Store, ...]:
        """Stores that run once per element."""
        nest = self.values.nest
        return tuple(s for s in stores(nest) if stores_elements(nest, s) or self._depends(s))

    def _depends(self, store: Store) -> bool:
        return any(s.name in self.values.element for e in store.index for s in e.free_symbols)

    @cached_property
    def row_stores(self) -> tuple[Store, ...]:
        """Stores that run once per row."""
        return tuple(s for s in stores(self.values.nest) if s not in self.element_stores)

    def accumulators(self, loop: int) -> tuple[Accumulator, ...]:
        """Return the reductions of a loop."""
        return tuple(
            Accumulator(r, self.values, self._positions(r)) for r in reduces(self.values.nest) if self._loop(r) == loop
        )

    def _positions(self, reduce: Reduce) -> DType:
        extent = sympy.Mul(*[a.extent for a in self.values.nest.reduction_axes])
        wide = self.values.dtypes[reduce.args[0]].compute.itemsize == 8
        size = largest(extent, self.most)
        return DType.INT64 if wide or size is None or size >= 1 << 31 else DType.INT32

    def row_instructions(self, stage: int) -> tuple[Instruction, ...]:
        """Return what is computed once per row after `stage` loops."""
        return tuple(
            i
            for i in self.values.nest.body
            if not isinstance(i, Reduce | Store)
            and defined(i)[0] not in self.values.element
            and self.values.phase[defined(i)[0]] == stage
        )

    def element_instructions(self, loop: int) -> tuple[Instruction, ...]:
        """Return what a loop computes per element, kept values excluded."""
        return self._elements(loop, self._known(loop))

    def reloaded(self, loop: int) -> tuple[str, ...]:
        """Return the kept values that a loop reads back."""
        wanted = {name for name, _ in self._uses(loop)}
        return tuple(name for name, made in self.kept.items() if made < loop and name in wanted)

    @cached_property
    def kept(self) -> Mapping[str, int]:
        """Values kept in row buffers, and the loop that makes each."""
        if not self.keep:
            return {}
        found: dict[str, int] = {}
        made: set[str] = set()
        for loop in range(self.loops):
            known = frozenset(found)
            current = {name for i in self._elements(loop, known) for name in defined(i)}
            fresh = current - made
            for i in (*self._elements(loop, known), *self._sinks(loop)):
                if defined(i) and not (set(defined(i)) & fresh):
                    continue
                for name in self._arguments(i):
                    if name in made and name not in found and self._cost(name) >= _CHEAP:
                        found[name] = self._maker(name, loop)
            made |= current
        return found

    def _maker(self, name: str, before: int) -> int:
        return next(k for k in range(before) if any(name in defined(i) for i in self._elements(k, frozenset())))

    def _known(self, loop: int) -> frozenset[str]:
        return frozenset(name for name, made in self.kept.items() if made < loop)

    def _sinks(self, loop: int) -> tuple[Instruction, ...]:
        found: list[Instruction] = [*(a.reduce for a in self.accumulators(loop)), *self.sorted_after(loop)]
        if loop == self.loops - 1:
            found.extend(self.element_stores)
        for i in self.values.nest.body:
            if isinstance(i, BoundsCheck) and i.dest in self.values.element and self.values.phase[i.dest] == loop:
                found.append(i)
        return tuple(found)

    def _elements(self, loop: int, known: frozenset[str]) -> tuple[Instruction, ...]:
        sinks = self._sinks(loop)
        rows = frozenset(self.values.dtypes) - self.values.element
        rows |= {dest for sort in sorts(self.values.nest) for dest in sort.dests}
        needed = self.values.needed(sinks, known | rows)
        checks = [i for i in sinks if isinstance(i, BoundsCheck) and i not in needed]
        chosen = [i for i in (*needed, *checks) if defined(i) and defined(i)[0] in self.values.element]
        order = {id(i): k for k, i in enumerate(self.values.nest.body)}
        return tuple(sorted(chosen, key=lambda i: order[id(i)]))

    def _uses(self, loop: int) -> list[tuple[str, Instruction]]:
        body = (*self._elements(loop, self._known(loop)), *self._sinks(loop))
        return [(name, i) for i in body for name in self._arguments(i)]

    def _arguments(self, i: Instruction) -> tuple[str, ...]:
        element = self.values.element
        match i:
            case Compute(args=args) | Reduce(args=args):
                direct: tuple[str, ...] = args
            case Store(arg=arg) | BoundsCheck(arg=arg) | Sort(arg=arg):
                direct = (arg,)
            case _:
                direct = ()
        return tuple(name for name in direct if name in element and self.values.varies(name))

    def _cost(self, name: str) -> int:
        """Weight of computing an element value from its loads again."""
        target = next(i for i in self.values.nest.body if name in defined(i))
        total = 0
        for i in (*self.values.needed([target], frozenset()), target):
            if not self.values.element.intersection(defined(i)):
                continue
            if isinstance(i, Load):
                regular = i.mask is None and self.values.step(self.values.flat(i)) in (0, 1)
                total += 1 if regular else self.values.lanes
            elif isinstance(i, Compute) and not isinstance(i, Constant):
                total += OPS[i.op].cost
        return total
