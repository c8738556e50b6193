"""Packs buffers with lives into one block of memory: at least offsets for known sizes, expressions for dynamic ones.

For dynamic sizes, a packing at known ones says who lies above whom; an offset is then the largest end of what lies below, at
any sizes. Several packings are tried, and the one is kept that stays closest to the best at small, middle and large sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from mkwrap.ir.index import FloorDiv, Largest, rounded_up
from mkwrap.ir.nodes import Expr
from mkwrap.stages import SymbolSpec

ALIGNMENT = 64
_LARGE = 4096
"""A size that has no upper end is planned for up to this."""
_MOST_OPERATIONS = 300


@dataclass(frozen=True)
class Life:
    """A buffer: its bytes, and the first and last step in which it is alive."""

    name: str
    size: Expr
    first: int
    last: int

    def meets(self, other: Life) -> bool:
        """Whether both are alive in some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Packing:
    """Offset of each buffer, and the size of all."""

    offsets: Mapping[str, Expr]
    size: Expr


def packed(lives: Sequence[Life], symbols: Sequence[SymbolSpec]) -> Packing:
    """Place buffers so that those that meet share no bytes."""
    if all(life.size.is_Integer for life in lives):
        return _packed(lives, {})
    points = [{spec.symbol: value(spec) for spec in symbols} for value in (_middle, _large, _small)]
    best = [int(_packed(lives, point).size) for point in points]
    plans = [_symbolic(lives, _packed(lives, point).offsets) for point in points]
    return min(plans, key=lambda plan: _excess(plan, points, best))


def _small(spec: SymbolSpec) -> int:
    return max(spec.low, 1)


def _large(spec: SymbolSpec) -> int:
    return max(min(spec.high, _LARGE), _small(spec))


def _middle(spec: SymbolSpec) -> int:
    return int((_small(spec) * _large(spec)) ** 0.5)


def _excess(plan: Packing, points: Sequence[Mapping[sympy.Symbol, int]], best: Sequence[int]) -> float:
    """Return how much larger a plan is than the best, at the worst of some points."""
    return max((_at(plan.size, point) + 1) / (least + 1) for point, least in zip(points, best, strict=True))


def _at(expr: Expr, point: Mapping[sympy.Symbol, int]) -> int:
    return int(expr.xreplace({symbol: sympy.Integer(value) for symbol, value in point.items()}))


def _packed(lives: Sequence[Life], point: Mapping[sympy.Symbol, int]) -> Packing:
    """Place buffers of known sizes, largest first, at the lowest offset free during their whole life."""
    sizes = {life.name: _at(life.size, point) for life in lives}
    placed: list[tuple[int, Life]] = []
    for life in sorted(lives, key=lambda life: (-sizes[life.name], life.first, life.name)):
        busy = sorted((offset, offset + sizes[other.name]) for offset, other in placed if other.meets(life))
        placed.append((_lowest_gap(busy, sizes[life.name]), life))
    end = max((offset + sizes[life.name] for offset, life in placed), default=0)
    return Packing({life.name: sympy.Integer(offset) for offset, life in placed}, sympy.Integer(end))


def _lowest_gap(busy: Sequence[tuple[int, int]], size: int) -> int:
    offset = 0
    for start, end in busy:
        if offset + size <= start:
            break
        offset = max(offset, end)
    return offset


def _symbolic(lives: Sequence[Life], known: Mapping[str, Expr]) -> Packing:
    """Keep the order in memory of a packing, at any sizes."""
    offsets: dict[str, Expr] = {}
    below: dict[str, list[Life]] = {}
    for life in sorted(lives, key=lambda life: (int(known[life.name]), life.first, life.name)):
        under = [other for other in lives if other.name in offsets and other.meets(life)]
        covered = {other.name for upper in under for other in below[upper.name]}
        below[life.name] = under
        offsets[life.name] = _largest([offsets[o.name] + o.size for o in under if o.name not in covered])
    return Packing(offsets, _largest([offsets[life.name] + life.size for life in lives]))


def _largest(ends: Sequence[Expr]) -> Expr:
    """Return the maximum of sizes, without those that another is never below; a sum where that grows beyond use."""
    kept: list[Expr] = []
    for end in dict.fromkeys(sympy.expand(end) for end in ends):
        if any(never_larger(end, other) for other in kept):
            continue
        kept = [*(other for other in kept if not never_larger(other, end)), end]
    if not kept:
        return sympy.Integer(0)
    largest = Largest(*kept)
    return largest if largest.count_ops() <= _MOST_OPERATIONS else sympy.Add(*kept)


def never_larger(a: Expr, b: Expr) -> bool:
    """Whether a ≤ b is plain to see for all sizes from 0."""
    return _never_negative(sympy.expand(b - a))


def _never_negative(difference: Expr) -> bool:
    maxima = sorted(difference.atoms(sympy.Max), key=lambda part: -part.count_ops())
    if maxima:
        largest = maxima[0]
        factor = difference.coeff(largest)
        rest = sympy.expand(difference - factor * largest)
        if not factor.is_Integer or factor == 0 or rest.has(largest):
            return False
        parts = (_never_negative(sympy.expand(rest + factor * arg)) for arg in largest.args)
        return any(parts) if factor > 0 else all(parts)
    bound = sympy.expand(sympy.Add(*[_bound_below(term) for term in sympy.Add.make_args(difference)]))
    return all(term.as_coeff_Mul()[0].is_nonnegative for term in sympy.Add.make_args(bound))


def _bound_below(term: Expr) -> Expr:
    """Replace the rounding in a term by what makes the term least: a/b − (b − 1)/b ≤ ⌊a / b⌋ ≤ a/b."""
    positive = term.as_coeff_Mul()[0].is_nonnegative
    return term.replace(FloorDiv, lambda a, b: (a - b + 1) / b if positive else a / b)


def aligned(size: Expr) -> Expr:
    """Round bytes up to a multiple of the alignment; equal sizes give equal expressions."""
    return sympy.expand(rounded_up(sympy.expand(size), ALIGNMENT))
