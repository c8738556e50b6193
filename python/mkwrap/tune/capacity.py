"""Keeps dispatch tables within what a library has room for: the rows that matter least go. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mkwrap.hints import spread
from mkwrap.ir.nearest import MOST_GUARDS, MOST_ROWS
from mkwrap.spaces import OpenGuards
from mkwrap.stages import Guard, Point, PointChoice, Variant
from mkwrap.tune.field import Field
from mkwrap.tune.table import Stack, Table


def fitted_table(field: Field, choices: Sequence[PointChoice]) -> Table:
    """Return the dispatch table of choices as a library has room for it."""
    return within_capacity(field.table(choices), field.guards, MOST_ROWS, MOST_GUARDS)


def within_capacity(table: Table, guards: OpenGuards, most_rows: int, most_guards: int) -> Table:
    """Return a table of at most so many rows (at least 2) and different guards; `left_out` counts what went.

    What is right everywhere stays at every point that stays. Of guards too many, variants go that win at the fewest points; of
    rows too many, stand-ins go, then points: what others stand for best.
    """
    stacks = _fewer_guards(table.stacks, guards, most_guards)
    stacks = _fewer_stand_ins(stacks, guards, most_rows)
    if _rows(stacks) > most_rows:
        # Winner and stand-in are left of each point.
        first, *others = stacks
        kept = set(spread([first], others, most_rows // 2))
        stacks = {point: stack for point, stack in stacks.items() if point in kept}
    gone = _rows(table.stacks) - _rows(stacks)
    return replace(table, stacks=stacks, left_out=table.left_out + gone) if gone else table


def of_few_guards(guards: OpenGuards, most: int) -> OpenGuards:
    """Return variants that have at most so many different guards together: each, in order, for whose guards there is room."""
    asked: set[Guard] = set()
    kept = {}
    for variant, own in guards.items():
        if len(asked | own) <= most:
            asked |= own
            kept[variant] = own
    return kept


def _rows(stacks: Mapping[Point, Stack]) -> int:
    return sum(map(len, stacks.values()))


def _fewer_guards(stacks: Mapping[Point, Stack], guards: OpenGuards, most: int) -> Mapping[Point, Stack]:
    """Drop guarded variants until there are few enough guards: first those that win at the fewest points, or stand in there."""
    left = dict.fromkeys(variant for stack in stacks.values() for variant, _ in stack)
    wins = Counter(stack[0][0] for stack in stacks.values())
    uses = Counter(variant for stack in stacks.values() for variant, _ in stack)
    while len(asked := Counter(guard for variant in left for guard in guards[variant])) > most:
        guarded = [variant for variant in left if guards[variant]]
        alone = [variant for variant in guarded if _asks_alone(variant, guards, asked)]
        del left[min(alone or guarded, key=lambda variant: (wins[variant], uses[variant]))]
    return {point: tuple(row for row in stack if row[0] in left) for point, stack in stacks.items()}


def _asks_alone(variant: Variant, guards: OpenGuards, asked: Mapping[Guard, int]) -> bool:
    return any(asked[guard] == 1 for guard in guards[variant])


def _fewer_stand_ins(stacks: Mapping[Point, Stack], guards: OpenGuards, most: int) -> Mapping[Point, Stack]:
    """Drop guarded stand-ins until there are few enough rows: first those with a handicap, of what runs at most other points."""
    excess = _rows(stacks) - most
    uses = Counter(variant for stack in stacks.values() for variant, _ in stack)
    spare = [(point, row) for point, stack in stacks.items() for row in stack[1:] if guards[row[0]]]
    gone: set[tuple[Point, tuple[Variant, int]]] = set()
    while len(gone) < excess and spare:
        worst = max(spare, key=lambda entry: (entry[1][1], uses[entry[1][0]]))
        spare.remove(worst)
        gone.add(worst)
        uses[worst[1][0]] -= 1
    return {point: tuple(row for row in stack if (point, row) not in gone) for point, stack in stacks.items()}
