"""Spells size expressions as int64 C++ and evaluates their upper bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy

from mkwrap.codegen.wrapper.text import spell_comment
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import Expr
from mkwrap.ir.relations import interval, limits_of
from mkwrap.stages import SymbolSpec

_LARGEST = 2**62
_CALLS: Mapping[type[sympy.Basic], str] = {
    FloorDiv: "runtime::floor_div",
    Mod: "runtime::floor_mod",
    sympy.Min: "runtime::smaller",
    sympy.Max: "runtime::larger",
}
ARRAY = "v"
"""The C++ array of a run's sizes."""


class Values:
    """The dynamic sizes of host code: the symbols, then every size expression once, numbered in order of first use.

    They are the elements of `ARRAY`. Whoever spells an expression makes it one of them; `write` evaluates them.
    """

    def __init__(self, symbols: Sequence[SymbolSpec]) -> None:
        self._numbers: dict[Expr, int] = {spec.symbol: number for number, spec in enumerate(symbols)}
        self._names = {spec.symbol: f"{ARRAY}[{number}]" for number, spec in enumerate(symbols)}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._numbers)

    def spell(self, expr: Expr | int) -> str:
        """Spell an expression: a static one as a literal, a dynamic one as its element."""
        expr = sympy.sympify(expr)
        if is_static(expr):
            return str(int(expr))
        return f"{ARRAY}[{self._numbers.setdefault(expr, len(self._numbers))}]"

    def write(self, writer: Writer, first: int) -> None:
        """Write the evaluation of all from number `first` on; `wide` says whether one does not fit 64 bits."""
        for expr, number in list(self._numbers.items())[first:]:
            writer.line(f"{ARRAY}[{number}] = {spell_size(expr, self._names)};  {spell_comment(str(expr), 60)}")


def spell_size(expr: Expr | int, names: Mapping[sympy.Symbol, str]) -> str:
    """Spell an integer expression over size symbols as an int64 C++ expression; a static one is a literal.

    `names` are the symbols' C++ names. Where a sum or product does not fit 64 bits, the C++ variable `wide` is set.
    """
    expr = sympy.sympify(expr)
    if expr.is_Integer:
        return str(int(expr))
    if expr.is_Symbol:
        if expr not in names:
            raise InternalError(f"the size symbol {expr} is bound by no input")
        return names[expr]
    args = [spell_size(arg, names) for arg in expr.args if not expr.is_Pow]
    if expr.is_Add:
        return _nest("runtime::plus", args, ", wide")
    if expr.is_Mul:
        return _nest("runtime::times", args, ", wide")
    if expr.is_Pow and expr.exp.is_Integer and int(expr.exp) > 0:
        return _nest("runtime::times", [spell_size(expr.base, names)] * int(expr.exp), ", wide")
    for function, call in _CALLS.items():
        if isinstance(expr, function):
            return _nest(call, args)
    raise InternalError(f"the size expression {expr} has no spelling in C++")


def is_static(expr: Expr | int) -> bool:
    """Whether an expression is a number."""
    return bool(sympy.sympify(expr).is_Integer)


def largest(expr: Expr | int, symbols: Sequence[SymbolSpec]) -> int | None:
    """Return a number that an expression never exceeds (sizes such as m - n do not grow with all of their symbols).

    None where none can be told, as where a symbol without an upper end counts, or it is none that memory could hold.
    """
    expr = sympy.sympify(expr)
    if not expr.free_symbols <= {spec.symbol for spec in symbols}:
        raise InternalError(f"the size expression {expr} holds symbols that no input binds")
    ends = interval(expr, limits_of(symbols))
    return ends[1] if ends is not None and ends[1] < _LARGEST else None


def round_up(value: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def most_of(sizes: Sequence[int | None], alignment: int = 1) -> int | None:
    """Return the largest of sizes, 0 of none, as a multiple of `alignment`; None where one has no upper end."""
    known = [size for size in sizes if size is not None]
    return round_up(max(known, default=0), alignment) if len(known) == len(sizes) else None


def _nest(call: str, args: list[str], tail: str = "") -> str:
    text = args[0]
    for arg in args[1:]:
        text = f"{call}({text}, {arg}{tail})"
    return text
