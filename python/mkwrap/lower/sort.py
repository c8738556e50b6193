"""Sorts along a dim, and what is a part of a sorted row: topk and kthvalue. Every order is the stable one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy
import torch

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.ir.ops import SORT_LIMIT
from mkwrap.lower.dims import wrap_dim
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, Unsupported
from mkwrap.lower.scan import along, in_place, ordered_dtype, row_of
from mkwrap.lower.tensor import TensorValue

aten = torch.ops.aten


def _sort(low: Lowering, x: TensorValue, dim: int = -1, descending: bool = False) -> tuple[TensorValue, ...]:
    row = row_of(x, dim)
    if row.is_Integer and row > SORT_LIMIT:
        raise Unsupported(f"a row of {row} elements is sorted; rows of at most {SORT_LIMIT} are")
    low.need(row, "<=", SORT_LIMIT)

    def read(writer: NestWriter, value: TensorValue, index: Index) -> str:
        return writer.read(value, index, dtype=ordered_dtype(value.dtype))

    def write(writer: NestWriter, elements: Sequence[str]) -> Sequence[str]:
        return writer.sort(elements[0], descending)

    return along(low, [x], dim, [x.dtype, DType.INT64], read, write, in_place)


def _sort_stable(
    low: Lowering, x: TensorValue, *, dim: int = -1, descending: bool = False, **_stable: object
) -> tuple[TensorValue, ...]:
    """Lower a sort that asks for stability: every sort has it."""
    return _sort(low, x, dim, descending)


def _argsort(low: Lowering, x: TensorValue, dim: int = -1, descending: bool = False) -> TensorValue:
    return _sort(low, x, dim, descending)[1]


def _argsort_stable(
    low: Lowering, x: TensorValue, *, dim: int = -1, descending: bool = False, **_stable: object
) -> TensorValue:
    return _argsort(low, x, dim, descending)


def _first(x: TensorValue, dim: int, count: Expr) -> TensorValue:
    """View the first elements along a dim; a 0-d tensor has one."""
    if not x.rank:
        return x if count == 1 else x.reshape([sympy.Integer(0)])
    shape = [count if k == wrap_dim(dim, x.rank) else n for k, n in enumerate(x.shape)]
    return x.through(shape, lambda index: index)


def _topk(
    low: Lowering,
    x: TensorValue,
    k: int | Expr,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,  # noqa: ARG001 (torch's name; in order is a legal order of those that need none)
) -> tuple[TensorValue, ...]:
    count = sympy.sympify(k)
    low.need(count, "<=", row_of(x, dim))
    return tuple(_first(part, dim, count) for part in _sort(low, x, dim, descending=largest))


def _kthvalue(
    low: Lowering, x: TensorValue, k: int | Expr, dim: int = -1, keepdim: bool = False
) -> tuple[TensorValue, ...]:
    place = sympy.sympify(k) - 1
    low.need(place + 1, "<=", row_of(x, dim))
    parts = _sort(low, x, dim)
    if not x.rank:
        return parts
    at = wrap_dim(dim, x.rank)

    def pick(part: TensorValue) -> TensorValue:
        kept = part.through(
            [sympy.Integer(1) if d == at else n for d, n in enumerate(x.shape)],
            lambda index: [place if d == at else i for d, i in enumerate(index)],
        )
        return kept if keepdim else kept.reshape([n for d, n in enumerate(x.shape) if d != at])

    return tuple(pick(part) for part in parts)


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.sort.default: _sort,
    aten.sort.stable: _sort_stable,
    aten.argsort.default: _argsort,
    aten.argsort.stable: _argsort_stable,
    aten.topk.default: _topk,
    aten.kthvalue.default: _kthvalue,
}
