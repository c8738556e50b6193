"""Which points are measured, what is inferred, and where the boundary between two winners is put: on made-up times."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.python.tune.judge import ENDS, GUARDS, LARGE, OTHER, SMALL, Judge, S, crossing, walked

from mkwrap.ir.nearest import elect
from mkwrap.points import odd_size
from mkwrap.stages import Guard, Point, PointChoice, Timing, Variant
from mkwrap.tune.election import AROUND, MEASURED
from mkwrap.tune.table import stacked, table_of
from mkwrap.tune.walk import INHERITED, Walk, Walked, halvings, walk


def test_a_point_between_two_that_surely_agree_is_not_measured() -> None:
    judge = Judge(lambda _: {SMALL: 1.0, LARGE: 1.5})
    done = walked(judge, *[(2**k,) for k in range(7)])
    assert judge.seen == [(1,), (4,), (16,), (64,)]
    assert done.winners == {(2**k,): (SMALL, MEASURED if k % 2 == 0 else INHERITED) for k in range(7)}


def test_within_noise_no_pair_decides_for_those_between() -> None:
    judge = Judge(lambda _: {SMALL: 1.0, LARGE: 1.01})
    walked(judge, *[(2**k,) for k in range(5)])
    assert sorted(judge.seen) == [(1,), (2,), (4,), (8,), (16,)]


def test_where_neighbours_differ_the_point_between_is_measured() -> None:
    judge = crossing(6)
    done = walked(judge, *[(2**k,) for k in range(7)])
    assert (8,) in judge.seen
    assert [done.winners[2**k,][0] for k in range(7)] == [SMALL] * 3 + [LARGE] * 4


def test_the_example_s_point_is_always_measured() -> None:
    judge = Judge(lambda _: {SMALL: 1.0, LARGE: 1.5})
    walked(judge, (8,), *[(2**k,) for k in range(7) if k != 3])
    assert judge.seen[0] == (8,)


def test_in_a_grid_neighbours_along_either_axis_decide() -> None:
    judge = Judge(lambda _: {SMALL: 1.0, LARGE: 1.5})
    walked(judge, *[(n, m) for n in (1, 8, 64) for m in (2, 16, 128)])
    assert sorted(judge.seen) == [(1, 2), (1, 128), (8, 16), (64, 2), (64, 128)]


def test_a_variant_that_is_not_right_there_is_not_inherited() -> None:
    judge = Judge(lambda point: {SMALL: 1.0, LARGE: 1.5} if point != (2,) else {LARGE: 1.5})
    done = walk(
        Walk([(1,), (2,), (4,)], lambda p, v: p != (2,) or v is LARGE, ENDS, lambda _: True, 0), GUARDS, {}, judge
    )
    assert done.winners[2,] == (LARGE, MEASURED)


@pytest.mark.parametrize("at", [5.0, 17.0, 40.0, 100.0, 300.0, 777.0])
def test_added_points_move_the_boundary_to_where_the_winner_changes(at: float) -> None:
    judge = crossing(at)
    points = ((1,), (1024,))
    done = walked(judge, *points, extra=5)
    choices = [
        PointChoice({"s": point[0]}, winner, reason, done.measured[point].timings)
        for point, (winner, reason) in sorted(done.winners.items())
    ]
    table = table_of((S,), choices, {}, GUARDS)
    rows = [(point, stack) for point, stack in table.stacks.items()]

    def elected(size: int) -> Variant:
        return rows[elect((size,), [(p, 0, True) for p, _ in rows])][1][0][0]

    # Four halvings of ten doublings, then the loss at stake is small: within 1.3 times the true crossing.
    assert elected(int(at / 1.3)) is SMALL
    assert elected(int(at * 1.3) + 1) is LARGE
    assert len(judge.seen) <= 7


@pytest.mark.parametrize("tile", [64, 128])
def test_a_step_just_above_whole_tiles_is_found(tile: int) -> None:
    # Four tiles are one wave for SMALL, a fifth is another; LARGE takes half as many tiles, each slower.
    judge = Judge(lambda point: {SMALL: 10.0 * (1 + (point[0] > 4 * tile)), LARGE: 14.0})
    done = walked(judge, (1,), (4 * tile,), (64 * tile,), extra=10)
    choices = [PointChoice({"s": p[0]}, *won, done.measured[p].timings) for p, won in sorted(done.winners.items())]
    points = list(table_of((S,), choices, {}, GUARDS).stacks.items())

    def elected(size: int) -> Variant:
        return points[elect((size,), [(p, 0, True) for p, _ in points])][1][0][0]

    assert elected(4 * tile) is SMALL
    assert {elected(size) for size in range(4 * tile + 1, 5 * tile)} == {LARGE}
    assert len(judge.seen) <= 9


def test_a_point_that_serves_sizes_above_has_its_own_back_once_they_are_measured() -> None:
    # One tile of 16 rows: LARGE loses a fifth there and SMALL much above, where at first only 128 tells of 17 to 45.
    judge = Judge(lambda point: {SMALL: 10.0 if point[0] <= 16 else 40.0, LARGE: 12.0})
    done = walked(judge, (8,), (16,), (128,))
    assert done.winners[16,] == (LARGE, AROUND)
    done = walked(judge, (8,), (16,), (128,), extra=10)
    assert done.winners[16,] == (SMALL, MEASURED)
    assert {winner for point, (winner, _) in done.winners.items() if point > (16,)} == {LARGE}
    assert (17,) in done.measured


MULTIPLES = {SMALL: frozenset({Guard(S, multiple=16)}), LARGE: frozenset(), OTHER: frozenset()}


def uneven(*points: Point) -> tuple[Judge, Walked]:
    """Walk where SMALL is the fastest but asks for multiples of 16, and LARGE is faster than OTHER only at such."""
    judge = Judge(lambda point: {LARGE: 2.0, OTHER: 1.5} if point[0] % 16 else {SMALL: 1.0, LARGE: 1.2, OTHER: 1.5})
    legal = {SMALL: lambda p: p[0] % 16 == 0}

    def beside(point: Point) -> Point | None:
        return (odd_size(point[0]),) if odd_size(point[0]) != point[0] else None

    plan = Walk(points, lambda p, v: legal.get(v, lambda _: True)(p), ENDS, lambda _: True, 0, beside)
    return judge, walk(plan, MULTIPLES, {}, judge)


def test_what_stands_in_for_odd_sizes_is_measured_at_odd_sizes() -> None:
    judge, done = uneven((64,), (256,), (1024,))
    assert sorted(judge.seen) == [(49,), (64,), (769,), (1024,)]
    choices = [
        PointChoice({"s": p[0]}, *won, done.measured[p].timings if p in done.measured else ())
        for p, won in sorted(done.winners.items())
    ]
    table = table_of((S,), choices, {(64,): (), (256,): (), (1024,): ()}, MULTIPLES)
    # LARGE is faster than OTHER at 64 and 1024, where rows are aligned; of odd sizes OTHER is the best. These have no rows.
    assert list(table.stacks.values()) == [((SMALL, 0), (OTHER, 0))]


def test_what_is_odd_of_one_point_and_asked_for_is_a_point_like_others() -> None:
    judge, done = uneven((64,), (49,), (1024,))
    assert not {(49,), (37,)} & done.odd
    assert done.winners[49,] == (OTHER, MEASURED)
    assert (769,) in judge.seen


def test_what_wins_at_odd_sizes_is_not_inherited() -> None:
    # SMALL, which both neighbours of 256 elect, gains too little to stay; what stands in for odd sizes is slow at 256.
    def times(point: Point) -> Mapping[Variant, float]:
        return {LARGE: 1.0} if point[0] % 16 else {SMALL: 1.0, LARGE: 3.0, OTHER: 1.03}

    judge = Judge(times)

    def beside(point: Point) -> Point | None:
        return (odd_size(point[0]),)

    plan = Walk(((64,), (256,), (1024,)), lambda p, v: v != SMALL or p[0] % 16 == 0, ENDS, lambda _: True, 0, beside)
    done = walk(plan, MULTIPLES, {}, judge)
    assert done.winners[256,][1] == INHERITED
    assert done.winners[256,][0] in {done.winners[64,][0], done.winners[1024,][0]}


@pytest.mark.parametrize(
    ("points", "at"),
    [
        (((8,), (16,), (64,), (512,)), 11),
        (((8,), (16,), (64,), (512,)), 13),
        (((8,), (16,), (64,), (512,)), 15),
        (((32,), (64,), (512,)), 40),
        (((32,), (64,), (512,)), 50),
        (((4,), (16,), (64,), (256,)), 13),
    ],
)
def test_no_point_is_put_where_odd_sizes_are_measured(points: tuple[Point, ...], at: int) -> None:
    """Halving between 8 and 16 comes to 13, which stands for the odd sizes of 16."""
    guards = {SMALL: frozenset({Guard(S, multiple=8)}), LARGE: frozenset(), OTHER: frozenset()}

    def times(point: Point) -> Mapping[Variant, float]:
        plain = {LARGE: 1.2, OTHER: 1.5 if point[0] < at else 1.0}
        return plain if point[0] % 8 else {SMALL: 1.0 if point[0] < at else 1.5, **plain}

    def beside(point: Point) -> Point | None:
        return None if point[0] % 2 else (odd_size(point[0]),)

    judge = Judge(times)
    plan = Walk(points, lambda p, v: v != SMALL or p[0] % 8 == 0, ENDS, lambda _: True, 32, beside)
    done = walk(plan, guards, {}, judge)
    assert len(judge.seen) == len(set(judge.seen))
    assert done.odd <= {beside(point) for point in done.measured}
    # Each side of the crossing was come near to, by what is no point for odd sizes.
    even = sorted(p for (p,) in done.measured if (p,) not in done.odd)
    low, high = max(p for p in even if p < at), min(p for p in even if p >= at)
    assert high <= 1.3 * low


def test_a_walk_that_goes_on_from_all_it_measured_measures_nothing() -> None:
    judge, done = uneven((64,), (256,), (1024,))
    judge.seen.clear()
    plan = Walk(
        ((64,), (256,), (1024,)),
        lambda p, v: v != SMALL or p[0] % 16 == 0,
        ENDS,
        lambda _: True,
        8,
        lambda p: (odd_size(p[0]),),
    )
    assert walk(plan, MULTIPLES, done.measured, judge).winners == done.winners
    assert judge.seen == []


def test_nothing_is_measured_beside_a_point_whose_winner_asks_for_no_multiples() -> None:
    judge = Judge(lambda _: {SMALL: 2.0, LARGE: 1.0})
    plan = Walk(((64,), (256,)), lambda _p, _v: True, ENDS, lambda _: True, 0, lambda point: (odd_size(point[0]),))
    walk(plan, MULTIPLES, {}, judge)
    assert judge.seen == [(64,), (256,)]


def test_the_best_of_odd_sizes_stands_in_even_with_a_tighter_limit() -> None:
    wide = frozenset({Guard(S, multiple=16), Guard(S, most=2048)})
    guards = {SMALL: wide, OTHER: frozenset({Guard(S, most=1024)}), LARGE: frozenset()}
    at = {1024: {SMALL: 1.0, OTHER: 1.1, LARGE: 3.0}, 769: {OTHER: 0.8, LARGE: 1.2}}
    choices = [
        PointChoice({"s": s}, winner, MEASURED, tuple(Timing(v, us, 0.001, 20) for v, us in at[s].items()))
        for s, winner in ((769, OTHER), (1024, SMALL))
    ]
    table = table_of((S,), choices, {(1024,): ()}, guards)
    assert list(table.stacks.values()) == [((SMALL, 0), (OTHER, 0), (LARGE, 1 << 16))]


def test_times_at_odd_sizes_count_as_if_they_were_those_of_the_point() -> None:
    second = Variant("k", "second")
    guards = {
        SMALL: frozenset({Guard(S, multiple=16), Guard(S, most=1024)}),
        OTHER: frozenset({Guard(S, most=1024)}),
        second: frozenset({Guard(S, multiple=16)}),
        LARGE: frozenset(),
    }
    # Of what runs beyond 1024, `second` is the faster; rows of 769 take LARGE less time than rows of 1024 take `second`.
    at = {1024: {SMALL: 1.0, OTHER: 1.2, second: 1.3, LARGE: 1.4}, 769: {OTHER: 0.9, LARGE: 1.05}}
    choices = [
        PointChoice({"s": s}, winner, MEASURED, tuple(Timing(v, us, 0.001, 20) for v, us in at[s].items()))
        for s, winner in ((769, OTHER), (1024, SMALL))
    ]
    choices.append(PointChoice({"s": 65536}, second, MEASURED, (Timing(second, 9.0, 0.001, 20),)))
    stacks = stacked((S,), choices, {(1024,): (), (65536,): ()}, guards).stacks
    assert [variant for variant, _ in stacks[1024,]] == [SMALL, OTHER, second, LARGE]


def test_a_point_that_was_asked_for_and_not_measured_tells_nothing_of_odd_sizes() -> None:
    """49 is what odd sizes of 64 would be measured at; both its neighbours elect SMALL, so that it was left out."""
    guards = {
        OTHER: frozenset({Guard(S, multiple=8)}),
        SMALL: frozenset({Guard(S, most=64)}),
        Variant("k", "slow"): frozenset(),
        LARGE: frozenset(),
    }
    times = {SMALL: 1.0, OTHER: 1.3, LARGE: 1.5, Variant("k", "slow"): 3.0}
    timings = tuple(Timing(v, us, 0.001, 20) for v, us in times.items())
    choices = [PointChoice({"s": 49}, SMALL, INHERITED), PointChoice({"s": 64}, SMALL, MEASURED, timings)]
    choices.append(PointChoice({"s": 4096}, LARGE, MEASURED, (Timing(LARGE, 9.0, 0.001, 20),)))
    stacks = stacked((S,), choices, {(p,): () for p in (49, 64, 4096)}, guards).stacks
    assert [variant for variant, _ in stacks[64,]] == [SMALL, LARGE]


def test_no_point_is_added_where_little_is_at_stake() -> None:
    judge = Judge(lambda point: {SMALL: 1.0, LARGE: 1.0 + 0.04 * (1 if point[0] < 100 else -1)})
    walked(judge, (1,), (1024,), extra=5)
    assert judge.seen == [(1,), (1024,)]


def test_no_point_is_added_that_is_no_shape_of_the_program() -> None:
    judge = crossing(40)
    walked(judge, (1,), (1024,), extra=5, possible=lambda point: point[0] % 16 == 0)
    assert all(size == 1 or size % 16 == 0 for (size,) in judge.seen)


def test_what_is_known_is_not_measured_again() -> None:
    judge = crossing(6)
    known = {(64,): judge((64,))}
    judge.seen.clear()
    done = walk(Walk([(1,), (64,)], lambda _p, _v: True, ENDS, lambda _: True, 0), GUARDS, known, judge)
    assert judge.seen == [(1,)]
    assert done.winners[64,] == (LARGE, MEASURED)


def test_what_may_be_added_is_known_before() -> None:
    assert halvings([(16,), (64,), (1024,)], 1, ()) == ((32,), (256,))
    assert halvings([(16,), (64,), (1024,)], 2, ()) == ((22,), (32,), (45,), (128,), (256,), (512,))
    # Just above whole tiles where two are near each other, and nothing where they are nearer.
    assert halvings([(64,), (74,)], 1, ()) == ((65,),)
    assert halvings([(64,), (66,)], 3, ()) == ()
    assert halvings([(8,), (16,)], 2, {(13,)}) == ((9,), (11,), (14,))
    assert halvings([(1,), (2,)], 3, ()) == ()
