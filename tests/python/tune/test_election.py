"""What wins at each measured point, and which winners are given up: on made-up times."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.python.tune.judge import GUARDS, LARGE, OTHER, SMALL, Judge, walked

from mkwrap.points import Ends
from mkwrap.stages import Point, Variant
from mkwrap.tune import election
from mkwrap.tune.election import AROUND, MEASURED, SHARED
from mkwrap.tune.walk import Walk, walk


def test_what_loses_least_around_a_point_wins_there() -> None:
    # At 64 OTHER is the fastest by 3 %, at the points around it is half as fast as LARGE.
    times = {8: {LARGE: 1.0, OTHER: 2.0}, 64: {LARGE: 1.03, OTHER: 1.0}, 512: {LARGE: 1.0, OTHER: 2.0}}
    judge = Judge(lambda point: times[point[0]])
    assert walked(judge, (64,), (8,), (512,)).winners[64,] == (LARGE, AROUND)
    times[64] = {LARGE: 1.7, OTHER: 1.0}
    assert walked(judge, (64,), (8,), (512,)).winners[64,] == (OTHER, MEASURED)


def test_what_was_not_proposed_at_a_neighbour_is_taken_to_be_like_the_middle_of_what_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(election, "_PAYS", 0.0)
    slow, slower = Variant("k", "slow"), Variant("k", "slower")
    guards = GUARDS | {slow: frozenset(), slower: frozenset()}

    def winner(there: Mapping[Variant, float]) -> Variant:
        """Return what wins at 64, where OTHER is the fastest; at 512 it was not proposed."""
        times = {64: {LARGE: 1.1, OTHER: 1.0}, 512: there}
        plan = Walk(((64,), (512,)), lambda _p, _v: True, [(64, 512)], lambda _: True, 0)
        return walk(plan, guards, {}, Judge(lambda point: times[point[0]])).winners[64,][0]

    assert winner({SMALL: 1.0, LARGE: 1.02, slow: 9.0}) is OTHER
    assert winner({SMALL: 1.0, LARGE: 1.02, slow: 1.4, slower: 1.4}) is LARGE


def test_the_neighbour_below_tells_of_a_points_sizes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "_PAYS", 0.0)
    times = {8: {LARGE: 1.0, OTHER: 1.5}, 64: {LARGE: 1.1, OTHER: 1.0}}

    def winner(ends: Ends) -> Variant:
        plan = Walk(((8,), (64,)), lambda _p, _v: True, ends, lambda _: True, 0)
        return walk(plan, GUARDS, {}, Judge(lambda point: times[point[0]])).winners[64,][0]

    assert winner([(8, 64)]) is LARGE
    assert winner([(8, 4096)]) is OTHER


def test_the_neighbour_above_tells_more_of_a_points_sizes_than_the_one_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "_PAYS", 0.0)
    # Above 64 a further tile is begun at once: OTHER, which fits 64, takes there what it takes at 512.
    times = {8: {LARGE: 1.0, OTHER: 1.0}, 64: {LARGE: 1.08, OTHER: 1.0}, 512: {LARGE: 1.0, OTHER: 1.25}}
    assert walked(Judge(lambda point: times[point[0]]), (64,), (8,), (512,)).winners[64,] == (LARGE, AROUND)
    times[8], times[512] = times[512], times[8]
    assert walked(Judge(lambda point: times[point[0]]), (64,), (8,), (512,)).winners[64,] == (OTHER, MEASURED)


def test_a_winner_that_gains_little_at_few_points_does_not_pay() -> None:
    times = {8: {LARGE: 1.0, OTHER: 1.2}, 64: {LARGE: 1.1, OTHER: 1.0}, 512: {LARGE: 1.0, OTHER: 1.2}}
    judge = Judge(lambda point: times[point[0]])
    assert walked(judge, (64,), (8,), (512,)).winners[64,] == (LARGE, AROUND)
    times[64] = {LARGE: 1.35, OTHER: 1.0}
    assert walked(judge, (64,), (8,), (512,)).winners[64,] == (OTHER, MEASURED)


def test_at_many_points_a_winner_at_one_that_gains_ten_percent_pays() -> None:
    line = [(2 * number,) for number in range(1, 65)]
    judge = Judge(lambda p: {LARGE: 1.1, OTHER: 1.0} if p == (64,) else {LARGE: 1.0, OTHER: 1.05})
    done = walked(judge, (64,), *(p for p in line if p != (64,)))
    assert done.winners[64,] == (OTHER, MEASURED)
    assert {done.winners[p][0] for p in line if p != (64,)} == {LARGE}


def test_the_outermost_point_stands_for_all_sizes_beyond_it() -> None:
    # At 64 OTHER is faster by 12 %; just above, where a size was measured beside a step, it is slow.
    times = {64: {LARGE: 1.12, OTHER: 1.0}, 65: {LARGE: 1.0, OTHER: 1.5}, 4096: {LARGE: 1.0, OTHER: 2.0}}

    def winner(ends: Ends) -> Variant:
        plan = Walk(((64,), (65,), (4096,)), lambda _p, _v: True, ends, lambda _: True, 0)
        return walk(plan, GUARDS, {}, Judge(lambda point: times[point[0]])).winners[64,][0]

    assert winner([(1, 4096)]) is OTHER
    assert winner([(64, 4096)]) is LARGE


@pytest.mark.parametrize("end", [(8, 64), (64, 512)])
def test_a_point_alone_on_its_line_stands_for_all_of_it(end: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "_PAYS", 0.0)
    # Along the first symbol OTHER loses much; along the second, where no other point is, a point stands for all sizes.
    times = {64: {LARGE: 1.1, OTHER: 1.0}, 66: {LARGE: 1.0, OTHER: 1.5}}
    plan = Walk(((64, 64), (66, 64)), lambda _p, _v: True, [(64, 66), end], lambda _: True, 0)
    winners = walk(plan, GUARDS, {}, Judge(lambda point: times[point[0]])).winners
    assert winners[64, 64][0] is OTHER
    plan = Walk(((64, 64), (66, 64)), lambda _p, _v: True, [(64, 66), (64, 64)], lambda _: True, 0)
    assert walk(plan, GUARDS, {}, Judge(lambda point: times[point[0]])).winners[64, 64][0] is LARGE


def test_of_equals_the_one_that_wins_at_most_points_wins() -> None:
    times = {1: {SMALL: 1.0, LARGE: 1.01}, 8: {SMALL: 1.01, LARGE: 1.0}, 64: {OTHER: 1.0, LARGE: 1.01, SMALL: 3.0}}
    judge = Judge(lambda point: times[point[0]])
    done = walked(judge, (1,), (8,), (64,))
    assert done.winners == {(1,): (LARGE, SHARED), (8,): (LARGE, MEASURED), (64,): (LARGE, SHARED)}


def test_a_point_that_stands_for_many_sizes_pays_for_a_winner_that_gains_eight_percent_there() -> None:
    # Of two hints the least stands for six octaves below it, where nothing is measured, and the two between for little.
    times = {
        64: {LARGE: 1.08, OTHER: 1.0},
        128: {LARGE: 1.0, OTHER: 1.02},
        129: {LARGE: 1.0, OTHER: 1.5},
        4096: {LARGE: 1.0, OTHER: 2.0},
    }

    def winner(least: int) -> Variant:
        plan = Walk(((64,), (128,), (129,), (4096,)), lambda _p, _v: True, [(least, 4096)], lambda _: True, 0)
        return walk(plan, GUARDS, {}, Judge(lambda point: times[point[0]])).winners[64,][0]

    assert winner(1) is OTHER
    assert winner(64) is LARGE


def test_what_stands_in_for_odd_sizes_takes_nothing_from_the_weight_of_a_point() -> None:
    line = [(2**k,) for k in range(4, 13)]
    times = {p: {LARGE: 1.0, OTHER: 1.06 if p == (16,) else 0.8} for p in [*line, (1537,)]}
    measured = {p: Judge(lambda point: times[point])(p) for p in times}

    def winner(*odd: Point) -> Variant:
        some = {p: measured[p] for p in [*line, *odd]}
        return election.elected(some, GUARDS, line, lambda _p, _v: True, [(1, 4096)], odd)[16,][0]

    assert winner() is LARGE
    assert winner((1537,)) is LARGE
