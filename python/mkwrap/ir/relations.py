"""What is known of dynamic sizes from their ranges: intervals of expressions, relations that hold anyway, narrower ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import sympy

from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import Expr
from mkwrap.ir.signature import Comparison, Relation, SymbolSpec
from mkwrap.ir.spelled import spelled

Limits: TypeAlias = Mapping[sympy.Symbol, tuple[int, int]]
"""Inclusive range of each size symbol."""

_HOLDS = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
}


def limits_of(symbols: Iterable[SymbolSpec]) -> Limits:
    """Return the ranges of size symbols."""
    return {spec.symbol: (spec.low, spec.high) for spec in symbols}


def interval(expr: Expr, limits: Limits) -> tuple[int, int] | None:
    """Return numbers that an expression over sizes is never below and never above; None where there are none to tell.

    A symbol that occurs twice counts as two: the interval may be wider than the values.
    """
    if expr.is_Integer:
        return int(expr), int(expr)
    if expr.is_Symbol:
        return limits.get(expr)
    parts = [interval(arg, limits) for arg in expr.args]
    known = [part for part in parts if part is not None]
    if isinstance(expr, Mod) and expr.args[1].is_Integer:
        return 0, int(expr.args[1]) - 1
    if len(known) != len(parts):
        return None
    if expr.is_Add:
        return sum(low for low, _ in known), sum(high for _, high in known)
    if expr.is_Mul:
        return _product(known)
    if expr.is_Pow and expr.exp.is_Integer and expr.exp > 0:
        return _product(known[:1] * int(expr.exp))
    if isinstance(expr, sympy.Min):
        return min(low for low, _ in known), min(high for _, high in known)
    if isinstance(expr, sympy.Max):
        return max(low for low, _ in known), max(high for _, high in known)
    if isinstance(expr, FloorDiv) and known[1][0] > 0:
        corners = [a // b for a in known[0] for b in known[1]]
        return min(corners), max(corners)
    if isinstance(expr, Mod) and known[1][0] > 0:
        return 0, known[1][1] - 1
    return None


def _product(parts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    low, high = parts[0]
    for other in parts[1:]:
        corners = [a * b for a in (low, high) for b in other]
        low, high = min(corners), max(corners)
    return low, high


def decided(relation: Relation, limits: Limits) -> bool | None:
    """Whether a relation holds for all sizes in their ranges (True) or for none (False); None where it depends on them."""
    between = interval(sympy.expand(relation.left - relation.right), limits)
    if between is None:
        return None
    low, high = between
    match relation.op:
        case "==":
            return True if low == high == 0 else False if low > 0 or high < 0 else None
        case "!=":
            return True if low > 0 or high < 0 else False if low == high == 0 else None
        case "<":
            return True if high < 0 else False if low >= 0 else None
        case "<=":
            return True if high <= 0 else False if low > 0 else None


def holds(relation: Relation, values: Mapping[sympy.Symbol, int]) -> bool:
    """Whether sizes fulfil a relation; one over a symbol without a value is not broken."""
    numbers = {symbol: sympy.Integer(value) for symbol, value in values.items()}
    left, right = relation.left.xreplace(numbers), relation.right.xreplace(numbers)
    if left.free_symbols or right.free_symbols:
        return True
    return bool(_HOLDS[relation.op](int(left), int(right)))


def narrowed(
    symbols: Sequence[SymbolSpec], relations: Iterable[Relation]
) -> tuple[tuple[SymbolSpec, ...], tuple[Relation, ...], tuple[str, ...]]:
    """Turn relations that bound one size into its range, and drop those that hold anyway.

    Returns the sizes, the relations that are left, and a line for each range that became narrower. A relation that can never
    hold stays: it says why every call is refused.
    """
    specs = {spec.symbol: spec for spec in symbols}
    left = _once(_at_most(_plain(relation, limits_of(symbols))) for relation in relations)
    why: dict[sympy.Symbol, list[str]] = {}
    changed = True
    while changed:
        changed = False
        for relation in list(left):
            if decided(relation, limits_of(specs.values())) is True:
                left.remove(relation)
                changed = True
                continue
            bound = _bound(relation, specs)
            if bound is not None:
                spec, low, high = bound
                specs[spec.symbol] = replace(spec, low=low, high=high)
                why.setdefault(spec.symbol, []).append(relation.origin)
                left.remove(relation)
                changed = True
    before = {spec.symbol: spec for spec in symbols}
    notes = tuple(_narrowing(before[symbol], specs[symbol], origins) for symbol, origins in why.items())
    return tuple(specs.values()), tuple(left), notes


def _plain(relation: Relation, limits: Limits) -> Relation:
    """Write a relation that says the same of all sizes in their ranges so that it shows what it asks for.

    x − min(a, x) is max(0, x − a), as slices write it; what cannot be the largest (least) that a bound needs is left out of
    max (min); and a multiple that both parts of a Mod have is divided away: Mod(8·n, 32) = 0 is Mod(n, 4) = 0.
    """
    left, right = (side.replace(lambda e: e.is_Add, _without_least) for side in (relation.left, relation.right))
    if relation.op in {"<", "<="}:
        if isinstance(right, sympy.Max):
            right = sympy.Max(*_possible(right.args, lambda part: Relation(left, relation.op, part), limits))
        if isinstance(left, sympy.Min):
            left = sympy.Min(*_possible(left.args, lambda part: Relation(part, relation.op, right), limits))
    elif right == 0:
        left = _reduced(left)
    elif left == 0:
        right = _reduced(right)
    return replace(relation, left=left, right=right)


def _once(relations: Iterable[Relation]) -> list[Relation]:
    """Return every relation once, with the first line that is known to ask for it: x ≠ y says the same as y ≠ x."""
    first: dict[tuple[Expr, Comparison, Expr], Relation] = {}
    for relation in relations:
        same = relation.left, relation.op, relation.right
        mirrored = relation.right, relation.op, relation.left
        if mirrored in first and relation.op in {"==", "!="}:
            same = mirrored
        known = first.setdefault(same, relation)
        first[same] = replace(known, origin=known.origin or relation.origin)
    return list(first.values())


def _without_least(total: Expr) -> Expr:
    for term in total.args:
        if not isinstance(-term, sympy.Min) or len((-term).args) != 2 or total - term not in (-term).args:
            continue
        other = next(arg for arg in (-term).args if arg != total - term)
        larger = sympy.Max(0, total - term - other)
        # Sympy takes sizes for positive, and so n − 1 for no less than 0, which it is where n is 0.
        return larger if isinstance(larger, sympy.Max) else total
    return total


def _possible(parts: Sequence[Expr], alone: Callable[[Expr], Relation], limits: Limits) -> Sequence[Expr]:
    """Return the parts of a max or min of which one has to fulfil a relation, and which may; all where none does."""
    return [part for part in parts if decided(alone(part), limits) is not False] or parts


def _reduced(rest: Expr) -> Expr:
    """Divide a Mod by what divides both its parts, which says the same of whether it is 0."""
    if not isinstance(rest, Mod) or not rest.args[1].is_Integer:
        return rest
    common = sympy.gcd(sympy.expand(rest.args[0]).as_content_primitive()[0], rest.args[1])
    return Mod(sympy.expand(rest.args[0] / common), rest.args[1] / common) if common.is_Integer else rest


def _at_most(relation: Relation) -> Relation:
    """Write x = min(x, y) as x ≤ y, x = max(x, y) as y ≤ x, n ≤ ⌊x / m⌋ as n·m ≤ x, n < ⌊x / m⌋ as (n + 1)·m ≤ x."""
    if relation.op in {"<", "<="} and relation.left.is_Integer and isinstance(relation.right, FloorDiv):
        least = relation.left + (relation.op == "<")
        return Relation(least * relation.right.args[1], "<=", relation.right.args[0], relation.origin)
    if relation.op != "==":
        return relation
    for one, other in ((relation.left, relation.right), (relation.right, relation.left)):
        if isinstance(other, sympy.Min | sympy.Max) and one in other.args:
            rest = other.func(*[arg for arg in other.args if arg != one])
            low, high = (one, rest) if isinstance(other, sympy.Min) else (rest, one)
            return Relation(low, "<=", high, relation.origin)
    return relation


def _narrowing(before: SymbolSpec, after: SymbolSpec, origins: Sequence[str]) -> str:
    places = "; ".join(dict.fromkeys(origin for origin in origins if origin))
    if after.high == before.high:
        change, was = f"at least {after.low}", str(before.low)
    elif after.low == before.low:
        change, was = f"at most {after.high}", str(before.high) if before.bounded else "any"
    else:
        change = f"{after.low} … {after.high}"
        was = f"{before.low} … {before.high}" if before.bounded else f"at least {before.low}"
    asked = f"{_subject(after.symbol)}{change} instead of {was}, as the program asks for it"
    return asked + (f" at {places}" if places else "")


def notes_of_narrowing(symbol: sympy.Symbol, notes: Iterable[str]) -> tuple[str, ...]:
    """Return those of a program's notes that tell how the range of one size became narrower."""
    return tuple(note for note in notes if note.startswith(_subject(symbol)))


def _subject(symbol: sympy.Symbol) -> str:
    return f"{symbol} is "


def _bound(relation: Relation, specs: Mapping[sympy.Symbol, SymbolSpec]) -> tuple[SymbolSpec, int, int] | None:
    """Return the size that a relation bounds and its new range, which is narrower and not empty."""
    difference = sympy.expand(relation.left - relation.right)
    if len(difference.free_symbols) != 1:
        return None
    (symbol,) = difference.free_symbols
    spec = specs.get(symbol)
    factor = difference.coeff(symbol)
    rest = sympy.expand(difference - factor * symbol)
    if spec is None or not factor.is_Integer or factor == 0 or not rest.is_Integer:
        return None
    low, high = _solved(relation.op, int(factor), int(rest), spec.low, spec.high)
    if (low, high) == (spec.low, spec.high) or low > high:
        return None
    return spec, low, high


def _solved(op: Comparison, factor: int, rest: int, low: int, high: int) -> tuple[int, int]:
    """Return the part of low … high where factor·x + rest op 0, as far as that is a range."""
    if op == "!=":
        if rest % factor == 0:
            gap = -rest // factor
            return low + (low == gap), high - (high == gap)
        return low, high
    if op == "==":
        return low, high
    slack = -rest - (1 if op == "<" else 0)
    # factor·x ≤ slack
    return (low, min(high, slack // factor)) if factor > 0 else (max(low, -(slack // -factor)), high)


def relation_text(relation: Relation) -> str:
    """Spell a relation for a message, and for the manifest."""
    return f"{spelled(relation.left)} {relation.op} {spelled(relation.right)}"
