"""The variants of the blocked matrix product: what is packed where, over the best blockings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.matmul_problem import Problem, Side, is_multiple, problem_of, quotient_up
from mkwrap.codegen.cpp.matmul_tiles import Blocking, blockings, lanes
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Device, Kernel, Params

_LIMIT = 6
SERIAL = 200_000
"""Multiply-adds below which threads cannot pay for being started."""
SHARED = 1_000_000
"""Multiply-adds from which on threads share a product of dynamic sizes even where one was faster at the point of a choice."""
# Multiply-adds above which they surely do.
_PARALLEL = 4_000_000


class Layout(Enum):
    """Where the microkernel reads an operand."""

    IN_PLACE = "in place"
    CONSTANT = "constant"
    """Packed at compile time."""
    PACKED = "packed"
    """Packed into the workspace by every run."""


@dataclass(frozen=True)
class Choice:
    """One variant: a blocking and the layouts of both operands."""

    blocking: Blocking
    a: Layout
    b: Layout

    @property
    def params(self) -> Params:
        """Return the choice as a variant's params."""
        cut = self.blocking
        return (
            ("rows", cut.rows),
            ("vectors", cut.vectors),
            ("row_parts", cut.row_parts),
            ("column_parts", cut.column_parts),
            ("depth", cut.depth),
            ("a", self.a.value),
            ("b", self.b.value),
            ("threads", cut.threads),
        )


def choice_of(params: Params) -> Choice:
    """Return the choice that params came from."""
    values = dict(params)
    names = ("rows", "vectors", "row_parts", "column_parts", "depth", "threads")
    return Choice(Blocking(*(int(values[name]) for name in names)), Layout(values["a"]), Layout(values["b"]))


def applied(choice: Choice, problem: Problem, kernel: Kernel) -> Choice:
    """Return the choice with layouts that a problem has: of a product with dynamic sizes less is known than of one at a point."""
    a, b = choice.a, choice.b
    if a is Layout.IN_PLACE and not (readable(problem, problem.a) and problem.a.depth is not None):
        a = Layout.PACKED
    if b is Layout.IN_PLACE and not (
        readable(problem, problem.b) and problem.b.line == 1 and problem.b.depth is not None
    ):
        b = Layout.PACKED
    if b is Layout.CONSTANT and not packs_ahead(problem, kernel):
        b = Layout.PACKED
    return replace(choice, a=a, b=b)


def shared(choice: Choice, problem: Problem, device: Device) -> Choice:
    """Return a choice of one thread for a product of dynamic sizes as one that several can share where there is enough work."""
    cut, count = choice.blocking, device.units
    dynamic = (problem.batch * problem.m * problem.n * problem.k).free_symbols
    if cut.threads > 1 or count == 1 or not dynamic:
        return choice
    if problem.batch.is_Integer and problem.batch < count:
        panels = quotient_up(problem.n, cut.vectors * lanes(problem, device))
        by_columns = not panels.is_Integer or panels >= count
        cut = replace(cut, column_parts=count) if by_columns else replace(cut, row_parts=count)
    return replace(choice, blocking=replace(cut, threads=count))


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Up to six variants, best guess first; () where this template does not fit (size 0, integers, checked indices)."""
    problem = problem_of(kernel)
    if problem is None or problem.dtype not in (DType.FLOAT32, DType.FLOAT64) or problem.checks:
        return ()
    if problem.products == 0 or device.vector_bytes < 16:
        return ()
    return tuple(dict.fromkeys(choice.params for choice in _choices(problem, kernel, device)))[:_LIMIT]


def _choices(problem: Problem, kernel: Kernel, device: Device) -> Iterator[Choice]:
    """Yield the best guess, then what differs from it in one respect each, then further tiles."""
    ranked = blockings(problem, device, device.units if problem.products >= SERIAL else 1)
    best = ranked[0]
    serial = blockings(problem, device, 1)[:1] if problem.products < _PARALLEL else []
    for blocking in (best, *serial):
        for a in _row_layouts(problem):
            for b in _column_layouts(problem, kernel, blocking, device):
                yield Choice(blocking, a, b)
    divided = next((r for r in ranked if _tile(r) == _tile(best) and _division(r) != _division(best)), None)
    widths = {best.vectors}
    for blocking in ranked if divided is None else (divided, *ranked):
        # One tile of each width: the next in rank are its neighbours, and as fast.
        if blocking is divided or blocking.vectors not in widths:
            widths.add(blocking.vectors)
            a, b = _row_layouts(problem)[0], _column_layouts(problem, kernel, blocking, device)[0]
            yield Choice(blocking, a, b)


def _tile(blocking: Blocking) -> tuple[int, int]:
    return blocking.rows, blocking.vectors


def _division(blocking: Blocking) -> tuple[int, int]:
    return blocking.row_parts, blocking.column_parts


def _row_layouts(problem: Problem) -> tuple[Layout, ...]:
    side = problem.a
    plain = readable(problem, side) and side.depth is not None
    if plain and side.depth == 1:
        return (Layout.IN_PLACE,)
    # With one row there is nothing to gain from moving it.
    if plain and problem.m == 1:
        return (Layout.IN_PLACE, Layout.PACKED)
    return (Layout.PACKED, Layout.IN_PLACE) if plain else (Layout.PACKED,)


def _column_layouts(problem: Problem, kernel: Kernel, blocking: Blocking, device: Device) -> tuple[Layout, ...]:
    side = problem.b
    if packs_ahead(problem, kernel):
        return (Layout.CONSTANT,)
    columns = blocking.vectors * lanes(problem, device)
    in_place = readable(problem, side) and side.line == 1 and is_multiple(problem.n, columns)
    if not in_place or side.depth is None:
        return (Layout.PACKED,)
    m, k, step = (estimate.number(size) for size in (problem.m, problem.k, abs(side.depth)))
    # Rows a page apart fall into the same few sets of the caches.
    apart = step * problem.dtype.itemsize % 4096 == 0
    small = k * columns * problem.dtype.itemsize <= device.l1_bytes // 2 and not apart
    if m <= blocking.rows:
        return (Layout.IN_PLACE,)
    few = m <= 4 * blocking.rows
    return (Layout.IN_PLACE, Layout.PACKED) if small or few else (Layout.PACKED, Layout.IN_PLACE)


def readable(problem: Problem, side: Side) -> bool:
    """Whether memory holds the operand as the microkernel wants it, in the accumulator's type."""
    return side.load is not None and side.load.dtype is problem.dtype and len(side.body) == 1


def packs_ahead(problem: Problem, kernel: Kernel) -> bool:
    """Whether B is a constant to be packed at compile time: static, a load, no negative steps, widened exactly if at all."""
    load, side = problem.b.load, problem.b
    if load is None or not _is_count(side.line) or not _is_count(side.depth):
        return False
    roles = problem.roles
    axes = (*roles.n, *roles.k, *(axis for axis in roles.batch if axis.symbol in roles.b.axes))
    if not all(axis.extent.is_Integer for axis in axes) or load.index[0].free_symbols & set(problem.sizes):
        return False
    if side.operand.dtype not in (load.dtype, problem.dtype):
        return False
    exact = load.dtype is problem.dtype or (load.dtype.compute is problem.dtype and load.dtype.is_float)
    parameter = next(p for p in kernel.parameters if p.buffer.name == load.buffer)
    return exact and parameter.constant


def _is_count(step: Expr | None) -> bool:
    return step is not None and bool(step.is_Integer) and step >= 0
