"""Spells size expressions as int64 C++ and evaluates their upper bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy

from mkwrap.errors import DynamicShapeError, InternalError
from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import Expr
from mkwrap.stages import SymbolSpec

_LARGEST = 2**62
_CALLS: Mapping[type[sympy.Basic], str] = {
    FloorDiv: "runtime::floor_div",
    Mod: "runtime::floor_mod",
    sympy.Min: "runtime::smaller",
    sympy.Max: "runtime::larger",
}


def size_name(symbol: sympy.Symbol) -> str:
    """Return the C++ variable that holds a symbol's value; no other name in host code starts with `n_`."""
    if not symbol.name.isidentifier():
        raise InternalError(f"the size symbol {symbol.name!r} is no identifier")
    return f"n_{symbol.name}"


def spell_size(expr: Expr | int) -> str:
    """Spell an integer expression over size symbols as an int64 C++ expression; a static one is a literal."""
    expr = sympy.sympify(expr)
    if expr.is_Integer:
        return str(int(expr))
    if expr.is_Symbol:
        return size_name(expr)
    if expr.is_Add:
        return "(" + " + ".join(spell_size(arg) for arg in expr.args) + ")"
    if expr.is_Mul:
        return "(" + " * ".join(spell_size(arg) for arg in expr.args) + ")"
    if expr.is_Pow and expr.exp.is_Integer and int(expr.exp) > 0:
        return "(" + " * ".join([spell_size(expr.base)] * int(expr.exp)) + ")"
    for function, call in _CALLS.items():
        if isinstance(expr, function):
            return _nest(call, [spell_size(arg) for arg in expr.args])
    raise InternalError(f"the size expression {expr} has no spelling in C++")


def is_static(expr: Expr | int) -> bool:
    """Whether an expression is a number."""
    return bool(sympy.sympify(expr).is_Integer)


def largest(expr: Expr | int, symbols: Sequence[SymbolSpec]) -> int:
    """Return an expression's value where every symbol is at its upper end (sizes grow with their symbols).

    Raises `DynamicShapeError` where a symbol has no upper end that memory could hold.
    """
    expr = sympy.sympify(expr)
    for spec in symbols:
        if spec.symbol in expr.free_symbols and spec.high >= _LARGEST:
            raise DynamicShapeError(f"the dynamic size {spec.symbol} needs an upper bound: give its Dim a max")
    value = expr.subs({spec.symbol: spec.high for spec in symbols})
    if not value.is_Integer:
        raise InternalError(f"the size expression {expr} holds symbols that no input binds")
    return int(value)


def round_up(value: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def _nest(call: str, args: list[str]) -> str:
    text = args[0]
    for arg in args[1:]:
        text = f"{call}({text}, {arg})"
    return text
