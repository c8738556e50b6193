"""Scans of long rows in one pass: tiles of a row run at once, and each looks back at the states of those before it.

Merrill and Garland (2016), "Single-pass Parallel Prefix Scan with Decoupled Look-back". A tile takes a number from a
counter, so that every tile it waits for has started; it publishes the total of its own elements, looks back until it
meets a tile that knows all before itself, and publishes what it knows then.

A state lies in words of 64 bits, each 32 bits of a value beside a flag: one access moves both, so no fence is needed. A
state of several words is believed where all its flags agree, since a flag only grows. Each round reads a window of at
least one word per thread: a window that several warps read twice could be seen in two states, and they would part ways.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.loops import cut, scan_levels
from mkwrap.codegen.triton.module import Formal, formals_of, function, source, workspace_formal
from mkwrap.codegen.triton.pointwise import max_one
from mkwrap.codegen.triton.rows import Rows, rows_of, streams, write_elements, write_rows
from mkwrap.codegen.triton.scans import Form, Texts, write_combined, write_fold, write_last
from mkwrap.codegen.triton.spelling import TYPES
from mkwrap.codegen.triton.tile import Tile, ceil_div, plain, power_of_two
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import scans
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr, Scan
from mkwrap.stages import Device, Kernel, Params, Source, Variant

# The shortest rows, in tiles, and the most tiles of rows per multiprocessor: beyond them a tile has nobody to wait for.
_LEAST_CHUNKS = 4
_MOST_TILES = 64
_WARP = 32
_LEAST_WINDOW = 16
_ALIGNMENT = 64

# (rows, elements, warps): 32 elements per thread and few warps, whose barriers are short; fewer elements where a state has
# several words or is dear to combine. Measured on an H100: 8 warps take 6 % longer, 16 warps 18 %; 16 elements 20 %.
_INNER = ((1, 4096, 4), (1, 8192, 8), (1, 2048, 2), (1, 8192, 4))
_INNER_HEAVY = ((1, 2048, 4), (1, 4096, 8), (1, 1024, 2), (1, 2048, 2))
_OUTER = ((32, 128, 4), (64, 64, 4), (32, 64, 2), (32, 256, 8), (16, 128, 2))
_OUTER_HEAVY = ((32, 64, 4), (64, 32, 4), (32, 32, 2), (16, 64, 2))

_TOTAL, _ALL = 1, 2
"""Flags: the word holds the total of one tile; of that and all before it. 0: nothing yet."""


@dataclass(frozen=True)
class Plan:
    """Tiles along the row (`chunks`) and across the rows (`tiles`), lanes that look back, and where states lie."""

    rows: Rows
    tile: Tile
    chunks: int | Expr
    tiles: int | Expr
    window: int
    counter: Formal
    states: dict[str, tuple[Formal, ...]]
    """Per scan (its first result) and word of a state: chunks × tiles × rows of a tile."""
    workspace_bytes: int | Expr

    @property
    def width(self) -> int:
        """Rows of one tile."""
        return self.tile.dims[0].block

    @property
    def pitch(self) -> int | Expr:
        """Words from a chunk to the next: rows that only fill up the last tile have states too."""
        return plain(self.tiles * self.width)


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes, where rows are long and few enough that whole ones would leave multiprocessors idle; see `streams`."""
    rows = rows_of(kernel)
    if rows is None or not rows.rows or rows.length is None or not scan_levels(rows.nest):
        return ()
    inner, outer = (_INNER_HEAVY, _OUTER_HEAVY) if rows.heavy else (_INNER, _OUTER)
    found: list[Params] = []
    for x, r_block, warps in inner if rows.inner else outer:
        x_block = min(x, power_of_two(rows.rows))
        if rows.length >= _LEAST_CHUNKS * r_block and int(ceil_div(rows.rows, x_block)) <= _MOST_TILES * device.units:
            found.append((("x", x_block), ("r", r_block), ("num_warps", warps)))
    if found and streams(kernel, device):
        found.insert(1, (*found[0], ("stream", True)))
    return tuple(dict.fromkeys(found))


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one launch of a program per tile."""
    del device
    plan = _plan(kernel, variant)
    writer = Writer()
    body = plan.rows.body(writer, plan.tile, bool(dict(variant.params).get("stream", False)))
    (loop,) = cut(plan.rows.nest).loops
    with writer.indented():
        writer.line(f'ticket = tl.atomic_add({plan.counter.name}, 1, sem="relaxed")')
        tiles = body.atom(plan.tiles)
        writer.line(f"chunk = ticket // {tiles}")
        write_rows(body, f"(ticket % {tiles}){body.int64}")
        write_elements(body, f"chunk{body.int64} * {plan.tile.dims[1].block}")
        writer.line(f"slot = (ticket % {tiles}) * {plan.width} + tl.arange(0, {plan.width})[:, None]")
        writer.line(f"lane = tl.arange(0, {plan.window})[None, :]")
        body.emit(loop.rows)
        for instruction in loop.elements:
            if isinstance(instruction, Scan):
                _write_scan(body, plan, instruction)
            else:
                body.emit([instruction])
        body.emit(loop.stores)
    states = [formal for formals in plan.states.values() for formal in formals]
    formals = (*formals_of(kernel, plan.rows.nest.body, plan.rows.sizes), plan.counter, *states)
    made = function(writer, formals, plain(plan.chunks * plan.tiles), body.needs, variant.params)
    return replace(source(kernel, variant, [made], plan.workspace_bytes), zero_workspace=True)


def _plan(kernel: Kernel, variant: Variant) -> Plan:
    rows = rows_of(kernel, variant.params)
    assert rows is not None
    params = dict(variant.params)
    x_block, r_block = int(params["x"]), int(params["r"])
    tile = rows.tile(x_block, r_block)
    tiles, chunks = (max_one(ceil_div(dim.numel, dim.block)) for dim in tile.dims)
    window = max(int(params["num_warps"]) * _WARP // x_block, _LEAST_WINDOW)
    counter = workspace_formal("counter", DType.INT32, 0)
    states: dict[str, tuple[Formal, ...]] = {}
    place: int | Expr = _ALIGNMENT
    for scan in scans(rows.nest):
        words = []
        for name in _pieces(rows.form(scan)):
            words.append(workspace_formal(f"{scan.dests[0]}_state_{name}", DType.INT64, place))
            size = chunks * tiles * x_block * DType.INT64.itemsize
            place = plain(place + ceil_div(size, _ALIGNMENT) * _ALIGNMENT)
        states[scan.dests[0]] = tuple(words)
    return Plan(rows, tile, chunks, tiles, window, counter, states, place)


def _pieces(form: Form) -> tuple[str, ...]:
    """Names of the 32-bit pieces of a state."""
    names: list[str] = []
    for k, part in enumerate(form.parts):
        names += [f"{k}"] if part.dtype.itemsize == 4 else [f"{k}_high", f"{k}_low"]
    return tuple(names)


def _write_scan(body: Body, plan: Plan, scan: Scan) -> None:
    form, stem, line = body.form(scan), scan.dests[0], body.writer.line
    body.needs.update(("maximum_int", "minimum_int"))
    own = body.scan_tile(scan)
    total = write_last(body.writer, form, f"{stem}_total", own, plan.tile.dims[1].block)
    line(f"{stem}_flag = tl.where(chunk == 0, {_ALL}, {_TOTAL})")
    _write_publish(body, plan, scan, total, f"{stem}_flag")
    held = form.write_neutral(body.writer, f"{stem}_held", f"[{plan.width}, 1]")
    line(f"{stem}_end = chunk")
    line(f"while {stem}_end > 0:")
    with body.writer.indented():
        _write_window(body, plan, scan, held)
    line("if chunk > 0:")
    with body.writer.indented():
        known = write_combined(body.writer, form, f"{stem}_known", held, total)
        _write_publish(body, plan, scan, known, str(_ALL))
    body.define_scan(scan, write_combined(body.writer, form, f"{stem}_all", held, own))


def _write_publish(body: Body, plan: Plan, scan: Scan, parts: Texts, flag: str) -> None:
    """Write a state with its flag, a word at a time."""
    form, place = body.form(scan), f"(chunk * {body.atom(plan.pitch)} + slot)"
    words: list[str] = []
    for text, part in zip(parts, form.parts, strict=True):
        kind = "tl.int32" if part.dtype.itemsize == 4 else "tl.int64"
        bits = text if TYPES[part.dtype] == kind else f"{text}.to({kind}, bitcast=True)"
        if part.dtype.itemsize == 4:
            words.append(f"({bits}.to(tl.int64) << 32) | {flag}")
        else:
            words += [f"({bits} >> 32 << 32) | {flag}", f"({bits} << 32) | {flag}"]
    for formal, word in zip(plan.states[scan.dests[0]], words, strict=True):
        body.writer.line(f'tl.atomic_xchg({formal.name} + {place}, {word}, sem="relaxed")')


def _write_window(body: Body, plan: Plan, scan: Scan, held: Texts) -> None:
    """Read the states of the tiles before `end`; once none that counts is missing, combine them and move on."""
    form, stem, line = body.form(scan), scan.dests[0], body.writer.line
    line(f"{stem}_at = {stem}_end - {plan.window} + lane")
    words = []
    for name, formal in zip(_pieces(form), plan.states[stem], strict=True):
        place = f"({stem}_at * {body.atom(plan.pitch)} + slot)"
        words.append(f"{stem}_word_{name}")
        line(f"{words[-1]} = tl.load({formal.name} + {place}, {stem}_at >= 0, other={_ALL}, volatile=True)")
    low, high = _write_flags(body, plan, stem, words)
    missing = f"{low} == 0" if low == high else f"({low} == 0) | ({low} != {high})"
    line(f"{stem}_rank = tl.where({missing}, 2 * lane + 1, tl.where({low} == {_ALL}, 2 * lane, -1))")
    line(f"{stem}_top = tl.reduce(tl.reduce({stem}_rank, 1, maximum_int), 0, maximum_int)")
    # The highest rank is odd where a state is missing, even where a tile knows all before it, −1 where none does.
    line(f"if ({stem}_top < 0) | ({stem}_top % 2 == 0):")
    with body.writer.indented():
        seen = _write_seen(body, form, stem, words)
        window = write_fold(body.writer, form, f"{stem}_window", seen, plan.window)
        line(f"{', '.join(held)} = {form.combine(window, held)}")
        line(f"{stem}_end = tl.where({stem}_top >= 0, 0, {stem}_end - {plan.window})")


def _write_flags(body: Body, plan: Plan, stem: str, words: list[str]) -> tuple[str, str]:
    """Write the least and the greatest flag of each tile, over the words of its states and over its rows."""
    line = body.writer.line
    line(f"{stem}_low = {words[0]}.to(tl.int32)")
    if len(words) == 1 and plan.width == 1:
        return f"{stem}_low", f"{stem}_low"
    line(f"{stem}_high = {stem}_low")
    for word in words[1:]:
        line(f"{stem}_low = tl.minimum({stem}_low, {word}.to(tl.int32))")
        line(f"{stem}_high = tl.maximum({stem}_high, {word}.to(tl.int32))")
    if plan.width > 1:
        line(f"{stem}_low = tl.reduce({stem}_low, 0, minimum_int, keep_dims=True)")
        line(f"{stem}_high = tl.reduce({stem}_high, 0, maximum_int, keep_dims=True)")
    return f"{stem}_low", f"{stem}_high"


def _write_seen(body: Body, form: Form, stem: str, words: list[str]) -> Texts:
    """Write the states of a window, neutral before the tile that knows all before itself."""
    names = form.names(f"{stem}_seen")
    place = iter(words)
    for name, part in zip(names, form.parts, strict=True):
        text = f"({next(place)} >> 32)"
        bits = f"{text}.to(tl.int32)"
        if part.dtype.itemsize == 8:
            bits = f"(({text} << 32) | ({next(place)} >> 32 & 4294967295))"
        kind = "tl.int32" if part.dtype.itemsize == 4 else "tl.int64"
        value = bits if TYPES[part.dtype] == kind else f"{bits}.to({TYPES[part.dtype]}, bitcast=True)"
        body.writer.line(f"{name} = tl.where(2 * lane >= {stem}_top, {value}, {part.neutral})")
    return names


SPLIT_SCAN = Template("split_scan", space, render, also=frozenset({Scan}))
