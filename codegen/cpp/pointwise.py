"""Template "pointwise": nests without reductions. Vectors along one axis, the other axes are units of work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import sympy

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.indexing import spell_index
from mkwrap.codegen.cpp.kernel_text import Frame, each_unit
from mkwrap.codegen.cpp.narrow import guards, narrowed
from mkwrap.codegen.cpp.statements import Statements, axis_names
from mkwrap.codegen.cpp.values import Values
from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.template import Template
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import arithmetic_cost, reduces, stores
from mkwrap.ir.index import FloorDiv, axis_ranges, axis_symbol, delinearize, linearize, simplify
from mkwrap.ir.nodes import Axis, BoundsCheck, Buffer, Expr, IndexValue, Instruction, Load, Nest, Store
from mkwrap.stages import Device, Kernel, Params, Source, Variant

_FLAT = "flat"
_FLAT_AXIS = axis_symbol("flat")
_STREAM_BYTES = 4 << 20
_LIGHT, _HEAVY = 16, 48  # weights of arithmetic below and above which more or less unrolling pays


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Return vector axis, unrolling, threads, tiling and streaming stores worth measuring, best guess first."""
    if reduces(kernel.nest):
        return ()
    nest, buffers = narrowed(kernel.nest), buffers_of(kernel)
    if not nest.axes:
        return ((("axis", "none"),),)
    table = {name: _along(nest, name, buffers, device) for name in _names(nest)}
    ranked = sorted(table, key=lambda name: _cost(table[name], name))
    best = ranked[0]
    threads = estimate.thread_counts(table[best], device)
    unroll = _unroll(nest)
    found = [_params(best, unroll, threads[0])]
    tile = _tile_axis(nest, table[best], table) if best != _FLAT else None
    if tile is not None:
        found.insert(0, (*_params(best, 1, threads[0]), ("tile", tile)))
        found.append((*_params(tile, 1, threads[0]), ("tile", best)))
    if _stored_bytes(table[best]) >= _STREAM_BYTES:
        found.append((*_params(best, unroll, threads[0]), ("stream", True)))
    found.extend(_params(best, unroll, count) for count in threads[1:])
    found.append(_params(best, 1 if unroll > 1 else 2, threads[0]))
    found.extend(
        _params(name, 1, threads[0]) for name in ranked[1:2] if _cost(table[name], name) < 2 * _cost(table[best], best)
    )
    return tuple(dict.fromkeys(found))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one pointwise kernel."""
    params = dict(variant.params)
    most = int(params.get("most", 0))
    nest = narrowed(kernel.nest, most)
    name = str(params["axis"])
    if name == "none":
        return _render_scalar(kernel, nest, variant, device)
    values = _along(nest, name, buffers_of(kernel), device)
    team = estimate.team(values, int(params["threads"]), device)
    loop = _Loop(values, int(params["unroll"]), team.threads, str(params.get("tile", "")))
    streaming = bool(params.get("stream", False))
    frame = Frame(
        kernel,
        variant,
        device,
        values.nest,
        loop.units,
        team,
        streaming=streaming,
        guards=guards(kernel, most),
        derived=loop.derived,
    )
    statements = Statements(values, streaming=streaming)
    return frame.source(lambda writer: loop.write(writer, statements))


TEMPLATE = Template("pointwise", space, render)


def _params(axis: str, unroll: int, threads: int) -> Params:
    return (("axis", axis), ("unroll", unroll), ("threads", threads))


# ── the loop ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Loop:
    """A sweep of vectors along one axis within units made of the other axes; the vector axis may be cut, too."""

    values: Values
    unroll: int
    threads: int
    tile: str = ""
    """Name of an axis that is walked inside the unit, in tiles: where loads run along it, their lines stay in cache."""

    @cached_property
    def names(self) -> Mapping[sympy.Symbol, str]:
        """C++ names of the axes."""
        return axis_names(self.values)

    @cached_property
    def vector(self) -> Axis:
        """The axis vectors lie along."""
        return next(a for a in self.values.nest.axes if a.symbol == self.values.axis)

    @cached_property
    def tiled(self) -> Axis | None:
        """The axis walked inside the unit."""
        return next((a for a in self.values.nest.axes if self.names[a.symbol] == self.tile), None)

    @cached_property
    def outer(self) -> tuple[Axis, ...]:
        """The axes that make up units."""
        return tuple(a for a in self.values.nest.axes if a not in (self.vector, self.tiled))

    @cached_property
    def grain(self) -> int:
        """Elements the vector axis is cut at multiples of."""
        return self.values.lanes * self.unroll

    @cached_property
    def rows(self) -> Expr:
        """Units where the vector axis is not cut."""
        return sympy.Mul(*[a.extent for a in self.outer])

    @cached_property
    def cut(self) -> Expr:
        """Elements of the vector axis in one unit."""
        extent = self.vector.extent
        if self.tiled is not None:
            return sympy.Integer(max(64, self.grain))
        if self.threads == 1:
            return extent
        if (self.rows * extent).free_symbols:
            return _CUT
        rows = int(self.rows)
        if rows >= 8 * self.threads or (rows and rows % self.threads == 0):
            return extent
        pieces = -(-int(extent) // (self.threads * self.grain)) * self.grain
        return sympy.Integer(max(pieces, self.grain))

    @cached_property
    def derived(self) -> tuple[tuple[str, str], ...]:
        """The constants besides sizes: `cut` where sizes decide it, by the same rule."""
        if self.cut != _CUT:
            return ()
        sizes = f"{spell_index(self.vector.extent, {})}, {self.grain}, {spell_index(self.rows, {})}, {self.threads}"
        return (("cut", f"mkw::piece_length({sizes})"),)

    @cached_property
    def pieces(self) -> tuple[tuple[str, Expr], ...]:
        """Variables and extents of a unit's coordinates, outermost first."""
        result = [(self.names[a.symbol], a.extent) for a in self.outer]
        if self.tiled is not None:
            result.append(("tile", _quotient_up(self.tiled.extent, sympy.Integer(_TILE))))
        whole = self.cut == self.vector.extent != 0
        result.append(("piece", sympy.Integer(1) if whole else _quotient_up(self.vector.extent, self.cut)))
        return tuple(result)

    @property
    def units(self) -> Expr:
        """Number of units; 0 where any extent is."""
        return sympy.Mul(*[extent for _, extent in self.pieces])

    def write(self, writer: Writer, statements: Statements) -> None:
        """Write the loop over units."""
        with each_unit(writer, self.pieces):
            self._write_bounds(writer)
            if self.tiled is None:
                self._write_sweep(writer, statements)
                return
            name = self.names[self.tiled.symbol]
            extent = statements.index(self.tiled.extent)
            writer.line(f"const int64_t tile_end = mkw::smaller((tile + 1) * {_TILE}, {extent});")
            with writer.block(f"for (int64_t {name} = tile * {_TILE}; {name} < tile_end; ++{name})"):
                self._write_sweep(writer, statements)

    def _write_bounds(self, writer: Writer) -> None:
        extent = spell_index(self.vector.extent, {})
        if self.cut == self.vector.extent:
            writer.line(f"const int64_t begin = 0, end = {extent};")
        else:
            cut = spell_index(self.cut, {})
            writer.line(f"const int64_t begin = piece * ({cut}), end = mkw::smaller(begin + {cut}, {extent});")

    def _write_sweep(self, writer: Writer, statements: Statements) -> None:
        values = self.values
        body = [i for i in values.nest.body if not isinstance(i, Store)]
        for i in body:
            if not values.varies(i.dest):  # type: ignore[union-attr]
                writer.line(f"const auto {i.dest} = {statements.expression(i)};")  # type: ignore[union-attr]
        extent = self.vector.extent
        singles = str(not _divides(self.grain, extent)).lower()
        tail = str(not _divides(values.lanes, extent)).lower()
        head = f"mkw::sweep<{values.lanes}, {self.unroll}, {singles}, {tail}>(begin, end, [&](auto lanes, int64_t"
        with writer.block(f"{head} {self.names[self.vector.symbol]}, auto) MKW_BODY", "});"):
            for i in body:
                if values.varies(i.dest):  # type: ignore[union-attr]
                    writer.line(f"const auto {i.dest} = {statements.expression(i)};")  # type: ignore[union-attr]
            for store in stores(values.nest):
                writer.line(statements.store(store, vector=True))


_TILE = 32
_CUT = axis_symbol("cut")


def _render_scalar(kernel: Kernel, nest: Nest, variant: Variant, device: Device) -> Source:
    values = Values(nest, buffers_of(kernel), None, device.vector_bytes)
    statements = Statements(values)

    def body(writer: Writer) -> None:
        with writer.block("for (int64_t unit = first; unit < last; ++unit)"):
            for i in nest.body:
                if isinstance(i, Store):
                    writer.line(statements.store(i, vector=False))
                else:
                    writer.line(f"const auto {i.dest} = {statements.expression(i)};")  # type: ignore[union-attr]

    return Frame(kernel, variant, device, nest, sympy.Integer(1)).source(body)


def _divides(number: int, extent: Expr) -> bool:
    return bool(extent.is_Integer and int(extent) % number == 0)


def _quotient_up(a: Expr, b: Expr) -> Expr:
    return FloorDiv(a + b - 1, b) if b != 0 else sympy.Integer(0)


# ── choosing axes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _names(nest: Nest) -> tuple[str, ...]:
    names = [f"p{k}" for k, axis in enumerate(nest.axes) if axis.extent != 1] or ["p0"]
    return (*names, _FLAT) if len(names) > 1 else tuple(names)


def _along(nest: Nest, name: str, buffers: Mapping[str, Buffer], device: Device) -> Values:
    """Return the nest's values with vectors along the axis of that name.

    Where dynamic sizes make accesses irregular along the flat axis, which are regular at some points, the last axis takes its
    place.
    """
    if name != _FLAT:
        return Values(nest, buffers, nest.axes[int(name[1:])].symbol, device.vector_bytes)
    flat = Values(_flattened(nest), buffers, _FLAT_AXIS, device.vector_bytes)
    inner = [axis for axis in nest.axes if axis.extent != 1][-1:] or nest.axes[-1:]
    if not any(axis.extent.free_symbols for axis in nest.axes):
        return flat
    last = Values(nest, buffers, inner[0].symbol, device.vector_bytes)
    return last if estimate.irregularity(flat) > estimate.irregularity(last) else flat


def _cost(values: Values, name: str) -> float:
    """Weight of one element's work on a vector axis: irregular accesses, lanes left empty, divisions of a flat index."""
    axis = next(a for a in values.nest.axes if a.symbol == values.axis)
    extent = estimate.number(axis.extent)
    vectors = -(-extent // values.lanes)
    empty = vectors * values.lanes / max(1, extent)
    work = arithmetic_cost(values.nest) + len(values.nest.body)
    position = values.nest.axes.index(axis)
    return (work + 2 * values.lanes * estimate.irregularity(values)) * empty + (name == _FLAT) - 0.01 * position


def _unroll(nest: Nest) -> int:
    weight = arithmetic_cost(nest)
    return 4 if weight <= _LIGHT else 2 if weight <= _HEAVY else 1


def _stored_bytes(values: Values) -> int:
    width = sum(values.buffers[i.buffer].dtype.itemsize for i in stores(values.nest))
    return width * estimate.points(values.nest)


def _tile_axis(nest: Nest, best: Values, table: Mapping[str, Values]) -> str | None:
    """Return the axis along which some access is contiguous that is irregular along the vector axis."""
    for name, other in table.items():
        if name == _FLAT or other.axis == best.axis:
            continue
        for i in nest.body:
            if isinstance(i, Load | Store) and best.step(best.flat(i)) not in (0, 1) and other.step(other.flat(i)) == 1:
                return name
    return None


def _flattened(nest: Nest) -> Nest:
    """Return the nest over one axis that runs through all points in row-major order."""
    symbols = [axis.symbol for axis in nest.axes]
    extents = [axis.extent for axis in nest.axes]
    whole = Axis(_FLAT_AXIS, sympy.Mul(*extents))
    ranges = axis_ranges((whole,))
    mapping = dict(zip(symbols, delinearize(whole.symbol, extents, ranges), strict=True))
    position = linearize(symbols, extents)

    def move(expr: Expr) -> Expr:
        step = sympy.expand(expr).coeff(symbols[-1], 1)
        rest = sympy.expand(expr - step * position)
        if not (step.free_symbols | rest.free_symbols) & set(symbols):
            return step * whole.symbol + rest
        return simplify(expr.subs(mapping), ranges)

    return replace(nest, axes=(whole,), body=tuple(_moved(i, move) for i in nest.body))


def _moved(i: Instruction, move: Callable[[Expr], Expr]) -> Instruction:
    match i:
        case Load() | Store():
            return replace(i, index=tuple(move(e) for e in i.index))
        case IndexValue():
            return replace(i, expr=move(i.expr))
        case BoundsCheck():
            return replace(i, extent=move(i.extent))
        case _:
            return i
