"""Reductions in Triton (persistent, looped, split) under Triton's interpreter against the numpy oracle."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mkwrap.codegen.triton.looped import LOOPED
from mkwrap.codegen.triton.loops import cut
from mkwrap.codegen.triton.split import SPLIT
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Nest
from mkwrap.stages import Kernel, Params, Variant
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.emulate import dirty_workspace, run
from tests.python.triton.nests import (
    BF16,
    F16,
    F32,
    F64,
    H100,
    I0,
    R0,
    group_norm_sums,
    layer_norm,
    log_sum_exp,
    matrix,
    normalized,
    reduction,
    renormalized,
    softmax,
    softmax_and_logs,
    spread,
)
from tests.python.triton.oracle import Memory, answer, check, compare, copy, fill, short_split, sources, view, walking

ROW_TEMPLATES = {"persistent", "looped"}
ALL_TEMPLATES = {*ROW_TEMPLATES, "split"}
ALL_OPS = ("sum", "prod", "maximum", "minimum", "argmax", "argmin", "welford")


def with_special_rows(case: Kernel, length: int) -> Memory:
    """Put NaN first, last and in the middle, infinities, ties, and zeros of both signs into the first rows."""
    memory = fill(case)
    flat = memory[0]
    flat[: 3 * length] = flat[: 3 * length].clamp(-1, 1)
    flat[0] = flat[length - 1] = math.nan
    flat[length + length // 2] = math.nan
    flat[2 * length : 2 * length + 6] = torch.tensor([math.inf, -math.inf, 5, 5, -5, -5])
    flat[3 * length : 5 * length] = 0.0
    flat[3 * length] = flat[4 * length + 1] = -0.0
    return memory


@pytest.mark.parametrize("op", ALL_OPS)
def test_every_reduction_in_every_row_template(op: str, tmp_path: Path) -> None:
    case = reduction(op, 5, 70)
    assert check(case, tmp_path, rtol=1e-4, atol=1e-4, most=2) == ALL_TEMPLATES


@pytest.mark.parametrize("op", ["maximum", "minimum", "argmax", "argmin", "sum"])
def test_c30_nan_wins_the_first_of_equals_is_taken(op: str, tmp_path: Path) -> None:
    case = reduction(op, 5, 70)
    memory = with_special_rows(case, 70)
    assert check(case, tmp_path, memory, rtol=1e-4, atol=1e-4, most=2) == ALL_TEMPLATES


@pytest.mark.parametrize("op", ["sum", "argmax", "welford"])
def test_few_long_rows_are_split_into_two_launches(op: str) -> None:
    source = next(sources(reduction(op, 1, 2**20), H100))
    assert source.variant.template == "split"
    assert len(source.launches) == 2
    assert int(source.launches[0].grid[0]) >= H100.units * 9 // 10
    assert int(source.workspace_bytes) > 0
    assert not source.zero_workspace


@pytest.mark.parametrize("op", ["sum", "maximum", "argmin", "welford"])
def test_columns(op: str, tmp_path: Path) -> None:
    case = reduction(op, 37, 21, outer=True)
    assert check(case, tmp_path, rtol=1e-4, atol=1e-4, most=1) == ROW_TEMPLATES


def test_columns_of_a_tall_matrix_are_split() -> None:
    source = next(sources(reduction("sum", 1024, 2**17, outer=True), H100))
    assert source.variant.template == "split"
    assert int(source.launches[0].grid[0]) >= H100.units * 9 // 10


@pytest.mark.parametrize("dtype", [DType.INT64, DType.INT32, DType.INT16, DType.INT8, DType.UINT8])
@pytest.mark.parametrize("op", ["sum", "prod", "maximum", "argmin"])
def test_integers_wrap_and_compare(op: str, dtype: DType, tmp_path: Path) -> None:
    assert check(reduction(op, 3, 40, dtype), tmp_path, most=1) == ALL_TEMPLATES


@pytest.mark.parametrize("op", ["maximum", "minimum"])
@pytest.mark.parametrize("dtype", [DType.BOOL, BF16, F16, F64])
def test_any_all_and_other_floats(op: str, dtype: DType, tmp_path: Path) -> None:
    assert check(reduction(op, 3, 40, dtype), tmp_path, most=1) == ALL_TEMPLATES


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_c01_softmax_has_several_variants_that_agree(dtype: DType, tmp_path: Path) -> None:
    case = softmax(6, 100, dtype)
    assert len(list(sources(case, H100))) >= 4
    assert check(case, tmp_path, rtol=1e-2 if dtype is BF16 else 1e-5) == ALL_TEMPLATES
    assert len(list(sources(softmax(8192, 1024, dtype), H100))) >= 2


def test_softmax_along_columns_and_split(tmp_path: Path) -> None:
    assert check(softmax(40, 34, outer=True), tmp_path, most=2) == ALL_TEMPLATES
    (plain,) = (s for s in sources(softmax(2, 2**20), H100, ["split"]) if "online" not in s.variant.label)
    assert [launch.entry[-2:] for launch in plain.launches][1:] == ["_1", "_2"]


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("outer", [False, True])
def test_c31_rows_of_minus_infinity_and_with_plus_infinity(dtype: DType, outer: bool, tmp_path: Path) -> None:
    case = softmax(6, 50, dtype, outer)
    accuracy = 1e-2 if dtype is BF16 else 1e-5
    assert check(case, tmp_path, infinite_rows(case), most=2, rtol=accuracy, atol=accuracy) == ALL_TEMPLATES


@pytest.mark.parametrize("outer", [False, True])
def test_c31_log_sum_exp_of_infinities(outer: bool, tmp_path: Path) -> None:
    case = log_sum_exp(6, 50, outer)
    assert check(case, tmp_path, infinite_rows(case), most=3) == ALL_TEMPLATES


def infinite_rows(case: Kernel) -> Memory:
    """Rows of −inf, with +inf, with NaN, of +inf, that start with −inf, and an ordinary one."""
    memory = fill(case)
    rows = view(memory[0], case.parameters[0].buffer)
    rows[0] = -math.inf
    rows[1, 10] = math.inf
    rows[2, 20] = math.nan
    rows[3] = math.inf
    rows[4, :40] = -math.inf
    return memory


def test_online_softmax_walks_a_row_once_less() -> None:
    online = [
        source for source in sources(softmax(64, 2**16), H100, ["looped"]) if "online=True" in source.variant.label
    ]
    plain = [source for source in sources(softmax(64, 2**16), H100, ["looped"]) if source not in online]
    assert {source.text.count("tl.range(") for source in online} == {2}
    assert {source.text.count("tl.range(") for source in plain} == {3}
    (split,) = sources(softmax(2, 2**20), H100, ["split"], most=1)
    assert len(split.launches) == 2


@pytest.mark.parametrize("logsumexp_first", [False, True])
def test_c31_sums_below_one_maximum_merge_once_and_the_others_stay_sums(logsumexp_first: bool, tmp_path: Path) -> None:
    case = softmax_and_logs(6, 100, logsumexp_first)
    best = next(sources(case, H100, ["looped"]))
    assert "online=True" in best.variant.label
    assert best.text.count("tl.range(") == 2
    assert check(case, tmp_path, infinite_rows(case)) == ALL_TEMPLATES


def test_online_softmax_loses_no_digits_over_long_rows(tmp_path: Path) -> None:
    case = softmax(2, 4096)
    memory = fill(case)
    memory[0] = memory[0].view(2, 4096).sort(1).values.flatten() * 10
    exact = torch.softmax(memory[0].view(2, 4096).double(), 1).flatten()
    for source in (*sources(case, H100, ["looped"], most=2), *short_split(case)):
        got = copy(memory)
        run(source, got, tmp_path)
        torch.testing.assert_close(got[1].double(), exact, rtol=2e-5, atol=1e-12)


def test_c14_programs_of_a_single_launch_count_themselves_in(tmp_path: Path) -> None:
    case = reduction("sum", 5, 200)
    (single,) = (source for source in short_split(case) if "single=True" in source.variant.label)
    assert len(single.launches) == 1
    assert single.zero_workspace
    memory = fill(case)
    want = answer(case, memory)
    workspace = dirty_workspace(single)
    for _ in range(2):
        got = copy(memory)
        run(single, got, tmp_path, workspace=workspace)
        compare(case, got, want, 1e-5, 1e-5, "single")
    # Counted on from the last run, no program is the last: nothing is stored.
    got = copy(memory)
    run(replace(single, zero_workspace=False), got, tmp_path, workspace=workspace)
    with pytest.raises(AssertionError, match="uncleared"):
        compare(case, got, want, 1e-5, 1e-5, "uncleared")


def test_a_walk_loads_what_all_rows_share_once() -> None:
    (source,) = walking(layer_norm(64, 512, BF16))
    before, _, inside = source.text.partition("for tile in tl.range(")
    assert (before.count("tl.load("), inside.count("tl.load(")) == (2, 2)


def test_layer_norm_with_residual_and_gelu_is_one_kernel(tmp_path: Path) -> None:
    assert check(layer_norm(3, 90), tmp_path, rtol=1e-4, atol=1e-4, most=2) == ALL_TEMPLATES
    assert check(layer_norm(3, 90, BF16), tmp_path, rtol=2e-2, atol=2e-2, most=1) == ALL_TEMPLATES


# docs/numerics.md: the bounds at that distance from zero, and half an ulp of a 16-bit result.
@pytest.mark.parametrize(
    ("dtype", "mean", "deviation", "rounding"),
    [(F32, 1e4, 1.0, 0.0), (BF16, 8.0, 0.5, 2**-8)],
    ids=["float32", "bfloat16"],
)
def test_c32_variance_and_layer_norm_far_from_zero_in_every_variant(
    dtype: DType, mean: float, deviation: float, rounding: float, tmp_path: Path
) -> None:
    distance = 2**-24 * mean / deviation
    for case in (reduction("welford", 2, 1000), normalized(3, 1000, dtype)):
        memory = fill(case)
        memory[0].mul_(deviation).add_(mean)
        rows = memory[0].view(-1, 1000).double()
        for source in (*sources(case, H100), *short_split(case), *walking(case)):
            got = copy(memory)
            run(source, got, tmp_path)
            if len(case.parameters) == 3:
                exact = rows.var(1, correction=0) * 1000
                assert ((got[2].double() - exact).abs() / exact).max() <= 2 * distance, source.variant.label
            else:
                exact = torch.nn.functional.layer_norm(rows, (1000,))
                error = (got[1].view(-1, 1000).double() - exact).abs() / (1 + exact.abs())
                assert error.max() <= 8 * distance + rounding, source.variant.label


def test_c17_the_persistent_variant_loads_and_stores_once() -> None:
    case = layer_norm(64, 512, BF16)
    persistent = next(sources(case, H100, ["persistent"])).text
    looped = next(sources(case, H100, ["looped"])).text
    assert (persistent.count("tl.load("), persistent.count("tl.store(")) == (4, 2)
    assert (looped.count("tl.load("), looped.count("tl.store(")) == (6, 2)


@pytest.mark.parametrize(("store", "place"), [("", "kept"), ("value", "arg4"), ("result", "arg4")])
def test_c17_a_value_kept_between_loops_is_stored_once_and_read_behind_a_barrier(
    store: str, place: str, tmp_path: Path
) -> None:
    case = spread(5, 100, store)
    assert check(case, tmp_path, most=3) == ALL_TEMPLATES
    kept = [s for s in sources(case, H100, ["looped"]) if "keep=True" in s.variant.label]
    assert len(kept) == 1
    first, _, later = kept[0].text.partition("tl.debug_barrier()")
    assert first.count("tl.load(") == 3
    assert later.count("tl.load(") == later.count(f"tl.load({place} + ") == 1
    assert first.count(f"tl.store({place} + ") == 1
    assert int(kept[0].workspace_bytes) == (5 * 100 * 4 if place == "kept" else 0)
    (persistent,) = sources(case, H100, ["persistent"], most=1)
    assert persistent.text.count("tl.store(") == (2 if store else 1)
    assert persistent.workspace_bytes == 0


def test_c17_a_value_kept_between_launches_is_an_argument_of_those_that_touch_it() -> None:
    case = spread(3, 100)
    (kept,) = (s for s in short_split(case) if "keep=True" in s.variant.label)
    assert len(kept.launches) == 3
    assert [("kept", "*fp32") in launch.signature for launch in kept.launches] == [True, True, False]


# Without the softmax of n, the online walk needs v no more after the loop that stores n.
@pytest.mark.parametrize(
    ("softmax_too", "online", "place"),
    [(True, False, "arg2"), (True, True, "arg2"), (False, False, "kept"), (False, True, "arg1")],
)
def test_c17_a_value_is_not_kept_in_an_output_overwritten_before_its_last_use(
    softmax_too: bool, online: bool, place: str, tmp_path: Path
) -> None:
    case = renormalized(5, 100, softmax_too)
    memory = fill(case)
    want = answer(case, memory)
    ways: Params = (("keep", True), ("online", online))
    looped: Params = (("x", 2), ("r", 32), ("num_warps", 1), *ways)
    split: Params = (("x", 2), ("r", 32), ("chunks", 3), ("num_warps", 1), *ways)
    for template, params in ((LOOPED, looped), (SPLIT, split)):
        source = template.render(case, Variant(case.name, template.name, params), H100)
        assert f"tl.store({place} + " in source.text
        got = copy(memory)
        run(source, got, tmp_path)
        compare(case, got, want, 1e-4, 1e-4, source.variant.label)


def test_nothing_is_kept_where_computing_anew_moves_as_few_bytes() -> None:
    for case in (softmax(64, 5000), layer_norm(64, 5000, BF16), reduction("welford", 64, 5000)):
        assert not [s for s in sources(case, H100) if "keep=True" in s.variant.label]


def test_in_place_softmax_stores_only_after_the_last_read(tmp_path: Path) -> None:
    case = softmax(4, 60, in_place=True)
    assert [bool(loop.stores) for loop in cut(case.nest).loops] == [False, False, True]
    assert check(case, tmp_path, most=2) == ALL_TEMPLATES


def test_an_early_in_place_store_waits_for_later_loops(tmp_path: Path) -> None:
    body = BodyBuilder()
    y = body.compute("add", body.load("arg0", F32, (I0, R0)), body.constant(1, F32))
    body.store("arg0", (I0, R0), y)
    (top,) = body.reduce("maximum", y)
    body.store("arg1", (I0, R0), body.compute("sub", y, top))
    nest = Nest("shifted", axes((I0, 3)), axes((R0, 300)), body.body())
    case = kernel(nest, [], [matrix("arg1", F32, 3, 300)], [matrix("arg0", F32, 3, 300)])
    assert [len(loop.stores) for loop in cut(nest).loops] == [0, 2]
    assert check(case, tmp_path, most=1) == ALL_TEMPLATES


def test_reduction_over_axes_that_do_not_flatten(tmp_path: Path) -> None:
    assert check(group_norm_sums(2, 3, 5, 9), tmp_path, most=2) == ALL_TEMPLATES


@pytest.mark.parametrize(("rows", "length"), [(4, 0), (0, 5), (4, 1), (1, 1)])
def test_c19_c20_empty_and_single_extents(rows: int, length: int, tmp_path: Path) -> None:
    for op in ("sum", "prod"):
        assert check(reduction(op, rows, length), tmp_path, most=1) == ROW_TEMPLATES


def test_row_values_and_element_stores_together(tmp_path: Path) -> None:
    body = BodyBuilder()
    x, w = body.load("arg0", F32, (I0, R0)), body.load("arg1", F32, (I0,))
    body.store("arg2", (I0, R0), body.compute("mul", x, w))
    body.store("arg3", (I0,), body.compute("add", body.reduce("sum", x)[0], w))
    nest = Nest("both", axes((I0, 6)), axes((R0, 50)), body.body())
    reads = [matrix("arg0", F32, 6, 50), buffer("arg1", F32, [6])]
    case = kernel(nest, reads, [matrix("arg2", F32, 6, 50), buffer("arg3", F32, [6])])
    assert check(case, tmp_path) == ALL_TEMPLATES


def test_c29_millions_of_rows_stay_on_grid_x() -> None:
    for source in sources(reduction("sum", 3_000_000, 40), H100):
        for launch in source.launches:
            assert launch.grid[1:] == (1, 1)
            assert int(launch.grid[0]) >= 1
