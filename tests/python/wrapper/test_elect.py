"""The dispatch rule: what it elects, and that C++ elects the same as Python."""

from __future__ import annotations

import itertools
import math
import random
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mkwrap.artifact import Row as Chosen
from mkwrap.codegen.wrapper.tables import TableRow, ordered, packed, points_of
from mkwrap.ir.nearest import DOUBLING, distance, elect, log2_fixed
from mkwrap.toolchain.headers import include_dir
from mkwrap.toolchain.parts import write_parts

NO_ROW = 2**32 - 1
GUARDS = 6


@dataclass(frozen=True)
class Row:
    """A row of a table; it may run where every guard of the set `guards`, as bits, holds."""

    point: tuple[int, ...]
    handicap: int
    guards: int


def test_c22_an_exact_tie_goes_to_the_smaller_point_in_either_order() -> None:
    rows = [((64,), 0, True), ((4096,), 0, True)]
    assert elect((512,), rows) == 0
    assert elect((512,), rows[::-1]) == 1
    assert elect((513,), rows) == 1
    assert elect((511,), rows) == 0
    # 8 to 2 and 8 to 32 in two symbols: the first decides.
    square = [((2, 32), 0, True), ((32, 2), 0, True)]
    assert elect((8, 8), square) == 0
    assert elect((8, 8), square[::-1]) == 1


def test_c25_the_nearest_hint_of_two_runs() -> None:
    hints = [((16,), 0, True), ((4096,), 0, True)]
    assert elect((8,), hints) == 0
    assert [elect((size,), hints) for size in (255, 256, 257)] == [0, 0, 1]


def test_guards_and_handicaps_decide() -> None:
    assert elect((64,), [((64,), 0, False), ((64,), DOUBLING, True), ((512,), 0, True)]) == 1
    assert elect((200,), [((64,), 0, False), ((64,), DOUBLING, True), ((512,), 0, True)]) == 2
    with pytest.raises(ValueError, match="no row"):
        elect((64,), [((64,), 0, False)])


def test_logarithms_err_as_little_as_they_say() -> None:
    rng = random.Random(1)
    sizes = [*range(1, 3000), *(rng.randrange(1, 2**63) for _ in range(3000)), 2**63 - 1]
    for size in sizes:
        assert 0 <= math.floor(2**16 * math.log2(size)) - log2_fixed(size) <= 2, size
    assert log2_fixed(0) == log2_fixed(1) == 0
    assert [log2_fixed(2**k) for k in range(63)] == [k << 16 for k in range(63)]
    assert distance((0, 8), (1, 1)) == 3 * DOUBLING


def _size(rng: random.Random) -> int:
    """Draw a size: any magnitude, often a small one, a power of two or its neighbour."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randrange(0, 40)
    power = 1 << rng.randrange(0, 62)
    return max(0, power + rng.randrange(-1, 2)) if kind < 3 else rng.randrange(power, 2 * power)


def _table(rng: random.Random) -> list[Row]:
    arity = rng.randrange(1, 5)
    points = [tuple(_size(rng) for _ in range(arity)) for _ in range(rng.randrange(1, 6))]
    if rng.random() < 0.5:
        # A grid of distinct sizes: a size 0 counts as 1.
        axes = [{max(1, _size(rng)) for _ in range(rng.randrange(1, 7 - arity))} for _ in range(arity)]
        points = list(itertools.product(*axes))
    rows = []
    for point in points:
        for _ in range(rng.randrange(1, 5)):
            guards = rng.randrange(1 << GUARDS) if rng.random() < 0.5 else 0
            rows.append(
                Row(point, rng.choice((0, 0, DOUBLING, rng.randrange(4 * DOUBLING), rng.randrange(40))), guards)
            )
    if rng.random() < 0.8:
        rows.append(Row(points[0], DOUBLING, 0))
    return rows


def _queries(rng: random.Random, rows: list[Row], count: int) -> list[tuple[int, tuple[int, ...]]]:
    """Draw what holds and sizes, some half-way between two points, where ties are."""
    drawn = []
    for _ in range(count):
        sizes = tuple(_size(rng) for _ in rows[0].point)
        if rng.random() < 0.3:
            one, other = rng.choice(rows).point, rng.choice(rows).point
            sizes = tuple(math.isqrt(a * b) + rng.randrange(-1, 2) * (a != b) for a, b in zip(one, other, strict=True))
        drawn.append((rng.randrange(1 << GUARDS) | rng.randrange(1 << GUARDS), tuple(max(0, size) for size in sizes)))
    return drawn


def _elected(rows: list[Row], holds: int, sizes: tuple[int, ...]) -> int:
    try:
        return elect(sizes, [(row.point, row.handicap, not row.guards & ~holds) for row in rows])
    except ValueError:
        return NO_ROW


def _ordered(rows: list[Row]) -> list[TableRow]:
    """Lay rows out as a library has them; the alternative of each is its number in `rows`."""
    numbered = [TableRow(row.point, row.guards, row.handicap, number) for number, row in enumerate(rows)]
    return ordered(numbered, len(rows[0].point), "k")


@pytest.mark.toolchain
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize(
    ("tables", "count"), [(200, 100), pytest.param(2000, 500, marks=pytest.mark.slow)], ids=["20000", "1000000"]
)
def test_c22_cpp_elects_the_same_row(tables: int, count: int, tmp_path: Path) -> None:
    program = tmp_path / "elect_all"
    source = Path(__file__).parents[2] / "cpp" / "elect_all.cpp"
    subprocess.run(["g++", "-std=c++17", "-O1", "-I", str(include_dir()), str(source), "-o", str(program)], check=True)
    rng = random.Random(tables)
    expected: list[int] = []
    grids = 0
    with (tmp_path / "in").open("wb") as file:
        file.write(struct.pack("<q", tables))
        for _ in range(tables):
            rows = _table(rng)
            queries = _queries(rng, rows, count)
            table = _ordered(rows)
            points = points_of(table)
            grids += bool(points.axes)
            words = [len(rows[0].point), len(rows), points.count, len(points.hints), count, bool(points.axes)]
            for row in table:
                words += [row.guards, row.handicap, row.alternative]
            words += [*points.first, *points.hints, *points.axes]
            for holds, sizes in queries:
                words += [holds, *sizes]
                expected.append(_elected(rows, holds, sizes))
            file.write(np.array(words, np.int64).tobytes())
    subprocess.run([program, tmp_path / "in", tmp_path / "out"], check=True, capture_output=True, text=True)
    got = np.fromfile(tmp_path / "out", np.uint32)
    assert got.size == tables * count
    assert np.array_equal(got, np.array(expected, np.uint32))
    assert len(set(expected)) > 3
    assert NO_ROW in expected
    assert tables / 4 < grids < 3 * tables / 4


@pytest.mark.toolchain
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_c22_a_table_that_is_a_part_elects_the_same_by_those_sizes_that_it_is_over(tmp_path: Path) -> None:
    program = tmp_path / "elect_parts"
    source = Path(__file__).parents[2] / "cpp" / "elect_parts.cpp"
    subprocess.run(["g++", "-std=c++17", "-O1", "-I", str(include_dir()), str(source), "-o", str(program)], check=True)
    rng = random.Random(7)
    parts: list[bytes] = [b"manifest"]
    words: list[int] = []
    expected: list[int] = []
    for number in range(1, 200):
        rows = _table(rng)
        arity = len(rows[0].point)
        places = sorted(rng.sample(range(arity + 2), arity))
        parts.append(packed(_ordered(rows), places))
        for holds, sizes in _queries(rng, rows, 40):
            given = [rng.randrange(10**6) for _ in range(arity + 2)]
            for place, size in zip(places, sizes, strict=True):
                given[place] = size
            words += [number, holds, len(given), *given]
            expected.append(_elected(rows, holds, sizes))
    # One binary for all sizes: a table over none of them.
    parts.append(packed([TableRow((), 0, 0, 5)], []))
    words += [len(parts) - 1, 0, 2, 30, 40]
    expected.append(5)
    with (tmp_path / "parts").open("wb") as file:
        write_parts(file, [lambda blob=blob: blob for blob in parts], [Chosen(0, ())], 2**30)  # type: ignore[misc]
    (tmp_path / "in").write_bytes(np.array(words, np.int64).tobytes())
    subprocess.run([program, tmp_path / "parts", tmp_path / "in", tmp_path / "out"], check=True)
    assert np.array_equal(np.fromfile(tmp_path / "out", np.uint32), np.array(expected, np.uint32))
