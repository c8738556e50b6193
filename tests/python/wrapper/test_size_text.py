"""Sizes as the manifest writes them have the values they have in sympy."""

from __future__ import annotations

import pytest
import sympy

from mkwrap.errors import LibraryFormatError
from mkwrap.ir.index import FloorDiv, Mod, size_symbol
from mkwrap.ir.relations import relation_text
from mkwrap.ir.signature import Comparison, Relation
from mkwrap.ir.spelled import spelled
from mkwrap.sizes import read_over, read_relation, read_size

A, B = size_symbol("a"), size_symbol("b")


EXPRESSIONS = (
    -FloorDiv(A, 4) - 1,
    FloorDiv(A, FloorDiv(B, 2) + 1) * Mod(A, 5) - 2 * FloorDiv(B, 2),
    Mod(Mod(A, 7), FloorDiv(B, 3) + 2) ** 2,
    sympy.Integer(7),
    A,
    -A + 3,
    A + 2 * B - 3,
    A * B**3,
    FloorDiv(A - 9, 4),
    Mod(A - 9, 4),
    FloorDiv(A * B + 1, B + 2) * 64,
    sympy.Min(A, B, 5),
    sympy.Max(A - B, 2, B),
)


@pytest.mark.parametrize("expr", EXPRESSIONS, ids=str)
def test_text_has_the_expressions_value(expr: sympy.Expr) -> None:
    for text in (spelled(expr), str(expr)):
        size = read_size(text)
        for a, b in ((1, 1), (5, 3), (100, 7)):
            assert size({"a": a, "b": b}) == int(expr.subs({A: a, B: b}))


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (FloorDiv(A - 1, 2), "(a - 1) // 2"),
        (3 - FloorDiv(A, 4) * B, "-b*(a // 4) + 3"),
        (Mod(-FloorDiv(A, 3) - 1, 4), "(-(a // 3) - 1) % 4"),
        (FloorDiv(A * B, 3), "(a*b) // 3"),
        (FloorDiv(A, FloorDiv(B, 2)), "a // (b // 2)"),
        (FloorDiv(A, 3) ** 2 + Mod(A, 2), "(a // 3)**2 + a % 2"),
        (sympy.Max(Mod(A, 4), B), "Max(b, a % 4)"),
        (64, "64"),
    ],
)
def test_expressions_are_spelled_as_users_write_them(expr: sympy.Expr, text: str) -> None:
    assert spelled(expr) == text


@pytest.mark.parametrize("expr", [*EXPRESSIONS, Mod(A * B, 16), FloorDiv(A, 8) * B + Mod(A, 8)], ids=str)
def test_text_is_the_expression_again(expr: sympy.Expr) -> None:
    meanings = {"FloorDiv": FloorDiv, "Mod": Mod, "Min": sympy.Min, "Max": sympy.Max}
    for text in (spelled(expr), str(expr)):
        assert sympy.sympify(read_over(text, meanings)({"a": A, "b": B})) == expr


@pytest.mark.parametrize(("op", "holds"), [("==", [2]), ("!=", [1, 3]), ("<", [1]), ("<=", [1, 2])])
def test_text_of_a_relation_says_where_it_holds(op: Comparison, holds: list[int]) -> None:
    related = read_relation(relation_text(Relation(2 * A + FloorDiv(A, 9), op, B + 1)))
    assert [a for a in (1, 2, 3) if related({"a": a, "b": 3})] == holds


@pytest.mark.parametrize("text", ["a", "a < b < 3", "a in b", "a > b", "a.b < 3", "(", ""])
def test_what_is_no_relation_is_refused(text: str) -> None:
    with pytest.raises(LibraryFormatError, match="the manifest has a"):
        read_relation(text)


def test_a_division_by_zero_gives_zero() -> None:
    assert read_size("FloorDiv(a, b)")({"a": 5, "b": 0}) == 0
    assert read_size("Mod(a, b)")({"a": 5, "b": 0}) == 0
    assert read_size("a // b + a % b")({"a": 5, "b": 0}) == 0


@pytest.mark.parametrize("text", ["__import__('os')", "a.b", "a if b else 1", "a / b", "f(a)", "1.5", "(", True])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(LibraryFormatError, match="has a size"):
        read_size(text)
