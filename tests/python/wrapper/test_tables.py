"""Tables in host code: what there is room for, and targets whose tables are over different sizes and guards."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.python.wrapper.selections import Hand

from mkwrap.codegen.wrapper import Description, wrap
from mkwrap.codegen.wrapper.tables import TableRow, points_of
from mkwrap.ir.index import size_symbol
from mkwrap.ir.nearest import MOST_GUARDS, MOST_ROWS, MOST_SYMBOLS, TIE
from mkwrap.stages import (
    Access,
    Binary,
    BufferArgument,
    Device,
    Dispatch,
    DispatchRow,
    Guard,
    Image,
    Launch,
    Source,
    SymbolSpec,
    Variant,
)
from mkwrap.toolchain.headers import include_dir
from mkwrap.toolchain.link import link

ROWS, COLS = size_symbol("rows"), size_symbol("cols")
BOTH = Description(Device("cuda", "sm_80"), (), "0.0.test", {}, (Device("cuda", "sm_90"),))


def test_a_table_has_room_for_what_the_header_says() -> None:
    text = (include_dir() / "mkwrap" / "dispatch.h").read_text()
    assert re.search(r"uint(\d+)_t\* first;", text)[1] == "16"  # type: ignore[index]
    assert MOST_ROWS < 1 << 16
    assert re.search(r"kMostSymbols = (\d+);", text)[1] == str(MOST_SYMBOLS)  # type: ignore[index]
    assert re.search(r"kTie = (\d+);", text)[1] == str(TIE)  # type: ignore[index]
    assert re.search(r"uint(\d+)_t guards;", text)[1] == str(MOST_GUARDS)  # type: ignore[index]


def test_points_that_are_no_grid_of_many_symbols_are_kept_as_they_are() -> None:
    # The product of their sizes has some 10^18 points.
    sizes = random.Random(0)
    points = sorted({tuple(sizes.randint(1, 4096) for _ in range(8)) for _ in range(200)})
    found = points_of([TableRow(point, 0, 0, 0) for point in points])
    assert (found.count, found.axes, len(found.hints)) == (200, (), 1600)


def _binary(name: str, guards: tuple[Guard, ...] = ()) -> Binary:
    blob = name.encode()
    source = Source(
        Variant("k", name), "triton", "", (Launch(name, (BufferArgument(0), BufferArgument(1))),), guards=guards
    )
    return Binary(source, (Image(name, blob, hashlib.sha256(blob).hexdigest()),))


@pytest.mark.toolchain
def test_each_target_has_its_own_sizes_and_guards(tmp_path: Path) -> None:
    hand = Hand(symbols=(SymbolSpec(ROWS, 0, 2**40, "x", 0), SymbolSpec(COLS, 0, 2**40, "x", 1)))
    hand.input("x", ROWS, COLS)
    hand.output("y", ROWS, COLS)
    # More guards than one table may have, on both targets together.
    tables = []
    for symbol, small, large in ((ROWS, 1, 1 + MOST_GUARDS), (COLS, 1000, 1000 + MOST_GUARDS)):
        guarded = _binary(f"few_{symbol}", tuple(Guard(symbol, most=most) for most in range(small, large)))
        free = _binary(f"any_{symbol}")
        tables.append(Dispatch((DispatchRow((8,), guarded), DispatchRow((8,), free)), (symbol,)))
    hand.table("k", (Access.READ, Access.WRITE), tables[0])
    hand.step("k", "x", "y")
    first = hand.selection()
    second = replace(first, winners={"k": tables[1]})
    host = wrap(first, BOTH, (second,))
    for number, most in ((0, MOST_GUARDS), (1, 999 + MOST_GUARDS)):
        block = host.text.partition(f"if (model.target == {number}) {{")[2].partition("runtime::elect(")[0]
        assert f"const uint32_t logs[8] = {{log{number}}};" in block
        assert f"<= {most})" in block
        assert block.count("holds |=") == MOST_GUARDS
    link(host, first.schedule.program, "g++", tmp_path / "model.so")
