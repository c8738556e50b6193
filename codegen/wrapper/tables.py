"""Tables from sizes to binaries, as host code has them and as a part of a library holds them where they are open."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from mkwrap.codegen.wrapper.contents import Contents
from mkwrap.errors import InternalError
from mkwrap.ir.nearest import MOST_GUARDS, MOST_ROWS, MOST_SYMBOLS, TIE, log2_fixed
from mkwrap.stages import Binary, Dispatch, DispatchRow, Guard, Point

_MOST_HANDICAP = 2**30
_HEAD = struct.Struct("<IIIIII")  # mkwrap/open_table.h
_ROW = struct.Struct("<QII")


@dataclass(frozen=True)
class TableRow:
    """A row of a table: the guards it asks for, a set of bits, and the kernel's alternative that runs."""

    point: Point
    guards: int
    handicap: int
    alternative: int


def symbols_of(contents: Contents, kernel: str, target: int) -> tuple[sympy.Symbol, ...]:
    """Return the symbols that a kernel's election on one target takes; none where one binary runs whatever the sizes.

    An open table says which of them it is over.
    """
    if (kernel, target) in contents.open_tables:
        return contents.open_tables[kernel, target].symbols
    table = contents.dispatch(kernel, target)
    return () if table is None else table.symbols


def guards_of(contents: Contents, kernel: str, target: int) -> tuple[Guard, ...]:
    """Return every guard of a kernel's binaries for one target once: each is a bit of its table."""
    binaries: Sequence[Binary] = [a.binary for a in contents.kernels[kernel] if a.target == target]
    found = tuple(dict.fromkeys(guard for binary in binaries for guard in binary.source.guards))
    if len(found) > MOST_GUARDS:
        raise InternalError(f"the binaries of {kernel} have {len(found)} different guards")
    return found


def rows_of(contents: Contents, kernel: str, target: int) -> list[TableRow]:
    """Return the rows of a kernel's table, in the order that ties are decided in."""
    numbers = contents.alternatives(kernel, target)
    binaries: Mapping[int, Binary] = {number: contents.kernels[kernel][number].binary for number in numbers}
    table = contents.dispatch(kernel, target)
    if table is None and len(numbers) != 1:
        raise InternalError(f"the choice of {kernel} is open on one target and a table on another")
    if table is None:
        table = Dispatch((DispatchRow((), binaries[numbers[0]]),))
    bits = {guard: 1 << bit for bit, guard in enumerate(guards_of(contents, kernel, target))}
    rows = [
        TableRow(
            row.point,
            sum(bits[guard] for guard in dict.fromkeys(row.binary.source.guards)),
            row.handicap,
            next(n for n, binary in binaries.items() if binary == row.binary),
        )
        for row in table.rows
    ]
    return ordered(rows, len(table.symbols), kernel)


def ordered(rows: Sequence[TableRow], symbols: int, kernel: str) -> list[TableRow]:
    """Return rows in the order of their points; raises `InternalError` for a table of `kernel` that has no election."""
    if len(rows) > MOST_ROWS or any(
        not 0 <= row.handicap < _MOST_HANDICAP or len(row.point) != symbols for row in rows
    ):
        raise InternalError(f"the table of {kernel} has too many rows, or one that cannot be compared")
    return [row for _, row in sorted(enumerate(rows), key=lambda numbered: (numbered[1].point, numbered[0]))]


@dataclass(frozen=True)
class TablePoints:
    """The points of a table as `mkwrap/dispatch.h` has them."""

    first: tuple[int, ...]
    """Per point its first row, then the number of rows."""
    hints: tuple[int, ...]
    """Logarithms: of a grid each symbol's, else each point's."""
    axes: tuple[int, ...]
    """Of a grid, how many hints each symbol has; else ()."""

    @property
    def count(self) -> int:
        """Return how many points there are."""
        return len(self.first) - 1


def points_of(rows: Sequence[TableRow]) -> TablePoints:
    """Return the points of ordered rows."""
    first: dict[Point, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.point, number)
    axes = _axes(tuple(first))
    hints = tuple(log2_fixed(hint) for listed in (axes or first) for hint in listed)
    return TablePoints((*first.values(), len(rows)), hints, tuple(map(len, axes)))


def _axes(points: Sequence[Point]) -> tuple[tuple[int, ...], ...]:
    """Return the hints of each symbol where points in order are a grid whose hints the rule can tell apart; else ()."""
    axes = tuple(tuple(sorted(set(axis))) for axis in zip(*points, strict=True))
    # The product of points that are no grid may be any number: it is listed only where it has as many.
    if not 0 < len(axes) <= MOST_SYMBOLS or math.prod(map(len, axes)) != len(points):
        return ()
    if list(itertools.product(*axes)) != list(points):
        return ()
    apart = 2 * TIE * len(axes)
    near = any(log2_fixed(high) - log2_fixed(low) <= apart for axis in axes for low, high in itertools.pairwise(axis))
    return () if near else axes


def packed(rows: Sequence[TableRow], places: Sequence[int]) -> bytes:
    """Return ordered rows as a part; `places` are those of the table's symbols among those that its election takes."""
    points = points_of(rows)
    return b"".join(
        (
            _HEAD.pack(len(rows), points.count, len(places), len(points.hints), bool(points.axes), 0),
            *(_ROW.pack(row.guards, row.handicap, row.alternative) for row in rows),
            struct.pack(f"<{len(points.hints)}I", *points.hints),
            struct.pack(f"<{len(places)}I", *places),
            struct.pack(f"<{len(points.first)}H", *points.first),
            struct.pack(f"<{len(points.axes)}H", *points.axes),
        )
    )


def packed_tables(contents: Contents) -> list[bytes]:
    """Return the tables that are parts, in the order of `Contents.open_tables`."""
    found = []
    for (kernel, target), choice in contents.open_tables.items():
        places = [choice.symbols.index(symbol) for symbol in choice.table.symbols]
        found.append(packed(rows_of(contents, kernel, target), places))
    return found
