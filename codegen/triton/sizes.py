"""What a text takes for granted about dynamic sizes: the width of indices, and what divides which sizes.

Triton joins accesses of neighbouring elements into one of 16 bytes where it can prove that rows start at, and masks end
at, multiples of enough elements. A static size shows it; a dynamic one that is such a multiple is written as a product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sympy

from mkwrap.codegen.matmul_roles import matmul_roles, split_axes
from mkwrap.codegen.parameters import buffers_of, size_symbols
from mkwrap.codegen.triton.indexing import over_position
from mkwrap.codegen.triton.strides import access_strides, by_descending_stride, innermost
from mkwrap.codegen.triton.tile import INT32_LIMIT, power_of_two
from mkwrap.ir.analysis import loads, sorts, stores
from mkwrap.ir.index import FloorDiv, Mod, axis_ranges, axis_symbol, bounds
from mkwrap.ir.nodes import Axis, Buffer, Expr, Load, Nest, Store
from mkwrap.ir.ops import SORT_LIMIT
from mkwrap.stages import Guard, Kernel, Params

_VECTOR_BYTES = 16
_SLACK = 1 << 20
"""The largest tile: positions may overhang the end of a row by so much."""
_MOST_INDEX = INT32_LIMIT - _SLACK
_MOST_DYNAMIC = INT32_LIMIT - (1 << 28)
"""Of dynamic sizes: rows cut into a fixed number of chunks may end that many tiles beyond their end."""


@dataclass(frozen=True)
class Sizes:
    """How one text treats a kernel's sizes.

    `wide`: indices are int64. `multiples`: of symbols, and of whole extents, what is known to divide them.
    """

    symbols: tuple[sympy.Symbol, ...]
    wide: bool
    multiples: Mapping[Expr, int]
    guards: tuple[Guard, ...]

    def multiple(self, extent: Expr) -> int:
        """What divides a whole extent though its factors do not say so, else 1."""
        return 1 if extent.is_Symbol else self.multiples.get(sympy.expand(extent), 1)


@dataclass(frozen=True)
class _Size:
    """What an access moves by or ends at, and of how many elements it should be a multiple."""

    expr: Expr
    elements: int

    def lacks(self, known: Mapping[Expr, int]) -> int:
        """By what more its symbols have to be divisible, given what divides them; 1 for what holds no symbol."""
        return max((self._term_lacks(term, known) for term in sympy.Add.make_args(self.expr)), default=1)

    def _term_lacks(self, term: Expr, known: Mapping[Expr, int]) -> int:
        if not term.free_symbols:
            return 1
        coefficient = term.as_coeff_Mul()[0]
        shown = int(coefficient) if coefficient.is_Integer else 1
        shown *= math.prod(known.get(symbol, 1) for symbol in term.free_symbols)
        return self.elements // math.gcd(shown, self.elements)


def sizes_of(kernel: Kernel, params: Params) -> Sizes:
    """Read what a variant's params say about sizes: `divisible`, `wide`; no such params on a static kernel."""
    options = dict(params)
    buffers = buffers_of(kernel)
    symbols = size_symbols(kernel.nest, buffers.values())
    spans = _spans(kernel.nest, buffers.values())
    wide = bool(options.get("wide", False)) or any(_exceeds(span) for span in spans)
    multiples = _multiples(kernel) if options.get("divisible", False) else {}
    guards = [Guard(size, multiple=multiple) for size, multiple in multiples.items()]
    if not wide:
        guards += index_guards(spans)
    return Sizes(symbols, wide, multiples, tuple(guards))


def index_guards(spans: Iterable[Expr]) -> tuple[Guard, ...]:
    """Guards under which positions and offsets up to these fit int32, tiles that overhang included."""
    return tuple(Guard(span, most=_MOST_DYNAMIC) for span in spans if not span.is_Integer)


def forms(kernel: Kernel, limits: Mapping[sympy.Symbol, int]) -> tuple[Params, ...]:
    """Ways to write every variant of a kernel with dynamic sizes up to `limits`, best first; one for a static kernel.

    The last is right for all sizes up to the limits; `Source.guards` say where the others are.
    """
    buffers = buffers_of(kernel)
    if not size_symbols(kernel.nest, buffers.values()):
        return ((),)
    spans = _spans(kernel.nest, buffers.values())
    found: list[Params] = [(("divisible", True),)] if _multiples(kernel) else []
    found.append(())
    last: list[tuple[str, int | str | bool]] = []
    dynamic = [span for span in spans if not span.is_Integer]
    if not any(map(_exceeds, spans)) and any(_may_exceed(span, _MOST_DYNAMIC, limits) for span in dynamic):
        last.append(("wide", True))
    length = sympy.Mul(*[axis.extent for axis in kernel.nest.reduction_axes])
    if sorts(kernel.nest) and not length.is_Integer and not _may_exceed(length, SORT_LIMIT, limits):
        # What sorts a row holds it whole, so that the params of a point are right for no longer rows than its own.
        last.append(("longest", power_of_two(_most(length, limits) or 1)))
    return (*found, tuple(last)) if last else tuple(found)


def _may_exceed(size: Expr, most: int, limits: Mapping[sympy.Symbol, int]) -> bool:
    known = _most(size, limits)
    return known is None or known > most


def _most(size: Expr, limits: Mapping[sympy.Symbol, int]) -> int | None:
    """The upper end of a size, None where it has none."""
    ends = {symbol: (sympy.Integer(0), sympy.Integer(limit)) for symbol, limit in limits.items()}
    known = bounds(size, ends)
    return int(known[1]) if known is not None and known[1].is_Integer else None


def _exceeds(span: Expr) -> bool:
    return bool(span.is_Integer) and int(span) > _MOST_INDEX


def _spans(nest: Nest, buffers: Iterable[Buffer]) -> tuple[Expr, ...]:
    """The largest positions and offsets of a nest: numbers of rows, of elements of a row, of elements of each buffer.

    What divides another span is left out: where that one fits, it does. Not so where the ratio may be 0 though there are rows:
    a reduction of nothing stores its rows all the same.
    """
    groups: Sequence[Sequence[Expr]] = (
        [axis.extent for axis in nest.axes],
        [axis.extent for axis in nest.reduction_axes],
    )
    spans = [sympy.expand(sympy.Mul(*extents)) for extents in groups]
    spans += [sympy.expand(buffer.storage_elements) for buffer in buffers]
    rows, spans = spans[0], list(dict.fromkeys(spans))
    return tuple(span for span in spans if not any(other != span and _covers(other, span, rows) for other in spans))


def _covers(large: Expr, small: Expr, rows: Expr) -> bool:
    if small.is_Integer or large.is_Integer:
        return False
    ratio = sympy.cancel(large / small)
    if not (ratio.is_polynomial(*ratio.free_symbols) and ratio.is_integer and ratio.is_positive):
        return False
    return all(rows.subs(symbol, 0) == 0 for symbol in ratio.free_symbols)


def _multiples(kernel: Kernel) -> dict[Expr, int]:
    """What must divide which sizes so that accesses along contiguous axes can be wide, where that is not plain anyway."""
    nest, groups, accesses = _accesses(kernel)
    buffers = buffers_of(kernel)
    symbols = frozenset(size_symbols(nest, buffers.values()))
    positions = {group: axis_symbol(f"p{k}") for k, group in enumerate(groups)}
    steps: list[_Size] = []
    extents: list[_Size] = []
    for access in accesses:
        contiguous = innermost(access_strides(nest, buffers, access))
        if contiguous is None:
            continue
        elements = max(_VECTOR_BYTES // buffers[access.buffer].dtype.itemsize, 1)
        expr = buffers[access.buffer].flat_index(access.index)
        ranges = {position: (sympy.Integer(0), _numel(group) - 1) for group, position in positions.items()}
        ranges |= axis_ranges(axis for group in groups for axis in group)
        along = contiguous
        for group, position in positions.items():
            expr = over_position(expr, group, position, ranges)
            if contiguous in {axis.symbol for axis in group}:
                along = position
                extents.append(_Size(sympy.expand(_numel(group)), elements))
        steps += [_Size(step, elements) for step in _steps(expr, along, symbols)]
    return _chosen(steps, extents)


def _accesses(kernel: Kernel) -> tuple[Nest, tuple[tuple[Axis, ...], ...], tuple[Load | Store, ...]]:
    """The nest as templates read it, the axes that one flattens into one position each, and the accesses that count.

    What is loaded or stored once per row is little beside the rows, but for the result of a matrix product.
    """
    buffers = buffers_of(kernel)
    split = split_axes(kernel.nest)
    roles = matmul_roles(split, buffers)
    if roles is not None:
        groups = tuple(group for group in (roles.batch, roles.m, roles.n, roles.k) if group)
        return split, groups, (*loads(split), *stores(split))
    nest = by_descending_stride(kernel.nest, buffers)
    inner = {axis.symbol for axis in nest.reduction_axes}
    every: tuple[Load | Store, ...] = (*loads(nest), *stores(nest))
    strides = [access_strides(nest, buffers, access) for access in every]
    often = [not inner or any(along.get(symbol, 0) != 0 for symbol in inner) for along in strides]
    accesses = tuple(access for access, counts in zip(every, often, strict=True) if counts)
    return nest, tuple(group for group in (nest.axes, nest.reduction_axes) if group), accesses


def _numel(group: Sequence[Axis]) -> Expr:
    return sympy.Mul(*[axis.extent for axis in group])


def _steps(expr: Expr, along: sympy.Symbol, symbols: frozenset[sympy.Symbol]) -> list[Expr]:
    """What an offset moves by, term by term, and what divides a position that runs `along` memory: what of it sizes say.

    Quotients and remainders of other positions are whatever they are; what they are multiplied by is a step.
    """
    found: list[Expr] = []
    for node in expr.atoms(FloorDiv, Mod):
        if along in node.free_symbols:
            found += [node.args[1], *_steps(node.args[0], along, symbols)]
    for term in sympy.Add.make_args(sympy.expand(expr)):
        factors = [factor for factor in sympy.Mul.make_args(term) if factor.free_symbols <= symbols]
        found.append(sympy.Mul(*factors))
    return [step for step in found if step.free_symbols]


def _chosen(steps: Iterable[_Size], extents: Iterable[_Size]) -> dict[Expr, int]:
    """Choose what has to be divisible: single symbols first, then one symbol of each step left, then whole extents."""
    chosen: dict[Expr, int] = {}
    single = [size for size in (*steps, *extents) if len(size.expr.free_symbols) == 1]
    for size in [size for size in single if size not in extents or size.expr.is_Symbol]:
        (symbol,) = size.expr.free_symbols
        chosen[symbol] = max(chosen.get(symbol, 1), size.lacks({}))
    for size in steps:
        last = max(size.expr.free_symbols, key=lambda symbol: str(symbol.name))
        chosen[last] = chosen.get(last, 1) * size.lacks(chosen)
    for size in extents:
        if size.lacks(chosen) > 1:
            chosen[size.expr] = max(chosen.get(size.expr, 1), size.elements)
    return {size: multiple for size, multiple in sorted(chosen.items(), key=lambda item: str(item[0])) if multiple > 1}
