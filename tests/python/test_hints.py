"""The points that `Options.hints` and `Options.max_points` make of a program's symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from mkwrap import Options
from mkwrap.errors import OptionError
from mkwrap.hints import hints_of, spread
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Mod, contiguous_strides, size_symbol
from mkwrap.ir.nearest import distance
from mkwrap.ir.nodes import Buffer, Role
from mkwrap.stages import Hints, Program, Relation, SymbolSpec

B, S = size_symbol("batch"), size_symbol("seq")
UNBOUNDED = 2**63 - 1


def program(*specs: tuple[sympy.Symbol, int, int], relations: Sequence[Relation] = ()) -> Program:
    shape = tuple(symbol for symbol, _, _ in specs)
    x = Buffer("x", DType.FLOAT32, shape, contiguous_strides(shape), Role.INPUT)
    symbols = tuple(SymbolSpec(symbol, low, high, "x", dim) for dim, (symbol, low, high) in enumerate(specs))
    return Program({"x": x}, (), (), (), {}, symbols, tuple(relations))


BOTH = program((B, 1, 64), (S, 8, 512))


def points(hints: Hints) -> list[tuple[int, ...]]:
    return [tuple(values.values()) for values in hints.points]


def made(of: Program, example: Sequence[int], **options: object) -> Hints:
    return hints_of(of, {"x": SimpleNamespace(shape=tuple(example))}, Options(**options))  # type: ignore[arg-type]


def test_sizes_by_symbol_give_their_product_and_the_example_comes_first() -> None:
    found = made(BOTH, (3, 70), hints={"batch": [1, 64], "seq": [8, 128]})
    assert points(found) == [(3, 70), (1, 8), (1, 128), (64, 8), (64, 128)]
    assert found.left_out == ()


def test_a_symbol_that_is_not_named_keeps_the_example_s_size() -> None:
    assert points(made(BOTH, (3, 70), hints={"batch": 8})) == [(3, 70), (8, 70)]
    assert points(made(BOTH, (3, 70), hints=[{"seq": 8}, {"batch": 2, "seq": 9}])) == [(3, 70), (2, 9), (3, 8)]


def test_hints_are_integers_of_any_type() -> None:
    of_numpy = ({"batch": np.int64(8), "seq": [np.int32(9), np.uint8(11)]}, [{"batch": np.int64(2)}])
    for hints, plain in zip(of_numpy, ({"batch": 8, "seq": [9, 11]}, [{"batch": 2}]), strict=True):
        assert made(BOTH, (3, 70), hints=hints) == made(BOTH, (3, 70), hints=plain)
    assert all(type(size) is int for point in points(made(BOTH, (3, 70), hints=of_numpy[0])) for size in point)


def test_hints_in_any_order_make_the_same_points() -> None:
    assert made(BOTH, (3, 70), hints={"seq": [128, 8], "batch": [64, 1]}) == made(
        BOTH, (3, 70), hints={"batch": [1, 64], "seq": [8, 128]}
    )


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ({"rows": 3}, "the symbol 'rows'; the program's dynamic sizes are: batch, seq"),
        ([{"batch": 3, "cols": 3}], "the symbol 'cols'"),
        ({"seq": [8, 513]}, "seq=513; its range is 8 to 512"),
        ([{"seq": 7}], "seq=7; its range is 8 to 512"),
    ],
)
def test_a_hint_that_does_not_fit_the_program_is_refused(hints: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        made(BOTH, (3, 70), hints=hints)


@pytest.mark.parametrize(
    "hints",
    [
        3,
        "fast",
        {},
        [],
        {"batch": "8"},
        {"batch": [1.5]},
        [3],
        {3: 4},
        {"batch": []},
        {"batch": -1},
        {"batch": {1}},
        {"batch": True},
        {"batch": np.bool_(1)},
        {"batch": np.ones(2, np.int64)},
        {"batch": np.float64(8)},
        [{"batch": 8}, {"batch": True}],
        [{"batch": 8}, 3],
        "batch=1",
        None,
    ],
)
def test_what_is_no_set_of_hints_is_refused_when_the_options_are_made(hints: object) -> None:
    if hints == {}:
        assert points(made(BOTH, (3, 70), hints={})) == [(3, 70)]
        return
    with pytest.raises(OptionError, match=r"Options\.hints is .*; expected 'auto', integers from 0 on by symbol"):
        Options(hints=hints)  # type: ignore[arg-type]


def test_a_hint_that_the_program_ruled_out_is_refused_with_the_line_that_did() -> None:
    note = "seq is at least 8 instead of 1, as the program asks for it at model.py:3: x[:, 7]"
    narrow = replace(BOTH, notes=("args[1].shape[0] is always 3", note))
    with pytest.raises(
        OptionError, match=r"seq=1; its range is 8 to 512: the program narrowed it \(seq .* model\.py:3"
    ):
        made(narrow, (3, 70), hints={"seq": [1, 64]})
    with pytest.raises(OptionError, match=r"batch=65; its range is 1 to 64$"):
        made(narrow, (3, 70), hints={"batch": 65})


def test_c27_static_shapes_have_no_points_whatever_the_hints() -> None:
    assert made(program(), (), hints={"batch": [1, 8]}) == Hints()


def test_c26_the_cap_keeps_points_that_lie_apart_and_tells_the_others() -> None:
    found = made(BOTH, (8, 64), hints={"batch": [1, 8, 64], "seq": [8, 64, 512]}, max_points=5)
    assert points(found) == [(8, 64), (1, 8), (1, 512), (64, 8), (64, 512)]
    assert len(found.left_out) == 4


def test_automatic_hints_spread_powers_over_each_range_with_the_example_among_them() -> None:
    assert points(made(program((B, 1, 64)), (5,))) == [(5,), (1,), (2,), (8,), (16,), (32,), (64,)]
    assert [p[0] for p in points(made(program((B, 1, 16384)), (16,)))[1:]] == [1, 4, 64, 256, 1024, 4096, 16384]
    both = points(made(BOTH, (3, 70)))
    assert both[0] == (3, 70)
    assert len(both) == 16
    assert {n for n, _ in both} == {1, 3, 16, 64}
    assert {m for _, m in both} == {8, 32, 70, 512}


def test_automatic_hints_of_an_unbounded_size_lie_around_the_example() -> None:
    sizes = [p[0] for p in points(made(program((B, 1, UNBOUNDED)), (1000,)))]
    assert min(sizes) >= 1000 / 128
    assert max(sizes) <= 1000 * 128
    assert 1000 in sizes


def test_automatic_hints_need_a_power_in_the_range() -> None:
    assert points(made(program((B, 5, 7)), (6,))) == [(6,)]


def test_automatic_hints_measure_no_buffer_beyond_a_gigabyte() -> None:
    found = points(made(program((B, 1, 1 << 20), (S, 1, 1 << 20)), (8, 8)))
    assert max(n * m * 4 for n, m in found) <= 1 << 30


def test_points_that_break_a_relation_are_none() -> None:
    even = Relation(Mod(S, 16), "==", sympy.Integer(0))
    less = Relation(B, "<=", S)
    found = made(
        program((B, 1, 64), (S, 8, 512), relations=(even, less)), (3, 64), hints={"batch": [1, 40], "seq": [32, 33]}
    )
    assert points(found) == [(3, 64), (1, 32)]


@settings(max_examples=50, deadline=None)
@given(st.sets(st.tuples(st.integers(1, 999), st.integers(1, 999)), min_size=2, max_size=12), st.integers(1, 12))
def test_the_spread_is_the_same_for_any_order_and_never_skips_the_farthest(
    drawn: set[tuple[int, int]], most: int
) -> None:
    first, *others = sorted(drawn)
    chosen = spread([first], others, most)
    assert chosen == spread([first], others, most)
    assert len(chosen) == min(most, len(drawn))
    for number, point in enumerate(chosen[1:], 1):
        left = [p for p in others if p not in chosen[:number]]
        gap = {p: min(distance(p, taken) for taken in chosen[:number]) for p in left}
        assert gap[point] == max(gap.values())


def test_derived_dimensions_tell_the_symbol_s_size() -> None:
    x = Buffer("x", DType.FLOAT32, (2 * B + 1,), (sympy.Integer(1),), Role.INPUT)
    own = Program({"x": x}, (), (), (), {}, (SymbolSpec(B, 1, 9, "x", 0, scale=2, offset=1),))
    found: Mapping[sympy.Symbol, int] = made(own, (11,), hints={"batch": 9}).example
    assert found == {B: 5}


def test_one_point_is_the_example_s() -> None:
    assert points(made(BOTH, (8, 64), max_points=1)) == [(8, 64)]


def test_more_points_than_a_table_holds_are_refused() -> None:
    with pytest.raises(OptionError, match="max_points is 257"):
        Options(max_points=257)
