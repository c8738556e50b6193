"""Recognises a matrix product: which axes of a nest are batch, rows, columns and depth, and what surrounds the dot.

Pure analysis, used by the matmul templates of every language. `split_axes` first turns ⌊x / c⌋ and x mod c of an
axis x into two axes, so that reshaped operands become affine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy

from mkwrap.ir.analysis import defined, dependencies, index_exprs, reduces, results, stores, stores_elements
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod, axis_ranges, axis_symbol, simplify, split_multiple
from mkwrap.ir.nodes import (
    Axis,
    Buffer,
    Compute,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Nest,
    Reduce,
    Store,
)


@dataclass(frozen=True)
class Operand:
    """One argument of the dot: its value, dtype, the instructions it needs (in order), and the axes it varies along."""

    value: str
    dtype: DType
    body: tuple[Instruction, ...]
    axes: frozenset[sympy.Symbol]

    @property
    def plain_load(self) -> Load | None:
        """The load, where the operand is one unmasked load and nothing else but casts of it; None otherwise."""
        load = self.body[0] if self.body else None
        if not isinstance(load, Load) or load.mask is not None:
            return None
        casts = self.body[1:]
        return load if all(isinstance(i, Compute) and i.op == "cast" for i in casts) and len(casts) < 2 else None


@dataclass(frozen=True)
class MatmulRoles:
    """A nest read as C[batch, m, n] = epilogue(Σ_k A[batch, m, k] · B[batch, k, n]).

    `a` varies along no axis of `n`, `b` along none of `m`. Axes in both operands or in neither are batch axes.
    The axis that is contiguous in the first store is among `n` unless it is a batch axis. Any group may be empty.
    `epilogue` holds all that the stores need besides the result of `reduce`, the stores included, in order.
    """

    nest: Nest
    batch: tuple[Axis, ...]
    m: tuple[Axis, ...]
    n: tuple[Axis, ...]
    k: tuple[Axis, ...]
    a: Operand
    b: Operand
    reduce: Reduce
    epilogue: tuple[Instruction, ...]

    @property
    def result(self) -> str:
        """Name of the value the dot defines."""
        return self.reduce.dests[0]

    @property
    def accumulator(self) -> DType:
        """Dtype the dot accumulates in and returns."""
        return self.reduce.dtypes[0]

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores, in order."""
        return stores(self.nest)


def matmul_roles(nest: Nest, buffers: Mapping[str, Buffer]) -> MatmulRoles | None:
    """Read a nest as a matrix product, or return None: it has another reduction, or stores per element.

    `buffers` maps the names that loads and stores use to their geometry.
    """
    found = reduces(nest)
    if len(found) != 1 or found[0].op != "dot" or not stores(nest):
        return None
    if any(stores_elements(nest, store) for store in stores(nest)):
        return None
    reduce = found[0]
    varies = axes_of_values(nest)
    sides = tuple(_operand(nest, value, varies) for value in reduce.args)
    wanted = [name for store in stores(nest) for name in dependencies(store, set(varies))]
    epilogue = tuple(i for i in closure(nest, wanted, stop=set(reduce.dests)) if i is not reduce) + stores(nest)
    if any(symbol in varies[name] for i in epilogue for name in defined(i) for symbol in _symbols(nest.reduction_axes)):
        return None
    if _innermost(nest, buffers) in sides[0].axes - sides[1].axes:
        sides = (sides[1], sides[0])
    return _assign(nest, sides[0], sides[1], reduce, epilogue)


def axes_of_values(nest: Nest) -> dict[str, frozenset[sympy.Symbol]]:
    """Axis symbols that each value varies along; a reduction's results do not vary along the reduction axes."""
    symbols = _symbols((*nest.axes, *nest.reduction_axes))
    outer = _symbols(nest.axes)
    varies: dict[str, frozenset[sympy.Symbol]] = {}
    for instruction in nest.body:
        axes: frozenset[sympy.Symbol] = frozenset()
        for expr in index_exprs(instruction):
            axes |= expr.free_symbols & symbols
        for name in dependencies(instruction, set(varies)):
            axes |= varies[name]
        for name in defined(instruction):
            varies[name] = axes & outer if isinstance(instruction, Reduce) else axes
    return varies


def closure(nest: Nest, wanted: Iterable[str], stop: Iterable[str] = ()) -> tuple[Instruction, ...]:
    """Instructions that the wanted values need, in the nest's order; values in `stop` are taken as given."""
    names = {name for instruction in nest.body for name in defined(instruction)}
    needed = set(wanted) - set(stop)
    picked: list[Instruction] = []
    for instruction in reversed(nest.body):
        if needed.intersection(defined(instruction)):
            picked.append(instruction)
            needed.update(set(dependencies(instruction, names)) - set(stop))
    return tuple(reversed(picked))


def affine(expr: Expr, symbols: Iterable[sympy.Symbol]) -> tuple[dict[sympy.Symbol, Expr], Expr] | None:
    """Split expr into (stride per symbol, the rest without these symbols); None where it is not affine in them.

    Every symbol has a stride, 0 where the expression does not name it.
    """
    rest = sympy.expand(expr)
    strides: dict[sympy.Symbol, Expr] = {}
    for symbol in symbols:
        strides[symbol] = rest.coeff(symbol, 1)
        rest = sympy.expand(rest - symbol * strides[symbol])
    free = set().union(*(s.free_symbols for s in strides.values())) | rest.free_symbols
    return None if free & strides.keys() else (strides, rest)


def split_axes(nest: Nest) -> Nest:
    """Split every axis x named in ⌊x / c⌋ or x mod c, where c divides its extent, into (extent / c, c); others stay.

    c is a number, or a product of dynamic sizes that is seen to divide the extent. The order of elements is unchanged. New
    symbols are the old name with `_0` (outer) and `_1` (inner).
    """
    for _ in range(8):
        found = _divided_axis(nest)
        if found is None:
            return nest
        nest = _split(nest, *found)
    return nest


def _symbols(axes: Sequence[Axis]) -> frozenset[sympy.Symbol]:
    return frozenset(axis.symbol for axis in axes)


def _operand(nest: Nest, value: str, varies: Mapping[str, frozenset[sympy.Symbol]]) -> Operand:
    body = closure(nest, [value])
    return Operand(value, results(body[-1])[0][1], body, varies[value])


def _innermost(nest: Nest, buffers: Mapping[str, Buffer]) -> sympy.Symbol | None:
    """The axis with the smallest stride in the first store; the last axis where that is not known."""
    if not nest.axes:
        return None
    store = stores(nest)[0]
    symbols = [axis.symbol for axis in nest.axes if axis.extent != 1]
    split = affine(buffers[store.buffer].flat_index(store.index), symbols)
    if split is not None:
        # A stride that is a dynamic size is larger than one that is a number.
        strides = {symbol: abs(int(s)) for symbol, s in split[0].items() if s.is_Integer and s != 0}
        if strides and (1 in strides.values() or all(s.is_Integer for s in split[0].values())):
            return min(reversed(strides), key=lambda symbol: strides[symbol])
    return nest.axes[-1].symbol


def _assign(nest: Nest, a: Operand, b: Operand, reduce: Reduce, epilogue: tuple[Instruction, ...]) -> MatmulRoles:
    groups: dict[str, list[Axis]] = {"batch": [], "m": [], "n": []}
    for axis in nest.axes:
        in_a, in_b = axis.symbol in a.axes, axis.symbol in b.axes
        groups["batch" if in_a == in_b else "m" if in_a else "n"].append(axis)
    return MatmulRoles(
        nest=nest,
        batch=tuple(groups["batch"]),
        m=tuple(groups["m"]),
        n=tuple(groups["n"]),
        k=nest.reduction_axes,
        a=a,
        b=b,
        reduce=reduce,
        epilogue=epilogue,
    )


def _divided_axis(nest: Nest) -> tuple[Axis, Expr] | None:
    """The first axis that an index expression divides by what divides its extent."""
    axes = {axis.symbol: axis for axis in (*nest.axes, *nest.reduction_axes)}
    found: dict[sympy.Symbol, Expr] = {}
    for instruction in nest.body:
        for expr in index_exprs(instruction):
            for node in sorted(expr.atoms(FloorDiv, Mod), key=str):
                axis, divisor = axes.get(node.args[0]), node.args[1]
                if axis is None or axis.extent == divisor or not _divides(divisor, axis.extent):
                    continue
                # The smallest divisor first: larger ones then become divisors of the outer part.
                if axis.symbol not in found or _is_smaller(divisor, found[axis.symbol]):
                    found[axis.symbol] = divisor
    for symbol, divisor in found.items():
        return axes[symbol], divisor
    return None


def _divides(divisor: Expr, extent: Expr) -> bool:
    quotient, rest = split_multiple(extent, divisor)
    return bool(rest == 0 and quotient.is_integer)


def _is_smaller(a: Expr, b: Expr) -> bool:
    return bool(a < b) if a.is_Integer and b.is_Integer else _divides(a, b)


def _split(nest: Nest, axis: Axis, divisor: Expr) -> Nest:
    outer = Axis(axis_symbol(f"{axis.symbol.name}_0"), split_multiple(axis.extent, divisor)[0])
    inner = Axis(axis_symbol(f"{axis.symbol.name}_1"), divisor)
    position = outer.symbol * divisor + inner.symbol

    def put(axes: Sequence[Axis]) -> tuple[Axis, ...]:
        return tuple(new for old in axes for new in ((outer, inner) if old == axis else (old,)))

    result = replace(nest, axes=put(nest.axes), reduction_axes=put(nest.reduction_axes))
    ranges = axis_ranges((*result.axes, *result.reduction_axes))

    def change(expr: Expr) -> Expr:
        # subs re-evaluates FloorDiv and Mod, so that the multiple of the divisor leaves them.
        return simplify(expr.subs(axis.symbol, position), ranges) if axis.symbol in expr.free_symbols else expr

    return replace(result, body=tuple(_substitute(i, change) for i in nest.body))


def _substitute(instruction: Instruction, change: Callable[[Expr], Expr]) -> Instruction:
    match instruction:
        case Load(index=index) | Store(index=index):
            return replace(instruction, index=tuple(change(e) for e in index))
        case IndexValue(expr=expr):
            return replace(instruction, expr=change(expr))
        case _:
            return instruction
