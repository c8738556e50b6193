"""The points that a program is tuned at: what `Options.hints` asks for, within the program's ranges and `max_points`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import sympy

from mkwrap.errors import OptionError
from mkwrap.ir.nearest import distance
from mkwrap.ir.nodes import Expr, Load, Reduce
from mkwrap.ir.relations import holds, notes_of_narrowing
from mkwrap.ir.signature import Relation, SymbolSpec
from mkwrap.options import Options
from mkwrap.points import Values, projected, size_at, values_at
from mkwrap.stages import Hints, Point, Program

# "auto" takes at most so many sizes of a symbol that is alone: what one symbol decides changes every few doublings.
_MOST_SIZES = 8
# Lengths of rows decide more than their number: beside symbols that are such a length others get so few sizes, unless the
# lengths have all their powers, …
_FEW_SIZES = 3
# … and no symbol gets more than so many.
_MOST_TOGETHER = 16
# Sizes that nobody bounded are spread around the example's, by so many doublings to each side.
_AROUND = 6
# "auto" measures no point at which one buffer holds more bytes.
_MOST_BYTES = 1 << 30


class Shaped(Protocol):
    """What an example is asked for."""

    @property
    def shape(self) -> Sequence[int]:
        """Its extents."""


def example_sizes(program: Program, samples: Mapping[str, Shaped]) -> Values:
    """Return each symbol's size in the example call."""
    return {
        spec.symbol: (int(samples[spec.input_name].shape[spec.dim]) - spec.offset) // spec.scale
        for spec in program.symbols
    }


def hints_of(program: Program, samples: Mapping[str, Shaped], options: Options) -> Hints:
    """Return the points to tune a program at; none where all its sizes are static. `samples`: the examples of its inputs.

    Points that break one of the program's relations are no shapes of it and do not count. Raises `OptionError` for a hint that
    names no symbol of the program, or a size outside its range.
    """
    specs = sorted(program.symbols, key=lambda spec: str(spec.symbol.name))
    if not specs:
        return Hints()
    symbols = [spec.symbol for spec in specs]
    own = projected(example_sizes(program, samples), symbols)
    if isinstance(options.hints, str):
        asked = set(_grid(specs, own, options.max_points, _lengths(program)))
    else:
        asked = set(_asked(options.hints, specs, own, program.notes))
    legal = {p for p in asked if possible(program.relations, values_at(symbols, p))}
    if options.hints == "auto":
        legal = {p for p in legal if _largest(program, values_at(symbols, p)) <= _MOST_BYTES}
    points = spread([own], sorted(legal - {own}), options.max_points)
    left_out = sorted(legal - set(points))
    return Hints(
        example=values_at(symbols, own),
        points=tuple(values_at(symbols, p) for p in (own, *sorted(points[1:]))),
        left_out=tuple(values_at(symbols, p) for p in left_out),
    )


def spread(start: Sequence[Point], others: Sequence[Point], most: int) -> list[Point]:
    """Return `start` with points added, each the farthest from all before, until there are `most`.

    Far is as the dispatch rule has it; of points as far the first is taken.
    """
    chosen = list(start)
    far = {point: min(distance(point, taken) for taken in chosen) for point in others}
    while far and len(chosen) < most:
        point = max(far, key=lambda candidate: far[candidate])
        del far[point]
        chosen.append(point)
        far = {other: min(known, distance(other, point)) for other, known in far.items()}
    return chosen


def possible(relations: Iterable[Relation], values: Values) -> bool:
    """Whether sizes are those of a call as far as they have a value: whether they fulfil each relation."""
    return all(holds(relation, values) for relation in relations)


def _grid(specs: Sequence[SymbolSpec], own: Point, most: int, lengths: Collection[sympy.Symbol]) -> Iterable[Point]:
    """Return powers of two of every symbol, most of those that `lengths` of rows depend on, all combined: at most `most`."""
    pairs = list(zip(specs, own, strict=True))
    if len(specs) == 1:
        return itertools.product(_powers(*pairs[0], min(_MOST_SIZES, most)))
    long = [pair for pair in pairs if pair[0].symbol in lengths]
    others = len(pairs) - len(long)
    if not long or not others:
        each = few = _share(most, len(pairs))
    else:
        all_lengths = math.prod(len(_powers(*pair, _MOST_TOGETHER)) for pair in long)
        few = max(min(_FEW_SIZES, _share(most, len(pairs))), _share(most // all_lengths, others))
        each = _share(most // few**others, len(long))
    return itertools.product(*(_powers(*pair, each if pair in long else few) for pair in pairs))


def _share(most: int, symbols: int) -> int:
    """Return how many sizes each of some symbols gets so that not more than `most` are combined."""
    return min(_MOST_TOGETHER, max(1, math.floor(math.pow(most, 1 / symbols) + 1e-6)))


def _lengths(program: Program) -> frozenset[sympy.Symbol]:
    """Return the symbols that the length of a contiguous row depends on: one reduced, scanned or sorted, products apart."""
    found: set[sympy.Symbol] = set()
    for nest in program.nests:
        if not nest.reduction_axes or any(isinstance(i, Reduce) and i.op == "dot" for i in nest.body):
            continue
        last = nest.reduction_axes[-1].symbol
        places = (program.buffers[i.buffer].flat_index(i.index) for i in nest.body if isinstance(i, Load))
        if any(sympy.expand(place).coeff(last, 1) == 1 for place in places):
            found.update(symbol for axis in nest.reduction_axes for symbol in axis.extent.free_symbols)
    return frozenset(found)


def _asked(
    hints: Mapping[str, int | Sequence[int]] | Sequence[Mapping[str, int]],
    specs: Sequence[SymbolSpec],
    own: Point,
    notes: Sequence[str],
) -> Iterable[Point]:
    if isinstance(hints, Mapping):
        given = {name: (sizes,) if isinstance(sizes, int) else tuple(sizes) for name, sizes in hints.items()}
        _check([(name, size) for name, sizes in given.items() for size in sizes], list(given), specs, notes)
        return itertools.product(*(given.get(_name(spec), (size,)) for spec, size in zip(specs, own, strict=True)))
    _check(
        [pair for point in hints for pair in point.items()], [name for point in hints for name in point], specs, notes
    )
    return [tuple(point.get(_name(s), size) for s, size in zip(specs, own, strict=True)) for point in hints]


def _check(
    sizes: Sequence[tuple[str, int]], names: Sequence[str], specs: Sequence[SymbolSpec], notes: Sequence[str]
) -> None:
    by_name = {_name(spec): spec for spec in specs}
    for name in names:
        if name not in by_name:
            known = ", ".join(by_name)
            raise OptionError(f"Options.hints names the symbol {name!r}; the program's dynamic sizes are: {known}")
    for name, size in sizes:
        spec = by_name[name]
        if not spec.low <= size <= spec.high:
            why = "; ".join(notes_of_narrowing(spec.symbol, notes))
            raise OptionError(
                f"Options.hints has {name}={size}; its range is {spec.low} to {spec.high}"
                + (f": the program narrowed it ({why})" if why else "")
            )


def _powers(spec: SymbolSpec, example: int, count: int) -> tuple[int, ...]:
    """Return powers of two spread over a symbol's range, the example's size in place of the nearest: a grid that holds it."""
    low, high = max(1, spec.low), spec.high
    if not spec.bounded:
        low, high = max(low, example >> _AROUND), max(1, example) << _AROUND
    powers = [1 << k for k in range((low - 1).bit_length(), high.bit_length()) if low <= 1 << k <= high]
    if not powers or count < 2:
        return (example,)
    if len(powers) > count:
        last = len(powers) - 1
        powers = [powers[round(k * last / (count - 1))] for k in range(count)]
    nearest = min(powers, key=lambda power: distance((power,), (example,)))
    return tuple(sorted({example if power == nearest else power for power in powers}))


def _largest(program: Program, values: Values) -> int:
    return max(
        (_elements(buffer.storage_elements, values) * buffer.dtype.itemsize for buffer in program.buffers.values()),
        default=0,
    )


def _elements(elements: Expr, values: Values) -> int:
    number = size_at(elements, values)
    return int(number) if number.is_Integer else 0


def _name(spec: SymbolSpec) -> str:
    return str(spec.symbol.name)
