"""Pointwise nests: flat blocks of consecutive points, or 2-D tiles where accesses run along different axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.template import Template
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.module import Function, formals_of, function, source
from mkwrap.codegen.triton.precision import approximable
from mkwrap.codegen.triton.sizes import sizes_of
from mkwrap.codegen.triton.strides import access_strides, by_descending_stride, innermost
from mkwrap.codegen.triton.tile import Dim, Tile, ceil_div, overhangs, power_of_two, static
from mkwrap.codegen.writer import Writer
from mkwrap.errors import DynamicShapeError
from mkwrap.ir.analysis import loads, stores
from mkwrap.ir.nodes import Axis, Buffer, Expr, Nest
from mkwrap.stages import Device, Kernel, Params, Source, Variant

_VECTOR_BYTES = 16
_MAX_BLOCK = 4096
_LEAST_SIDE = 8


def _fits(kernel: Kernel) -> bool:
    return not kernel.nest.reduction_axes and bool(stores(kernel.nest))


def _itemsize(kernel: Kernel) -> int:
    """Bytes of the smallest element that every point touches: it decides how many points fill one access."""
    sizes = [p.buffer.dtype.itemsize for p in kernel.parameters]
    return min(sizes, default=4)


def flat_space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Block sizes and warps: 16-byte accesses per thread first, smaller blocks where the device would stand idle."""
    if not _fits(kernel):
        return ()
    numel = static([axis.extent for axis in kernel.nest.axes])
    per_thread = min(max(_VECTOR_BYTES // _itemsize(kernel), 2), 16)
    choices = [(32 * warps * per_thread * more, warps) for warps, more in ((4, 1), (8, 1), (4, 2), (2, 1))]
    choices.append((32 * 4 * max(per_thread // 4, 1), 4))
    if numel is not None:
        # Every multiprocessor should have work for two blocks before threads take more than one element.
        choices.sort(key=lambda c: ceil_div(numel, c[0]) < 2 * device.units)
        choices = [(min(block, max(power_of_two(numel), 32)), warps) for block, warps in choices]
        choices = [(block, min(warps, max(block // 32, 1))) for block, warps in choices]
    found = [(("block", min(block, _MAX_BLOCK)), ("num_warps", warps)) for block, warps in choices]
    return tuple(dict.fromkeys(found))


def render_flat(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one program per block of consecutive points."""
    del device
    block = int(dict(variant.params)["block"])
    buffers = buffers_of(kernel)
    nest = by_descending_stride(kernel.nest, buffers)
    numel = static([axis.extent for axis in nest.axes])
    dim = Dim("x", nest.axes, block, overhangs(numel, block))
    tile = Tile((dim,))
    return source(kernel, variant, [_function(kernel, nest, tile, ceil_div(dim.numel, block), variant.params)])


def _function(kernel: Kernel, nest: Nest, tile: Tile, grid: int | Expr, params: Params) -> Function:
    buffers = buffers_of(kernel)
    writer = Writer()
    sizes = sizes_of(kernel, params)
    body = Body(writer, tile, buffers, sizes, approximable(nest))
    with writer.indented():
        writer.line(f"program = tl.program_id(0){body.int64}")
        _positions(body)
        body.emit(nest.body)
    return function(writer, formals_of(kernel, nest.body, sizes), max_one(grid), body.needs, params)


def max_one(grid: int | Expr) -> int | Expr:
    """A grid of at least one program: an empty one cannot be launched, and its masks let nothing through."""
    return max(grid, 1) if isinstance(grid, int) else grid


def _positions(body: Body) -> None:
    """Write the position along each dimension: the innermost changes fastest from program to program."""
    rest = "program"
    dims = body.tile.dims
    for k, dim in reversed(list(enumerate(dims))):
        count = body.atom(ceil_div(dim.numel, dim.block or 1))
        # A grid of no points still runs one program.
        place = rest if k == 0 else f"{rest} % {count}" if count != "0" else "0"
        if dim.block:
            lane = f"tl.arange(0, {dim.block}){body.tile.subscript(dim.name)}"
            first = f"({place})" if " " in place else place
            body.writer.line(f"{dim.name} = {first} * {dim.block} + {lane}")
        else:
            body.writer.line(f"{dim.name} = {place}")
        if dim.masked:
            body.writer.line(f"{dim.mask} = {dim.name} < {body.extent(dim)}")
        if k and count != "0":
            body.writer.line(f"rest_{dim.name} = {rest} // {count}")
            rest = f"rest_{dim.name}"


@dataclass(frozen=True)
class _Plane:
    """Axes of a 2-D tile: `y` is contiguous in some load, `x` in the store, `outer` the rest."""

    outer: tuple[Axis, ...]
    y: tuple[Axis, ...]
    x: tuple[Axis, ...]


def _plane(nest: Nest, buffers: Mapping[str, Buffer]) -> _Plane | None:
    """Find the two axes along which accesses are contiguous, where there are two."""
    store = stores(nest)[0]
    x = innermost(access_strides(nest, buffers, store))
    if x is None:
        return None
    for load in loads(nest):
        strides = access_strides(nest, buffers, load)
        y = innermost(strides)
        # A load that is constant along x is a broadcast: its lanes share an address, no tile needed.
        if y is not None and y != x and strides[x] != 0:
            by_symbol = {axis.symbol: axis for axis in nest.axes}
            outer = tuple(axis for axis in nest.axes if axis.symbol not in (x, y))
            return _Plane(outer, (by_symbol[y],), (by_symbol[x],))
    return None


def plane_space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Tile shapes for nests whose loads and stores are contiguous along different axes (transposes)."""
    del device
    if not _fits(kernel):
        return ()
    buffers = buffers_of(kernel)
    plane = _plane(by_descending_stride(kernel.nest, buffers), buffers)
    if plane is None:
        return ()
    found: list[Params] = []
    for y, x, warps in ((64, 64, 4), (32, 32, 4), (64, 64, 8), (128, 32, 4), (32, 128, 4)):
        height, width = (_clipped(n, axes) for n, axes in ((y, plane.y), (x, plane.x)))
        if height >= _LEAST_SIDE and width >= _LEAST_SIDE:
            found.append((("y", height), ("x", width), ("num_warps", min(warps, max(height * width // 32, 1)))))
    return tuple(dict.fromkeys(found))


def _clipped(block: int, axes: Sequence[Axis]) -> int:
    extent = static([axis.extent for axis in axes])
    return block if extent is None else min(block, power_of_two(extent))


def render_plane(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write one program per 2-D tile; the axes outside the tile are scalars of the program."""
    del device
    params = dict(variant.params)
    buffers = buffers_of(kernel)
    nest = by_descending_stride(kernel.nest, buffers)
    plane = _plane(nest, buffers)
    if plane is None:
        raise DynamicShapeError(
            f"{kernel.name} is contiguous along two axes at some of its sizes, but not at all of them"
        )
    dims = [Dim("outer", plane.outer, 0, False)] if plane.outer else []
    for name, axes in (("y", plane.y), ("x", plane.x)):
        block, extent = int(params[name]), static([axis.extent for axis in axes])
        dims.append(Dim(name, axes, block, overhangs(extent, block)))
    grid = sympy.Mul(*[ceil_div(dim.numel, dim.block or 1) for dim in dims])
    count = static(grid)
    tile = Tile(tuple(dims))
    return source(kernel, variant, [_function(kernel, nest, tile, grid if count is None else count, variant.params)])


POINTWISE = Template("pointwise", flat_space, render_flat)
PLANE = Template("plane", plane_space, render_plane)
