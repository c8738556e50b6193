"""Reductions of few, long rows: every row is cut into chunks that run on different multiprocessors.

One launch per loop of the nest: each writes the parts of its chunks into the workspace, each later one merges them,
in a fixed order, before it goes on; a last one of a program per row finishes what follows the last reduction.
`single` needs one launch where there is one loop: programs count themselves in, the last of a row finishes it. No
program waits for another, so the grid may be larger than what is resident, and order decides nothing but who merges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.looped import ahead, write_loop
from mkwrap.codegen.triton.loops import Loop, Loops, cut, races_when_split
from mkwrap.codegen.triton.module import Formal, Function, formals_of, function, source, workspace_formal
from mkwrap.codegen.triton.online import online
from mkwrap.codegen.triton.pointwise import max_one
from mkwrap.codegen.triton.rows import (
    Rows,
    chunked,
    part_guards,
    rows_of,
    suited_rows,
    write_collapsed,
    write_program,
    write_rows,
)
from mkwrap.codegen.triton.tile import Tile, ceil_div, plain, power_of_two
from mkwrap.codegen.triton.walk import walk_of, ways
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import reduces
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr, Instruction, Load, Reduce, Store
from mkwrap.stages import Device, Guard, Kernel, Params, Source, Variant

# (length of a row, elements of a chunk) below which a second launch costs more than it brings.
_LEAST_INNER = (8192, 1024)
_LEAST_OUTER = (1024, 128)
_LEAST_CHUNKS = 4
_MOST_CHUNKS = 8192
_ALIGNMENT = 64


@dataclass(frozen=True)
class Plan:
    """Chunks per row, elements per chunk (a multiple of the tile's), and where each reduction's parts lie.

    Of a dynamic length, the last chunks may have no elements.
    """

    rows: Rows
    loops: Loops
    tile: Tile
    chunks: int
    chunk: int | Expr
    tiles: int | Expr
    formals: dict[str, tuple[Formal, ...]]
    """Per reduction (its first result), the workspace arguments of its parts, each chunks × rows."""
    counters: Formal | None
    """`single`: per tile of rows, the programs that are done."""
    kept: tuple[Formal, ...]
    """`keep`: the workspace of the value kept between loops, if it needs one."""
    workspace_bytes: int | Expr
    guards: tuple[Guard, ...]


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes and blocks per multiprocessor, where whole rows would leave multiprocessors idle."""
    rows = suited_rows(kernel)
    if rows is None or rows.rows is None or rows.length is None or rows.rows < 1:
        return ()
    least_length, least_chunk = _LEAST_INNER if rows.inner else _LEAST_OUTER
    if rows.length < least_length:
        return ()
    found: list[tuple[bool, Params]] = []
    for x, elements, warps, waves, stages in _shapes(rows):
        x_block = min(x, power_of_two(rows.rows))
        # Of few rows, more elements: as many bytes in flight.
        r = elements * (x // x_block) * (1 if _many_parts(rows) else rows.per_word)
        tiles = int(ceil_div(rows.rows, x_block))
        chunks = min(waves * device.units // tiles, rows.length // max(least_chunk, r), _MOST_CHUNKS)
        if chunks >= _LEAST_CHUNKS and tiles < 2 * device.units:
            params: Params = (("x", x_block), ("r", r), ("chunks", chunks), ("num_warps", warps))
            idle = tiles * chunks * 4 < device.units * 3
            found.append((idle, (*params, ("stages", stages)) if stages > 1 else params))
    loops = cut(rows.nest)
    if not found or races_when_split(rows.nest, loops):
        return ()
    ordered = [params for _, params in sorted(found, key=lambda entry: entry[0])]
    if len(loops.loops) == 1 and loops.loops[0].reduces:
        ordered.append((*ordered[0], ("single", True)))
    return ways(rows, tuple(dict.fromkeys(ordered)))


# Rows, elements (of 4 bytes; more of smaller ones), warps, blocks per multiprocessor, blocks of loads ahead. Measured on
# an H100: a multiprocessor needs some 40 KB of loads in flight, from many registers or from loads ahead; registers are
# short where an element has many parts.
_INNER = ((1, 8192, 8, 32, 1), (1, 4096, 8, 2, 3), (1, 2048, 8, 4, 1), (1, 2048, 8, 4, 3))
_INNER_MANY_PARTS = ((1, 4096, 8, 2, 3), (1, 2048, 8, 4, 3), (1, 4096, 8, 32, 1), (1, 2048, 8, 4, 1))
_OUTER = ((128, 64, 8, 2, 1), (64, 64, 8, 4, 1), (128, 32, 8, 2, 3), (128, 32, 4, 4, 1), (256, 32, 8, 2, 2))


def _shapes(rows: Rows) -> tuple[tuple[int, int, int, int, int], ...]:
    if not rows.inner:
        return _OUTER
    return _INNER_MANY_PARTS if _many_parts(rows) else _INNER


def _many_parts(rows: Rows) -> bool:
    """Whether some reduction keeps several parts per lane, or will where loops are merged."""
    return online(rows.nest) is not None or any(len(rows.fold(reduce).parts) > 1 for reduce in reduces(rows.nest))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one launch per loop, and one for what is left once per row."""
    del device
    plan = _plan(kernel, variant)
    if plan.counters is not None:
        only = _single_function(kernel, plan, plan.counters, variant.params)
        return replace(source(kernel, variant, [only], plan.workspace_bytes, plan.guards), zero_workspace=True)
    functions = []
    for number, loop in enumerate(plan.loops.loops):
        functions.append(_chunk_function(kernel, plan, number, loop, variant.params))
    if plan.loops.loops[-1].reduces:
        functions.append(_row_function(kernel, plan, variant.params))
    return source(kernel, variant, functions, plan.workspace_bytes, plan.guards)


def _plan(kernel: Kernel, variant: Variant) -> Plan:
    found = rows_of(kernel, variant.params)
    assert found is not None
    walk = walk_of(found, variant.params)
    rows, loops = walk.rows, walk.loops
    params = dict(variant.params)
    tile = rows.tile(int(params["x"]), int(params["r"]))
    x, r = tile.dims
    chunk, chunks = chunked(r, int(params["chunks"]))
    tiles = ceil_div(x.numel, x.block)
    formals: dict[str, tuple[Formal, ...]] = {}
    place: int | Expr = 0
    counters = None
    if params.get("single", False):
        counters = workspace_formal("counters", DType.INT32, 0)
        place = _aligned(tiles * DType.INT32.itemsize)
    for loop in loops.loops:
        for reduce in loop.reduces:
            fold = rows.fold(reduce)
            parts = []
            for name, part in zip(fold.names(f"{reduce.dests[0]}_chunks"), fold.parts, strict=True):
                parts.append(workspace_formal(name, part.dtype, place))
                place += _aligned(chunks * x.numel * part.dtype.itemsize)
            formals[reduce.dests[0]] = tuple(parts)
    kept = walk.formals(place)
    place += _aligned(walk.workspace_bytes)
    guards = (*walk.guards, *part_guards(rows, x, chunks))
    return Plan(rows, loops, tile, chunks, chunk, tiles, formals, counters, kept, place, guards)


def _aligned(size: int | Expr) -> int | Expr:
    return plain(ceil_div(size, _ALIGNMENT) * _ALIGNMENT)


def _chunk_function(kernel: Kernel, plan: Plan, number: int, loop: Loop, params: Params) -> Function:
    """The launch that walks every chunk once: tiles × chunks programs."""
    writer = Writer()
    body = plan.rows.body(writer, plan.tile)
    last = number == len(plan.loops.loops) - 1
    with writer.indented():
        write_program(body)
        used = _write_chunk(body, plan, loop, params, plan.loops.loops[:number])
        instructions: list[Instruction] = [*used, *loop.rows, *loop.elements, *loop.stores]
        if last and not loop.reduces:
            body.emit(plan.loops.rows)
            if plan.loops.row_stores:
                writer.line("if chunk == 0:")
                with writer.indented():
                    body.emit(plan.loops.row_stores)
            instructions += [*plan.loops.rows, *plan.loops.row_stores]
    formals = _formals(kernel, plan, instructions, number + 1)
    return function(writer, formals, plan.tiles * plan.chunks, body.needs, params)


def _single_function(kernel: Kernel, plan: Plan, counters: Formal, params: Params) -> Function:
    """The only launch: tiles × chunks programs, the last of each tile to be done merges the parts of all."""
    writer = Writer()
    body = plan.rows.body(writer, plan.tile)
    (loop,) = plan.loops.loops
    with writer.indented():
        write_program(body)
        _write_chunk(body, plan, loop, params, [])
        # Every thread's stores come before the one that counts, and the count before the loads of what others stored.
        writer.line("tl.debug_barrier()")
        writer.line(f'arrived = tl.atomic_add({counters.name} + program // {plan.chunks}, 1, sem="acq_rel")')
        writer.line(f"if arrived == {plan.chunks - 1}:")
        with writer.indented():
            _write_parts_of_all(body, plan)
            for reduce in loop.reduces:
                _write_merged(body, plan, reduce)
            body.emit(plan.loops.rows)
            body.emit(plan.loops.row_stores)
    instructions = [*loop.rows, *loop.elements, *loop.stores, *plan.loops.rows, *plan.loops.row_stores]
    formals = (*_formals(kernel, plan, instructions, 1), counters)
    return function(writer, formals, plan.tiles * plan.chunks, body.needs, params)


def _row_function(kernel: Kernel, plan: Plan, params: Params) -> Function:
    """The launch that finishes each row: one program per tile of rows."""
    writer = Writer()
    body = plan.rows.body(writer, plan.tile)
    with writer.indented():
        write_program(body)
        write_rows(body, "program")
        used = _write_earlier(body, plan, plan.loops.loops)
        body.emit(plan.loops.rows)
        body.emit(plan.loops.row_stores)
    instructions = [*used, *plan.loops.rows, *plan.loops.row_stores]
    formals = _formals(kernel, plan, instructions, len(plan.loops.loops))
    return function(writer, formals, max_one(plan.tiles), body.needs, params)


def _formals(kernel: Kernel, plan: Plan, instructions: list[Instruction], loops: int) -> tuple[Formal, ...]:
    parts = [f for loop in plan.loops.loops[:loops] for r in loop.reduces for f in plan.formals[r.dests[0]]]
    touched = {i.buffer for i in instructions if isinstance(i, Load | Store)}
    return (*formals_of(kernel, instructions, plan.rows.sizes), *parts, *(f for f in plan.kept if f.name in touched))


def _write_chunk(body: Body, plan: Plan, loop: Loop, params: Params, earlier: Sequence[Loop]) -> list[Instruction]:
    """Write the walk over one chunk and the stores of its parts; returns what was computed anew of `earlier` loops."""
    line = body.writer.line
    line(f"chunk = program % {plan.chunks}")
    write_rows(body, f"(program // {plan.chunks})")
    used = _write_earlier(body, plan, earlier)
    body.emit(loop.rows)
    span = body.atom(plan.chunk)
    line(f"begin = chunk * {span}")
    end = f"tl.minimum(begin + {span}, {body.text(plan.tile.dims[1].numel)})"
    write_loop(body, plan.rows, loop, ("begin", end), ahead(dict(params)))
    for reduce in loop.reduces:
        _write_parts(body, plan, reduce)
    return used


def _write_parts_of_all(body: Body, plan: Plan) -> None:
    """Write the numbers of the chunks, one per lane."""
    lanes = power_of_two(plan.chunks)
    body.writer.line(f"part = tl.arange(0, {lanes})[None, :]")
    if lanes != plan.chunks:
        body.writer.line(f"part_mask = part < {plan.chunks}")


def _write_earlier(body: Body, plan: Plan, earlier: Sequence[Loop]) -> list[Instruction]:
    """Merge the parts of earlier loops and compute what those launches knew of each row."""
    used: list[Instruction] = []
    if earlier:
        _write_parts_of_all(body, plan)
    for loop in earlier:
        body.emit(loop.rows)
        used.extend(loop.rows)
        for reduce in loop.reduces:
            _write_merged(body, plan, reduce)
    return used


def _write_merged(body: Body, plan: Plan, reduce: Reduce) -> None:
    fold = plan.rows.fold(reduce)
    masks = (["part_mask"] if power_of_two(plan.chunks) != plan.chunks else []) + body.masks(frozenset({"x"}))
    names = fold.names(f"{reduce.dests[0]}_all")
    for name, formal, part in zip(names, plan.formals[reduce.dests[0]], fold.parts, strict=True):
        condition = f", {' & '.join(masks)}, other={part.neutral}" if masks else ""
        body.writer.line(
            f"{name} = tl.load({formal.name} + (part * {body.atom(plan.tile.dims[0].numel)} + x){condition})"
        )
    write_collapsed(body, plan.rows, reduce, names)


def _write_parts(body: Body, plan: Plan, reduce: Reduce) -> None:
    """Store the parts of this chunk, lanes collapsed."""
    fold = plan.rows.fold(reduce)
    names = fold.names(f"{reduce.dests[0]}_own")
    collapsed = fold.collapse(fold.names(f"{reduce.dests[0]}_part"), 1)
    body.writer.line(f"{', '.join(names)} = {collapsed}")
    mask = "".join(f", {mask}" for mask in body.masks(frozenset({"x"})))
    for name, formal in zip(names, plan.formals[reduce.dests[0]], strict=True):
        body.writer.line(f"tl.store({formal.name} + (chunk * {body.atom(plan.tile.dims[0].numel)} + x), {name}{mask})")


SPLIT = Template("split", space, render)
