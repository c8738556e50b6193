"""Scans of long rows in two passes: every row is cut into chunks, whose totals come first, then the chunks themselves.

One launch per level of scans that build on one another writes the totals of the chunks into the workspace; a later
launch combines, in a fixed order, those of the chunks before its own and goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.looped import ahead, write_loop
from mkwrap.codegen.triton.loops import closure, cut, scan_levels
from mkwrap.codegen.triton.module import Formal, Function, formals_of, function, source, workspace_formal
from mkwrap.codegen.triton.rows import Rows, chunked, part_guards, rows_of, write_elements, write_program, write_rows
from mkwrap.codegen.triton.scans import Texts, write_fold
from mkwrap.codegen.triton.tile import Dim, Tile, ceil_div, plain, power_of_two
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import element_level, scans
from mkwrap.ir.nodes import Expr, Instruction, Scan
from mkwrap.stages import Device, Kernel, Params, Source, Variant

# (length of a row, elements of a chunk) below which a second launch costs more than it brings.
_LEAST_INNER = (16384, 2048)
_LEAST_OUTER = (512, 64)
_LEAST_CHUNKS = 4
_MOST_CHUNKS = 2048
_ALIGNMENT = 64
# Triton 3.6 cannot scan fewer lanes than a warp has with several warps.
_LEAST_LANES = 32

# (rows, elements, warps, blocks per multiprocessor)
_INNER = ((1, 4096, 8, 4), (1, 8192, 8, 4), (1, 2048, 4, 8), (1, 4096, 8, 8))
_INNER_HEAVY = ((1, 1024, 4, 8), (1, 2048, 8, 4))
_OUTER = ((32, 64, 4, 8), (64, 64, 8, 4), (32, 128, 8, 4))
_OUTER_HEAVY = ((32, 32, 4, 8), (64, 32, 8, 4))


@dataclass(frozen=True)
class Plan:
    """Chunks per row, elements per chunk (a multiple of the tile's), and where each scan's totals lie.

    Of a dynamic length, the last chunks may have no elements.
    """

    rows: Rows
    levels: tuple[tuple[Scan, ...], ...]
    tile: Tile
    chunks: int
    chunk: int | Expr
    tiles: int | Expr
    formals: dict[str, tuple[Formal, ...]]
    """Per scan (its first result), the workspace arguments of its parts, each (chunks − 1) × rows."""
    workspace_bytes: int | Expr


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes and blocks per multiprocessor, where whole rows would leave multiprocessors idle."""
    rows = rows_of(kernel)
    if rows is None or not rows.rows or rows.length is None or not scan_levels(rows.nest):
        return ()
    least_length, least_chunk = _LEAST_INNER if rows.inner else _LEAST_OUTER
    if rows.length < least_length:
        return ()
    found: list[Params] = []
    inner, outer = (_INNER_HEAVY, _OUTER_HEAVY) if rows.heavy else (_INNER, _OUTER)
    for x, r, warps, waves in inner if rows.inner else outer:
        x_block = min(x, power_of_two(rows.rows))
        tiles = int(ceil_div(rows.rows, x_block))
        chunks = min(waves * device.units // tiles, rows.length // max(least_chunk, r), _MOST_CHUNKS)
        if chunks >= _LEAST_CHUNKS:
            found.append((("x", x_block), ("r", r), ("chunks", chunks), ("num_warps", warps)))
    return tuple(dict.fromkeys(found))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write a launch for the totals of each level, and one for the scans."""
    del device
    plan = _plan(kernel, variant)
    functions = [_totals_function(kernel, plan, level, variant.params) for level in range(len(plan.levels))]
    functions.append(_scan_function(kernel, plan, variant.params))
    guards = part_guards(plan.rows, plan.tile.dims[0], plan.chunks)
    return source(kernel, variant, functions, plan.workspace_bytes, guards)


def _plan(kernel: Kernel, variant: Variant) -> Plan:
    rows = rows_of(kernel, variant.params)
    assert rows is not None
    params = dict(variant.params)
    tile = rows.tile(int(params["x"]), int(params["r"]))
    x, r = tile.dims
    chunk, chunks = chunked(r, int(params["chunks"]))
    formals: dict[str, tuple[Formal, ...]] = {}
    place: int | Expr = 0
    for scan in scans(rows.nest):
        form = rows.form(scan)
        parts = []
        for name, part in zip(form.names(f"{scan.dests[0]}_chunks"), form.parts, strict=True):
            parts.append(workspace_formal(name, part.dtype, place))
            size = (chunks - 1) * x.numel * part.dtype.itemsize
            place = plain(place + ceil_div(size, _ALIGNMENT) * _ALIGNMENT)
        formals[scan.dests[0]] = tuple(parts)
    tiles = ceil_div(x.numel, x.block)
    return Plan(rows, scan_levels(rows.nest), tile, chunks, chunk, tiles, formals, place)


def _totals_function(kernel: Kernel, plan: Plan, level: int, params: Params) -> Function:
    """The launch that combines every chunk but the last of each row, which nothing follows."""
    writer = Writer()
    x, r = plan.tile.dims
    # The last chunk alone may run past the end. Of a dynamic length others may, but nobody asks for their totals.
    dynamic = plan.rows.length is None
    body = plan.rows.body(writer, Tile((x, Dim(r.name, r.axes, r.block, masked=dynamic))))
    own = plan.levels[level]
    nest = plan.rows.nest
    inner = element_level(nest)
    elements = closure(nest, inner, own)
    row_values = _row_values(plan)
    with writer.indented():
        _write_place(body, plan.chunks - 1)
        body.emit(row_values)
        for scan in (scan for scans_below in plan.levels[:level] for scan in scans_below):
            _write_carry(body, plan, scan)
        lanes = {scan: _write_start(body, plan, scan) for scan in own}
        span = body.atom(plan.chunk)
        end = f"tl.minimum(begin + {span}, {body.text(r.numel)})" if dynamic else f"begin + {span}"
        writer.line(f"begin = chunk{body.int64} * {span}")
        writer.line(f"for start in tl.range(begin, {end}, {r.block}):")
        with writer.indented():
            write_elements(body, "start")
            body.emit(elements)
            for scan in own:
                _write_more(body, plan, scan, lanes[scan])
        for scan in own:
            _write_total(body, plan, scan, lanes[scan])
    formals = _formals(kernel, plan, (*row_values, *elements), level + 1)
    return function(writer, formals, plan.tiles * (plan.chunks - 1), body.needs, params)


def _scan_function(kernel: Kernel, plan: Plan, params: Params) -> Function:
    """The launch that walks every chunk from what comes before it."""
    writer = Writer()
    body = plan.rows.body(writer, plan.tile)
    (loop,) = cut(plan.rows.nest).loops
    with writer.indented():
        _write_place(body, plan.chunks)
        body.emit(loop.rows)
        for scan in scans(plan.rows.nest):
            _write_carry(body, plan, scan)
        span = body.atom(plan.chunk)
        writer.line(f"begin = chunk{body.int64} * {span}")
        end = f"tl.minimum(begin + {span}, {body.text(plan.tile.dims[1].numel)})"
        write_loop(body, plan.rows, loop, ("begin", end), ahead(dict(params)))
    formals = _formals(kernel, plan, (*loop.rows, *loop.elements, *loop.stores), len(plan.levels))
    return function(writer, formals, plan.tiles * plan.chunks, body.needs, params)


def _row_values(plan: Plan) -> tuple[Instruction, ...]:
    (loop,) = cut(plan.rows.nest).loops
    return loop.rows


def _formals(kernel: Kernel, plan: Plan, instructions: tuple[Instruction, ...], levels: int) -> tuple[Formal, ...]:
    parts = [formal for level in plan.levels[:levels] for scan in level for formal in plan.formals[scan.dests[0]]]
    return (*formals_of(kernel, instructions, plan.rows.sizes), *parts)


def _write_place(body: Body, chunks: int) -> None:
    write_program(body)
    body.writer.line(f"chunk = program % {chunks}")
    write_rows(body, f"(program // {chunks})")


def _write_carry(body: Body, plan: Plan, scan: Scan) -> None:
    """Combine the totals of the chunks before this one, the latest in the last lane."""
    form, stem, lanes = plan.rows.form(scan), scan.dests[0], max(power_of_two(plan.chunks - 1), _LEAST_LANES)
    body.needs.update(form.needs)
    line = body.writer.line
    line(f"{stem}_before = chunk - {lanes} + tl.arange(0, {lanes})[None, :]")
    masks = " & ".join([f"({stem}_before >= 0)", *body.masks(frozenset({"x"}))])
    names = form.names(f"{stem}_held")
    for name, formal, part in zip(names, plan.formals[stem], form.parts, strict=True):
        place = f"({stem}_before * {body.atom(plan.tile.dims[0].numel)} + x)"
        line(f"{name} = tl.load({formal.name} + {place}, {masks}, other={part.neutral})")
    body.carries[stem] = write_fold(body.writer, form, f"{stem}_carry", names, lanes)


def _write_start(body: Body, plan: Plan, scan: Scan) -> Texts:
    """Write what a chunk's total starts from: a state per lane where lanes may be combined in any order."""
    form, stem = plan.rows.form(scan), scan.dests[0]
    body.needs.update(form.needs)
    dims = body.all_dims if form.commutes else frozenset({"x"})
    names = form.write_neutral(body.writer, f"{stem}_carry", body.tile.shape(dims))
    if not form.commutes:
        body.carries[stem] = names
    return names


def _write_more(body: Body, plan: Plan, scan: Scan, lanes: Texts) -> None:
    form, stem = plan.rows.form(scan), scan.dests[0]
    if not form.commutes:
        body.emit([scan])
        return
    names = form.names(f"{stem}_in")
    args = [body.full(arg) for arg in scan.args]
    for name, text in zip(names, form.lift(args, body.tile.shape(body.all_dims)), strict=True):
        body.writer.line(f"{name} = {text}")
    body.writer.line(f"{', '.join(lanes)} = {form.combine(lanes, names)}")


def _write_total(body: Body, plan: Plan, scan: Scan, lanes: Texts) -> None:
    """Store what this chunk adds."""
    form, stem = plan.rows.form(scan), scan.dests[0]
    names = form.names(f"{stem}_total") if form.commutes else lanes
    if form.commutes:
        body.writer.line(f"{', '.join(names)} = {form.fold(lanes)}")
    mask = "".join(f", {mask}" for mask in body.masks(frozenset({"x"})))
    for name, formal in zip(names, plan.formals[stem], strict=True):
        body.writer.line(f"tl.store({formal.name} + (chunk * {body.atom(plan.tile.dims[0].numel)} + x), {name}{mask})")


SCAN_CHUNKS = Template("scan_chunks", space, render, also=frozenset({Scan}))
