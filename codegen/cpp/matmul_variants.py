"""The variants of the blocked matrix product: what is packed where, over the best blockings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mkwrap.codegen.cpp.matmul_problem import Problem, Side, problem_of
from mkwrap.codegen.cpp.matmul_tiles import Blocking, blockings, lanes
from mkwrap.ir.dtypes import DType
from mkwrap.stages import Device, Kernel, Params

_LIMIT = 6
# Multiply-adds below which threads cannot pay for being started, and above which they surely do.
_SERIAL = 200_000
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
    ranked = blockings(problem, device, device.units if problem.products >= _SERIAL else 1)
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
    plain = _readable(problem, side) and side.depth is not None
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
    if not (_readable(problem, side) and side.line == 1 and side.depth is not None and problem.n % columns == 0):
        return (Layout.PACKED,)
    row_bytes = abs(side.depth) * problem.dtype.itemsize
    # Rows a page apart fall into the same few sets of the caches.
    small = problem.k * columns * problem.dtype.itemsize <= device.l1_bytes // 2 and row_bytes % 4096 != 0
    few = problem.m <= 4 * blocking.rows
    if problem.m <= blocking.rows:
        return (Layout.IN_PLACE,)
    return (Layout.IN_PLACE, Layout.PACKED) if small or few else (Layout.PACKED, Layout.IN_PLACE)


def _readable(problem: Problem, side: Side) -> bool:
    """Whether memory holds the operand as the microkernel wants it, in the accumulator's type."""
    return side.load is not None and side.load.dtype is problem.dtype and len(side.body) == 1


def packs_ahead(problem: Problem, kernel: Kernel) -> bool:
    """Whether B is a constant to be packed at compile time: a load, no negative steps, widened exactly if at all."""
    load = problem.b.load
    if load is None or problem.b.line is None or problem.b.depth is None or min(problem.b.line, problem.b.depth) < 0:
        return False
    if problem.b.operand.dtype not in (load.dtype, problem.dtype):
        return False
    exact = load.dtype is problem.dtype or (load.dtype.compute is problem.dtype and load.dtype.is_float)
    parameter = next(p for p in kernel.parameters if p.buffer.name == load.buffer)
    return exact and parameter.constant
