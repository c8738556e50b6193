"""Ranks register tiles and divisions of the work by a simple cycle model: the priors of the matmul template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.matmul_problem import Problem
from mkwrap.stages import Device

# Cycles that a tile costs besides its multiply-adds: the call of the epilogue and the row pointers.
_TILE_OVERHEAD = 40.0
# Bytes per cycle that a core reads from its second-level cache, and from beyond it, prefetching not assumed.
_L2_RATE = 28.0
_L3_RATE = 16.0
_MAX_ROWS = 14
_MAX_VECTORS = 8


@dataclass(frozen=True)
class Blocking:
    """How the work is cut. The parts of rows and columns are counted in whole tiles, as even as they can be."""

    rows: int
    """Rows of a register tile."""
    vectors: int
    """Vectors of columns of a register tile."""
    row_parts: int
    column_parts: int
    depth: int
    """Depth of the parts that are summed one after another, so that a panel's part stays in cache; 0: all at once."""
    threads: int


def registers(device: Device) -> int:
    """Vector registers of the architecture."""
    return 32 if device.vector_bytes >= 64 or device.arch == "aarch64" else 16


def lanes(problem: Problem, device: Device) -> int:
    """Lanes of a vector of the accumulator's type."""
    return max(device.vector_bytes, 16) // problem.dtype.itemsize


def blockings(problem: Problem, device: Device, threads: int) -> list[Blocking]:
    """All sensible blockings for a number of threads, cheapest first by the model; ties in a fixed order."""
    width = lanes(problem, device)
    batch, m, n, k = (estimate.number(size) for size in (problem.batch, problem.m, problem.n, problem.k))
    ranked: list[tuple[float, Blocking]] = []
    for rows, vectors in _tiles(registers(device)):
        columns = vectors * width
        if rows > m or (vectors > 1 and columns - width >= n):
            continue
        row_tiles, panels = -(-m // rows), -(-n // columns)
        depth = _depth(k, problem.dtype.itemsize * columns, device)
        step = _step_cycles(rows, vectors, width * problem.dtype.itemsize)
        for row_parts, column_parts in _divisions(batch, row_tiles, panels, threads):
            tasks = batch * row_parts * column_parts
            tiles = -(-row_tiles // row_parts), -(-panels // column_parts)
            lines = tiles[0] * rows + tiles[1] * columns
            cycles = tiles[0] * tiles[1] * (k * step + _TILE_OVERHEAD + rows * vectors)
            cycles += lines * k * problem.dtype.itemsize / _L3_RATE
            blocking = Blocking(rows, vectors, row_parts, column_parts, depth, threads)
            ranked.append((cycles * -(-tasks // threads), blocking))
    ranked.sort(key=lambda pair: pair[0])
    return [blocking for _, blocking in ranked]


def _tiles(count: int) -> Iterator[tuple[int, int]]:
    """Tiles whose sums, one row of B and one broadcast fit the registers."""
    for rows in range(1, _MAX_ROWS + 1):
        for vectors in range(1, _MAX_VECTORS + 1):
            if rows * vectors + vectors + 1 <= count:
                yield rows, vectors


def _step_cycles(rows: int, vectors: int, vector_bytes: int) -> float:
    """Cycles of one step along the depth: two multiply-adds and two loads a cycle, latency 4, B from the L2 cache."""
    compute = max(rows * vectors / 2, (rows + vectors) / 2, 4.0)
    return max(compute, vectors * vector_bytes / _L2_RATE) + 0.05 * rows


def _depth(k: int, row_bytes: int, device: Device) -> int:
    """The depth of a panel that takes at most half of the second-level cache, in parts equal up to rounding; 0: all of it."""
    limit = max(device.l2_bytes // 2 // row_bytes, 64)
    parts = -(-k // limit)
    return -(-k // parts) if parts > 1 else 0


def _divisions(batch: int, row_tiles: int, panels: int, threads: int) -> Iterator[tuple[int, int]]:
    """Numbers of parts of rows and of columns; no more than a few tasks a thread."""
    most = 1 if threads == 1 or batch >= 4 * threads else max(4 * threads // batch, 1)
    counts = sorted({c for c in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, threads, 2 * threads) if c <= most})
    for row_parts in counts:
        for column_parts in counts:
            if row_parts <= row_tiles and column_parts <= panels and row_parts * column_parts <= most:
                yield row_parts, column_parts
