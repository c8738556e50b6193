"""What the reduction templates share: the nest in its best order, its size and shape, and the start of a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy

from mkwrap.codegen.parameters import buffers_of
from mkwrap.codegen.triton.body import Body
from mkwrap.codegen.triton.folds import Fold, fold_of
from mkwrap.codegen.triton.precision import approximable
from mkwrap.codegen.triton.products import reduces_better
from mkwrap.codegen.triton.scans import Form, form_of
from mkwrap.codegen.triton.sizes import Sizes, index_guards, sizes_of
from mkwrap.codegen.triton.strides import access_strides, by_descending_stride, innermost, main_access
from mkwrap.codegen.triton.tile import Dim, Tile, ceil_div, overhangs, plain, static
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import reduces, scans, sorts, value_dtypes
from mkwrap.ir.nodes import Buffer, Expr, Nest, Reduce, Scan
from mkwrap.stages import Device, Guard, Kernel, Params


@dataclass(frozen=True)
class Rows:
    """A nest with reductions or scans, read as `rows` rows of `length` elements (None: dynamic).

    `inner`: memory is contiguous along the reduction; otherwise along the rows ("outer"), or scattered.
    """

    nest: Nest
    buffers: Mapping[str, Buffer]
    rows: int | None
    length: int | None
    inner: bool
    sizes: Sizes
    per_word: int
    """Elements in four bytes of the main access, 1 or 2: of smaller ones, 32-bit accumulators would fill the registers."""

    def fold(self, reduce: Reduce) -> Fold:
        """The fold of one of the nest's reductions."""
        return fold_of(reduce, value_dtypes(self.nest)[reduce.args[0]], self.sizes.wide)

    def form(self, scan: Scan) -> Form:
        """How one of the nest's scans is written."""
        dtypes = value_dtypes(self.nest)
        return form_of(scan, [dtypes[arg] for arg in scan.args], self.sizes.wide)

    @property
    def heavy(self) -> bool:
        """Whether scans need many registers per element: several of them, wide states or positions, dear functions."""
        forms = [self.form(scan) for scan in scans(self.nest)]
        return (
            self.sizes.wide or len(forms) > 1 or any(form.width > 4 or form.op not in ("sum", "prod") for form in forms)
        )

    def tile(self, x_block: int, r_block: int) -> Tile:
        """A tile of `x_block` rows by `r_block` elements."""
        x_masked = overhangs(self.rows, x_block)
        r_masked = overhangs(self.length, r_block)
        x = Dim("x", self.nest.axes, x_block, x_masked)
        return Tile((x, Dim("r", self.nest.reduction_axes, r_block, r_masked)))

    def body(self, writer: Writer, tile: Tile, stream: bool = False) -> Body:
        """Start a function's body on a tile."""
        return Body(writer, tile, self.buffers, self.sizes, approximable(self.nest), stream)


def rows_of(kernel: Kernel, params: Params = ()) -> Rows | None:
    """Read a kernel as rows, sizes as a variant's params say; None where it has no reduction, scan or sort."""
    if not (reduces(kernel.nest) or scans(kernel.nest) or sorts(kernel.nest)):
        return None
    buffers = buffers_of(kernel)
    nest = by_descending_stride(kernel.nest, buffers)
    access = main_access(nest, buffers)
    contiguous = innermost(access_strides(nest, buffers, access)) if access is not None else None
    return Rows(
        nest=nest,
        buffers=buffers,
        rows=static([axis.extent for axis in nest.axes]),
        length=static([axis.extent for axis in nest.reduction_axes]),
        inner=contiguous is None or contiguous not in {axis.symbol for axis in nest.axes},
        sizes=sizes_of(kernel, params),
        per_word=min(max(4 // buffers[access.buffer].dtype.itemsize, 1), 2) if access is not None else 1,
    )


def suited_rows(kernel: Kernel) -> Rows | None:
    """Read a kernel as rows where templates for rows suit it: it is no matrix product, or a thin one."""
    return rows_of(kernel) if reduces_better(kernel) else None


def write_program(body: Body) -> None:
    """Write the program's number."""
    body.writer.line(f"program = tl.program_id(0){body.int64}")


def write_rows(body: Body, program: str) -> None:
    """Write the positions of a tile's rows, for the program of that number."""
    dim = body.tile.dims[0]
    body.writer.line(f"x = {program} * {dim.block} + tl.arange(0, {dim.block})[:, None]")
    if dim.masked:
        body.writer.line(f"x_mask = x < {body.extent(dim)}")


def write_elements(body: Body, start: str = "") -> None:
    """Write the positions of a tile's elements, from `start` (a scalar) on."""
    dim = body.tile.dims[1]
    lanes = f"tl.arange(0, {dim.block})[None, :]" + body.int64
    body.writer.line(f"r = {start} + {lanes}" if start else f"r = {lanes}")
    if dim.masked:
        body.writer.line(f"r_mask = r < {body.extent(dim)}")


def lifted(body: Body, rows: Rows, reduce: Reduce) -> tuple[str, ...]:
    """Parts of the elements at hand, neutral beyond the end of the row."""
    tile = body.tile
    mask = "r_mask" if tile.dims[1].masked else ""
    fold = rows.fold(reduce)
    return fold.lift([body.full(arg) for arg in reduce.args], mask, "r", tile.shape(body.all_dims))


def write_collapsed(body: Body, rows: Rows, reduce: Reduce, parts: tuple[str, ...], axis: int = 1) -> None:
    """Reduce lanes along a dimension and define the results of a reduction."""
    fold = rows.fold(reduce)
    body.needs.update(fold.needs)
    names = fold.names(f"{reduce.dests[0]}_row")
    body.writer.line(f"{', '.join(names)} = {fold.collapse(parts, axis)}")
    for dest, text, dtype in zip(reduce.dests, fold.result_texts(names), fold.results, strict=True):
        body.writer.line(f"{dest} = {text}")
        body.define(dest, dest, dtype, frozenset({"x"}))


def chunked(dim: Dim, chunks: int) -> tuple[int | Expr, int]:
    """Cut a row into at most so many chunks: elements of each (a multiple of the tile's), and how many there are.

    Of a dynamic length there are as many as asked for, and the last ones may begin beyond its end.
    """
    chunk = plain(ceil_div(ceil_div(dim.numel, chunks), dim.block) * dim.block)
    return chunk, int(ceil_div(dim.numel, chunk)) if isinstance(chunk, int) else chunks


def part_guards(rows: Rows, dim: Dim, chunks: int) -> tuple[Guard, ...]:
    """What the offsets of parts, one per row and chunk, need to fit int32."""
    return () if rows.sizes.wide else index_guards([chunks * dim.numel])


def row_blocks(rows: Rows, x_block: int) -> int | None:
    """Number of tiles that cover the rows, where it is known."""
    return None if rows.rows is None else int(ceil_div(rows.rows, x_block))


def streams(kernel: Kernel, device: Device) -> bool:
    """Whether a kernel's data pass the L2 cache anyway, so that nobody loses what it does not keep there."""
    sizes = [p.buffer.storage_elements * p.buffer.dtype.itemsize for p in kernel.parameters]
    nbytes = sympy.Add(*sizes)
    return bool(nbytes.is_Integer and int(nbytes) > 2 * device.l2_bytes)
