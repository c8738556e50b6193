"""Scans in Triton (persistent, looped, chunks, look-back) under Triton's interpreter against the numpy oracle."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mkwrap.codegen.triton.look_back import SPLIT_SCAN
from mkwrap.codegen.triton.loops import scan_levels
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Combine, Compute, Nest
from mkwrap.ir.ops import ASSOCIATIVE
from mkwrap.stages import Kernel, Source, Variant
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.emulate import dirty_workspace, run
from tests.python.triton.nests import BF16, F32, F64, H100, I0, R0, R1, associative, matrix, scan
from tests.python.triton.oracle import Memory, answer, check, compare, copy, fill, sources

WHOLE = {"persistent", "looped"}
ALL = {*WHOLE, "scan_chunks", "split_scan"}
OPS = ("sum", "prod", "cummax", "cummin", "logaddexp")


def look_back(case: Kernel, x: int = 1, r: int = 16) -> Source:
    return SPLIT_SCAN.render(case, Variant(case.name, "split_scan", (("x", x), ("r", r), ("num_warps", 1))), H100)


@pytest.mark.parametrize("outer", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("op", OPS)
def test_every_scan_in_every_template(op: str, outer: bool, tmp_path: Path) -> None:
    assert check(scan(op, 5, 70, outer=outer), tmp_path, rtol=1e-4, atol=1e-4, most=1) == ALL


@pytest.mark.parametrize("dtype", [F64, DType.INT64, DType.INT32, DType.INT8, DType.UINT8])
@pytest.mark.parametrize("op", ["sum", "prod", "cummax", "cummin"])
def test_wide_words_and_wrapping_integers(op: str, dtype: DType, tmp_path: Path) -> None:
    assert check(scan(op, 3, 70, dtype), tmp_path, most=1) == ALL


@pytest.mark.parametrize("op", OPS)
def test_c30_nan_sticks_infinities_and_ties(op: str, tmp_path: Path) -> None:
    case = scan(op, 5, 70)
    memory = fill(case)
    rows = memory[0].view(5, 70)
    rows[0, 40], rows[1, 0], rows[2, 69] = math.nan, math.nan, math.nan
    rows[0, 50] = math.nan
    rows[3, :20], rows[4, 30:] = -math.inf, math.inf
    rows[4, :30] = torch.randint(0, 2, (30,)).float()
    assert check(case, tmp_path, memory, rtol=1e-4, atol=1e-4, most=1) == ALL


@pytest.mark.parametrize("outer", [False, True], ids=["rows", "columns"])
def test_a_function_of_the_users_combines_in_order(outer: bool, tmp_path: Path) -> None:
    assert check(associative(3, 70, outer), tmp_path, rtol=1e-4, atol=1e-4, most=1) == ALL


def test_truth_values_are_scanned_as_integers(tmp_path: Path) -> None:
    either = Combine(("a",), ("b",), (Compute("c", DType.BOOL, "bitor", ("a", "b")),), ("c",))
    body = BodyBuilder()
    (seen,) = body.scan(ASSOCIATIVE, body.load("arg0", DType.BOOL, (I0, R0)), combine=either)
    body.store("arg1", (I0, R0), seen)
    nest = Nest("any_so_far", axes((I0, 3)), axes((R0, 50)), body.body())
    case = kernel(nest, [matrix("arg0", DType.BOOL, 3, 50)], [matrix("arg1", DType.BOOL, 3, 50)])
    memory = fill(case)
    memory[0][50:90] = False
    assert check(case, tmp_path, memory, most=1) == ALL


@pytest.mark.parametrize(("rows", "length"), [(0, 5), (4, 0), (1, 1), (4, 1), (1, 33)])
def test_empty_and_single_extents(rows: int, length: int, tmp_path: Path) -> None:
    for op in ("sum", "cummax"):
        assert check(scan(op, rows, length), tmp_path, most=1) >= WHOLE


def softmax_then_cumsum(rows: int, length: int) -> Kernel:
    """cumsum(softmax(x)) in bfloat16, and its greatest value: a reduction before, one after."""
    body = BodyBuilder()
    x = body.cast(body.load("arg0", BF16, (I0, R0)), F32)
    (top,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, top))
    (total,) = body.reduce("sum", e)
    (run_so_far,) = body.scan("sum", body.compute("div", e, total))
    body.store("arg1", (I0, R0), body.cast(run_so_far, BF16))
    body.store("arg2", (I0,), body.reduce("maximum", run_so_far)[0])
    nest = Nest("softmax_cumsum", axes((I0, rows)), axes((R0, length)), body.body())
    writes = [matrix("arg1", BF16, rows, length), buffer("arg2", F32, [rows])]
    return kernel(nest, [matrix("arg0", BF16, rows, length)], writes)


def test_reductions_before_and_after_a_scan_share_the_kernel(tmp_path: Path) -> None:
    case = softmax_then_cumsum(3, 70)
    assert scan_levels(case.nest) == ()
    assert check(case, tmp_path, rtol=1e-2, atol=1e-2, most=1) == WHOLE
    # Rows too long for one block have a template, although none cuts them.
    assert {source.variant.template for source in sources(softmax_then_cumsum(1, 2**20), H100)} == {"looped"}


def several(rows: int, length: int) -> Kernel:
    """cumsum, cumsum of that, and cummax, each with work before and after; a scale per row."""
    body = BodyBuilder()
    x, scale = body.load("arg0", F32, (I0, R0)), body.load("arg1", F32, (I0,))
    (once,) = body.scan("sum", body.compute("mul", x, scale))
    (twice,) = body.scan("sum", body.compute("mul", once, scale))
    top, place = body.scan("cummax", x)
    body.store("arg2", (I0, R0), body.compute("add", body.compute("sub", twice, top), scale))
    body.store("arg3", (I0, R0), place)
    nest = Nest("several", axes((I0, rows)), axes((R0, length)), body.body())
    reads = [matrix("arg0", F32, rows, length), buffer("arg1", F32, [rows])]
    return kernel(nest, reads, [matrix("arg2", F32, rows, length), matrix("arg3", DType.INT64, rows, length)])


def test_several_scans_of_a_row_fuse_also_where_one_builds_on_another(tmp_path: Path) -> None:
    case = several(3, 70)
    assert [len(level) for level in scan_levels(case.nest)] == [2, 1]
    assert check(case, tmp_path, rtol=1e-4, atol=1e-4, most=1) == ALL


def test_axes_that_do_not_flatten_are_walked_in_order(tmp_path: Path) -> None:
    """The row is two axes of which the outer one has the smaller stride; they may not change places."""
    body = BodyBuilder()
    body.store("arg1", (I0, R0, R1), body.scan("sum", body.load("arg0", F32, (I0, R0, R1)))[0])
    nest = Nest("planes", axes((I0, 2)), axes((R0, 5), (R1, 9)), body.body())
    case = kernel(nest, [buffer("arg0", F32, [2, 5, 9], [45, 1, 5])], [buffer("arg1", F32, [2, 5, 9])])
    assert check(case, tmp_path, rtol=1e-4, atol=1e-4, most=1) == ALL


def test_in_place(tmp_path: Path) -> None:
    body = BodyBuilder()
    body.store("arg0", (I0, R0), body.scan("sum", body.load("arg0", F32, (I0, R0)))[0])
    nest = Nest("in_place", axes((I0, 3)), axes((R0, 70)), body.body())
    case = kernel(nest, [], [], [matrix("arg0", F32, 3, 70)])
    assert check(case, tmp_path, rtol=1e-4, atol=1e-4, most=1) == ALL


def without_all(source: Source, keep: Callable[[str], bool]) -> Source:
    """Leave out the second state that tiles publish, so that later ones find totals alone and look further back."""
    lines = [line for line in source.text.splitlines() if "| 2, sem" not in line or keep(line)]
    assert len(lines) < len(source.text.splitlines())
    return replace(source, text="\n".join(lines) + "\n")


@pytest.mark.parametrize("x", [1, 4])
@pytest.mark.parametrize("make", [lambda: scan("sum", 3, 600), lambda: associative(3, 600)], ids=["sum", "linear"])
def test_a_look_back_over_totals_alone_goes_on_to_the_first_tile(
    make: Callable[[], Kernel], x: int, tmp_path: Path
) -> None:
    """38 tiles a row: more than a window. The interpreter runs tiles in order, so states are never missing."""
    case = make()
    memory = fill(case)
    if case.name == "linear":
        memory[0].clamp_(0.5, 1)
    got = copy(memory)
    run(without_all(look_back(case, x), lambda _: False), got, tmp_path)
    compare(case, got, answer(case, memory), 1e-4, 1e-3, f"x={x}")


def test_a_state_of_several_words_is_believed_once_all_of_them_agree() -> None:
    """Half of a state says "total", half of it "all": the window waits, here for ever, so the text shows it."""
    text = look_back(scan("sum", 2, 64, F64)).text
    assert re.search(r"v2_rank = tl.where\(\(v2_low == 0\) \| \(v2_low != v2_high\), 2 \* lane \+ 1", text)
    assert text.count("volatile=True") == 2
    assert text.count("tl.atomic_xchg(") == 4


@pytest.mark.parametrize("length", [3_700_000, 2**26])
def test_c16_a_long_scan_races_block_sizes_look_back_and_chunks_and_is_never_persistent(length: int) -> None:
    found = list(sources(scan("sum", 1, length), H100))
    names = [source.variant.template for source in found]
    assert names[0] == "scan_chunks"
    assert set(names) == {"scan_chunks", "split_scan"}
    assert names.count("scan_chunks") >= 3
    assert names.count("split_scan") >= 4
    for source in found:
        single = source.variant.template == "split_scan"
        assert len(source.launches) == (1 if single else 2)
        assert source.zero_workspace == single
        assert int(source.launches[-1].grid[0]) >= H100.units


@pytest.mark.parametrize("outer", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("op", ["sum", "cummax"])
def test_c39_the_default_is_never_the_look_back_whose_sums_depend_on_what_runs_when(op: str, outer: bool) -> None:
    for rows in (1, 3, 17, 132, 3000, 200_000):
        for length in (1, 300, 700, 5000, 20_000, 100_000):
            found = next(sources(scan(op, rows, length, outer=outer), H100))
            assert found.variant.template != "split_scan", (rows, length)


def test_c29_millions_of_rows_stay_on_grid_x() -> None:
    seen = set()
    for case in (scan("sum", 3_000_000, 40), scan("sum", 70_000, 9000), scan("sum", 200_000, 1024, outer=True)):
        for source in sources(case, H100):
            seen.add(source.variant.template)
            for launch in source.launches:
                assert launch.grid[1:] == (1, 1)
                assert int(launch.grid[0]) >= 1
    assert seen >= {"persistent", "looped", "split_scan"}


def test_c15_the_counter_and_the_states_start_at_zero_in_every_run(tmp_path: Path) -> None:
    """A workspace that is not cleared gives wrong numbers of tiles; one that is serves any number of runs."""
    case = scan("sum", 3, 70)
    want = answer(case, memory := fill(case))
    source = look_back(case)
    workspace = dirty_workspace(source)
    for _ in range(3):
        got: Memory = copy(memory)
        run(source, got, tmp_path, workspace=workspace)
        compare(case, got, want, 1e-4, 1e-4, "again")
        assert workspace[: int(source.workspace_bytes)].any()
