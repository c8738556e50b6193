"""The variants of kernels with dynamic sizes: what their templates propose at each point, and where each text is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import TypeAlias

import sympy

from mkwrap.errors import NoVariantError
from mkwrap.hints import possible
from mkwrap.ir.index import bounds, split_multiple
from mkwrap.ir.relations import limits_of
from mkwrap.points import Ranges, Values, kernel_at, kernel_symbols, projected, size_at, values_at
from mkwrap.stages import Candidates, Guard, Hints, Kernel, Params, Point, Program, Rejected, Relation, Source, Variant
from mkwrap.toolchain.records import source_digest

MOST = 24
"""Params of one kernel, more than for a static shape; beyond it go only each point's first guess and each template's."""
# At many points a kernel has as many params as it has points, but no more than so many.
_MOST_AT_MANY = 128
# Between two sizes of an axis templates are asked at so many, at most once per doubling.
_MOST_BETWEEN = 4
# Templates are asked for axes that are worth having.
_LEAST_EXTENT = 2
# Of what is no first guess so many forms are written: the wider ones stand in for others where sizes are rare.
_COMMON_FORMS = 2
_NONE: Mapping[str, str] = MappingProxyType({})

Proposed: TypeAlias = Callable[[Kernel], tuple[Variant, ...]]
"""From a static kernel to its variants, best first within each template."""
Written: TypeAlias = Mapping[str, Sequence[Source | Rejected]]
OpenGuards: TypeAlias = Mapping[Variant, frozenset[Guard]]
"""Of each variant the guards that may fail for sizes within their ranges."""


def upper_ends(program: Program) -> Mapping[sympy.Symbol, int]:
    """Return the upper ends of a program's symbols, of those that have one."""
    return {spec.symbol: spec.high for spec in program.symbols if spec.bounded}


def kernel_points(kernel: Kernel, hints: Hints) -> tuple[Point, ...]:
    """Return a kernel's points, the example's first: the program's seen by the kernel's own symbols; a size 0 counts as 1."""
    symbols = kernel_symbols(kernel)
    if not symbols:
        return ()
    found = [projected(values, symbols) for values in hints.points]
    return tuple(dict.fromkeys(tuple(max(1, size) for size in point) for point in found))


def completed(kernel: Kernel, point: Point, hints: Hints) -> Values:
    """Return a size for every symbol of the program at a kernel's point: those of a program's point there, else the example's."""
    symbols = kernel_symbols(kernel)
    own = values_at(symbols, point)
    there = (v for v in hints.points if all(max(1, v[symbol]) == size for symbol, size in own.items()))
    return {**next(there, hints.example), **own}


def propose(
    kernel: Kernel,
    points: Sequence[Point],
    forms: Sequence[Params],
    proposed: Proposed,
    alike: int = 1,
    relations: Sequence[Relation] = (),
) -> tuple[tuple[Variant, ...], Mapping[Point, tuple[Variant, ...]]]:
    """Return a kernel's variants, best first, and for each point those worth trying there, in the order they are proposed.

    A template is asked at each point (the example's is the first) as for a static kernel; every form of the answer is a variant.
    Those proposed at most points go first, then those of the better rank. A point's first guess is worth trying at every other
    point, too. Between two neighbours templates are asked for their first guess, which is worth trying at both: what is made for
    a row of 512 cannot run one of 600. No template is asked at sizes that break a relation of the program.

    Of a point's `alike` best guesses, which are as good as each other, the one goes first that most points can share.
    """
    symbols = kernel_symbols(kernel)

    def asked(point: Point) -> tuple[Variant, ...]:
        return proposed(kernel_at(kernel, _raised(kernel, values_at(symbols, point))))

    spaces = {point: asked(point) for point in points}
    ranked = _ranked(spaces.values())
    guesses = {space[0] for space in spaces.values()}
    leaders = [variant for space in spaces.values() for variant in _leaders(space)]
    for template in dict.fromkeys(variant.template for variant in ranked):
        guesses.add(next(variant for variant in ranked if variant.template == template and variant in leaders))
    texts: dict[Variant, tuple[Variant, ...]] = {v: _in_forms(v, forms) for v in ranked if v in guesses}
    between = [
        (asked(middle)[0], axis, around)
        for middle, axis, around in _gaps(points)
        if possible(relations, values_at(symbols, middle))
    ]
    common = forms[:_COMMON_FORMS]
    room = max(MOST, min(len(points), _MOST_AT_MANY)) * len(common) - sum(map(len, texts.values()))
    order = tuple(dict.fromkeys((*ranked, *(variant for variant, _, _ in between))))
    for variant in dict.fromkeys((*(variant for variant, _, _ in between), *ranked)):
        fewer = _in_forms(variant, common)
        if variant not in texts and len(fewer) <= room:
            texts[variant] = fewer
            room -= len(fewer)
    kept = tuple(text for variant in order if variant in texts for text in texts[variant])
    shared = [variant for variant in ranked if variant in guesses]
    worth = {}
    for point, guess in _shared_guesses(spaces, alike).items():
        near = [variant for variant, axis, around in between if point[axis] in around]
        every = dict.fromkeys((guess, *spaces[point], *near, *shared))
        worth[point] = tuple(text for variant in every if variant in texts for text in texts[variant])
    return kept, worth


def _shared_guesses(spaces: Mapping[Point, Sequence[Variant]], alike: int) -> Mapping[Point, Variant]:
    """Return each point's guess: of its template's best, one that as many points as can be share, the first guess of one of them.

    So what is not measured needs few binaries, and what measures the same goes to few.
    """
    firsts = dict.fromkeys(space[0] for space in spaces.values())
    good = {p: [v for v in space if v.template == space[0].template][:alike] for p, space in spaces.items()}
    guess: dict[Point, Variant] = {}
    while left := {point: best for point, best in good.items() if point not in guess}:
        places = {v: [best.index(v) for best in left.values() if v in best] for v in firsts}
        chosen = max(firsts, key=lambda v: (len(places[v]), -sum(places[v])))
        guess |= dict.fromkeys((point for point, best in left.items() if chosen in best), chosen)
    return guess


def _raised(kernel: Kernel, values: Values) -> Values:
    """Return sizes with which no axis of dynamic extent is trivial: those of axes that would be are raised."""
    extents = [axis.extent for axis in (*kernel.nest.axes, *kernel.nest.reduction_axes)]
    trivial = [extent for extent in extents if extent.free_symbols and size_at(extent, values) < _LEAST_EXTENT]
    small = {symbol for extent in trivial for symbol in extent.free_symbols}
    return {symbol: max(_LEAST_EXTENT, size) if symbol in small else size for symbol, size in values.items()}


def _ranked(spaces: Iterable[Sequence[Variant]]) -> list[Variant]:
    score: dict[Variant, float] = {}
    for space in spaces:
        for rank, variant in enumerate(space):
            score[variant] = score.get(variant, 0.0) + 1 / (1 + rank)
    return sorted(score, key=lambda variant: -score[variant])


def _gaps(points: Sequence[Point]) -> Iterator[tuple[Point, int, tuple[int, int]]]:
    """Yield points between the sizes of each axis, every other size the example's, with the axis and the sizes around.

    The widest gaps come first.
    """
    example = points[0]
    gaps = [
        (axis, around) for axis in range(len(example)) for around in pairwise(sorted({point[axis] for point in points}))
    ]
    for axis, (low, high) in sorted(gaps, key=lambda gap: gap[1][0] / gap[1][1]):
        steps = min(_MOST_BETWEEN + 1, max(1, round(math.log2(high / low))))
        for k in range(1, steps):
            size = round(low * (high / low) ** (k / steps))
            yield (*example[:axis], size, *example[axis + 1 :]), axis, (low, high)


def _leaders(space: Sequence[Variant]) -> list[Variant]:
    first: dict[str, Variant] = {}
    for variant in space:
        first.setdefault(variant.template, variant)
    return list(first.values())


def _in_forms(variant: Variant, forms: Sequence[Params]) -> tuple[Variant, ...]:
    return tuple(dict.fromkeys(replace(variant, params=(*variant.params, *form)) for form in forms))


def fitting(candidates: Candidates, written: Written, force: Mapping[str, str] = _NONE) -> tuple[Candidates, Written]:
    """Return the candidates at each point that are right there, told by the guards of what is written.

    Equal texts of one kernel are one candidate, the forced or else the first. What is right at none of the points at which it
    is worth trying is none, unless it is forced. Every point has a variant that is right for all sizes among its own: raises
    `NoVariantError` for a kernel that has none.
    """
    ranges = limits_of(candidates.schedule.program.symbols)
    variants, points, sources = dict(candidates.variants), dict(candidates.points), dict(written)
    for name, worth in candidates.points.items():
        kernel = candidates.schedule.kernels[name]
        symbols = kernel_symbols(kernel)
        forced = force.get(name, "")
        items = _distinct(written[name], forced)
        by_variant = {item.variant: item for item in items if isinstance(item, Source)}
        free = [v for v, source in by_variant.items() if not open_guards(source, ranges)]
        if not free:
            raise _nowhere(kernel, items)
        points[name] = {point: _legal(worth[point], by_variant, free, values_at(symbols, point)) for point in worth}
        tried = {variant for legal in points[name].values() for variant in legal}
        sources[name] = tuple(
            item
            for item in items
            if item.variant in tried or item.variant.label == forced or isinstance(item, Rejected)
        )
        variants[name] = tuple(item.variant for item in sources[name])
    return replace(candidates, variants=variants, points=points), sources


def _legal(
    worth: Sequence[Variant], sources: Mapping[Variant, Source], free: Sequence[Variant], values: Values
) -> tuple[Variant, ...]:
    legal = [v for v in worth if v in sources and all(guard.holds(values) for guard in sources[v].guards)]
    return tuple(legal if set(legal) & set(free) else (*legal, free[0]))


def _distinct(items: Sequence[Source | Rejected], forced: str) -> tuple[Source | Rejected, ...]:
    seen: dict[str, Variant] = {}
    for item in sorted(items, key=lambda item: item.variant.label != forced):
        text = source_digest(item) + repr(item.guards) if isinstance(item, Source) else item.variant.label
        seen.setdefault(text, item.variant)
    return tuple(item for item in items if item.variant in seen.values())


def open_guards(source: Source, ranges: Ranges) -> frozenset[Guard]:
    """Return the guards of a source that may fail for sizes within their ranges."""
    return frozenset(guard for guard in source.guards if not _implied(guard, ranges))


def _implied(guard: Guard, ranges: Ranges) -> bool:
    whole = guard.multiple == 1 or split_multiple(guard.expr, sympy.Integer(guard.multiple))[1] == 0
    if guard.most is None or not whole:
        return whole
    known = bounds(guard.expr, {s: (sympy.Integer(low), sympy.Integer(high)) for s, (low, high) in ranges.items()})
    # A quotient of two sizes has no number for an end.
    return known is not None and bool(known[1].is_Integer and known[1] <= guard.most)


def _nowhere(kernel: Kernel, items: Sequence[Source | Rejected]) -> NoVariantError:
    origins = ", ".join(dict.fromkeys(origin.op for origin in kernel.nest.origins)) or "no known operation"
    lines = [f"no variant of kernel {kernel.name} ({origins}) is right for all its dynamic sizes:"]
    for item in items:
        reason = item.reason if isinstance(item, Rejected) else "only " + " and ".join(map(spell_guard, item.guards))
        lines.append(f"  {item.variant.label}: {reason}")
    lines.append("Compile for static sizes, or bound the dynamic ones more tightly.")
    return NoVariantError("\n".join(lines))


def spell_guard(guard: Guard) -> str:
    """Spell a guard for people: `seq ≤ 1024`, `seq % 16 = 0`."""
    parts = [f"{guard.expr} ≤ {guard.most}"] if guard.most is not None else []
    parts += [f"({guard.expr}) % {guard.multiple} = 0"] if guard.multiple != 1 else []
    return " and ".join(parts)
