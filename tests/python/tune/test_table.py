"""Dispatch tables: what stands in for a winner, and merging that changes nothing that is elected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from mkwrap.ir.index import FloorDiv, size_symbol
from mkwrap.ir.nearest import DOUBLING, TIE, distance, elect
from mkwrap.points import values_at
from mkwrap.stages import Guard, Point, PointChoice, Timing, Variant
from mkwrap.tune.table import Table, stacked, table_of

N, M = size_symbol("m"), size_symbol("n")
BLOCK, EVEN = Guard(M, most=64), Guard(M, multiple=16)
VARIANTS = tuple(Variant("k", name) for name in ("a", "b", "c", "d", "loop"))
LOOP = VARIANTS[-1]
GUARDS = st.sampled_from(
    [
        (),
        (BLOCK,),
        (Guard(M, most=256),),
        (EVEN,),
        (Guard(M, most=256), EVEN),
        (BLOCK, EVEN),
        (Guard(N * M, most=4096),),
        (Guard(FloorDiv(M, 2), most=100),),
    ]
)


@cache
def holds(guard: Guard, sizes: tuple[tuple[object, int], ...]) -> bool:
    return guard.holds(dict(sizes))


def runs_at(
    table: Table, guards: Mapping[Variant, frozenset[Guard]], sizes: Mapping[object, int]
) -> tuple[Variant, int]:
    """Return the elected variant, and how much farther the nearest legal row with another one is."""
    own = [sizes[symbol] for symbol in table.symbols]
    entries = [(point, variant, handicap) for point, stack in table.stacks.items() for variant, handicap in stack]
    legal = [all(holds(guard, tuple(sizes.items())) for guard in guards[variant]) for _, variant, _ in entries]
    number = elect(own, [(p, h, right) for (p, _, h), right in zip(entries, legal, strict=True)])
    chosen = entries[number][1]
    far = [(distance(own, p, h), v) for (p, v, h), right in zip(entries, legal, strict=True) if right]
    others = [d for d, v in far if v != chosen]
    return chosen, min(others, default=1 << 62) - min(d for d, _ in far)


def choice(names: Sequence[str], point: Point, winner: Variant, times: Mapping[Variant, float]) -> PointChoice:
    timings = tuple(Timing(variant, us, 0.0, 20) for variant, us in times.items())
    return PointChoice(dict(zip(names, point, strict=True)), winner, "measured", timings)


@st.composite
def tables(draw: st.DrawFn, count: int) -> tuple[tuple, list[PointChoice], dict[Variant, frozenset[Guard]]]:
    """Draw guards of the variants, a grid of points, and at each times of what is legal there."""
    symbols = (N, M)[-count:] if count == 1 else (N, M)
    guards = {
        variant: frozenset(g for g in draw(GUARDS) if g.expr.free_symbols <= set(symbols)) for variant in VARIANTS[:-1]
    }
    guards[LOOP] = frozenset()
    axes = [sorted(draw(st.sets(st.integers(1, 300), min_size=1, max_size=5 if count == 1 else 3))) for _ in symbols]
    points: list[Point] = [()]
    for axis in axes:
        points = [(*p, size) for p in points for size in axis]
    names = [str(symbol.name) for symbol in symbols]
    # Few distinct orders, so that neighbours are often alike.
    orders = draw(st.lists(st.permutations(VARIANTS), min_size=1, max_size=2))
    choices = []
    for point in points:
        values = values_at(symbols, point)
        legal = [v for v in draw(st.sampled_from(orders)) if all(guard.holds(values) for guard in guards[v])]
        choices.append(choice(names, point, legal[0], {v: 10.0 * 2**k for k, v in enumerate(legal)}))
    return symbols, choices, guards


@settings(max_examples=60, deadline=None)
@given(tables(1))
def test_merging_points_of_one_symbol_changes_nothing_that_is_elected(drawn: tuple) -> None:
    symbols, choices, guards = drawn
    whole, fewer = stacked(symbols, choices, {}, guards), table_of(symbols, choices, {}, guards)
    for size in (*range(1, 130), *range(130, 700, 7)):
        assert runs_at(fewer, guards, {M: size})[0] == runs_at(whole, guards, {M: size})[0]


@settings(max_examples=50, deadline=None)
@given(tables(2))
def test_merging_planes_of_a_grid_changes_nothing_but_ties(drawn: tuple) -> None:
    symbols, choices, guards = drawn
    whole, fewer = stacked(symbols, choices, {}, guards), table_of(symbols, choices, {}, guards)
    for n in (1, 2, 3, 5, 11, 23, 60, 130, 299, 410):
        for m in (1, 2, 7, 15, 16, 17, 48, 63, 64, 65, 130, 303):
            expected, margin = runs_at(whole, guards, {N: n, M: m})
            assert runs_at(fewer, guards, {N: n, M: m})[0] == expected or margin <= 2 * TIE * len(symbols)


@settings(max_examples=50, deadline=None)
@given(tables(2))
def test_every_size_has_a_row(drawn: tuple) -> None:
    symbols, choices, guards = drawn
    fewer = table_of(symbols, choices, {}, guards)
    assert any(not guards[v] for stack in fewer.stacks.values() for v, _ in stack)
    assert len(fewer.stacks) <= len(choices)
    for n, m in ((1, 1), (1, 10**9), (10**9, 17), (64, 64)):
        runs_at(fewer, guards, {N: n, M: m})


def one(times: Mapping[Variant, float], guards: Mapping[Variant, frozenset[Guard]], point: Point = (48,)) -> tuple:
    own = choice(["n"], point, min(times, key=lambda v: times[v]), times)
    return stacked((M,), [own], {}, guards).stacks[point]


def test_what_gives_up_a_limit_is_handicapped_and_what_gives_up_divisibility_is_not() -> None:
    a, b, c, d, loop = VARIANTS
    guards = {
        a: frozenset({BLOCK, EVEN}), b: frozenset({BLOCK}), c: frozenset({EVEN}), d: frozenset[Guard](), loop: frozenset[Guard]()
    }  # fmt: skip
    assert one({a: 1, b: 2, c: 3, d: 4, loop: 5}, guards) == ((a, 0), (b, 0), (c, DOUBLING), (d, DOUBLING))
    assert one({c: 1, a: 2, b: 3, loop: 4, d: 5}, guards) == ((c, 0), (loop, 0))
    assert one({d: 1, a: 2, b: 3, c: 4, loop: 5}, guards) == ((d, 0),)


def test_a_larger_limit_stands_in_for_a_smaller_one() -> None:
    a, b, c, _, loop = VARIANTS
    guards = {
        a: frozenset({BLOCK}), b: frozenset({Guard(M, most=128)}), c: frozenset({Guard(M, most=50)}), loop: frozenset[Guard]()
    }  # fmt: skip
    assert one({a: 1, b: 2, c: 3, loop: 4}, guards) == ((a, 0), (b, DOUBLING), (loop, DOUBLING))
    assert one({a: 1, loop: 2, b: 3}, guards) == ((a, 0), (loop, DOUBLING))


def test_of_stand_ins_that_noise_cannot_tell_apart_the_one_with_fewer_guards_is_enough() -> None:
    a, b, _, _, loop = VARIANTS
    guards = {a: frozenset({BLOCK, EVEN}), b: frozenset({BLOCK}), loop: frozenset[Guard]()}
    assert one({a: 1.0, b: 2.0, loop: 2.03}, guards) == ((a, 0), (loop, DOUBLING))


def test_one_binary_without_guards_leaves_no_point_and_no_symbol() -> None:
    guards = {LOOP: frozenset[Guard]()}
    choices = [choice(["m", "n"], p, LOOP, {LOOP: 1.0}) for p in ((1, 4), (2, 9), (64, 3))]
    table = table_of((N, M), choices, {}, guards)
    assert (table.symbols, table.stacks) == ((), {(): ((LOOP, 0),)})


def test_a_symbol_that_decides_nothing_is_dropped() -> None:
    a, b, *_ = VARIANTS
    guards = {a: frozenset[Guard](), b: frozenset[Guard]()}
    choices = [choice(["m", "n"], (m, n), a if n < 10 else b, {a: 1.0}) for m in (1, 8, 64) for n in (4, 16)]
    table = table_of((N, M), choices, {}, guards)
    assert table.symbols == (M,)
    assert dict(table.stacks) == {(4,): ((a, 0),), (16,): ((b, 0),)}


def test_a_symbol_that_a_guard_asks_for_stays() -> None:
    a, *_ = VARIANTS
    guards = {a: frozenset({EVEN}), LOOP: frozenset[Guard]()}
    choices = [choice(["m", "n"], (m, 16), a, {a: 1.0, LOOP: 2.0}) for m in (1, 8)]
    table = table_of((N, M), choices, {}, guards)
    assert (table.symbols, dict(table.stacks)) == ((M,), {(16,): ((a, 0), (LOOP, 0))})
