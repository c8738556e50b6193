"""Relations between sizes: what ranges decide, what becomes a range."""

from __future__ import annotations

import pytest
import sympy

from mkwrap.ir.index import FloorDiv, Mod, size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.ir.relations import decided, holds, interval, limits_of, narrowed, notes_of_narrowing, relation_text
from mkwrap.ir.signature import UNBOUNDED, Comparison, Relation, SymbolSpec

N, M = size_symbol("n"), size_symbol("m")
SPECS = (SymbolSpec(N, 0, 64, "x", 0), SymbolSpec(M, 2, 9, "x", 1))
EXPRESSIONS = [
    N + 3,
    N * M,
    N - M,
    FloorDiv(N + 3, M),
    Mod(N, M),
    sympy.Min(N, M),
    sympy.Max(N, 5),
    N**2 - N,
    FloorDiv(N, 4),
]


@pytest.mark.parametrize("expr", EXPRESSIONS, ids=str)
def test_an_interval_holds_every_value(expr: Expr) -> None:
    between = interval(expr, limits_of(SPECS))
    assert between is not None
    values = [int(expr.xreplace({N: sympy.Integer(n), M: sympy.Integer(m)})) for n in range(65) for m in range(2, 10)]
    assert between[0] <= min(values)
    assert max(values) <= between[1]


@pytest.mark.parametrize(
    ("left", "op", "right", "holds"),
    [
        (N, "<=", 64, True),
        (N, "<", 64, None),
        (N, "!=", 65, True),
        (M, "==", 1, False),
        (N, "<", 0, False),
        (N * M, "==", M * N, True),
        (N, "!=", M, None),
    ],
)
def test_ranges_decide_a_relation(left: Expr, op: Comparison, right: Expr, holds: bool | None) -> None:
    assert decided(Relation(left, op, sympy.sympify(right)), limits_of(SPECS)) is holds


def test_bounds_become_ranges_and_the_rest_stays() -> None:
    relations = [
        Relation(sympy.Integer(3), "<=", N, "here"),
        Relation(N, "!=", sympy.Integer(3), "there"),
        Relation(N, "==", sympy.Min(N, sympy.Integer(40))),
        Relation(2 * M, "<", sympy.Integer(17)),
        Relation(sympy.Integer(2), "<=", FloorDiv(N, 4)),
        Relation(Mod(N, 4), "==", sympy.Integer(0)),
        Relation(M, "<=", N),
    ]
    specs, left, notes = narrowed(SPECS, relations)
    assert [(spec.low, spec.high) for spec in specs] == [(8, 40), (2, 8)]
    assert left == (relations[5],)
    assert notes[0].startswith("n is 8 … 40 instead of 0 … 64, as the program asks for it at here")


def test_what_can_never_hold_stays() -> None:
    impossible = Relation(N, "==", sympy.Integer(100))
    assert narrowed(SPECS, [impossible])[1] == (impossible,)


@pytest.mark.parametrize(
    ("relation", "low"),
    [
        (Relation(sympy.Integer(0), "<", sympy.Max(0, N - sympy.Min(3, N))), 4),
        (Relation(sympy.Integer(1), "<=", sympy.Max(0, N - sympy.Min(3, N))), 4),
        (Relation(sympy.Integer(0), "<", FloorDiv(N, 3)), 3),
        (Relation(sympy.Min(9, 12 - N), "<=", sympy.Integer(5)), 7),
    ],
    ids=lambda value: f"{value.left} {value.op} {value.right}" if isinstance(value, Relation) else str(value),
)
def test_a_bound_within_max_min_or_a_division_becomes_a_range(relation: Relation, low: int) -> None:
    specs, left, _ = narrowed(SPECS, [relation])
    assert (specs[0].low, left) == (low, ())


def test_a_relation_of_slices_that_always_holds_goes() -> None:
    assert narrowed(SPECS, [Relation(sympy.Max(0, N - 2), "==", sympy.Max(0, N - sympy.Min(2, N)))])[1] == ()


@pytest.mark.parametrize("op", ["<", "<=", "==", "!="])
@pytest.mark.parametrize("a", [1, 2, 5])
@pytest.mark.parametrize("b", [M, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_relations_that_are_left_and_ranges_ask_for_the_same_sizes(
    op: Comparison, a: int, b: Expr | int, turned: bool
) -> None:
    for one, other in (
        (sympy.Max(a, N - 3), sympy.Max(0, N - sympy.Min(a + 1, N))),
        (sympy.Integer(a), sympy.Max(0, N - sympy.Min(b, N))),
        (sympy.Integer(0), Mod(4 * N + 2 * a, 8)),
        (sympy.Integer(a), FloorDiv(N + a, 3)),
        (sympy.Min(N, M + a), sympy.sympify(b)),
    ):
        asked = Relation(other, op, one) if turned else Relation(one, op, other)
        specs, left, _ = narrowed(SPECS, [asked])
        for n in (*range(12), 64):
            for m in (2, 3, 9):
                values = {N: sympy.Integer(n), M: sympy.Integer(m)}
                in_range = specs[0].low <= n <= specs[0].high and specs[1].low <= m <= specs[1].high
                assert (in_range and all(holds(each, values) for each in left)) == holds(asked, values)


def test_a_mod_that_must_be_0_is_spelt_by_the_least_numbers() -> None:
    left = narrowed(
        SPECS, [Relation(Mod(8 * N, 32), "==", sympy.Integer(0)), Relation(Mod(N, 4), "==", sympy.Integer(0))]
    )
    assert [relation_text(each) for each in left[1]] == ["n % 4 == 0"]


@pytest.mark.parametrize("op", ["==", "!="])
def test_what_is_asked_both_ways_round_is_listed_once(op: Comparison) -> None:
    once = Relation(N, op, 2 * M)
    assert narrowed(SPECS, [once, Relation(2 * M, op, N), once])[1] == (once,)
    told = Relation(2 * M, op, N, "here")
    assert narrowed(SPECS, [once, told])[1] == (Relation(N, op, 2 * M, "here"),)
    assert narrowed(SPECS, [told, once, Relation(N, op, 2 * M, "there")])[1] == (told,)


@pytest.mark.parametrize(
    ("ends", "asked", "note"),
    [
        ((1, 300), [Relation(sympy.Integer(1), "!=", N, "here")], "n is at least 2 instead of 1, as"),
        ((1, 300), [Relation(N, "<=", sympy.Integer(40), "here")], "n is at most 40 instead of 300, as"),
        ((1, UNBOUNDED), [Relation(N, "<=", sympy.Integer(40), "here")], "n is at most 40 instead of any, as"),
        (
            (1, UNBOUNDED),
            [Relation(N, "<=", sympy.Integer(40), "here"), Relation(N, "!=", sympy.Integer(1), "here")],
            "n is 2 … 40 instead of at least 1, as",
        ),
    ],
)
def test_a_note_tells_what_a_range_was(ends: tuple[int, int], asked: list[Relation], note: str) -> None:
    (told,) = narrowed([SymbolSpec(N, *ends, "x", 0)], asked)[2]
    assert told == f"{note} the program asks for it at here"
    assert notes_of_narrowing(N, ["args[0].shape[1] is always 3", told]) == (told,)
    assert notes_of_narrowing(M, [told]) == ()
