"""Reductions and scans that walk a row in blocks: as many loops as the nest needs, values per element computed anew in each."""

from __future__ import annotations

from collections.abc import Mapping

from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.loops import Loop, cut, races_when_split, scan_levels
from mkwrap.codegen.triton.module import formals_of, function, source
from mkwrap.codegen.triton.pointwise import max_one
from mkwrap.codegen.triton.rows import (
    Rows,
    lifted,
    rows_of,
    suited_rows,
    write_collapsed,
    write_elements,
    write_program,
    write_rows,
)
from mkwrap.codegen.triton.spelling import TYPES
from mkwrap.codegen.triton.tile import ceil_div, power_of_two
from mkwrap.codegen.triton.walk import walk_of, ways
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import scans
from mkwrap.ir.nodes import Reduce, Scan
from mkwrap.stages import Device, Kernel, Params, Source, Variant


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes, warps, and whether loads of the next block are issued ahead."""
    rows = suited_rows(kernel)
    if rows is None or (_starved(rows, device) and _cut_elsewhere(rows)):
        return ()
    shapes = _INNER if rows.inner else _OUTER
    length = None if rows.length is None else power_of_two(rows.length)
    most = None if rows.rows is None else power_of_two(rows.rows)
    found: list[Params] = []
    for x, elements, warps, stages in shapes:
        x_block = x if most is None else min(x, most)
        r = elements * (x // x_block) * (rows.per_word if rows.inner else 1)
        # A loop of one round is the persistent kernel, so a short row still gets two.
        r_block = r if length is None else max(min(r, length // 2), 1)
        fewest = max(min(warps, x_block * r_block // _LEAST_LANES), 1)
        params: Params = (("x", x_block), ("r", r_block), ("num_warps", fewest))
        found.append((*params, ("stages", stages)) if stages > 1 else params)
    # Where a row fits a block, walking it in pieces rarely wins: one shape is enough to find out.
    few = length is not None and length <= (_SHORT_INNER if rows.inner else _SHORT_OUTER)
    return ways(rows, tuple(dict.fromkeys(found[:1] if few else found)))


def _starved(rows: Rows, device: Device) -> bool:
    """Whether so few programs would walk such long rows that measuring them takes longer than it is worth."""
    if rows.rows is None or rows.length is None or rows.length < _LONG:
        return False
    return int(ceil_div(rows.rows, 1 if rows.inner else _OUTER[0][0])) * _SHARE <= device.units


def _cut_elsewhere(rows: Rows) -> bool:
    """Whether another template cuts the rows into chunks."""
    if scans(rows.nest):
        return bool(scan_levels(rows.nest))
    return not races_when_split(rows.nest, cut(rows.nest))


# A warp's work in a tile: four elements of each thread.
_LEAST_LANES = 128
_SHORT_INNER, _SHORT_OUTER = 1024, 256
_LONG = 65536
_SHARE = 8

# Each: rows and elements of the tile (of 4 bytes along a row; more of smaller ones), warps, blocks of loads ahead.
_INNER = ((1, 2048, 8, 3), (1, 1024, 8, 1), (1, 2048, 16, 3), (1, 4096, 16, 1))
_OUTER = ((32, 64, 8, 1), (64, 32, 8, 3), (64, 16, 4, 1), (64, 64, 8, 1))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one program per tile of rows."""
    del device
    found = rows_of(kernel, variant.params)
    assert found is not None
    walk = walk_of(found, variant.params)
    rows, params = walk.rows, dict(variant.params)
    x_block = int(params["x"])
    tile = rows.tile(x_block, int(params["r"]))
    writer = Writer()
    body = rows.body(writer, tile)
    with writer.indented():
        write_program(body)
        write_rows(body, "program")
        for number, loop in enumerate(walk.loops.loops):
            if number == 1 and walk.kept is not None:
                # What one thread stored in the first loop another may load in the second.
                writer.line("tl.debug_barrier()")
            body.emit(loop.rows)
            _start_scans(body, rows, loop)
            write_loop(body, rows, loop, ("0", body.text(tile.dims[1].numel)), ahead(params))
            for reduce in loop.reduces:
                parts = rows.fold(reduce).names(f"{reduce.dests[0]}_part")
                write_collapsed(body, rows, reduce, parts)
        body.emit(walk.loops.rows)
        body.emit(walk.loops.row_stores)
    grid = max_one(ceil_div(tile.dims[0].numel, x_block))
    formals = (*formals_of(kernel, rows.nest.body, rows.sizes), *walk.formals(0))
    made = function(writer, formals, grid, body.needs, variant.params)
    return source(kernel, variant, [made], walk.workspace_bytes, walk.guards)


def ahead(params: Mapping[str, int | str | bool]) -> str:
    """Options of a loop: how many blocks ahead loads are issued."""
    stages = int(params.get("stages", 1))
    return f", num_stages={stages}" if stages > 1 else ""


def _start_scans(body: Body, rows: Rows, loop: Loop) -> None:
    """Write the state of each scan of a loop before the first element of the row."""
    for scan in loop.elements:
        if isinstance(scan, Scan):
            stem, shape = scan.dests[0], body.tile.shape(frozenset({"x"}))
            body.carries[stem] = rows.form(scan).write_neutral(body.writer, f"{stem}_carry", shape)


def write_loop(body: Body, rows: Rows, loop: Loop, bounds: tuple[str, str], options: str) -> None:
    """Write one walk from `bounds[0]` to `bounds[1]`, leaving the parts of each reduction in accumulators.

    The accumulators of a reduction are named after its first result: `<dest>_part_0`, …
    """
    writer, tile = body.writer, body.tile
    shape = tile.shape(body.all_dims)
    for reduce in loop.reduces:
        fold = rows.fold(reduce)
        body.needs.update(fold.needs)
        for name, part in zip(fold.names(f"{reduce.dests[0]}_part"), fold.parts, strict=True):
            writer.line(f"{name} = tl.full({shape}, {part.neutral}, {TYPES[part.dtype]})")
    writer.line(f"for start in tl.range({bounds[0]}, {bounds[1]}, {tile.dims[1].block}{options}):")
    with writer.indented():
        write_elements(body, "start")
        body.emit(loop.elements)
        for reduce in loop.reduces:
            if reduce.op == "welford":
                _write_welford(body, rows, reduce, bounds[0])
            else:
                _write_merge(body, rows, reduce)
        body.emit(loop.stores)


def _write_merge(body: Body, rows: Rows, reduce: Reduce) -> None:
    fold = rows.fold(reduce)
    stem = reduce.dests[0]
    new, held = fold.names(f"{stem}_in"), fold.names(f"{stem}_part")
    for name, text in zip(new, lifted(body, rows, reduce), strict=True):
        body.writer.line(f"{name} = {text}")
    body.writer.line(f"{', '.join(held)} = {fold.merge(held, new)}")


def _write_welford(body: Body, rows: Rows, reduce: Reduce, begin: str) -> None:
    """Add one element to every lane (Welford 1962): the lanes' count is that of the rounds, so it is a scalar."""
    fold = rows.fold(reduce)
    stem, dtype = reduce.dests[0], TYPES[rows.fold(reduce).parts[0].dtype]
    mean, deviations, count = fold.names(f"{stem}_part")
    line, tile = body.writer.line, body.tile
    value = lifted(body, rows, reduce)[0]
    line(f"{stem}_in = {value}")
    line(f"{stem}_share = tl.full([], 1.0, {dtype}) / ((start - {begin}) // {tile.dims[1].block} + 1)")
    line(f"{stem}_apart = {stem}_in - {mean}")
    line(f"{stem}_mean = {mean} + {stem}_apart * {stem}_share")
    line(f"{stem}_more = {deviations} + {stem}_apart * ({stem}_in - {stem}_mean)")
    if tile.dims[1].masked:
        line(f"{mean} = tl.where(r_mask, {stem}_mean, {mean})")
        line(f"{deviations} = tl.where(r_mask, {stem}_more, {deviations})")
        line(f"{count} = {count} + tl.where(r_mask, 1.0, 0.0)")
    else:
        line(f"{mean} = {stem}_mean")
        line(f"{deviations} = {stem}_more")
        line(f"{count} = {count} + 1.0")


LOOPED = Template("looped", space, render, also=frozenset({Scan}))
