"""Tables beyond what a library has room for: they fit, every size still has a row, and what matters least is gone."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mkwrap.ir.index import size_symbol
from mkwrap.ir.nearest import DOUBLING
from mkwrap.stages import Guard, Variant
from mkwrap.tune.capacity import of_few_guards, within_capacity
from mkwrap.tune.table import Stack, Table

N, M = size_symbol("n"), size_symbol("m")
LOOP = Variant("k", "loop")
BLOCKS = tuple(Variant("k", "block", (("r", 2**k), ("even", even))) for k in range(6) for even in (True, False))
EVEN = Guard(N, multiple=16)
GUARDS = {
    **{v: frozenset((Guard(N, most=int(v.params[0][1])), *((EVEN,) if v.params[1][1] else ()))) for v in BLOCKS},
    LOOP: frozenset[Guard](),
}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Draw points, and at each a winner, stand-ins in order, and at last what is right everywhere."""
    stacks: dict[tuple[int, ...], Stack] = {}
    for point in sorted(draw(st.sets(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=12))):
        chosen = draw(st.lists(st.sampled_from(BLOCKS), unique=True, max_size=4))
        handicaps = [0] + [draw(st.sampled_from((0, DOUBLING))) for _ in chosen]
        stacks[point] = tuple(zip((*chosen, LOOP), handicaps, strict=True))
    return Table((M, N), stacks)


def asked(table: Table) -> set[Guard]:
    return {guard for variant in table.variants for guard in GUARDS[variant]}


@settings(max_examples=300, deadline=None)
@given(tables(), st.integers(2, 40), st.integers(0, 8))
def test_a_table_fits_and_every_size_keeps_a_row(table: Table, most_rows: int, most_guards: int) -> None:
    fit = within_capacity(table, GUARDS, most_rows, most_guards)
    before, after = (sum(map(len, each.stacks.values())) for each in (table, fit))
    assert after <= most_rows
    assert len(asked(fit)) <= most_guards
    assert fit.left_out == before - after
    assert fit.stacks
    for point, stack in fit.stacks.items():
        assert stack[-1][0] == LOOP
        # What stays, stays in its order.
        rows = iter(table.stacks[point])
        assert all(row in rows for row in stack)
    if before <= most_rows and len(asked(table)) <= most_guards:
        assert fit is table


def test_stand_ins_go_first_those_with_a_handicap_before_others() -> None:
    wide, even, narrow = BLOCKS[9], BLOCKS[8], BLOCKS[0]
    stack: Stack = ((narrow, 0), (even, 0), (wide, DOUBLING), (LOOP, DOUBLING))
    table = Table((N,), {(size,): stack for size in (4, 64, 1024)})
    assert within_capacity(table, GUARDS, 10, 64).stacks == {
        (4,): (stack[0], stack[1], stack[3]),
        (64,): (stack[0], stack[1], stack[3]),
        (1024,): stack,
    }
    assert within_capacity(table, GUARDS, 9, 64).stacks == dict.fromkeys(table.stacks, (stack[0], stack[1], stack[3]))
    assert within_capacity(table, GUARDS, 6, 64).stacks == dict.fromkeys(table.stacks, (stack[0], stack[3]))


def test_of_points_too_many_those_stay_that_lie_apart() -> None:
    table = Table((N,), {(size,): ((BLOCKS[0], 0), (LOOP, 0)) for size in (8, 9, 10, 1024)})
    assert list(within_capacity(table, GUARDS, 4, 64).stacks) == [(8,), (1024,)]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_of_guards_too_many_the_variants_that_win_at_most_points_stay(most: int) -> None:
    blocks = BLOCKS[1::2][:4]
    stacks: dict[tuple[int, ...], Stack] = {}
    for number, (block, copy) in enumerate(product(blocks, range(4))):
        if copy < 4 - blocks.index(block):
            stacks[(number + 1,)] = ((block, 0), (LOOP, 0))
    fit = within_capacity(Table((N,), stacks), GUARDS, 1024, most)
    assert [variant for variant in fit.variants if GUARDS[variant]] == list(blocks[:most])


def test_of_all_variants_those_stay_for_whose_guards_there_is_room() -> None:
    for most in range(8):
        kept = of_few_guards(GUARDS, most)
        assert len({guard for own in kept.values() for guard in own}) == min(most, 7)
        assert LOOP in kept
        assert list(kept) == [variant for variant in GUARDS if variant in kept]
        assert all(kept[variant] == GUARDS[variant] for variant in kept)
    assert of_few_guards(GUARDS, 7) == GUARDS
