"""A dynamic program evaluated at a point is what the same program traced with these sizes is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sympy
import torch
from torch.export import Dim

from mkwrap.capture import capture
from mkwrap.fuse import fuse
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, size_symbol
from mkwrap.ir.printer import print_nest
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.points import binary_at, kernel_at, kernel_symbols, projected, schedule_at, size_at, source_at, values_at
from mkwrap.stages import (
    Binary,
    BufferArgument,
    Guard,
    Launch,
    Schedule,
    SizeArgument,
    Source,
    Variant,
    WorkspaceArgument,
)

ROWS, COLS = Dim("rows", min=2, max=512), Dim("cols", min=2, max=512)
M, N = size_symbol("rows"), size_symbol("cols")

PROGRAMS: dict[str, tuple[Callable[..., object], tuple[tuple[int, ...], ...], tuple[dict[int, Dim] | None, ...]]] = {
    "softmax": (lambda x: torch.softmax(x, -1), ((6, 10),), ({0: ROWS, 1: COLS},)),
    "product": (lambda x, w: torch.relu(x @ w), ((6, 16), (16, 24)), ({0: ROWS}, None)),
    "flat": (lambda x: x.reshape(-1) * 2, ((6, 10),), ({0: ROWS, 1: COLS},)),
    "column sums": (lambda x: x.t().contiguous().sum(-1), ((6, 10),), ({0: ROWS, 1: COLS},)),
    "chain": (lambda x, y: torch.softmax(x @ y, -1).sum(0), ((6, 8), (8, 10)), ({0: ROWS}, {1: COLS})),
}


def schedule(name: str, sizes: tuple[int, int] | None = None) -> Schedule:
    """Fuse a program with dynamic sizes, or with these."""
    fn, shapes, dims = PROGRAMS[name]
    if sizes is not None:
        values = dict(zip((ROWS, COLS), sizes, strict=True))
        shapes = tuple(
            tuple(values[dim[k]] if dim is not None and k in dim else size for k, size in enumerate(shape))
            for shape, dim in zip(shapes, dims, strict=True)
        )
    args = tuple(torch.empty(shape) for shape in shapes)
    return fuse(lower(capture(fn, args, {}, None if sizes else dims, RULES)))


def free(made: Schedule) -> set[object]:
    """Return the names of the size symbols in a schedule's buffers and kernels."""
    found = {symbol for kernel in made.kernels.values() for symbol in kernel_symbols(kernel)}
    for buffer in made.program.buffers.values():
        found |= {symbol for size in (*buffer.shape, *buffer.strides) for symbol in size.free_symbols}
    return found | made.arena_bytes.free_symbols


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_at_a_point_is_the_program_of_these_sizes(name: str) -> None:
    dynamic = schedule(name)
    assert free(dynamic) <= {M, N}
    for sizes in ((6, 10), (33, 64)):
        at = schedule_at(dynamic, dict(zip((M, N), sizes, strict=True)))
        static = schedule(name, sizes)
        assert free(at) == set()
        assert at.arena_bytes == static.arena_bytes
        assert {n: (b.shape, b.strides) for n, b in at.program.buffers.items()} == {
            n: (b.shape, b.strides) for n, b in static.program.buffers.items()
        }
        assert [print_nest(k.nest) for k in at.kernels.values()] == [
            print_nest(k.nest) for k in static.kernels.values()
        ]


def test_only_the_kernels_asked_for_are_evaluated() -> None:
    dynamic = schedule("chain")
    first = next(iter(dynamic.kernels))
    assert set(schedule_at(dynamic, {M: 3, N: 4}, [first]).kernels) == {first}


def test_a_kernel_s_symbols_are_its_own_by_name() -> None:
    product, *others = schedule("chain").kernels.values()
    assert {kernel_symbols(kernel) for kernel in (product, *others)} == {(N, M)}
    (product,) = schedule("product").kernels.values()
    assert kernel_symbols(product) == (M,)
    assert kernel_symbols(kernel_at(product, {M: 4})) == ()


def test_points_are_values_in_the_order_of_names() -> None:
    assert values_at((N, M), (3, 4)) == {N: 3, M: 4}
    assert projected({M: 4, N: 3, size_symbol("z"): 9}, (N, M)) == (3, 4)


def test_a_text_s_sizes_grids_and_workspaces_are_evaluated() -> None:
    args = (BufferArgument(0), SizeArgument(M * N), WorkspaceArgument(4 * M))
    launch = Launch("entry", args, grid=(FloorDiv(M + 63, 64), N, 1))
    source = Source(Variant("k", "t"), "triton", "text", (launch,), workspace_bytes=8 * M, guards=(Guard(M, most=128),))
    at = binary_at(Binary(source, ()), {M: 100, N: 3}).source
    assert at == source_at(source, {M: 100, N: 3})
    assert at.launches[0].grid == (2, 3, 1)
    assert at.launches[0].args == (
        BufferArgument(0),
        SizeArgument(sympy.Integer(300), DType.INT64),
        WorkspaceArgument(400),
    )
    assert (at.workspace_bytes, at.guards) == (800, ())
    assert size_at(7, {M: 1}) == 7
