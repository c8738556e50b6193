"""Writes the loops of nests with scans: those of a reduction, with a state per scan that is carried along the row."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

import sympy

from mkwrap.codegen.cpp.indexing import spell_index
from mkwrap.codegen.cpp.narrow import narrowed
from mkwrap.codegen.cpp.reduction_loops import ReductionLoops
from mkwrap.codegen.cpp.reduction_plan import Plan
from mkwrap.codegen.cpp.spelling import CTYPES, literal, spell
from mkwrap.codegen.cpp.statements import Accumulator, Rename
from mkwrap.codegen.cpp.two_pass import two_pass
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import defined, scans
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Combine, Compute, Constant, Expr, Instruction, Load, Nest, Scan, Store
from mkwrap.ir.ops import ASSOCIATIVE

_STATE_FIELD_BYTES = 8

OPERATIONS: Mapping[str, str] = {
    "sum": "mkw::AddScan",
    "prod": "mkw::MulScan",
    "cummax": "mkw::BestScan<true>",
    "cummin": "mkw::BestScan<false>",
    "logaddexp": "mkw::LogAddExpScan",
}
COSTLY = frozenset({"logaddexp"})
"""Scans whose operation on one scalar outweighs moving lanes: done lane by lane along a row."""
_WIDE = frozenset({"sum", "prod", "logaddexp"})


def widened(nest: Nest) -> Nest:
    """Return the nest with running sums, products and log-sums of float32 carried in float64, as eager has them on the CPU."""
    body: list[Instruction] = []
    for i in nest.body:
        if isinstance(i, Scan) and i.op in _WIDE and i.dtypes == (DType.FLOAT32,):
            (dest,), (arg,) = i.dests, i.args
            body.append(Compute(f"{dest}_arg", DType.FLOAT64, "cast", (arg,)))
            body.append(Scan((f"{dest}_wide",), (DType.FLOAT64,), i.op, (f"{dest}_arg",)))
            body.append(Compute(dest, DType.FLOAT32, "cast", (f"{dest}_wide",)))
        else:
            body.append(i)
    return replace(nest, body=tuple(body))


def prepared(nest: Nest, most: int = 0) -> Nest:
    """Return the nest as the templates of scans and sorts write it: index arithmetic narrow, sums wide, no Welford."""
    return two_pass(widened(narrowed(nest, most)))


class Walk(Enum):
    """What one walk over a part does."""

    TOTAL = "scans, and stores nothing"
    SCAN = "scans from a given state, and stores the results"
    ADD = "puts a given state in front of stored results"


@dataclass(frozen=True)
class ScanLoops(ReductionLoops):
    """A plan with scans in C++.

    `parts` > 0: the row is cut in so many, and each thread walks a part twice. The first walk is for its total alone, the second,
    once all totals of a round are known, scans from where the parts before end; with `add`, the first one stores results, and
    the second puts what comes before in front of them. `serial`: along a row, lane by lane.
    """

    serial: bool = False
    add: bool = False
    walk: Walk = Walk.SCAN

    @cached_property
    def _scans(self) -> tuple[Scan, ...]:
        return scans(self.plan.values.nest)

    @property
    def workspace_bytes(self) -> Expr:
        """Bytes of workspace: the states of every part."""
        if not self.parts:
            return sympy.Integer(0)
        return sympy.Add(*[self._state_bytes(scan) for scan in self._scans])

    def _state_bytes(self, scan: Scan) -> Expr:
        lanes = 1 if self.plan.by_rows else self.lanes
        vectors = 1 if self.plan.by_rows else self.width
        # A state has a field per result, and says whether it has begun; all are padded to its alignment.
        fields = (len(scan.dests) + 1) * lanes * _STATE_FIELD_BYTES
        return self.units * self.parts * vectors * max(64, fields) + 64

    # ── states ──

    def _state(self, scan: Scan) -> str:
        """Spell the type of a scan's state."""
        types = [CTYPES[dtype] for dtype in scan.dtypes]
        if self.plan.by_rows:
            serial = str(self.serial or scan.op in COSTLY).lower()
            return f"mkw::RowScan<{self.lanes}, {serial}, {_operation(scan)}, {', '.join(types)}>"
        return f"mkw::ColumnScan<{_operation(scan)}, {', '.join(f'mkw::Vec<{t}, {self.lanes}>' for t in types)}>"

    def _declare_states(self, writer: Writer, loop: int) -> None:
        needed = {name for i in self.plan.element_instructions(loop) for name in defined(i)}
        for scan in self._scans:
            if scan.dests[0] in needed:
                count = "" if self.plan.by_rows else "[vectors]"
                writer.line(f"{self._state(scan)} {scan.dests[0]}_scan{loop}{count};")

    def write_value(self, writer: Writer, i: Instruction, loop: int, which: str) -> None:
        """Write one instruction per element; a scan takes the element in and gives its results there."""
        if not isinstance(i, Scan):
            super().write_value(writer, i, loop, which)
            return
        args = [self.statements.scalar_or_vector(arg, True) for arg in i.args]
        if i.op in ("cummax", "cummin"):
            args.append(self._position())
        state = f"{i.dests[0]}_scan{loop}" + ("" if self.plan.by_rows else f"[{which}]")
        writer.line(f"const auto {i.dests[0]}_here = {state}.step(lanes, mkw::together({', '.join(args)}));")
        for k, dest in enumerate(i.dests):
            writer.line(f"[[maybe_unused]] const auto {dest} = mkw::get<{k}>({i.dests[0]}_here);")

    def _position(self) -> str:
        position = self.plan.position
        move = self.statements.index(self.plan.values.step(position) or sympy.Integer(0))
        return f"mkw::ramp<{self.lanes}>((int64_t)({self.statements.index(position)}), (int64_t)({move}))"

    # ── loops ──

    def write(self, writer: Writer) -> None:
        """Write the functions that scans combine with, then the loop over units."""
        for scan in self._scans:
            if scan.combine is not None:
                _write_combine(writer, scan, scan.combine)
        super().write(writer)

    def _write_walk(
        self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...], cut: tuple[str, str] | None
    ) -> str:
        self._declare_states(writer, loop)
        return super()._write_walk(writer, loop, accumulators, cut)

    def _write_parts(self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...]) -> None:
        rows = self.plan.by_rows
        offset: Expr = sympy.Integer(0)
        place = (
            f"unit * {self.parts}" if rows else f"(unit * {self.width} + (base - begin) / {self.lanes}) * {self.parts}"
        )
        for scan in self._scans:
            state, name = self._state(scan), scan.dests[0]
            writer.line(f"using {name}_state = {state};")
            writer.line(f"auto* const {name}_part = ({name}_state*)(workspace + {spell_index(offset, {})}) + {place};")
            offset = sympy.expand(offset + self._state_bytes(scan))
        outermost = self._order[0]
        grain = self.lanes * self.width if outermost == self.plan.vector else 1
        extent = spell_index(outermost.extent, {})
        with writer.block(f"for (int64_t round = 0; round < {self.parts}; round += threads)"):
            writer.line("const int64_t part = round + thread;")
            writer.line(f"const mkw::Share range = mkw::share({extent}, {grain}, part, {self.parts});")
            cut = ("range.begin", "range.end")
            with writer.block(f"if (part < {self.parts})"):
                first = self if self.add else replace(self, walk=Walk.TOTAL)
                first._write_walk(writer, loop, (), cut)
                self._each_state(writer, loop, "{part}part[part{index}] = {state};")
            writer.line("#pragma omp barrier")
            with writer.block(f"if ({'0 < part && ' if self.add else ''}part < {self.parts})"):
                self._declare_states(writer, loop)
                self._each_state(
                    writer, loop, "for (int64_t p = 0; p < part; ++p) {state}.merge({part}part[p{index}]);"
                )
                second = replace(self, walk=Walk.ADD) if self.add else self
                second._write_inner(writer, loop, accumulators, 0, cut)

    def _each_state(self, writer: Writer, loop: int, line: str) -> None:
        """Write a line for every state of every scan: `{state}`, and its place among the parts' states."""
        with ExitStack() as stack:
            if not self.plan.by_rows:
                stack.enter_context(writer.block("for (int64_t k = 0; k < vectors; ++k)"))
            for scan in self._scans:
                name = scan.dests[0]
                state = f"{name}_scan{loop}" + ("" if self.plan.by_rows else "[k]")
                index = "" if self.plan.by_rows else " * vectors + k"
                writer.line(line.format(state=state, part=f"{name}_", index=index))

    def _write_element(self, writer: Writer, loop: int, accumulators: tuple[Accumulator, ...], which: str) -> None:
        if self.walk is Walk.SCAN:
            super()._write_element(writer, loop, accumulators, which)
            return
        if self.walk is Walk.ADD:
            self._write_add(writer, loop, which)
            return
        needed = {name for i in self._before_totals for name in defined(i)}
        for i in self.plan.element_instructions(loop):
            if needed.intersection(defined(i)) and self.plan.values.varies(defined(i)[0]):
                self.write_value(writer, i, loop, which)

    def _write_add(self, writer: Writer, loop: int, which: str) -> None:
        for k, store in enumerate(self.plan.element_stores):
            scan = stored_scan(self.plan, store)
            assert scan is not None
            held, made = self.plan.values.dtypes[store.arg], scan.dtypes[0]
            flat = self.plan.values.flat(store)
            local = self.statements.plain_load(Load(f"local{k}", held, store.buffer, store.index), flat)
            state = f"{scan.dests[0]}_scan{loop}" + ("" if self.plan.by_rows else f"[{which}]")
            whole = f"mkw::get<0>(mkw::after({state}, mkw::together({_cast(local, held, made)})))"
            there = replace(self.statements, ref=_always(_cast(whole, made, held)))
            writer.line(there.store(store, vector=True))

    @cached_property
    def _before_totals(self) -> tuple[Instruction, ...]:
        return (*self.plan.values.needed(self._scans, frozenset()), *self._scans)


def _cast(text: str, source: DType, dtype: DType) -> str:
    return text if source is dtype else spell("cast", source, dtype, [text])


def _always(text: str) -> Rename:
    return lambda _name: text


def stored_scan(plan: Plan, store: Store) -> Scan | None:
    """Return the scan of which a store keeps all that is needed to put something in front of it later, if it does."""
    makers = {name: i for i in plan.values.nest.body for name in defined(i)}
    maker = makers[store.arg]
    if isinstance(maker, Compute) and maker.op == "cast" and maker.dtype is DType.FLOAT32:
        maker = makers[maker.args[0]]
    return maker if isinstance(maker, Scan) and maker.op in _WIDE else None


def _operation(scan: Scan) -> str:
    """Spell the type of a scan's operation."""
    return f"mkw::OwnScan<decltype({scan.dests[0]}_combine)>" if scan.op == ASSOCIATIVE else OPERATIONS[scan.op]


def _write_combine(writer: Writer, scan: Scan, combine: Combine) -> None:
    """Write a combining function as a lambda over `Together` of scalars or vectors."""
    dtypes = dict(zip((*combine.left, *combine.right), (*scan.dtypes, *scan.dtypes), strict=True))
    head = f"const auto {scan.dests[0]}_combine = []([[maybe_unused]] auto left, [[maybe_unused]] auto right)"
    with writer.block(f"{head} __attribute__((always_inline))", "};"):
        for side, names in (("left", combine.left), ("right", combine.right)):
            for k, name in enumerate(names):
                writer.line(f"[[maybe_unused]] const auto {name}_of = mkw::get<{k}>({side});")
        for i in combine.body:
            writer.line(f"const auto {i.dest}_of = {_scalar(i, dtypes)};")
            dtypes[i.dest] = i.dtype
        writer.line(f"return mkw::together({', '.join(f'{name}_of' for name in combine.results)});")


def _scalar(i: Constant | Compute, dtypes: Mapping[str, DType]) -> str:
    """Spell an instruction of a combining function, for scalars and vectors alike."""
    if isinstance(i, Constant):
        shape = f"mkw::rebind<decltype(left.first), {CTYPES[i.dtype]}>"
        return f"mkw::broadcast<{shape}>({literal(i.value, i.dtype)})"
    return spell(i.op, dtypes[i.args[-1]], i.dtype, [f"{arg}_of" for arg in i.args])
