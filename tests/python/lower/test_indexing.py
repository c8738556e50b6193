"""Indexing by tensors and tensors made from numbers, against eager; bounds are checked at run time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.python.lower.differential import check, interpreted
from tests.python.lower.single_op import check_op, lower_op, run_op, spell

from mkwrap.errors import IndexRangeError
from mkwrap.lower.lowering import Unsupported

aten = torch.ops.aten


def t(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 97 + 1).to(dtype).reshape(shape)


def i(*positions: object) -> torch.Tensor:
    return torch.tensor(list(positions), dtype=torch.int64)


X, EMPTY, SCALAR, NONE = t(2, 3, 4), t(2, 0, 4), t(), torch.empty(0, dtype=torch.int64)

INDEXED = [
    (aten.embedding.default, t(5, 3), i([0, 4], [2, 2])),
    (aten.embedding.default, t(5, 3), torch.tensor(3)),
    (aten.embedding.default, t(5, 3), NONE),
    (aten.embedding.default, t(5, 3, dtype=torch.bfloat16), i(1, 2).int()),
    (aten.embedding.default, t(0, 3), NONE),
    (aten.gather.default, X, 1, i([[0, 1, 2], [2, 0, 1]])),
    (aten.gather.default, X, -1, torch.zeros(2, 3, 1, dtype=torch.int64)),
    (aten.gather.default, SCALAR, 0, i(0, 0)),
    (aten.gather.default, SCALAR, 0, torch.tensor(0)),
    (aten.gather.default, t(3), 0, torch.tensor(2)),
    (aten.gather.default, EMPTY, 1, torch.empty(2, 0, 4, dtype=torch.int64)),
    (aten.index_select.default, X, 1, i(2, 0, 0, 1)),
    (aten.index_select.default, X, -1, i(3).int()),
    (aten.index_select.default, X, 0, torch.tensor(1)),
    (aten.index_select.default, SCALAR, 0, i(0)),
    (aten.index.Tensor, X, [i(1, 0, -1)]),
    (aten.index.Tensor, X, [None, i([0, -1], [2, 1])]),
    (aten.index.Tensor, X, [i(1, 0), None, i(3, -4)]),
    (aten.index.Tensor, X, [i([1], [0]), i(0, 2)]),
    (aten.index.Tensor, X, [None, i(0, 2), i(1, 1)]),
    (aten.index.Tensor, X, [torch.tensor(1)]),
    (aten.index.Tensor, X, [i(0).int(), i(0, 1)]),
    (aten.index.Tensor, EMPTY, [i(0, 1)]),
    (aten.index.Tensor, X, [None, None, NONE]),
    (aten.take.default, X, i(0, -1, 23)),
    (aten.one_hot.default, i([0, 2], [1, 1]), 3),
    (aten.triu.default, X),
    (aten.triu.default, X, 1),
    (aten.tril.default, X, -1),
    (aten.tril.default, t(3, 3, dtype=torch.bool)),
    (aten.tril.default, t(1, 3)),
    (aten.triu.default, t(3, 1, dtype=torch.int32), -1),
    (aten.triu.default, t(0, 3)),
    (aten.masked_fill.Scalar, X, X > 5, 2.5),
    (aten.masked_fill.Scalar, t(3), torch.ones(2, 3, dtype=torch.bool), 1),
    (aten.masked_fill.Tensor, t(3, dtype=torch.int32), t(3) > 1, torch.tensor(7)),
]
MADE = [
    (aten.full.default, [2, 3], 1.5),
    (aten.full.default, [2], 3),
    (aten.full.default, [], True),
    (aten.full_like.default, X, 3),
    (aten.zeros.default, [2, 0]),
    (aten.ones_like.default, X),
    (aten.scalar_tensor.default, 3),
    (aten.fill.Scalar, X, 4),
    (aten.fill.Tensor, X, torch.tensor(4)),
    (aten.arange.default, 5),
    (aten.arange.default, 2.5),
    (aten.arange.start, 2, 7),
    (aten.arange.start_step, 1, 10, 3),
    (aten.arange.start_step, 5, 0, -2),
    (aten.arange.start_step, 0.1, 1, 0.2),
    (aten.arange.start_step, 0, 0),
    (aten.linspace.default, 0, 1, 5),
    (aten.linspace.default, -3, 7, 8),
    (aten.linspace.default, 2, 3, 1),
    (aten.linspace.default, 2, 3, 0),
    (aten.eye.default, 3),
    (aten.eye.m, 2, 4),
    (aten.eye.default, 1),
]


@pytest.mark.parametrize("case", [*INDEXED, *MADE], ids=lambda case: " ".join(spell(part) for part in case))
def test_equals_eager(case: tuple[object, ...]) -> None:
    op, *args = case
    check_op(op, *args)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32, torch.uint8, torch.bool], ids=str)
def test_made_in_every_dtype(dtype: torch.dtype) -> None:
    check_op(aten.full.default, [3], 1, dtype=dtype)
    check_op(aten.scalar_tensor.default, 1, dtype=dtype)
    check_op(aten.eye.default, 3, dtype=dtype)
    if dtype is not torch.bool:
        check_op(aten.arange.start_step, 0, 10, 3, dtype=dtype)
        check_op(aten.linspace.default, 0, 10, 5, dtype=dtype)
    options = {"device": torch.device("cpu"), "requires_grad": False}
    check_op(torch.ops.prims.iota.default, 5, start=2, step=3, dtype=torch.int32, **options)


OUT_OF_RANGE = [
    (aten.embedding.default, (t(5, 3), i(0, 5))),
    (aten.embedding.default, (t(5, 3), i(-1))),
    (aten.gather.default, (t(3), 0, i(-1))),
    (aten.index_select.default, (t(3), 0, i(-1))),
    (aten.index.Tensor, (t(3), [i(0, 3)])),
    (aten.index.Tensor, (t(3), [i(-4)])),
    (aten.take.default, (t(3), i(3))),
    (aten.one_hot.default, (i(0, 3), 3)),
]


@pytest.mark.parametrize(("op", "args"), OUT_OF_RANGE, ids=lambda case: spell(case) if callable(case) else "")
def test_a_position_out_of_range_is_an_error_as_in_eager(op: torch._ops.OpOverload, args: tuple[object, ...]) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        op(*args)
    with pytest.raises(IndexRangeError):
        run_op(op, *args)


REFUSED = [
    (aten.index.Tensor, (t(3), [torch.tensor([True, False, True])]), "mask"),
    (aten.embedding.default, (t(0, 3), i(0)), "size 0"),
    (aten.one_hot.default, (i(0, 1), -1), "number of classes"),
]


@pytest.mark.parametrize(("op", "args", "message"), REFUSED, ids=["mask", "empty", "one_hot"])
def test_refusals_say_why(op: torch._ops.OpOverload, args: tuple[object, ...], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        lower_op(op, args, {})


def test_indexing_expressions_of_users() -> None:
    def fn(x: torch.Tensor, j: torch.Tensor) -> tuple[torch.Tensor, ...]:
        picked = x[:, j], x[j[0] - 1], x[j % 2, None, j], x[[0, -1]], x.take_along_dim(j[:, :, None], 1)
        return *picked, F.one_hot(j, 4), F.embedding(j, x[0]), x.masked_fill(x > 0, -1e9)

    check(fn, torch.randn(2, 3, 4), i([1, 0, 2], [2, 2, 0]))


def test_an_index_error_survives_capture() -> None:
    with pytest.raises(IndexRangeError):
        interpreted(lambda w, j: F.embedding(j, w), (t(5, 3), i(7)))


def test_masks_and_positions_made_inside() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
        return x.masked_fill(causal, float("-inf")) + torch.arange(4) + torch.linspace(0, 1, 4, dtype=x.dtype)

    check(fn, torch.randn(2, 4, 4))
