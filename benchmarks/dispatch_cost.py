"""What choosing a binary by size costs the host, per kernel: on sizes that are new, and on the same again.

    python -m benchmarks.dispatch_cost [--json FILE]

Three libraries of 60 kernels that do nothing, over two symbols: each kernel has a table of 12 points and 13 rows over 5 binaries,
two of them under guards; a table of 120 points and 480 rows, as a row kernel tuned at 120 points has; or one binary. A run's
time is compared with that of the last, in one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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


def program(points: Sequence[tuple[int, int]], stand_ins: int = 0) -> Hand:
    """Make a program of many kernels, each with a table of points, or without any with one binary.

    Every point has `stand_ins` rows for sizes that its own binary is not right for.
    """
    hand = Hand(symbols=(SymbolSpec(ROWS, 1, 2**20, "x", 0), SymbolSpec(COLS, 1, 2**20, "x", 1)))
    hand.input("x", ROWS, COLS)
    hand.output("y", 1)
    template = cpu_binary("mkw_nothing", "return 0;", 2)
    for number in range(KERNELS):
        binaries = [_binary(template, number, k) for k in range(BINARIES if points else 1)]
        rows = [
            DispatchRow(point, binaries[(7 * k + number + other) % BINARIES], min(other, 1) << 16)
            for k, point in enumerate(points)
            for other in range(1 + stand_ins)
        ]
        # What is right everywhere, so that there is always one.
        rows += [DispatchRow(points[len(points) // 2], binaries[0], 1 << 16)] if points and not stand_ins else []
        name = f"kernel{number}"
        table = Dispatch(tuple(rows), (ROWS, COLS)) if points else Dispatch((DispatchRow((), binaries[0]),))
        hand.table(name, (Access.READ, Access.WRITE), table)
        hand.step(name, "x", "y")
    return hand


def programs() -> dict[str, Hand]:
    """Return the programs by what their kernels have."""
    few = [(rows, cols) for rows in (1, 8, 64, 512) for cols in (16, 64, 1024)]
    many = [(2**rows, 2**cols) for rows in range(0, 16, 2) for cols in range(15)]
    return {"12-points": program(few), "120-points": program(many, stand_ins=3), "single": program([])}


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
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, hand in programs().items():
            selection = hand.selection()
            link(wrap(selection, cpu_description()), selection.schedule.program, "g++", folder / f"{name}.so")
        sources = [str(ROOT / "benchmarks" / "dispatch_cost.cpp"), *map(str, (ROOT / "csrc" / "loader").glob("*.cpp"))]
        flags = ["-std=c++17", "-O2", "-I", str(include_dir()), "-I", str(ROOT / "csrc")]
        subprocess.run(["g++", *flags, *sources, "-ldl", "-o", str(folder / "timer")], check=True)
        command = [folder / "timer", *(folder / f"{name}.so" for name in programs())]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    run = {
        name: dict(zip(("same", "new"), map(float, line.split()[-2:]), strict=True))
        for name, line in zip(programs(), lines, strict=True)
    }
    single = run["single"]
    costs = {
        "kernels": KERNELS,
        "run_ns": run,
        "dispatch_ns_per_kernel": {
            name: {which: round((ns - single[which]) / KERNELS, 2) for which, ns in times.items()}
            for name, times in run.items()
            if name != "single"
        },
    }
    sys.stdout.write(json.dumps(costs, indent=1) + "\n")
    if options.json:
        options.json.write_text(json.dumps({"machine": describe(), **costs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
