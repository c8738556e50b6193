"""Matrix products: tiles of the result, accumulated over blocks of the depth, with the epilogue applied in registers.

`matmul` multiplies tiles with `tl.dot` (tensor cores; float32 operands exactly, or as three TF32 products); `dot_loop`
adds outer products for the dtypes that tensor cores do not take (integers, float64).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from mkwrap.codegen.matmul_roles import Operand
from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.module import formals_of, function, source
from mkwrap.codegen.triton.precision import approximable
from mkwrap.codegen.triton.products import Extents, Product, product_of
from mkwrap.codegen.triton.sizes import Sizes, sizes_of
from mkwrap.codegen.triton.spelling import TYPES
from mkwrap.codegen.triton.tile import Dim, Tile, ceil_div, overhangs, plain, power_of_two, static
from mkwrap.codegen.writer import Writer
from mkwrap.errors import DynamicShapeError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Axis, Compute, Expr
from mkwrap.ir.ops import OPS
from mkwrap.stages import Device, Kernel, Params, Source, Variant

_Shape: TypeAlias = tuple[int, int, int, int, int, float]

# (m, n, k, warps, stages, work done per unit of time next to the best tile)
_NARROW = (
    (128, 256, 64, 8, 3, 1.0),
    (128, 128, 64, 8, 4, 0.9),
    (128, 128, 64, 4, 4, 0.85),
    (256, 128, 64, 8, 3, 0.95),
    (64, 256, 64, 4, 4, 0.8),
    (64, 128, 64, 4, 4, 0.7),
    (128, 64, 64, 4, 4, 0.7),
    (64, 64, 64, 4, 5, 0.5),
    (32, 64, 128, 4, 4, 0.35),
    (64, 32, 128, 4, 4, 0.35),
    (16, 64, 128, 4, 5, 0.22),
    (16, 128, 128, 4, 4, 0.25),
    (16, 32, 256, 4, 4, 0.15),
    (32, 32, 128, 4, 5, 0.25),
)
_SINGLE = (
    (64, 64, 32, 4, 3, 1.0),
    (128, 64, 32, 8, 3, 1.0),
    (64, 128, 32, 8, 3, 1.0),
    (32, 64, 32, 4, 3, 0.8),
    (64, 32, 32, 4, 3, 0.8),
    (32, 32, 32, 4, 3, 0.6),
    (16, 64, 64, 4, 3, 0.4),
    (16, 32, 64, 2, 4, 0.3),
)
_MOST_VARIANTS = 6
# Vector instructions of epilogue per thread: it is unrolled, and past this it takes ptxas seconds.
_MOST_EPILOGUE = 2000
_GROUP = 8
_LEAST = 16


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes that fit shared memory, by the time that rounds of tiles over the multiprocessors would take."""
    product = product_of(kernel)
    if product is None or product.extents is None or not product.tensor_cores:
        return ()
    if min(product.extents.m, product.extents.n) < _LEAST // 4:
        return ()
    single = product.roles.a.dtype is DType.FLOAT32
    ranked = _ranked(product, product.extents, device, _SINGLE if single else _NARROW)
    if not single:
        return tuple((*params, ("precision", "ieee")) for params in ranked)
    exact = [(*params, ("precision", "ieee")) for params in ranked[:3]]
    return (*exact, *((*params, ("precision", "tf32x3")) for params in ranked[:3]))


def _ranked(product: Product, size: Extents, device: Device, tiles: Sequence[_Shape]) -> list[Params]:
    """Tiles by expected time, those first whose epilogue does not unroll beyond measure."""
    weight = sum(OPS[i.op].cost for i in product.roles.epilogue if isinstance(i, Compute))
    scored: list[tuple[bool, float, Params]] = []
    for m, n, k, warps, stages, speed in tiles:
        height, width = (min(b, max(power_of_two(e), _LEAST)) for b, e in ((m, size.m), (n, size.n)))
        depth = min(k, max(power_of_two(size.k), _LEAST))
        if (height + width) * depth * stages * product.roles.a.dtype.itemsize > device.shared_bytes:
            continue
        heavy = weight * height * width // (32 * warps) > _MOST_EPILOGUE
        count = size.batch * int(ceil_div(size.m, height)) * int(ceil_div(size.n, width))
        # Narrow tiles of a clipped shape run no faster than the tile they came from.
        time = int(ceil_div(count, device.units)) * m * n / speed
        tile = (("m", height), ("n", width), ("k", depth), ("num_warps", warps), ("num_stages", stages))
        scored.append((heavy, time, tile))
    scored.sort(key=lambda entry: entry[:2])
    light = [params for heavy, _, params in scored if not heavy] or [params for _, _, params in scored[:2]]
    return list(dict.fromkeys(light))[:_MOST_VARIANTS]


def _dims(product: Product, m: int, n: int) -> tuple[Dim, Dim, Dim]:
    roles = product.roles
    return Dim("batch", roles.batch, 0, False), _dim("m", roles.m, m), _dim("n", roles.n, n)


def _dim(name: str, axes: tuple[Axis, ...], block: int) -> Dim:
    return Dim(name, axes, block, overhangs(static([axis.extent for axis in axes]), block))


def _body(product: Product, writer: Writer, tile: Tile, sizes: Sizes) -> Body:
    return Body(writer, tile, buffers_of(product.kernel), sizes, approximable(product.kernel.nest))


def _write_tile(body: Body, dims: tuple[Dim, Dim, Dim]) -> int | Expr:
    """Write which tile a program makes and its positions; returns the number of programs.

    Neighbouring programs share a group of rows of tiles, so that their operands stay in the L2 cache.
    """
    batch, m, n = dims
    high, wide = ceil_div(m.numel, m.block), ceil_div(n.numel, n.block)
    every, share, line = body.atom(high * wide), body.atom(_GROUP * wide), body.writer.line
    line(f"program = tl.program_id(0){body.int64}")
    line(f"batch = program // {every}")
    line(f"place = program % {every}")
    line(f"first = place // {share} * {_GROUP}")
    line(f"group = tl.minimum({body.atom(high)} - first, {_GROUP})")
    line(f"m = (first + place % {share} % group) * {m.block} + tl.arange(0, {m.block})[:, None]")
    line(f"n = place % {share} // group * {n.block} + tl.arange(0, {n.block})[None, :]")
    for dim in (m, n):
        if dim.masked:
            line(f"{dim.mask} = {dim.name} < {body.extent(dim)}")
    return plain(batch.numel * high * wide)


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one program per tile of the result."""
    del device
    product = _product(kernel)
    params = dict(variant.params)
    m, n, k = int(params["m"]), int(params["n"]), int(params["k"])
    writer, sizes = Writer(), sizes_of(kernel, variant.params)
    dims = _dims(product, m, n)
    batch, rows, columns = dims
    over_a, over_b = _dim("ka", product.roles.k, k), _dim("kb", product.roles.k, k)
    left = _body(product, writer, Tile((batch, rows, over_a)), sizes)
    right = _body(product, writer, Tile((batch, over_b, columns)), sizes)
    with writer.indented():
        grid = _write_tile(left, dims)
        writer.line(f"total = tl.full([{m}, {n}], 0, tl.float32)")
        writer.line(f"for start in tl.range(0, {left.text(over_a.numel)}, {k}):")
        with writer.indented():
            writer.line(f"ka = start + tl.arange(0, {k})[None, :]{left.int64}")
            writer.line(f"kb = start + tl.arange(0, {k})[:, None]{left.int64}")
            masked = over_a.masked
            if masked:
                writer.lines(f"{dim.mask} = {dim.name} < {left.extent(dim)}" for dim in (over_a, over_b))
            _write_operand(left, product.roles.a, "a", "ka_mask" if masked else "")
            _write_operand(right, product.roles.b, "b", "kb_mask" if masked else "")
            writer.line(f'total = tl.dot(a, b, total, input_precision="{params["precision"]}")')
        final = _body(product, writer, Tile((batch, rows, columns)), sizes)
        _write_epilogue(product, final)
    needs = left.needs | right.needs | final.needs
    made = function(writer, formals_of(kernel, product.kernel.nest.body, sizes), grid, needs, variant.params)
    return source(kernel, variant, [replace(made, contract=True)])


def _product(kernel: Kernel) -> Product:
    """Read a kernel as a product again, whose point was one."""
    product = product_of(kernel)
    if product is None:
        raise DynamicShapeError(f"{kernel.name} is a matrix product at some of its sizes, but not at all of them")
    return product


def _write_operand(body: Body, operand: Operand, name: str, mask: str) -> None:
    """Write one operand's tile; beyond the depth it is 0, which a load gives by itself and computed values do not."""
    body.emit(operand.body)
    text = body.full(operand.value)
    if mask and operand.plain_load is None:
        text = f"tl.where({mask}, {text}, 0).to({TYPES[operand.dtype]})"
    body.writer.line(f"{name} = {text}")


def _write_epilogue(product: Product, body: Body) -> None:
    body.define(product.roles.result, "total", product.roles.accumulator, body.all_dims)
    body.emit(product.roles.epilogue)


def loop_space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes for operands that tensor cores do not take."""
    product = product_of(kernel)
    if product is None or product.extents is None or product.tensor_cores:
        return ()
    size = product.extents
    found: list[Params] = []
    shapes = ((64, 64, 8), (64, 32, 4), (32, 32, 4), (16, 16, 2))
    tiles = [int(ceil_div(size.m, m)) * int(ceil_div(size.n, n)) * size.batch for m, n, _ in shapes]
    ranked = sorted(range(len(shapes)), key=lambda s: tiles[s] < device.units)
    for m, n, warps in (shapes[s] for s in ranked):
        height, width = min(m, power_of_two(size.m)), min(n, power_of_two(size.n))
        found.append((("m", height), ("n", width), ("num_warps", max(min(warps, height * width // 32), 1))))
    return tuple(dict.fromkeys(found))


def render_loop(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one program per tile of the result; every step of the depth adds an outer product."""
    del device
    product = _product(kernel)
    params = dict(variant.params)
    m, n = int(params["m"]), int(params["n"])
    writer, sizes = Writer(), sizes_of(kernel, variant.params)
    dims = _dims(product, m, n)
    depth = Dim("k", product.roles.k, 0, False)
    body = _body(product, writer, Tile((*dims, depth)), sizes)
    accumulator = product.roles.accumulator
    with writer.indented():
        grid = _write_tile(body, dims)
        writer.line(f"total = tl.full([{m}, {n}], 0, {TYPES[accumulator]})")
        writer.line(f"for step in tl.range(0, {body.text(depth.numel)}):")
        with writer.indented():
            # A scalar of the loop's own type: a Python int has no `.to` under Triton's interpreter.
            writer.line(f"k = tl.full([], 0, {'tl.int64' if body.int64 else 'tl.int32'}) + step")
            for name, operand in (("a", product.roles.a), ("b", product.roles.b)):
                body.emit(operand.body)
                writer.line(f"{name} = {body.values[operand.value].text}.to({TYPES[accumulator]})")
            writer.line("total = total + a * b")
        final = _body(product, writer, Tile(dims), sizes)
        _write_epilogue(product, final)
    needs = body.needs | final.needs
    made = function(writer, formals_of(kernel, product.kernel.nest.body, sizes), grid, needs, variant.params)
    return source(kernel, variant, [replace(made, contract=True)])


MATMUL = Template("matmul", space, render)
DOT_LOOP = Template("dot_loop", loop_space, render_loop)
