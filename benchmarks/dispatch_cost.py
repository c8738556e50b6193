"""What choosing a binary by size costs the host, per kernel: on sizes that are new, and on the same again.

    python -m benchmarks.dispatch_cost [--json FILE]

Two libraries of 60 kernels that do nothing, over two symbols: in one each kernel has a table of 12 rows over 5 binaries, two of
them under guards; in the other each has one binary. A run's time is compared between the two, in one process each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import describe
from tests.python.wrapper.selections import Hand, cpu_binary, cpu_description

from mkwrap.codegen.wrapper import wrap
from mkwrap.ir.index import FloorDiv, size_symbol
from mkwrap.stages import (
    Access,
    Binary,
    BufferArgument,
    Dispatch,
    DispatchRow,
    Guard,
    Launch,
    SizeArgument,
    Source,
    SymbolSpec,
    Variant,
)
from mkwrap.toolchain.headers import include_dir
from mkwrap.toolchain.link import link

ROOT = Path(__file__).parents[1]
KERNELS, BINARIES = 60, 5
ROWS, COLS = size_symbol("rows"), size_symbol("cols")
GUARDS = {1: (Guard(COLS, multiple=16),), 2: (Guard(ROWS * COLS, most=2**31 - 1),)}


def program(*, tables: bool) -> Hand:
    """Make a program of many kernels, each with a table or with one binary."""
    hand = Hand(symbols=(SymbolSpec(ROWS, 1, 2**20, "x", 0), SymbolSpec(COLS, 1, 2**20, "x", 1)))
    hand.input("x", ROWS, COLS)
    hand.output("y", 1)
    points = [(rows, cols) for rows in (1, 8, 64, 512) for cols in (16, 64, 1024)]
    template = cpu_binary("mkw_nothing", "return 0;", 2)
    for number in range(KERNELS):
        binaries = [_binary(template, number, k) for k in range(BINARIES if tables else 1)]
        rows = (
            [DispatchRow(point, binaries[(7 * k + number) % BINARIES]) for k, point in enumerate(points)]
            if tables
            else []
        )
        # What is right everywhere, so that there is always one.
        rows += [DispatchRow((8, 64), binaries[0], 1 << 16)] if tables else []
        name = f"kernel{number}"
        table = Dispatch(tuple(rows), (ROWS, COLS)) if tables else Dispatch((DispatchRow((), binaries[0]),))
        hand.table(name, (Access.READ, Access.WRITE), table)
        hand.step(name, "x", "y")
    return hand


def _binary(template: Binary, kernel: int, number: int) -> Binary:
    """Make a binary of its own size expression that calls the one kernel there is."""
    blocks = FloorDiv(ROWS + 2**number * (1 + kernel % 3) - 1, 2**number * (1 + kernel % 3))
    arguments = (BufferArgument(0), BufferArgument(1), SizeArgument(blocks), SizeArgument(COLS))
    launch = Launch("mkw_nothing", arguments)
    variant = Variant(f"kernel{kernel}", f"binary{number}")
    source = Source(variant, "cpp", template.source.text, (launch,), guards=GUARDS.get(number, ()))
    return replace(template, source=source)


def main() -> None:
    """Build both libraries and the program that times them, print the costs."""
    parser = argparse.ArgumentParser(description="what choosing by size costs the host")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tables in (True, False):
            selection = program(tables=tables).selection()
            library = folder / ("tables.so" if tables else "single.so")
            link(wrap(selection, cpu_description()), selection.schedule.program, "g++", library)
        sources = [str(ROOT / "benchmarks" / "dispatch_cost.cpp"), *map(str, (ROOT / "csrc" / "loader").glob("*.cpp"))]
        flags = ["-std=c++17", "-O2", "-I", str(include_dir()), "-I", str(ROOT / "csrc")]
        subprocess.run(["g++", *flags, *sources, "-ldl", "-o", str(folder / "timer")], check=True)
        command = [folder / "timer", folder / "tables.so", folder / "single.so"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    (same, new), (same_single, new_single) = ([float(word) for word in line.split()[1:]] for line in lines)
    costs = {
        "kernels": KERNELS,
        "run_ns": {"tables": {"same": same, "new": new}, "single": {"same": same_single, "new": new_single}},
        "dispatch_ns_per_kernel": {"same": (same - same_single) / KERNELS, "new": (new - new_single) / KERNELS},
    }
    sys.stdout.write(json.dumps(costs, indent=1) + "\n")
    if options.json:
        options.json.write_text(json.dumps({"machine": describe(), **costs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
