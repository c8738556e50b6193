"""Writes the loops of nests with sorts: the row is gathered in one walk, sorted, and read back in the walks after it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import sympy

from mkwrap.codegen.cpp.indexing import spell_factor, spell_index
from mkwrap.codegen.cpp.scan_loops import ScanLoops
from mkwrap.codegen.cpp.spelling import CTYPES
from mkwrap.codegen.cpp.statements import Accumulator
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import sorts
from mkwrap.ir.index import rounded_up
from mkwrap.ir.nodes import Expr, Sort


@dataclass(frozen=True)
class SortLoops(ScanLoops):
    """A plan with sorts in C++, vectors along the row. Each thread has room for one row of every sort in the workspace."""

    radix: bool = True

    @cached_property
    def _sorts(self) -> tuple[Sort, ...]:
        return sorts(self.plan.values.nest)

    @cached_property
    def _row(self) -> Expr:
        return sympy.Mul(*[axis.extent for axis in self.plan.values.nest.reduction_axes])

    def _bytes(self, sort: Sort) -> tuple[Expr, ...]:
        """Bytes of the row as gathered, as sorted, of the positions, and of two entries an element."""
        size = sort.dtypes[0].itemsize
        # An entry is a key and a 32-bit place, padded to the wider of both.
        entry = 2 * max(size, 4)
        return tuple(rounded_up(self._row * width, 64) for width in (size, size, 8, 2 * entry))

    @cached_property
    def _room(self) -> Expr:
        return sympy.Add(*[size for sort in self._sorts for size in self._bytes(sort)])

    @property
    def workspace_bytes(self) -> Expr:
        """Bytes of workspace: a row of every sort, for every thread."""
        return self.threads * self._room

    def _declare_kept(self, writer: Writer) -> None:
        # A serial kernel has no team: there, the thread's number would be that in the caller's.
        own = f" + mkw::thread_index() * {spell_factor(self._room)}" if self.threads > 1 else ""
        offset: Expr = sympy.Integer(0)
        for sort in self._sorts:
            key = CTYPES[sort.dtypes[0]]
            types = (key, key, "int64_t", f"mkw::Entry<mkw::uint_of<sizeof({key})>>")
            names = ("row", "sorted", "places", "work")
            for ctype, name, size in zip(types, names, self._bytes(sort), strict=True):
                writer.line(
                    f"auto* const {sort.dests[0]}_{name} = ({ctype}*)(workspace{own} + {spell_factor(offset)});"
                )
                offset += size

    def _write_walk(
        self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...], cut: tuple[str, str] | None
    ) -> str:
        held = super()._write_walk(writer, loop, accumulators, cut)
        for sort in self.plan.sorted_after(loop):
            name = sort.dests[0]
            flags = f"{str(self.radix).lower()}, {str(sort.descending).lower()}"
            buffers = ", ".join(f"{name}_{part}" for part in ("work", "sorted", "places"))
            writer.line(f"mkw::sort_row<{flags}>({name}_row, {spell_index(self._row, {})}, {buffers});")
        return held

    def _write_element(self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...], which: str) -> None:
        at = f"({self.statements.index(self.plan.position)})"
        for sort in self._sorts:
            if sort not in self.plan.sorted_before(loop):
                continue
            for dest, part in zip(sort.dests, ("sorted", "places"), strict=True):
                source = f"{sort.dests[0]}_{part} + {at}"
                writer.line(f"[[maybe_unused]] const auto {dest} = mkw::load(lanes, {source});")
        super()._write_element(writer, loop, accumulators, which)
        for sort in self.plan.sorted_after(loop):
            value = self.statements.scalar_or_vector(sort.arg, True)
            writer.line(f"mkw::store(lanes, {sort.dests[0]}_row + {at}, {value});")
