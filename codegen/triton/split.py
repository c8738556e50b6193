"""Reductions of few, long rows: every row is cut into chunks that run on different multiprocessors.

One launch per loop of the nest: each writes the parts of its chunks into the workspace, each later one merges them,
in a fixed order, before it goes on; a last one of a program per row finishes what follows the last reduction.
"""

from __future__ import annotations

from dataclasses import dataclass

from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.looped import write_loop
from mkwrap.codegen.triton.loops import Loop, Loops, cut, races_when_split
from mkwrap.codegen.triton.module import Formal, Function, formals_of, function, source, workspace_formal
from mkwrap.codegen.triton.pointwise import max_one
from mkwrap.codegen.triton.rows import Rows, rows_of, write_collapsed, write_program, write_rows
from mkwrap.codegen.triton.tile import Tile, ceil_div, power_of_two
from mkwrap.codegen.writer import Writer
from mkwrap.ir.nodes import Instruction, Reduce
from mkwrap.stages import Device, Kernel, Params, Source, Variant

# (length of a row, elements of a chunk) below which a second launch costs more than it brings.
_LEAST_INNER = (8192, 1024)
_LEAST_OUTER = (1024, 128)
_LEAST_CHUNKS = 4
_MOST_CHUNKS = 2048
_ALIGNMENT = 64


@dataclass(frozen=True)
class Plan:
    """Chunks per row, elements per chunk (a multiple of the tile's), and where each reduction's parts lie."""

    rows: Rows
    loops: Loops
    tile: Tile
    chunks: int
    chunk: int
    tiles: int
    formals: dict[str, tuple[Formal, ...]]
    """Per reduction (its first result), the workspace arguments of its parts, each chunks × rows."""
    workspace_bytes: int


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes and blocks per multiprocessor, where whole rows would leave multiprocessors idle."""
    rows = rows_of(kernel)
    if rows is None or rows.rows is None or rows.length is None or rows.rows < 1:
        return ()
    least_length, least_chunk = _LEAST_INNER if rows.inner else _LEAST_OUTER
    if rows.length < least_length:
        return ()
    found: list[Params] = []
    for x, r, warps, waves in _INNER if rows.inner else _OUTER:
        x_block = min(x, power_of_two(rows.rows))
        tiles = int(ceil_div(rows.rows, x_block))
        chunks = min(waves * device.units // tiles, rows.length // max(least_chunk, r), _MOST_CHUNKS)
        if chunks >= _LEAST_CHUNKS and tiles < 2 * device.units:
            found.append((("x", x_block), ("r", r), ("chunks", chunks), ("num_warps", warps)))
    nest = rows.nest
    return tuple(dict.fromkeys(found)) if found and not races_when_split(nest, cut(nest)) else ()


# (rows, elements, warps, blocks per multiprocessor)
_INNER = ((1, 2048, 8, 2), (1, 4096, 8, 1), (1, 1024, 4, 4), (1, 4096, 16, 2))
_OUTER = ((64, 32, 8, 2), (128, 16, 8, 2), (64, 16, 4, 4), (32, 64, 8, 2))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one launch per loop, and one for what is left once per row."""
    del device
    plan = _plan(kernel, variant)
    functions = []
    for number, loop in enumerate(plan.loops.loops):
        functions.append(_chunk_function(kernel, plan, number, loop, variant.params))
    if plan.loops.loops[-1].reduces:
        functions.append(_row_function(kernel, plan, variant.params))
    return source(kernel, variant, functions, plan.workspace_bytes)


def _plan(kernel: Kernel, variant: Variant) -> Plan:
    rows = rows_of(kernel)
    assert rows is not None
    assert rows.rows is not None
    assert rows.length is not None
    params = dict(variant.params)
    x_block, r_block = int(params["x"]), int(params["r"])
    chunk = int(ceil_div(int(ceil_div(rows.length, int(params["chunks"]))), r_block)) * r_block
    chunks = int(ceil_div(rows.length, chunk))
    loops = cut(rows.nest)
    formals: dict[str, tuple[Formal, ...]] = {}
    place = 0
    for loop in loops.loops:
        for reduce in loop.reduces:
            fold = rows.fold(reduce)
            parts = []
            for name, part in zip(fold.names(f"{reduce.dests[0]}_chunks"), fold.parts, strict=True):
                parts.append(workspace_formal(name, part.dtype, place))
                size = chunks * rows.rows * part.dtype.itemsize
                place += int(ceil_div(size, _ALIGNMENT)) * _ALIGNMENT
            formals[reduce.dests[0]] = tuple(parts)
    tiles = int(ceil_div(rows.rows, x_block))
    return Plan(rows, loops, rows.tile(x_block, r_block), chunks, chunk, tiles, formals, place)


def _chunk_function(kernel: Kernel, plan: Plan, number: int, loop: Loop, params: Params) -> Function:
    """The launch that walks every chunk once: tiles × chunks programs."""
    writer = Writer()
    body = plan.rows.body(writer, plan.tile)
    last = number == len(plan.loops.loops) - 1
    with writer.indented():
        write_program(body)
        writer.line(f"chunk = program % {plan.chunks}")
        write_rows(body, f"(program // {plan.chunks})")
        used = _write_earlier(body, plan, number)
        body.emit(loop.rows)
        writer.line(f"begin = chunk * {plan.chunk}")
        end = f"tl.minimum(begin + {plan.chunk}, {plan.rows.length})"
        write_loop(body, plan.rows, loop, ("begin", end), 1)
        for reduce in loop.reduces:
            _write_parts(body, plan, reduce)
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


def _row_function(kernel: Kernel, plan: Plan, params: Params) -> Function:
    """The launch that finishes each row: one program per tile of rows."""
    writer = Writer()
    body = plan.rows.body(writer, plan.tile)
    with writer.indented():
        write_program(body)
        write_rows(body, "program")
        used = _write_earlier(body, plan, len(plan.loops.loops))
        body.emit(plan.loops.rows)
        body.emit(plan.loops.row_stores)
    instructions = [*used, *plan.loops.rows, *plan.loops.row_stores]
    formals = _formals(kernel, plan, instructions, len(plan.loops.loops))
    return function(writer, formals, max_one(plan.tiles), body.needs, params)


def _formals(kernel: Kernel, plan: Plan, instructions: list[Instruction], loops: int) -> tuple[Formal, ...]:
    parts = [f for loop in plan.loops.loops[:loops] for r in loop.reduces for f in plan.formals[r.dests[0]]]
    return (*formals_of(kernel, instructions), *parts)


def _write_earlier(body: Body, plan: Plan, number: int) -> list[Instruction]:
    """Merge the parts of the loops before `number` and compute what those launches knew of each row."""
    used: list[Instruction] = []
    if number:
        lanes = power_of_two(plan.chunks)
        body.writer.line(f"part = tl.arange(0, {lanes})[None, :]")
        if lanes != plan.chunks:
            body.writer.line(f"part_mask = part < {plan.chunks}")
    for loop in plan.loops.loops[:number]:
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
        body.writer.line(f"{name} = tl.load({formal.name} + (part * {plan.rows.rows} + x){condition})")
    write_collapsed(body, plan.rows, reduce, names)


def _write_parts(body: Body, plan: Plan, reduce: Reduce) -> None:
    """Store the parts of this chunk, lanes collapsed."""
    fold = plan.rows.fold(reduce)
    names = fold.names(f"{reduce.dests[0]}_own")
    collapsed = fold.collapse(fold.names(f"{reduce.dests[0]}_part"), 1)
    body.writer.line(f"{', '.join(names)} = {collapsed}")
    mask = "".join(f", {mask}" for mask in body.masks(frozenset({"x"})))
    for name, formal in zip(names, plan.formals[reduce.dests[0]], strict=True):
        body.writer.line(f"tl.store({formal.name} + (chunk * {plan.rows.rows} + x), {name}{mask})")


SPLIT = Template("split", space, render)
