"""Translates torch's expressions over sizes, and what it asks of them, into those of the IR."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import sympy

from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import Expr
from mkwrap.ir.relations import decided
from mkwrap.ir.signature import Comparison, Relation


class UntranslatableError(Exception):
    """A size expression of torch that has no counterpart here; the message names it."""


def relations_of(condition: sympy.Basic, meaning: Mapping[sympy.Symbol, Expr], origin: str) -> Iterator[Relation]:
    """Yield a condition of torch's as relations. Raises `UntranslatableError` for one that is no conjunction of comparisons."""
    if condition == sympy.true:
        return
    if isinstance(condition, sympy.And):
        for part in condition.args:
            yield from relations_of(part, meaning, origin)
        return
    for kind, op, swapped in _COMPARISONS:
        if isinstance(condition, kind):
            left, right = (translated(side, meaning) for side in condition.args)
            left, right = (right, left) if swapped else (left, right)
            yield _simple(Relation(left, op, right, origin))
            return
    if isinstance(condition, sympy.Or):
        yield from _either(condition, meaning, origin)
        return
    raise UntranslatableError(str(condition))


def _either(condition: sympy.Or, meaning: Mapping[sympy.Symbol, Expr], origin: str) -> Iterator[Relation]:
    """Yield a disjunction: nothing where a part always holds; (a − b)·(c − d) = 0 for a = b or c = d."""
    difference: Expr = sympy.Integer(1)
    for part in condition.args:
        relations = list(relations_of(part, meaning, origin))
        if all(decided(relation, {}) for relation in relations):
            return
        if len(relations) != 1 or relations[0].op != "==":
            raise UntranslatableError(str(condition))
        difference = difference * (relations[0].left - relations[0].right)
    yield Relation(difference, "==", sympy.Integer(0), origin)


_COMPARISONS: tuple[tuple[type[sympy.Basic], Comparison, bool], ...] = (
    (sympy.Eq, "==", False),
    (sympy.Ne, "!=", False),
    (sympy.StrictLessThan, "<", False),
    (sympy.LessThan, "<=", False),
    (sympy.StrictGreaterThan, "<", True),
    (sympy.GreaterThan, "<=", True),
)


def _simple(relation: Relation) -> Relation:
    """Write x = n·⌊x / n⌋ as x mod n = 0."""
    if relation.op != "==":
        return relation
    for whole, parts in ((relation.left, relation.right), (relation.right, relation.left)):
        for division in parts.atoms(FloorDiv):
            if division.args[0] == whole and parts == division * division.args[1]:
                return Relation(Mod(*division.args), "==", sympy.Integer(0), relation.origin)
    return relation


def translated(expr: sympy.Basic, meaning: Mapping[sympy.Symbol, Expr]) -> Expr:
    """Return an expression of torch's over our symbols and functions. Raises `UntranslatableError`."""
    if expr.is_Number:
        return sympy.Integer(int(expr)) if expr.is_Integer else sympy.Float(float(expr))
    if expr.is_Symbol:
        if expr not in meaning:
            raise UntranslatableError(f"the size {expr} depends on the values of tensors")
        return meaning[expr]
    name = type(expr).__name__
    if name in _ROUNDED and type(expr.args[0]).__name__ == "IntTrueDiv":
        return _ROUNDED[name](*[translated(arg, meaning) for arg in expr.args[0].args])
    make = _FUNCTIONS.get(name)
    if make is None:
        raise UntranslatableError(str(expr))
    return make(*[translated(arg, meaning) for arg in expr.args])


def sliced_length(extent: Expr, start: Expr | None, end: Expr | None, step: int) -> Expr:
    """Return the length of start:end:step over a dim: ends count from the end where negative, and stay inside."""
    first = sympy.Integer(0) if start is None else _inside(start, extent)
    last = extent if end is None else _inside(end, extent)
    if isinstance(first, sympy.Max) and len(first.args) == 2 and sympy.Integer(0) in first.args:
        rest = next(arg for arg in first.args if arg != 0)
        return FloorDiv(sympy.Min(last, last - rest) + step - 1, sympy.Integer(step))
    return FloorDiv(sympy.Max(0, sympy.expand(last - first)) + step - 1, sympy.Integer(step))


def _inside(position: Expr, extent: Expr) -> Expr:
    if position.is_negative:
        return sympy.Max(0, position + extent)
    return sympy.Min(position, extent)


def _ceil_div(a: Expr, b: Expr) -> Expr:
    return FloorDiv(a + b - 1, b)


_FUNCTIONS: Mapping[str, Callable[..., Expr]] = {
    "Add": sympy.Add,
    "Mul": sympy.Mul,
    "Pow": sympy.Pow,
    "PowByNatural": sympy.Pow,
    "FloatPow": sympy.Pow,
    "FloorDiv": FloorDiv,
    "CleanDiv": FloorDiv,
    "CeilDiv": _ceil_div,
    "Mod": Mod,
    "PythonMod": Mod,
    "ModularIndexing": lambda a, b, c: Mod(FloorDiv(a, b), c),
    "Min": sympy.Min,
    "Max": sympy.Max,
    "Identity": lambda a: a,
    "ToFloat": lambda a: a,
    "TruncToInt": lambda a: a if a.is_integer else _no_integer(a),
    "FloatTrueDiv": lambda a, b: a / b,
    "IntTrueDiv": lambda a, b: a / b,
    "OpaqueUnaryFn_sqrt": sympy.sqrt,
}
"""Torch's functions by the name of their class, which is the same in all releases."""

_ROUNDED: Mapping[str, Callable[[Expr, Expr], Expr]] = {
    "FloorToInt": FloorDiv,
    "TruncToInt": FloorDiv,
    "CeilToInt": _ceil_div,
}
"""Roundings of a quotient of sizes, which are never negative."""


def _no_integer(value: Expr) -> Expr:
    raise UntranslatableError(f"the integer part of {value}")
