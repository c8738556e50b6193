"""Writes the instructions of a nest for one tile: loads, computes, stores; reductions are the templates' matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sympy

from mkwrap.codegen.triton.indexing import expr_text
from mkwrap.codegen.triton.scans import Form, Texts, form_of, write_combined, write_last, write_scan
from mkwrap.codegen.triton.sizes import Sizes
from mkwrap.codegen.triton.sorts import NEEDS, Key, write_sort
from mkwrap.codegen.triton.spelling import TYPES, constant, spell
from mkwrap.codegen.triton.tile import INT32_LIMIT, Dim, Tile, Value, is_size, size_name
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_ranges, bounds
from mkwrap.ir.index import axis_symbol as value_symbol
from mkwrap.ir.nodes import (
    BoundsCheck,
    Buffer,
    Compute,
    Constant,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Scan,
    Sort,
    Store,
)

FAULT = "fault"
"""The argument of every kernel function with bounds checks: where an index out of range is reported."""


class Body:
    """Appends a nest's instructions to a writer, once per tile they are needed in.

    Lives while one kernel function is written. `values` maps SSA names to what holds them now; `needs` collects the
    prelude functions that were called; `carries` names, per scan (its first result), the state that what comes earlier in
    the row has left, where the tile is not the row's first. With `stream`, what varies along the whole tile is first to
    leave the caches.
    """

    def __init__(
        self,
        writer: Writer,
        tile: Tile,
        buffers: Mapping[str, Buffer],
        sizes: Sizes,
        approximate: frozenset[str],
        stream: bool = False,
    ) -> None:
        self.writer = writer
        self.tile = tile
        self.values: dict[str, Value] = {}
        self.needs: set[str] = set()
        self.carries: dict[str, Texts] = {}
        self._buffers = buffers
        self._sizes = sizes
        self._approximate = approximate
        self._stream = stream
        self._indices: dict[str, str] = {}
        self._existing: dict[str, str] = {}
        self._ranges: dict[sympy.Symbol, tuple[Expr, Expr]] = dict(tile.ranges())
        for dim in tile.dims:
            self._ranges.update(axis_ranges(dim.axes))

    @property
    def int64(self) -> str:
        """Text that widens a position to int64, where offsets need it."""
        return ".to(tl.int64)" if self._sizes.wide else ""

    @property
    def all_dims(self) -> frozenset[str]:
        """Names of all dimensions that have an extent."""
        return frozenset(dim.name for dim in self.tile.blocks)

    def emit(self, instructions: Iterable[Instruction]) -> None:
        """Write instructions in order."""
        for instruction in instructions:
            match instruction:
                case Constant(dest=dest, dtype=dtype, value=value):
                    self._define(dest, constant(value, dtype), dtype, frozenset())
                case IndexValue():
                    self._index_value(instruction)
                case Load():
                    self._load(instruction)
                case BoundsCheck():
                    self._bounds_check(instruction)
                case Compute():
                    self._compute(instruction)
                case Store():
                    self._store(instruction)
                case Scan():
                    self._scan(instruction)
                case Sort():
                    self._sort(instruction)
                case _:
                    raise InternalError(f"a template handed {instruction} to the body writer")

    def define(self, name: str, text: str, dtype: DType, dims: frozenset[str]) -> None:
        """Record where a value was put by a template."""
        self.values[name] = Value(text, dtype, dims)

    def form(self, scan: Scan) -> Form:
        """How a scan is written, its arguments being known."""
        return form_of(scan, [self.values[arg].dtype for arg in scan.args], self._sizes.wide)

    def scan_tile(self, scan: Scan) -> Texts:
        """Write the scan of the tile's own elements, and return the names of its parts."""
        form = self.form(scan)
        self.needs.update(form.needs)
        args = [self.full(arg) for arg in scan.args]
        return write_scan(self.writer, form, scan.dests[0], args, self.tile.shape(self.all_dims))

    def define_scan(self, scan: Scan, parts: Texts) -> None:
        """Write the results of a scan from their parts."""
        for dest, text, dtype in zip(scan.dests, self.form(scan).result_texts(parts), scan.dtypes, strict=True):
            self._define(dest, text, dtype, self.all_dims)

    def full(self, name: str) -> str:
        """Text of a value spread over the whole tile."""
        value = self.values[name]
        if value.dims == self.all_dims:
            return value.text
        return f"tl.broadcast_to({value.text}, {self.tile.shape(self.all_dims)})"

    def offset(self, buffer: str, index: tuple[Expr, ...]) -> tuple[str, frozenset[str]]:
        """Text of an element's offset, and the dimensions it varies along."""
        expr = self.tile.positions(self._buffers[buffer].flat_index(index), self._ranges)
        return self.text(expr), self.tile.along(expr, self.values)

    def text(self, expr: Expr) -> str:
        """Spell an expression over positions, sizes and values."""
        return expr_text(expr, self._names(expr), self._ranges)

    def atom(self, size: int | Expr) -> str:
        """Spell a size as an operand."""
        expr = sympy.sympify(size)
        return self.text(expr) if expr.is_Atom else f"({self.text(expr)})"

    def extent(self, dim: Dim) -> str:
        """Spell the number of positions along a dimension, as a mask compares with it."""
        multiple = self._sizes.multiple(dim.numel)
        return f"{self.atom(dim.numel)} // {multiple} * {multiple}" if multiple > 1 else self.text(dim.numel)

    def masks(self, dims: frozenset[str]) -> list[str]:
        """Texts of the tile masks along some dimensions."""
        return [dim.mask for dim in self.tile.dims if dim.masked and dim.name in dims]

    def _scan(self, scan: Scan) -> None:
        """Write a scan, going on from the carry and leaving the next one, where there is one."""
        parts, stem = self.scan_tile(scan), scan.dests[0]
        carry = self.carries.get(stem)
        if carry is not None:
            form = self.form(scan)
            total = write_last(self.writer, form, f"{stem}_total", parts, self.tile.dims[-1].block)
            parts = write_combined(self.writer, form, f"{stem}_all", carry, parts)
            self.writer.line(f"{', '.join(carry)} = {form.combine(carry, total)}")
        self.define_scan(scan, parts)

    def _sort(self, sort: Sort) -> None:
        """Write a sort of whole rows: the tile's last dimension holds all of each."""
        value, (rows, whole) = self.values[sort.arg], self.tile.dims
        self.needs.update(NEEDS[Key(value.dtype).wide])
        shape = (rows.block, whole.block)
        write_sort(self.writer, sort, value.dtype, self.full(sort.arg), shape, whole.masked)
        for dest, dtype in zip(sort.dests, sort.dtypes, strict=True):
            self.define(dest, dest, dtype, self.all_dims)

    def _names(self, expr: Expr) -> Mapping[sympy.Symbol, str]:
        return {
            symbol: size_name(symbol) if is_size(symbol) else self._name(symbol.name) for symbol in expr.free_symbols
        }

    def _name(self, name: str) -> str:
        """Name a position, or what holds a value as an index."""
        return self._indices.get(name, self.values[name].text) if name in self.values else name

    def _define(self, dest: str, text: str, dtype: DType, dims: frozenset[str]) -> None:
        self.writer.line(f"{dest} = {text}")
        self.values[dest] = Value(dest, dtype, dims)

    def _index_value(self, instruction: IndexValue) -> None:
        expr = self.tile.positions(instruction.expr, self._ranges)
        if expr.is_Integer:
            self._define(instruction.dest, constant(int(expr), instruction.dtype), instruction.dtype, frozenset())
            return
        names = self._names(expr)
        if not fits_int32(expr, self._ranges):
            names = {symbol: f"{text}.to(tl.int64)" for symbol, text in names.items()}
        text = expr_text(expr, names, self._ranges)
        dims = self.tile.along(expr, self.values)
        self._define(instruction.dest, f"({text}).to({TYPES[instruction.dtype]})", instruction.dtype, dims)

    def _pointer(self, buffer: str, index: tuple[Expr, ...], dims: frozenset[str]) -> tuple[str, frozenset[str]]:
        """Text of the pointers to an element, spread along `dims` too."""
        offset, own = self.offset(buffer, index)
        if not dims <= own:
            offset = f"(tl.full({self.tile.shape(own | dims)}, 0, tl.int32) + ({offset}))"
        return (buffer if offset == "0" else f"{buffer} + ({offset})"), own | dims

    def _load(self, load: Load) -> None:
        mask_dims = self.values[load.mask].dims if load.mask else frozenset()
        pointer, dims = self._pointer(load.buffer, load.index, mask_dims)
        masks = self.masks(dims) + ([self.values[load.mask].text] if load.mask else []) + self._exist(load.index)
        condition = f", {' & '.join(masks)}, other=0" if masks else ""
        hint = ', eviction_policy="evict_first"' if self._streams(dims) else ""
        self._define(load.dest, f"tl.load({pointer}{condition}{hint})", load.dtype, dims)

    def _store(self, store: Store) -> None:
        value = self.values[store.arg]
        pointer, dims = self._pointer(store.buffer, store.index, value.dims)
        masks = self.masks(dims) + self._exist(store.index)
        condition = f", {' & '.join(masks)}" if masks else ""
        hint = ', cache_modifier=".cs"' if self._streams(dims) else ""
        self.writer.line(f"tl.store({pointer}, {value.text}{condition}{hint})")

    def _exist(self, index: tuple[Expr, ...]) -> list[str]:
        """Masks that keep accesses by a checked index off dimensions of no elements."""
        names = {symbol.name for expr in index for symbol in expr.free_symbols}
        return list(dict.fromkeys(text for name, text in self._existing.items() if name in names))

    def _streams(self, dims: frozenset[str]) -> bool:
        return self._stream and dims == self.all_dims

    def _bounds_check(self, check: BoundsCheck) -> None:
        value = self.values[check.arg]
        last = self.text(check.extent - 1)
        masks = [self.values[check.mask]] if check.mask else []
        conditions = [f"(({value.text} < 0) | ({value.text} > {last}))", *(mask.text for mask in masks)]
        conditions += self.masks(value.dims.union(*(mask.dims for mask in masks)))
        self.needs.add("report")
        self.writer.line(f"report({FAULT}, {' & '.join(conditions)})")
        self._define(check.dest, f"tl.minimum(tl.maximum({value.text}, 0), {last})", DType.INT64, value.dims)
        self._ranges[value_symbol(check.dest)] = (sympy.Integer(0), check.extent - 1)
        if not check.extent.is_Integer or check.extent == 0:
            # Of no elements the last is −1: the index was reported, and nothing may be touched in its stead.
            self._existing[check.dest] = f"({check.dest} >= 0)"
        if not self._sizes.wide:
            self._indices[check.dest] = f"{check.dest}.to(tl.int32)"

    def _compute(self, compute: Compute) -> None:
        args = [self.values[name] for name in compute.args]
        approximate = compute.dest in self._approximate
        spelled = spell(compute.op, [arg.text for arg in args], args[-1].dtype, compute.dtype, approximate)
        self.needs.update(spelled.needs)
        dims = frozenset[str]().union(*(arg.dims for arg in args))
        self._define(compute.dest, spelled.text, compute.dtype, dims)


def fits_int32(expr: Expr, ranges: Ranges) -> bool:
    """Whether every part of an expression stays within int32 for all points in range."""
    for part in sympy.preorder_traversal(expr):
        limits = bounds(part, ranges)
        if limits is None or not all(limit.is_Integer for limit in limits):
            return False
        if int(limits[0]) < -INT32_LIMIT or int(limits[1]) > INT32_LIMIT:
            return False
    return True
