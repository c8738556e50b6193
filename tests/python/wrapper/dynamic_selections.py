"""Selections with tables from sizes to binaries, built by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.python.wrapper.selections import Hand, cpu_binary, cuda_image

from mkwrap.ir.index import FloorDiv, size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.stages import (
    Access,
    Argument,
    Binary,
    BufferArgument,
    Dispatch,
    DispatchRow,
    Guard,
    Launch,
    Relation,
    Selection,
    SizeArgument,
    Source,
    SymbolSpec,
    Variant,
    WorkspaceArgument,
)

READ, WRITE = Access.READ, Access.WRITE


def tables() -> Hand:
    """Make y [2]: which binaries ran for x [2·rows + 1, cols], z = x [cols] where rows ≤ cols.

    The first kernel has a fast binary for few rows, one with a guard and a workspace for many, and a stand-in; the second one of
    rows alone; the third is static in its choice and reads what the arena had.
    """
    rows, cols = size_symbol("rows"), size_symbol("cols")
    symbols = (SymbolSpec(rows, 0, 2**40, "x", 0, 2, 1), SymbolSpec(cols, 0, 2**63 - 1, "x", 1))
    hand = Hand(symbols=symbols, relations=(Relation(rows, "<=", cols + 4096, "model.py:3: assert"),))
    hand.input("x", 2 * rows + 1, cols)
    hand.input("b", cols)
    hand.output("y", 2)
    hand.output("z", cols)
    hand.temporary("t", 0, cols)
    hand.temporary("u", 64 * FloorDiv(4 * cols + 63, 64), rows)
    hand.arena_bytes = 64 * FloorDiv(4 * cols + 63, 64) + 4 * rows
    both: tuple[Argument, ...] = (BufferArgument(0), BufferArgument(1), SizeArgument(rows), SizeArgument(cols))

    def by_rows(entry: str, value: int, guards: tuple[Guard, ...], workspace: int | Expr) -> Binary:
        fill = f"""float* y = (float*)args[1]; y[0] = {value};
        for (int64_t i = 0; i < (int64_t)(sizes[0] * {1 if workspace else 0}); ++i) ((char*)args[2])[i] = 1;
        return 0;"""
        arguments = (*both[:2], WorkspaceArgument(0), *both[2:])
        return cpu_binary(entry, fill, arguments, workspace, guards=guards)

    few = by_rows("mkw_few", 1, (Guard(rows, most=64),), 0)
    many = by_rows("mkw_many", 2, (Guard(cols, multiple=16),), rows)
    any_size = by_rows("mkw_any", 3, (), 0)
    table = Dispatch(
        (
            DispatchRow((1000, 64), many),
            DispatchRow((1000, 64), any_size),
            DispatchRow((8, 64), few),
            DispatchRow((8, 64), any_size, 1 << 16),
        ),
        (rows, cols),
    )
    hand.table("by_rows", (READ, WRITE), table)
    copy = """const float* b = (const float*)args[0]; float* z = (float*)args[1];
    for (int64_t i = 0; i < sizes[0]; ++i) z[i] = b[i] + {};
    return 0;"""
    arguments = (BufferArgument(0), BufferArgument(1), SizeArgument(cols))
    short, long = (cpu_binary(f"mkw_copy_{k}", copy.format(f"{k}.0f"), arguments) for k in (1, 2))
    hand.table("copy", (READ, WRITE), Dispatch((DispatchRow((16,), short), DispatchRow((256,), long)), (cols,)))
    hand.step("by_rows", "x", "y")
    hand.step("copy", "b", "t")
    hand.step("copy", "t", "z")
    return hand


def cuda_tables(ptxas: Path, arch: str = "sm_90") -> Hand:
    """Make y [n] of x [n] by sizes: few blocks or many, these with a zeroed workspace, then a kernel with global scratch."""
    n = size_symbol("n")
    hand = Hand(symbols=(SymbolSpec(n, 0, 2**50, "x", 0),))
    hand.input("x", n)
    hand.output("y", n)
    hand.temporary("t", 0, n)
    hand.arena_bytes = 256 * FloorDiv(4 * n + 255, 256)
    few = Launch("few", (BufferArgument(0), BufferArgument(1), SizeArgument(n)), (1, FloorDiv(n + 63, 64), 1))
    many = (
        Launch("many_partial", (BufferArgument(0), WorkspaceArgument(0)), (FloorDiv(n + 255, 256), 1, 1)),
        Launch("many_final", (WorkspaceArgument(0), BufferArgument(1)), (FloorDiv(n + 1023, 1024), 1, 1)),
    )
    images = {
        name: cuda_image(name, ptxas, 3 if name == "few" else 2, arch) for name in ("few", "many_partial", "many_final")
    }
    guards = (Guard(n, most=2**31),)
    first = Binary(Source(Variant("by_n", "few"), "triton", "", (few,), guards=guards), (images["few"],))
    second = Source(Variant("by_n", "many"), "triton", "", many, 4 * n, zero_workspace=True)
    both = (images["many_partial"], images["many_final"])
    table = Dispatch((DispatchRow((4096,), Binary(second, both)), DispatchRow((64,), first)), (n,))
    hand.table("by_n", (READ, WRITE), table)
    scratch = cuda_image("per_block", ptxas, arch=arch, global_scratch_bytes=16, global_scratch_alignment=16)
    launch = Launch("per_block", (BufferArgument(0), BufferArgument(1)), (1, FloorDiv(n + 127, 128), 1))
    hand.kernel("last", (READ, WRITE), Binary(Source(Variant("last", "hand"), "triton", "", (launch,)), (scratch,)))
    hand.step("by_n", "x", "t")
    hand.step("last", "t", "y")
    return hand


def cuda_tables_both(ptxas: Path) -> tuple[Selection, Selection]:
    """Make the choices of two targets over one schedule: sm_80 runs one binary whatever the sizes, sm_90 has a table."""
    newer = cuda_tables(ptxas).selection()
    older = cuda_tables(ptxas, "sm_80").selection()
    many = older.winners["by_n"].only
    winners = {**older.winners, "by_n": Dispatch((DispatchRow((), many),))}
    return replace(older, schedule=newer.schedule, winners=winners), newer
