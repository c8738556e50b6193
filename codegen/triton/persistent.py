"""Reductions, scans and sorts whose whole row fits one block: every element is read once and stays in registers."""

from __future__ import annotations

import sympy

from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.module import formals_of, function, source
from mkwrap.codegen.triton.pointwise import max_one
from mkwrap.codegen.triton.rows import (
    Rows,
    lifted,
    row_blocks,
    rows_of,
    streams,
    suited_rows,
    write_collapsed,
    write_elements,
    write_program,
    write_rows,
)
from mkwrap.codegen.triton.spelling import TYPES
from mkwrap.codegen.triton.tile import ceil_div, power_of_two
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import alike_in_all_rows, defined, loads, scans, sorts
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Reduce, Scan, Sort, Store
from mkwrap.ir.ops import SORT_LIMIT
from mkwrap.stages import Device, Guard, Kernel, Params, Source, Variant

_INNER_LIMIT = 32768
_OUTER_LIMIT = 512
# Warps per multiprocessor that walk over tiles: as many as fit with 64 registers each thread, 65536 in all.
_WALKING_WARPS = 32
_LEAST_ROUNDS = 2
_MANY_LOADS = 2
# Elements of a row that several warps share.
_LONG = 1024


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Rows per program, elements that hold a whole row, and warps, best first.

    `stream`: what is read and written is not kept in the caches. `blocks`: so many programs per multiprocessor walk over
    the tiles of rows, loads issued `stages` ahead; else one program per tile.
    """
    rows = suited_rows(kernel)
    if rows is None or rows.length is None or rows.length > _limit(rows):
        return ()
    length = power_of_two(rows.length)
    sorted_rows = bool(sorts(rows.nest))
    shapes = _sort_shapes(length) if sorted_rows else _inner_shapes(length)
    if not sorted_rows and not rows.inner:
        shapes = _outer_scan_shapes(length, rows.heavy) if scans(rows.nest) else _outer_shapes(length)
    if rows.inner and not sorted_rows and length > _LONG and rows.rows is not None and rows.rows <= device.units:
        # A row for each multiprocessor or fewer: how soon one row is done is all that counts.
        shapes = shapes[::-1]
    elif len(loads(rows.nest)) > _MANY_LOADS and len(shapes) > 1 and not sorted_rows:
        # Several tiles at hand at once: more warps first, fewer registers for each thread.
        shapes = (shapes[1], shapes[0], *shapes[2:])
    most = power_of_two(rows.rows) if rows.rows is not None else None
    found: list[Params] = []
    for x, warps in shapes:
        block = x if most is None else min(x, most)
        found.append((("x", block), ("r", length), ("num_warps", max(min(warps, block * length // 32), 1))))
    found = list(dict.fromkeys(found))
    if sorted_rows:
        return tuple(found)
    streamed = [(*params, ("stream", True)) for params in found[:2]] if streams(kernel, device) else []
    walking: list[Params] = []
    if rows.inner and _walks(rows, found[0], device):
        warps = int(dict(found[0])["num_warps"])
        walking.append((*found[0], ("blocks", max(_WALKING_WARPS // warps, 1)), ("stages", 2)))
    return (*found[:2], *streamed, *found[2:], *walking)


def _walks(rows: Rows, params: Params, device: Device) -> bool:
    """Whether there are tiles enough for programs that walk over them, each hiding the latency of its next load."""
    tiles = row_blocks(rows, int(dict(params)["x"]))
    return tiles is None or tiles >= _LEAST_ROUNDS * _WALKING_WARPS * device.units // int(dict(params)["num_warps"])


def _limit(rows: Rows) -> int:
    """Elements of the longest row whose values, and states of scans, stay in registers."""
    if sorts(rows.nest):
        return SORT_LIMIT
    if not rows.inner:
        return _OUTER_LIMIT
    return _INNER_LIMIT if not scans(rows.nest) else _INNER_LIMIT // (4 if rows.heavy else 2)


def _inner_shapes(length: int) -> tuple[tuple[int, int], ...]:
    """(rows, warps) for contiguous rows: 8 to 32 elements per thread; one warp for several short rows."""
    if length > 16384:
        return ((1, 32), (1, 16))
    if length > _LONG:
        warps = min(max(length // 1024, 2), 16)
        return ((1, warps), (1, 2 * warps), (1, min(4 * warps, 32)))
    return ((2048 // length, 4), (1024 // length, 1), (max(512 // length, 1), max(length // 256, 1)))


def _outer_scan_shapes(length: int, heavy: bool) -> tuple[tuple[int, int], ...]:
    """(rows, warps) for scans across rows: 32 elements per thread, 8 where states are large or dear to combine."""
    share = 256 if heavy else 1024
    return tuple((x, min(max(x * length // share, 1), 16)) for x in (32, 64, 16) if x * length <= 16 * share) or (
        (16, 16),
    )


def _sort_shapes(length: int) -> tuple[tuple[int, int], ...]:
    """(rows, warps) for rows that are sorted: 4 or 8 elements per thread, a few rows where they are short."""
    widths = [max(elements // length, 1) for elements in (1024, 2048, 256)]
    found = [(x, min(max(x * length // share, 1), 32)) for x, share in zip(widths, (256, 256, 128), strict=True)]
    return tuple(dict.fromkeys(found))


def _outer_shapes(length: int) -> tuple[tuple[int, int], ...]:
    """(rows, warps) where neighbouring rows are contiguous: the width of the accesses comes first."""
    shapes = ((64, 1024), (32, 512), (64, 2048), (128, 1024), (16, 256))
    found = [(x, min(max(x * length // share, 1), 8)) for x, share in shapes if x * length <= 16384]
    return tuple(dict.fromkeys(found))[:4] or ((16, 8),)


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one program per tile of rows, or `blocks` per multiprocessor that walk over the tiles."""
    rows = rows_of(kernel, variant.params)
    assert rows is not None
    params = dict(variant.params)
    # `longest`: a form for rows up to the limits, the tile as large as the point's wherever it can be.
    r_block, blocks = max(int(params["r"]), int(params.get("longest", 0))), int(params.get("blocks", 0))
    x_block = max(int(params["x"]) * int(params["r"]) // r_block, 1)
    tile = rows.tile(x_block, r_block)
    writer = Writer()
    body = rows.body(writer, tile, stream=bool(params.get("stream", False)))
    count = ceil_div(tile.dims[0].numel, x_block)
    grid = max_one(count)
    with writer.indented():
        write_program(body)
        write_elements(body)
        if not blocks:
            _write_tile(body, rows, "program", frozenset())
        else:
            grid = blocks * device.units
            tiles = body.text(sympy.sympify(count))
            alike = alike_in_all_rows(rows.nest)
            body.emit(i for i in rows.nest.body if alike.intersection(defined(i)))
            writer.line(f"for tile in tl.range(program, {tiles}, {grid}, num_stages={params['stages']}):")
            with writer.indented():
                _write_tile(body, rows, "tile", alike)
    made = function(writer, formals_of(kernel, rows.nest.body, rows.sizes), grid, body.needs, variant.params)
    whole = [Guard(tile.dims[1].numel, most=r_block)] if rows.length is None else []
    return source(kernel, variant, [made], guards=whole)


def _write_tile(body: Body, rows: Rows, number: str, known: frozenset[str]) -> None:
    """Write the body for one tile of rows but what is `known`; stores come last: loads want the contents before."""
    write_rows(body, number)
    for instruction in rows.nest.body:
        if isinstance(instruction, Reduce):
            _write_reduce(body, rows, instruction)
        elif not isinstance(instruction, Store) and not known.intersection(defined(instruction)):
            body.emit([instruction])
    body.emit(i for i in rows.nest.body if isinstance(i, Store))


def _write_reduce(body: Body, rows: Rows, reduce: Reduce) -> None:
    if reduce.op == "welford":
        _write_two_pass(body, rows, reduce)
        return
    fold = rows.fold(reduce)
    names = fold.names(f"{reduce.dests[0]}_in")
    for name, text in zip(names, lifted(body, rows, reduce), strict=True):
        body.writer.line(f"{name} = {text}")
    write_collapsed(body, rows, reduce, names)


def _write_two_pass(body: Body, rows: Rows, reduce: Reduce) -> None:
    """Mean first, then the sum of squared deviations: the row is at hand, so the exact way costs no memory traffic."""
    mean, deviations = reduce.dests
    body.needs.add("add")
    (value,) = lifted(body, rows, reduce)[:1]
    line = body.writer.line
    line(f"{mean}_in = {value}")
    total, count = f"tl.reduce({mean}_in, 1, add, keep_dims=True)", _count(body, rows, reduce.dtypes[0])
    double = reduce.dtypes[0] is DType.FLOAT64
    line(f"{mean} = {total} / {count}" if double else f"{mean} = tl.div_rn({total}, {count})")
    apart = f"{mean}_in - {mean}"
    if body.tile.dims[1].masked:
        apart = f"tl.where(r_mask, {apart}, 0)"
    line(f"{mean}_apart = {apart}")
    line(f"{deviations} = tl.reduce({mean}_apart * {mean}_apart, 1, add, keep_dims=True)")
    for name, dtype in zip(reduce.dests, reduce.dtypes, strict=True):
        body.define(name, name, dtype, frozenset({"x"}))


def _count(body: Body, rows: Rows, dtype: DType) -> str:
    """Spell what a sum is divided by; a row of no elements has no mean, and dividing by 1 then keeps it 0."""
    if rows.length is not None:
        return str(float(max(rows.length, 1)))
    return f"tl.maximum({body.text(body.tile.dims[1].numel)}, 1).to({TYPES[dtype]})"


PERSISTENT = Template("persistent", space, render, also=frozenset({Scan, Sort}))
