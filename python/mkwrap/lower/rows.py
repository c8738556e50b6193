"""Reductions over some dims of a shape: which dims, what index, and the nests over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sympy

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.lower.lowering import Index, Lowering, NestWriter
from mkwrap.lower.tensor import TensorValue

Dims: TypeAlias = Sequence[int] | int | None


def dims_of(rank: int, dim: Dims) -> tuple[int, ...]:
    """Normalise a `dim` argument to ascending non-negative dims; None and [] mean all, a 0-d tensor has none."""
    if rank == 0:
        return ()
    wanted = (dim,) if isinstance(dim, int) else dim
    return tuple(sorted({d % rank for d in wanted})) if wanted else tuple(range(rank))


@dataclass(frozen=True)
class Rows:
    """A shape whose `dims` are reduced; the result keeps them with extent 1 if `keepdim`."""

    shape: tuple[Expr, ...]
    dims: tuple[int, ...]
    keepdim: bool = False

    @property
    def kept(self) -> tuple[Expr, ...]:
        """Shape of the result."""
        one = sympy.Integer(1)
        sized = [(k, one if k in self.dims else n) for k, n in enumerate(self.shape)]
        return tuple(n for k, n in sized if self.keepdim or k not in self.dims)

    @property
    def reduced(self) -> tuple[Expr, ...]:
        """Extents of the reduced dims."""
        return tuple(self.shape[d] for d in self.dims)

    @property
    def count(self) -> Expr:
        """Number of elements in a row."""
        return sympy.Mul(*self.reduced)

    def element(self, row: Index, inner: Index) -> Index:
        """Index into `shape` of an element, from the index of its row and its place in it."""
        rest = iter([i for k, i in enumerate(row) if k not in self.dims] if self.keepdim else row)
        places = iter(inner)
        return tuple(next(places) if k in self.dims else next(rest) for k in range(len(self.shape)))


def _fold_one(writer: NestWriter, op: str, args: tuple[str, ...]) -> tuple[str, ...]:
    value = args[0]
    if op in ("argmax", "argmin"):
        return value, writer.constant(0, DType.INT64)
    if op == "welford":
        # Not the constant 0: an infinity or a NaN must give NaN, as (x − mean)² does.
        difference = writer.compute("sub", value, value)
        return value, writer.compute("mul", difference, difference)
    if op == "dot":
        wide = [writer.cast(arg, writer.dtype(arg).compute) for arg in args]
        return (writer.compute("mul", *wide),)
    return (value,)


Fold: TypeAlias = Callable[..., tuple[str, ...]]
WriteRow: TypeAlias = Callable[[NestWriter, Index, Fold], Sequence[str]]


def reduce_rows(low: Lowering, rows: Rows, dtypes: Sequence[DType], write: WriteRow) -> tuple[TensorValue, ...]:
    """Make one nest over `rows`: `write(writer, element_index, fold)` returns row values of the dtypes.

    `fold(op, *args)` is `writer.reduce`, except that in rows of exactly one element it computes the result directly.
    """
    if all(n == 1 for n in rows.reduced):
        inner = tuple(sympy.Integer(0) for _ in rows.dims)

        def write_one(writer: NestWriter, row: Index) -> Sequence[str]:
            return write(writer, rows.element(row, inner), lambda op, *args: _fold_one(writer, op, args))

        return low.pointwise(rows.kept, dtypes, write_one)

    def write_many(writer: NestWriter, row: Index, inner: Index) -> Sequence[str]:
        return write(writer, rows.element(row, inner), writer.reduce)

    return low.reduction(rows.kept, rows.reduced, dtypes, write_many)
