"""A tensor while it is lowered: a buffer seen through an index map. Views are free: they only rewrite the map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import sympy

from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_symbol, delinearize, linearize, simplify
from mkwrap.ir.nodes import Buffer, Expr

ZERO = sympy.Integer(0)


@dataclass(frozen=True)
class TensorValue:
    """`shape` seen through `axes`: the element at (a0, a1, …) is buffer[index(a0, a1, …)].

    `fresh` is False while the value shares memory with its buffer as far as eager is concerned (it is the buffer or a
    chain of view operations over it); a clone or a copy is the same map with `fresh` set.
    """

    buffer: Buffer
    shape: tuple[Expr, ...]
    axes: tuple[sympy.Symbol, ...]
    index: tuple[Expr, ...]
    fresh: bool = False

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.buffer.dtype

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def at(self, index: Sequence[Expr], ranges: Ranges) -> tuple[Expr, ...]:
        """Buffer index of the element at `index`, simplified by the ranges of the symbols in it."""
        mapping = dict(zip(self.axes, index, strict=True))
        return tuple(simplify(expr.xreplace(mapping), ranges) for expr in self.index)

    def through(self, shape: Sequence[Expr], to_source: Callable[[tuple[Expr, ...]], Sequence[Expr]]) -> TensorValue:
        """View with another shape: `to_source` maps an index of the new shape to an index of this one (in bounds)."""
        axes = view_axes(len(shape))
        ranges: Ranges = {symbol: (ZERO, extent - 1) for symbol, extent in zip(axes, shape, strict=True)}
        index = self.at(tuple(to_source(axes)), ranges)
        return replace(self, shape=tuple(shape), axes=axes, index=index)

    def broadcast(self, shape: Sequence[Expr]) -> TensorValue:
        """Expand to a shape under torch's broadcasting rules."""
        if tuple(shape) == self.shape:
            return self
        lead = len(shape) - self.rank

        def source(index: tuple[Expr, ...]) -> list[Expr]:
            return [ZERO if n == 1 else i for i, n in zip(index[lead:], self.shape, strict=True)]

        return self.through(shape, source)

    def reshape(self, shape: Sequence[Expr]) -> TensorValue:
        """Row-major reinterpretation with the same number of elements."""
        target = tuple(shape)
        if target == self.shape:
            return self
        if any(n == 0 for n in target) or not target or not self.shape:
            return self.through(target, lambda _index: [ZERO] * self.rank)
        axes = view_axes(len(target))
        ranges: Ranges = {symbol: (ZERO, extent - 1) for symbol, extent in zip(axes, target, strict=True)}
        return self.through(target, lambda index: delinearize(linearize(index, target), self.shape, ranges))


def view_axes(rank: int) -> tuple[sympy.Symbol, ...]:
    """Symbols that stand for the index of a view of some rank."""
    return tuple(axis_symbol(f"d{k}") for k in range(rank))


def whole(buffer: Buffer) -> TensorValue:
    """View a buffer as itself."""
    axes = view_axes(len(buffer.shape))
    return TensorValue(buffer, buffer.shape, axes, axes)
