"""Index expressions in C++, and how they move along the vector axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy

from mkwrap.errors import VerifyError
from mkwrap.ir.index import FloorDiv, Mod, Ranges, axis_symbol, bounds, simplify, size_symbol
from mkwrap.ir.nodes import Expr

Naming = Callable[[sympy.Symbol], str]
"""Spells a symbol."""

_SUM, _PRODUCT, _ATOM = 1, 2, 3  # binding strength


class AtLeastOne(sympy.Function):  # type: ignore[misc]  # sympy is untyped
    """max(x, 1). `sympy.Max` takes a size for positive and leaves it as it is, but in a call it may be 0."""

    nargs = (1,)
    is_integer = True
    is_positive = True

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        """Fold constants."""
        return sympy.Integer(max(int(x), 1)) if x.is_Integer else None


def variable(symbol: sympy.Symbol) -> str:
    """Return the C++ variable of a symbol. Users name sizes: those get a name that no other variable has."""
    return f"size_{symbol.name}" if is_size(symbol) else str(symbol.name)


def is_size(symbol: sympy.Symbol) -> bool:
    """Whether a symbol is a dynamic size, no axis and no value of an index."""
    return bool(symbol.is_positive)


def spell_index(expr: Expr, ranges: Ranges, name: Naming = variable) -> str:
    """Spell an integer expression in int64 C++; / and % where the dividend cannot be negative."""
    return _spell(sympy.sympify(expr), ranges, name)[0]


def spell_factor(size: Expr | int) -> str:
    """Spell a size for a place where a product or a quotient may stand around it."""
    text, strength = _spell(sympy.sympify(size), {}, variable)
    return text if strength == _ATOM else f"({text})"


def _spell(expr: Expr, ranges: Ranges, name: Naming) -> tuple[str, int]:
    if expr.is_Integer:
        value = int(expr)
        text = str(value) if abs(value) < 1 << 31 else f"{value}ll"
        return (text, _ATOM) if value >= 0 else (f"({text})", _ATOM)
    if expr.is_Symbol:
        return name(expr), _ATOM
    if expr.is_Add:
        return _spell_sum(expr, ranges, name), _SUM
    if expr.is_Mul or expr.is_Pow:
        return _spell_product(expr, ranges, name), _PRODUCT
    if isinstance(expr, FloorDiv | Mod):
        return _spell_division(expr, ranges, name)
    if isinstance(expr, sympy.Min | sympy.Max):
        function = "minimum" if isinstance(expr, sympy.Min) else "maximum"
        first, *rest = (f"(int64_t)({_spell(arg, ranges, name)[0]})" for arg in expr.args)
        for other in rest:
            first = f"mkw::{function}({first}, {other})"
        return first, _ATOM
    if isinstance(expr, AtLeastOne):
        return f"mkw::maximum((int64_t)({_spell(expr.args[0], ranges, name)[0]}), (int64_t)1)", _ATOM
    raise VerifyError(f"index expression {expr} has no C++ spelling")


def _spell_sum(expr: Expr, ranges: Ranges, name: Naming) -> str:
    # Symbols in order of their names, the constant last: stable text.
    constant, terms = expr.as_coeff_add()
    ordered = sorted(terms, key=lambda term: (sorted(str(s) for s in term.free_symbols), str(term)))
    text = ""
    for term in [*ordered, *([constant] if constant != 0 else [])]:
        negative = term.could_extract_minus_sign()
        piece, strength = _spell(-term if negative else term, ranges, name)
        piece = piece if strength > _SUM else f"({piece})"
        text = f"{text}{' - ' if negative else ' + '}{piece}" if text else f"-{piece}" if negative else piece
    return text


def _spell_product(expr: Expr, ranges: Ranges, name: Naming) -> str:
    factors: list[str] = []
    for factor in sympy.Mul.make_args(expr):
        base, exponent = factor.as_base_exp()
        if not (exponent.is_Integer and exponent > 0):
            raise VerifyError(f"index expression {expr} has no C++ spelling")
        piece, strength = _spell(base, ranges, name)
        factors.extend([piece if strength > _SUM else f"({piece})"] * int(exponent))
    return " * ".join(factors)


def _spell_division(expr: Expr, ranges: Ranges, name: Naming) -> tuple[str, int]:
    dividend, divisor = expr.args
    limits = bounds(dividend, ranges)
    a, b = _spell(dividend, ranges, name)[0], _spell(divisor, ranges, name)[0]
    if dividend.is_nonnegative or (limits is not None and limits[0].is_nonnegative):
        # Parenthesised: C's / and % bind from the left.
        return f"(({a}) {'/' if isinstance(expr, FloorDiv) else '%'} ({b}))", _ATOM
    function = "floordiv" if isinstance(expr, FloorDiv) else "mod"
    return f"mkw::{function}((int64_t)({a}), (int64_t)({b}))", _ATOM


def step_along(expr: Expr, axis: sympy.Symbol, lanes: int, ranges: Ranges) -> Expr | None:
    """Return how much an expression grows per lane of a vector of `lanes` that starts at a multiple of `lanes` on `axis`.

    None where that is no single number known to hold for all such vectors.
    """
    if axis not in expr.free_symbols:
        return sympy.Integer(0)
    block, lane = axis_symbol("vector_block"), axis_symbol("vector_lane")
    low, high = ranges[axis]
    inner: Mapping[sympy.Symbol, tuple[Expr, Expr]] = {
        **ranges,
        block: (low, high // lanes if high.is_Integer else size_symbol("vector_blocks")),
        lane: (sympy.Integer(0), sympy.Integer(lanes - 1)),
    }
    moved = simplify(expr.subs(axis, lanes * block + lane), inner)
    step = sympy.expand(moved).coeff(lane, 1)
    rest = sympy.expand(moved - step * lane)
    if lane in rest.free_symbols or step.free_symbols & {lane, block}:
        return None
    return step
