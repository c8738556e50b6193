"""Relations between sizes: what ranges decide, what becomes a range."""

from __future__ import annotations

import pytest
import sympy

from mkwrap.ir.index import FloorDiv, Mod, size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.ir.relations import decided, interval, limits_of, narrowed
from mkwrap.ir.signature import Comparison, Relation, SymbolSpec

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
    assert notes[0].startswith("n is 8 … 40, as the program asks for it at here")


def test_what_can_never_hold_stays() -> None:
    impossible = Relation(N, "==", sympy.Integer(100))
    assert narrowed(SPECS, [impossible])[1] == (impossible,)
