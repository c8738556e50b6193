"""Indexing by tensors, and tensors made from nothing (`creation.py`): embedding, gather, index, triangles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import sympy
import torch

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.lower import creation
from mkwrap.lower.dims import wrap_dim
from mkwrap.lower.elementwise import broadcast_shape
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, Unsupported
from mkwrap.lower.tensor import ZERO, TensorValue
from mkwrap.lower.term import Term

aten = torch.ops.aten


def checked(writer: NestWriter, index: TensorValue, at: Index, extent: Expr, *, wrap: bool) -> Expr:
    """Read a position from an index tensor, checked against a dim's extent; negative ones wrap first if `wrap`."""
    position = Term(writer, writer.read(index, at, dtype=DType.INT64))
    if wrap:
        size = Term(writer, writer.index_value(extent))
        position = (position < 0).where(position + size, position)
    return writer.bounds_check(position.name, extent)


def _there(low: Lowering, writer: NestWriter, extents: Iterable[Expr]) -> str | None:
    """Return what holds where none of some extents is 0; None: in every call.

    A dim of no elements has none that could be read in the stead of one that is out of range.
    """
    there: Term | None = None
    for extent in extents:
        if not low.surely(1, "<=", extent):
            some = Term(writer, writer.index_value(extent)) > 0
            there = some if there is None else there & some
    return None if there is None else there.name


def _refuse_empty(x: TensorValue, dim: int, shape: Sequence[Expr]) -> None:
    if x.shape[dim] == 0 and all(n != 0 for n in shape):
        raise Unsupported(f"positions in dim {dim}, which has size 0, cannot be in range")


def _embedding(
    low: Lowering,
    weight: TensorValue,
    indices: TensorValue,
    padding_idx: int = -1,  # noqa: ARG001 (only the backward pass uses it)
    scale_grad_by_freq: bool = False,  # noqa: ARG001
    sparse: bool = False,  # noqa: ARG001
) -> TensorValue:
    """Lower embedding: rows of weight; negative positions are out of range."""
    shape = (*indices.shape, *weight.shape[1:])
    _refuse_empty(weight, 0, shape)

    def write(writer: NestWriter, index: Index) -> list[str]:
        row = checked(writer, indices, index[: indices.rank], weight.shape[0], wrap=False)
        return [writer.read(weight, (row, *index[indices.rank :]), _there(low, writer, weight.shape[:1]))]

    return low.pointwise(shape, [weight.dtype], write)[0]


def _gather(low: Lowering, x: TensorValue, dim: int, index: TensorValue, *, sparse_grad: bool = False) -> TensorValue:  # noqa: ARG001
    """Lower gather; negative positions are out of range. A 0-d tensor counts as 1-d."""
    if x.rank == 0:
        return low.pointwise(index.shape, [x.dtype], lambda writer, _: [writer.read(x, ())])[0]
    at = wrap_dim(dim, x.rank)
    one = index if index.rank else index.reshape([sympy.Integer(1)])
    _refuse_empty(x, at, one.shape)

    def write(writer: NestWriter, place: Index) -> list[str]:
        full = place if index.rank else (ZERO,)
        position = checked(writer, one, full, x.shape[at], wrap=False)
        return [writer.read(x, (*full[:at], position, *full[at + 1 :]), _there(low, writer, [x.shape[at]]))]

    return low.pointwise(index.shape, [x.dtype], write)[0]


def _index_select(low: Lowering, x: TensorValue, dim: int, index: TensorValue) -> TensorValue:
    """Lower index_select: positions along one dim; negative ones are out of range."""
    positions = index if index.rank else index.reshape([sympy.Integer(1)])
    source = x if x.rank else x.reshape([sympy.Integer(1)])
    at = wrap_dim(dim, source.rank)
    shape = (*source.shape[:at], positions.shape[0], *source.shape[at + 1 :])
    _refuse_empty(source, at, shape)

    def write(writer: NestWriter, place: Index) -> list[str]:
        full = place if x.rank else (ZERO,)
        position = checked(writer, positions, (full[at],), source.shape[at], wrap=False)
        there = _there(low, writer, [source.shape[at]])
        return [writer.read(source, (*full[:at], position, *full[at + 1 :]), there)]

    return low.pointwise(shape if x.rank else (), [x.dtype], write)[0]


def _index(low: Lowering, x: TensorValue, indices: Sequence[TensorValue | None]) -> TensorValue:
    """Lower x[indices]: index tensors broadcast together, None keeps a dim; negative positions are wrapped.

    The broadcast dims stand where the index tensors stood if those are adjacent, and in front otherwise.
    """
    given = {k: index for k, index in enumerate(indices) if index is not None}
    for index in given.values():
        if index.dtype in (DType.BOOL, DType.UINT8):
            raise Unsupported("indexing by a mask: the result's shape depends on the data")
    if not given:
        return replace(x, fresh=True)
    picked = broadcast_shape(low, [index.shape for index in given.values()])
    dims = sorted(given)
    adjacent = dims == list(range(dims[0], dims[-1] + 1))
    lead = dims[0] if adjacent else 0
    kept = [k for k in range(x.rank) if k not in given]
    rest = [x.shape[k] for k in kept]
    shape = (*rest[:lead], *picked, *rest[lead:])
    for dim in dims:
        _refuse_empty(x, dim, shape)

    def write(writer: NestWriter, place: Index) -> list[str]:
        at = place[lead : lead + len(picked)]
        around = dict(zip(kept, (*place[:lead], *place[lead + len(picked) :]), strict=True))
        positions = {
            dim: checked(writer, index.broadcast(picked), at, x.shape[dim], wrap=True) for dim, index in given.items()
        }
        where = tuple(positions[k] if k in given else around[k] for k in range(x.rank))
        return [writer.read(x, where, _there(low, writer, [x.shape[dim] for dim in given]))]

    return low.pointwise(shape, [x.dtype], write)[0]


def _take(low: Lowering, x: TensorValue, index: TensorValue) -> TensorValue:
    """Lower take: positions in the flattened tensor; negative ones are wrapped."""
    return _index(low, x.reshape([sympy.Mul(*x.shape)]), [index])


def _triangle(low: Lowering, x: TensorValue, diagonal: int, *, upper: bool) -> TensorValue:
    def write(writer: NestWriter, place: Index) -> list[str]:
        column = Term(writer, writer.index_value(place[-1]))
        edge = Term(writer, writer.index_value(place[-2] + diagonal))
        value = Term(writer, writer.read(x, place))
        return [(column >= edge if upper else column <= edge).where(value, value.like(0)).name]

    return low.pointwise(x.shape, [x.dtype], write)[0]


def _triu(low: Lowering, x: TensorValue, diagonal: int = 0) -> TensorValue:
    return _triangle(low, x, diagonal, upper=True)


def _tril(low: Lowering, x: TensorValue, diagonal: int = 0) -> TensorValue:
    return _triangle(low, x, diagonal, upper=False)


def _one_hot(low: Lowering, x: TensorValue, num_classes: int = -1) -> TensorValue:
    """Lower one_hot; a class out of range is an error of the run."""
    if num_classes <= 0:
        raise Unsupported("one_hot without a number of classes: the result's shape depends on the data")
    extent = sympy.Integer(num_classes)

    def write(writer: NestWriter, place: Index) -> list[str]:
        chosen = writer.index_value(checked(writer, x, place[:-1], extent, wrap=False))
        column = Term(writer, writer.index_value(place[-1]))
        return [column.equals(Term(writer, chosen)).cast(DType.INT64).name]

    return low.pointwise((*x.shape, extent), [DType.INT64], write)[0]


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.embedding.default: _embedding,
    aten.gather.default: _gather,
    aten.index_select.default: _index_select,
    aten.index.Tensor: _index,
    aten._unsafe_index.Tensor: _index,
    aten.take.default: _take,
    aten.one_hot.default: _one_hot,
    aten.triu.default: _triu,
    aten.tril.default: _tril,
    **creation.RULES,
}
