"""The forms of a text for dynamic sizes: which are offered, what each takes for granted, and how Triton is told."""

from __future__ import annotations

import pytest
import sympy

from mkwrap.codegen.triton import LANGUAGE
from mkwrap.codegen.triton.sizes import sizes_of
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import size_symbol
from mkwrap.ir.ops import SORT_LIMIT
from mkwrap.ir.signature import Guard
from mkwrap.stages import Device, Kernel, Params, SizeArgument, Source, Variant
from tests.python.triton.nests import (
    BF16,
    H100,
    layer_norm,
    merged_heads,
    padded_gather,
    product,
    reduction,
    scalar_op,
    softmax,
    sort,
    transpose,
)

S0, S1, S2 = (size_symbol(name) for name in ("s0", "s1", "s2"))
SMALL = {S0: 4096, S1: 4096, S2: 4096}
DIVISIBLE: Params = (("divisible", True),)
WIDE: Params = (("wide", True),)
MOST = 2**31 - 1 - 2**28


def written(kernel: Kernel, params: Params, template: str = "looped", device: Device = H100) -> Source:
    own: dict[str, Params] = {"looped": (("x", 1), ("r", 1024)), "pointwise": (("block", 1024),)}
    found = next(t for t in LANGUAGE.templates if t.name == template)
    return found.render(kernel, Variant(kernel.name, template, (*own[template], *params)), device)


@pytest.mark.parametrize(
    ("kernel", "multiples"),
    [
        (softmax(S0, S1), {S1: 4}),
        (softmax(S0, S1, BF16), {S1: 8}),
        (softmax(S0, 1000), {}),
        (softmax(S0, 16 * S1), {}),
        (softmax(S0, 4 * S1, BF16), {S1: 2}),
        (softmax(S0, S1, outer=True), {S0: 4}),
        (layer_norm(S0, S1, BF16), {S1: 8}),
        (reduction("sum", S0, S1, outer=True), {S0: 4}),
        (reduction("sum", 1024, S1, outer=True), {}),
        (scalar_op("exp", DType.FLOAT32, S0 * S1), {S0 * S1: 4}),
        (scalar_op("exp", DType.FLOAT32, 48 * S1), {}),
        (transpose(S0, S1), {S0: 4, S1: 4}),
        (product(S0, 512, 768, BF16), {}),
        (product(S0, S1, 768, BF16), {S1: 8}),
        (product(64, 64, S2, BF16), {S2: 8}),
        (product(64, 64, S2, BF16, transposed=False), {S2: 8}),
    ],
)
def test_the_divisible_form_asks_of_sizes_what_wide_accesses_need(
    kernel: Kernel, multiples: dict[sympy.Expr, int]
) -> None:
    assert LANGUAGE.forms(kernel, SMALL) == ((DIVISIBLE, ()) if multiples else ((),))
    assert sizes_of(kernel, DIVISIBLE).multiples == multiples


def test_which_row_a_quotient_tells_says_nothing_of_how_it_lies_in_memory() -> None:
    """Rows are found by division by the length, but each is contiguous and starts at a multiple of 64 elements."""
    kernel = merged_heads(S0, S1)
    assert sizes_of(kernel, DIVISIBLE).multiples == {}
    assert LANGUAGE.forms(kernel, {S0: 64, S1: 512}) == ((),)


def test_a_static_kernel_has_one_form() -> None:
    assert LANGUAGE.forms(softmax(8, 64), {}) == ((),)


def test_divisible_sizes_are_guarded_and_said_to_triton() -> None:
    source = written(softmax(S0, S1), DIVISIBLE)
    assert Guard(S1, multiple=4) in source.guards
    assert "size_s1 = size_s1 // 4 * 4" in source.text
    assert SizeArgument(S1, DType.INT32) in source.launches[0].args
    assert not any(guard.multiple > 1 for guard in written(softmax(S0, S1), ()).guards)


def test_a_whole_extent_may_be_divisible_though_its_factors_are_not() -> None:
    source = written(scalar_op("exp", DType.FLOAT32, S0 * S1), DIVISIBLE, "pointwise")
    (guard,) = (guard for guard in source.guards if guard.multiple > 1)
    assert guard.holds({S0: 2, S1: 6})
    assert not guard.holds({S0: 2, S1: 5})
    assert "x_mask = x < (size_s0 * size_s1) // 4 * 4" in source.text


def test_c28_narrow_indices_are_guarded_and_wide_ones_are_not() -> None:
    kernel = softmax(S0, S1)
    narrow, wide = written(kernel, ()), written(kernel, WIDE)
    assert narrow.guards == (Guard(S0, most=MOST), Guard(S0 * S1, most=MOST))
    assert narrow.guards[1].holds({S0: 2**15, S1: 2**15})
    assert not narrow.guards[1].holds({S0: 2**16, S1: 2**15})
    assert wide.guards == ()
    assert [kind for name, kind in narrow.launches[0].signature if name.startswith("size_")] == ["i32", "i32"]
    assert [kind for name, kind in wide.launches[0].signature if name.startswith("size_")] == ["i64", "i64"]


def test_c28_rows_are_guarded_where_the_reduced_row_may_be_empty() -> None:
    guards = written(reduction("sum", S0 * S1, S2), ()).guards
    assert Guard(S0 * S1 * S2, most=MOST) in guards
    large, empty = {S0: 50_000, S1: 50_000, S2: 0}, {S0: 0, S1: 50_000, S2: 50_000}
    assert not all(guard.holds(large) for guard in guards)
    assert all(guard.holds(empty) for guard in guards)
    assert written(reduction("sum", S0, 1000), ()).guards == (Guard(1000 * S0, most=MOST),)


def test_c28_the_wide_form_is_offered_where_indices_may_not_fit() -> None:
    kernel = softmax(S0, S1)
    assert LANGUAGE.forms(kernel, SMALL) == (DIVISIBLE, ())
    assert LANGUAGE.forms(kernel, {S0: 2**16, S1: 2**15}) == (DIVISIBLE, (), WIDE)
    assert LANGUAGE.forms(kernel, {S0: 2**10}) == (DIVISIBLE, (), WIDE)


def test_c28_no_wide_form_where_a_square_of_a_size_fits() -> None:
    """Scores of attention: rows as long as they are many."""
    kernel = softmax(12 * S0 * S1, S1)
    assert LANGUAGE.forms(kernel, {S0: 64, S1: 512}) == (DIVISIBLE, ())
    assert LANGUAGE.forms(kernel, {S0: 64, S1: 2**12}) == (DIVISIBLE, (), WIDE)


def test_c28_wide_parts_of_a_cut_row_are_not_guarded() -> None:
    template = next(t for t in LANGUAGE.templates if t.name == "split")
    params: Params = (("x", 1), ("r", 64), ("chunks", 33), ("num_warps", 1))
    kernel = reduction("sum", S0, S1)
    narrow = template.render(kernel, Variant("sum", "split", params), H100)
    wide = template.render(kernel, Variant("sum", "split", (*params, *WIDE)), H100)
    assert Guard(33 * S0, most=MOST) in narrow.guards
    assert wide.guards == ()


def test_c28_a_kernel_whose_static_part_is_too_large_has_wide_indices_alone() -> None:
    kernel = softmax(S0, 2**31)
    assert LANGUAGE.forms(kernel, {}) == ((),)
    source = written(kernel, ())
    assert source.guards == ()
    assert ("size_s0", "i64") in source.launches[0].signature


def test_a_row_held_in_a_block_is_guarded_by_its_length() -> None:
    template = next(t for t in LANGUAGE.templates if t.name == "persistent")
    params: Params = (("x", 1), ("r", 1024), ("num_warps", 4))
    dynamic = template.render(softmax(S0, S1), Variant("softmax", "persistent", params), H100)
    assert Guard(S1, most=1024) in dynamic.guards
    static = template.render(softmax(S0, 1000), Variant("softmax", "persistent", params), H100)
    assert static.guards == (Guard(1000 * S0, most=MOST),)


def test_a_sort_has_a_form_for_the_longest_row() -> None:
    kernel = sort(S0, S1)
    forms = LANGUAGE.forms(kernel, {S0: 4096, S1: 1000})
    assert forms == (DIVISIBLE, (), (("longest", 1024),))
    template = next(t for t in LANGUAGE.templates if t.name == "persistent")
    params: Params = (("x", 16), ("r", 64), ("num_warps", 4), *forms[-1])
    source = template.render(kernel, Variant("sort", "persistent", params), H100)
    assert Guard(S1, most=1024) in source.guards
    assert "tl.arange(0, 1024)[None, :]" in source.text
    assert LANGUAGE.forms(kernel, {S0: 2**20, S1: 8 * SORT_LIMIT}) == (DIVISIBLE, (), WIDE)
    assert LANGUAGE.forms(kernel, {S1: 100}) == (DIVISIBLE, (), (*WIDE, ("longest", 128)))
    assert LANGUAGE.forms(sort(S0, 60), SMALL) == ((),)


def test_data_dependent_indices_are_no_sizes() -> None:
    assert LANGUAGE.forms(padded_gather(S0, 40), SMALL) == ((),)
