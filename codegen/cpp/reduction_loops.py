"""Writes the loops of a reduction plan: by rows (vectors along the reduced row) or by columns (along a parallel axis)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import sympy

from mkwrap.codegen.cpp.indexing import spell_factor, spell_index
from mkwrap.codegen.cpp.kernel_text import each_unit
from mkwrap.codegen.cpp.prefetch import prefetches
from mkwrap.codegen.cpp.reduction_plan import Plan
from mkwrap.codegen.cpp.spelling import CTYPES
from mkwrap.codegen.cpp.statements import Accumulator, Statements
from mkwrap.codegen.cpp.stretches import stretches
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import defined
from mkwrap.ir.index import FloorDiv
from mkwrap.ir.nodes import Axis, Expr, Instruction

_PARTIAL_FIELD_BYTES = 8
_PARTIAL_FIELDS = 3


@dataclass(frozen=True)
class ReductionLoops:
    """A plan in C++.

    `width`: by rows, how many accumulators take turns; by columns, how many vectors lie side by side. `parts` > 0: the
    outermost loop over a reduction axis is cut in so many parts, whose partial results meet in the workspace. `threads`
    run the units, or all of them together where there are parts. `ahead` > 0: the last loop fetches the rows so far ahead.
    """

    plan: Plan
    width: int
    parts: int = 0
    streaming: bool = False
    kept_in_workspace: bool = False
    threads: int = 1
    ahead: int = 0

    @property
    def lanes(self) -> int:
        """Lanes of a vector."""
        return self.plan.values.lanes

    @cached_property
    def statements(self) -> Statements:
        """How instructions are written inside the vector loop."""
        rows = {n for n in self.plan.values.dtypes if n not in self.plan.values.element}
        lined = {n for n in rows if self.plan.values.varies(n)}
        return Statements(self.plan.values, ref=lambda n: f"{n}[k]" if n in lined else n, streaming=self.streaming)

    @cached_property
    def pieces(self) -> tuple[tuple[str, Expr], ...]:
        """Variables and extents of a unit's coordinates."""
        plan = self.plan
        result = [(plan.names[a.symbol], a.extent) for a in plan.outer]
        if not plan.by_rows:
            block = self.lanes * self.width
            extent = plan.vector.extent
            result.append(("piece", FloorDiv(extent + block - 1, block)))
        return tuple(result)

    @property
    def units(self) -> Expr:
        """Number of units."""
        return sympy.Mul(*[extent for _, extent in self.pieces])

    # ── memory beside the buffers ──

    @property
    def _padded(self) -> Expr:
        """Elements of whole vectors along the vector axis."""
        return FloorDiv(self.plan.vector.extent + self.lanes - 1, sympy.Integer(self.lanes)) * self.lanes

    @property
    def _row_elements(self) -> Expr:
        """Elements of a row buffer."""
        return sympy.Mul(self._padded, *[a.extent for a in self.plan.walked])

    @property
    def _rows_in_workspace(self) -> bool:
        """Whether row buffers are in the workspace: where they are long, or their length is dynamic."""
        return bool(self.plan.kept) and (self.kept_in_workspace or not self._row_elements.is_Integer)

    def kept_bytes(self) -> Expr:
        """Bytes of all row buffers of one thread."""
        dtypes = self.plan.values.dtypes
        return sympy.Add(*[self._row_elements * dtypes[n].itemsize + 64 for n in self.plan.kept])

    def _partial_bytes(self) -> Expr:
        """Bytes of one reduction's partial results, generously."""
        vectors = 1 if self.plan.by_rows else self.lanes * self.width
        return self.units * self.parts * vectors * _PARTIAL_FIELDS * _PARTIAL_FIELD_BYTES

    @property
    def workspace_bytes(self) -> Expr:
        """Bytes of workspace: row buffers of every thread, or partial results of every reduction."""
        if self._rows_in_workspace:
            return self.threads * _up(self.kept_bytes())
        if not self.parts:
            return sympy.Integer(0)
        count = sum(len(self.plan.accumulators(loop)) for loop in range(self.plan.loops))
        return count * (self._partial_bytes() + 64)

    # ── units ──

    def write(self, writer: Writer) -> None:
        """Write the loop over units."""
        if self.parts:
            writer.line("const int64_t thread = mkw::thread_index(), threads = mkw::thread_count();")
        self._declare_kept(writer)
        with each_unit(writer, self.pieces):
            if self.plan.by_rows:
                self._write_stages(writer)
                return
            extent = spell_index(self.plan.vector.extent, {})
            block = self.lanes * self.width
            writer.line(f"const int64_t begin = piece * {block}, end = mkw::smaller(begin + {block}, {extent});")
            flags = self._leftovers(self.plan.vector.extent)
            head = f"mkw::blocks<{self.lanes}, {self.width}, {flags}>(begin, end"
            with writer.block(f"{head}, [&](auto lanes, auto vectors, int64_t base) MKW_BODY", "});"):
                self._write_stages(writer)

    def _leftovers(self, extent: Expr) -> str:
        static = extent.is_Integer
        singles = not (static and int(extent) % (self.lanes * self.width) == 0)
        tail = not (static and int(extent) % self.lanes == 0)
        return f"{str(singles).lower()}, {str(tail).lower()}"

    def _write_stages(self, writer: Writer) -> None:
        for stage in range(self.plan.loops + 1):
            self._write_row_values(writer, stage)
            if stage < self.plan.loops:
                self._write_loop(writer, stage)
        self._write_row_stores(writer)

    # ── row level ──

    def _write_row_values(self, writer: Writer, stage: int) -> None:
        values = self.plan.values
        lined: list[tuple[str, Instruction]] = []
        for i in self.plan.row_instructions(stage):
            name = defined(i)[0]
            if values.varies(name):
                lined.append((name, i))
        uniform = [i for i in self.plan.row_instructions(stage) if not values.varies(defined(i)[0])]
        for i in uniform:
            writer.line(f"const auto {defined(i)[0]} = {self.statements.expression(i)};")
        if not lined:
            return
        for name, _ in lined:
            writer.line(f"mkw::Vec<{CTYPES[values.dtypes[name]]}, {self.lanes}> {name}[vectors];")
        with self._each_vector(writer):
            for name, i in lined:
                writer.line(f"{name}[k] = {self.statements.expression(i)};")

    @contextmanager
    def _each_vector(self, writer: Writer) -> Iterator[None]:
        axis = self.plan.names[self.plan.vector.symbol]
        if self.width <= 8:
            writer.line("#pragma GCC unroll 8")
        with writer.block("for (int64_t k = 0; k < vectors; ++k)"):
            writer.line(f"[[maybe_unused]] const int64_t {axis} = base + k * {self.lanes};")
            yield

    def _write_row_stores(self, writer: Writer) -> None:
        stores = self.plan.row_stores
        if not stores:
            return
        if self.parts:
            # Another thread may still read, at row level, what is overwritten in place.
            writer.line("#pragma omp barrier")
        with ExitStack() as stack:
            if self.parts:
                stack.enter_context(writer.block("if (thread == 0)"))
            if self.plan.by_rows:
                writer.lines(self.statements.store(s, vector=False) for s in stores)
            else:
                stack.enter_context(self._each_vector(writer))
                writer.lines(self.statements.store(s, vector=True) for s in stores)

    # ── one loop over the reduction axes ──

    def _write_loop(self, writer: Writer, loop: int) -> None:
        accumulators = self.plan.accumulators(loop)
        if self.parts:
            self._write_parts(writer, loop, accumulators)
            return
        held = self._write_walk(writer, loop, accumulators, None)
        self._name_results(writer, accumulators, held)

    def _write_parts(self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...]) -> None:
        """Write a loop cut in parts: partial results to the workspace, a barrier, then every thread merges them all."""
        rows = self.plan.by_rows
        place = f"unit * {self.parts * (1 if rows else self.width)}"
        if not rows:
            place += f" + (base - begin) / {self.lanes} * {self.parts}"
        for a in accumulators:
            ctype = a.ctype(1 if rows else self.lanes)
            offset = spell_index(self._partial_offset(a), {})
            writer.line(f"{ctype}* const {_name(a)}_part = ({ctype}*)(workspace + {offset}) + {place};")
        outermost = (*self.plan.walked, self.plan.vector)[0]
        grain = self.lanes * self.width if outermost == self.plan.vector else 1
        extent = spell_index(outermost.extent, {})
        with writer.block(f"for (int64_t part = thread; part < {self.parts}; part += threads)"):
            writer.line(f"const mkw::Share range = mkw::share({extent}, {grain}, part, {self.parts});")
            held = self._write_walk(writer, loop, accumulators, ("range.begin", "range.end"))
            for a in accumulators:
                source = held.format(name=_name(a), lanes=self.lanes)
                if rows:
                    writer.line(f"{_name(a)}_part[part] = {source};")
                else:
                    target = f"{_name(a)}_part[part * vectors + k]"
                    writer.line(f"for (int k = 0; k < vectors; ++k) {target} = {source};")
        if accumulators:
            writer.line("#pragma omp barrier")
            start, step = ("{name}_part", "1") if rows else ("{name}_part + k", "vectors")
            self._name_results(writer, accumulators, f"mkw::merged_partials({start}, {self.parts}, {step})")

    def _partial_offset(self, accumulator: Accumulator) -> Expr:
        earlier = [a.reduce.dests for n in range(self.plan.loops) for a in self.plan.accumulators(n)]
        at = earlier.index(accumulator.reduce.dests)
        return sympy.expand(at * 64 * FloorDiv(self._partial_bytes() + 63, 64))

    def _declare(self, writer: Writer, accumulators: tuple[Accumulator, ...]) -> None:
        count = str(self.width) if self.plan.by_rows else "vectors"
        for a in accumulators:
            writer.line(f"{a.ctype(self.lanes)} {_name(a)}_acc[{count}];")

    def _name_results(self, writer: Writer, accumulators: tuple[Accumulator, ...], held: str) -> None:
        """Name the results of accumulators; `held` spells where one is, with its name to be filled in."""
        if self.plan.by_rows:
            for a in accumulators:
                writer.line(f"const auto {_name(a)}_done = {held.format(name=_name(a), lanes=self.lanes)};")
                for dest, result in zip(a.reduce.dests, a.results(f"{_name(a)}_done"), strict=True):
                    writer.line(f"[[maybe_unused]] const auto {dest} = {result};")
            return
        for a in accumulators:
            for dest, dtype in zip(a.reduce.dests, a.reduce.dtypes, strict=True):
                writer.line(f"mkw::Vec<{CTYPES[dtype]}, {self.lanes}> {dest}[vectors];")
        if not accumulators:
            return
        with self._each_vector(writer):
            for a in accumulators:
                writer.line(f"const auto {_name(a)}_done = {held.format(name=_name(a))};")
                for dest, result in zip(a.reduce.dests, a.results(f"{_name(a)}_done"), strict=True):
                    writer.line(f"{dest}[k] = {result};")

    # ── walking the reduction axes ──

    @cached_property
    def _order(self) -> tuple[Axis, ...]:
        """The axes of one loop, outermost first."""
        return (*self.plan.walked, self.plan.vector) if self.plan.by_rows else self.plan.walked

    def _stretched(self, accumulators: tuple[Accumulator, ...]) -> tuple[int, Expr] | None:
        """Return the depth of the axis to sum up in stretches, and their length; None where the sums are short."""
        if not any(a.reduce.op in ("sum", "welford") and a.dtype.is_float for a in accumulators):
            return None
        # By rows, lanes and turns make many short sums of a row; by columns, each is one.
        grain = self.lanes * self.width if self.plan.by_rows else 1
        return stretches(self._order, self.plan.vector, grain)

    def _write_walk(
        self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...], cut: tuple[str, str] | None
    ) -> str:
        """Write the loops over the reduction axes; `cut` bounds the outermost. Returns where the results are held.

        Long sums are made of stretches, merged one after another: that bounds the rounding error.
        """
        rows, stretched = self.plan.by_rows, self._stretched(accumulators)
        with ExitStack() as stack:
            if stretched is None:
                self._declare(writer, accumulators)
                self._write_inner(writer, loop, accumulators, 0, cut)
                return "mkw::across<{lanes}>(mkw::merged({name}_acc))" if rows else "{name}_acc[k]"
            depth, stretch = stretched
            for a in accumulators:
                writer.line(
                    f"{a.ctype(1)} {_name(a)}_all;" if rows else f"{a.ctype(self.lanes)} {_name(a)}_all[vectors];"
                )
            for outer in range(depth):
                stack.enter_context(self._walk(writer, loop, outer, cut if outer == 0 else None))
            begin, end = (cut if depth == 0 else None) or ("0", spell_index(self._order[depth].extent, {}))
            if not stretch.is_Integer:
                writer.line(f"const int64_t stretch_length{loop} = {spell_index(stretch, {})};")
            length = str(stretch) if stretch.is_Integer else f"stretch_length{loop}"
            stack.enter_context(writer.block(f"for (int64_t stretch = {begin}; stretch < {end}; stretch += {length})"))
            self._declare(writer, accumulators)
            self._write_inner(
                writer, loop, accumulators, depth, ("stretch", f"mkw::smaller(stretch + {length}, {end})")
            )
            for a in accumulators:
                if rows:
                    writer.line(f"{_name(a)}_all.merge(mkw::across<{self.lanes}>(mkw::merged({_name(a)}_acc)));")
                else:
                    writer.line(f"for (int k = 0; k < vectors; ++k) {_name(a)}_all[k].merge({_name(a)}_acc[k]);")
        return "{name}_all" if rows else "{name}_all[k]"

    def _write_inner(
        self,
        writer: Writer,
        loop: int,
        accumulators: tuple[Accumulator, ...],
        depth: int,
        cut: tuple[str, str] | None,
    ) -> None:
        """Write the loops from `depth` inwards; `cut` bounds the first of them."""
        with ExitStack() as stack:
            for k in range(depth, len(self.plan.walked)):
                stack.enter_context(self._walk(writer, loop, k, cut if k == depth else None))
            if self.plan.by_rows:
                self._write_sweep(writer, loop, accumulators, cut if depth == len(self.plan.walked) else None)
            else:
                stack.enter_context(self._each_vector(writer))
                self._write_element(writer, loop, accumulators, "k")

    @contextmanager
    def _walk(self, writer: Writer, loop: int, depth: int, cut: tuple[str, str] | None) -> Iterator[None]:
        axis = self.plan.walked[depth]
        name = self.plan.names[axis.symbol]
        begin, end = cut or ("0", spell_index(axis.extent, {}))
        with writer.block(f"for (int64_t {name} = {begin}; {name} < {end}; ++{name})"):
            for i in self.plan.element_instructions(loop):
                if not self.plan.values.varies(defined(i)[0]) and self._depth(i) == depth:
                    writer.line(f"const auto {defined(i)[0]} = {self.statements.expression(i)};")
            yield

    def _depth(self, i: Instruction) -> int:
        """Return the innermost walked axis a uniform element value depends on."""
        symbols = self.plan.values.axes_of[defined(i)[0]]
        return max(k for k, axis in enumerate(self.plan.walked) if axis.symbol in symbols)

    def _write_sweep(
        self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...], cut: tuple[str, str] | None
    ) -> None:
        axis = self.plan.vector
        begin, end = cut or ("0", spell_index(axis.extent, {}))
        head = f"mkw::sweep<{self.lanes}, {self.width}, {self._leftovers(axis.extent)}>({begin}, {end}"
        name = self.plan.names[axis.symbol]
        with writer.block(f"{head}, [&](auto lanes, int64_t {name}, [[maybe_unused]] auto which) MKW_BODY", "});"):
            self._write_element(writer, loop, accumulators, "which")

    def _write_element(self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...], which: str) -> None:
        plan = self.plan
        if self.ahead and loop == plan.loops - 1:
            writer.lines(prefetches(plan, self.statements, self.ahead))
        for name in plan.reloaded(loop):
            writer.line(f"const auto {name} = mkw::load(mkw::Full<{self.lanes}>{{}}, {name}_kept + {self._kept_at()});")
        for i in plan.element_instructions(loop):
            name = defined(i)[0]
            if plan.values.varies(name):
                self.write_value(writer, i, loop, which)
                if plan.kept.get(name) == loop:
                    full = f"mkw::Full<{self.lanes}>{{}}"
                    writer.line(f"mkw::store({full}, {name}_kept + {self._kept_at()}, {name});")
        for a in accumulators:
            writer.line(a.step(self.statements, f"{_name(a)}_acc[{which}]", plan.position, plan.ascending))
        if loop == plan.loops - 1:
            writer.lines(self.statements.store(s, vector=True) for s in plan.element_stores)

    def write_value(self, writer: Writer, i: Instruction, _loop: int, _which: str) -> None:
        """Write one instruction per element, of the kinds of which some values are vectors."""
        writer.line(f"const auto {defined(i)[0]} = {self.statements.expression(i)};")

    # ── row buffers ──

    def _declare_kept(self, writer: Writer) -> None:
        offset: Expr = sympy.Integer(0)
        # A serial kernel has no team: there, the thread's number would be that in the caller's.
        own = f" + mkw::thread_index() * {spell_factor(_up(self.kept_bytes()))}" if self.threads > 1 else ""
        for name in self.plan.kept:
            ctype = CTYPES[self.plan.values.dtypes[name]]
            if self._rows_in_workspace:
                writer.line(f"{ctype}* const {name}_kept = ({ctype}*)(workspace{own} + {spell_factor(offset)});")
                offset += _up(self._row_elements * self.plan.values.dtypes[name].itemsize)
            else:
                writer.line(f"alignas(64) {ctype} {name}_kept[{self._row_elements}];")

    def _kept_at(self) -> str:
        plan = self.plan
        position: Expr = sympy.Integer(0)
        for axis in plan.walked:
            position = position * axis.extent + axis.symbol
        return f"({self.statements.index(sympy.expand(position * self._padded + plan.vector.symbol))})"


def _name(a: Accumulator) -> str:
    return a.reduce.dests[0]


def _up(size: Expr | int, grain: int = 64) -> Expr:
    return FloorDiv(sympy.sympify(size) + grain - 1, sympy.Integer(grain)) * grain
