"""Views, copies that are index maps, and joins, against eager; and that views cost no nest."""

from __future__ import annotations

import pytest
import torch
from tests.python.lower.differential import check, lowered
from tests.python.lower.single_op import check_op, lower_op, spell

from mkwrap.ir.nodes import Load
from mkwrap.lower.lowering import Unsupported
from mkwrap.stages import OutputKind

aten = torch.ops.aten
END = 9223372036854775807


def t(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return (torch.arange(count) % 97 + 1).to(dtype).reshape(shape)


X, EMPTY, SCALAR = t(2, 3, 4), t(2, 0, 4), t()

VIEWS = [
    (aten.view.default, X, [6, 4]),
    (aten.view.default, X, [-1]),
    (aten.view.default, X, [4, -1, 2]),
    (aten.view.default, EMPTY, [0, 8]),
    (aten.view.default, EMPTY, [-1, 4]),
    (aten.view.default, SCALAR, [1, 1]),
    (aten.view.default, t(1, 1), []),
    (aten.view.default, t(4, 6), [2, 2, 3, 2]),
    (aten._unsafe_view.default, X, [3, 8]),
    (aten.permute.default, X, [2, 0, 1]),
    (aten.permute.default, X, [-1, 0, 1]),
    (aten.permute.default, SCALAR, []),
    (aten.transpose.int, X, -1, 0),
    (aten.t.default, t(2, 3)),
    (aten.t.default, t(3)),
    (aten.expand.default, t(1, 3, 1), [2, -1, 4]),
    (aten.expand.default, t(3, 1), [5, 3, 4]),
    (aten.expand.default, SCALAR, [2, 2]),
    (aten.expand.default, t(1), [0]),
    (aten.squeeze.default, t(1, 3, 1)),
    (aten.squeeze.dim, t(1, 3, 1), -1),
    (aten.squeeze.dim, t(1, 3, 1), 1),
    (aten.squeeze.dims, t(1, 3, 1), [0, 2]),
    (aten.squeeze.dim, SCALAR, 0),
    (aten.unsqueeze.default, X, 1),
    (aten.unsqueeze.default, X, -1),
    (aten.unsqueeze.default, SCALAR, 0),
    (aten.select.int, X, 1, -1),
    (aten.select.int, X, -1, 2),
    (aten.slice.Tensor, X, 1, 1, 3),
    (aten.slice.Tensor, X, 2, 0, END, 3),
    (aten.slice.Tensor, X, 2, -3, -1),
    (aten.slice.Tensor, X, 1, 2, 1),
    (aten.slice.Tensor, X, 1, 5, 9),
    (aten.slice.Tensor, X, -1, -100, 100, 2),
    (aten.slice.Tensor, X, 0, None, None),
    (aten.split_with_sizes.default, X, [1, 0, 2], 1),
    (aten.split.Tensor, X, 3, -1),
    (aten.split.Tensor, EMPTY, 2, 1),
    (aten.unbind.int, X, 1),
    (aten.diagonal.default, X),
    (aten.diagonal.default, X, 1, 1, 2),
    (aten.diagonal.default, X, -1, -1, 0),
    (aten.diagonal.default, X, 9, 0, 1),
    (aten.unfold.default, X, 2, 2, 1),
    (aten.unfold.default, t(7, 2), 0, 3, 2),
    (aten.unfold.default, SCALAR, 0, 1, 1),
    (aten.as_strided.default, X, [2, 2], [3, 1]),
    (aten.as_strided.default, X, [3, 3], [1, 1]),
    (aten.as_strided.default, t(4, 3), [3, 3], [3, 1]),
    (aten.as_strided.default, t(3, 4).t(), [2, 5], [5, 1]),
]
COPIES = [
    (aten.flip.default, X, [0, -1]),
    (aten.flip.default, X, []),
    (aten.flip.default, SCALAR, []),
    (aten.flip.default, EMPTY, [1]),
    (aten.roll.default, X, [1, -1], [0, 2]),
    (aten.roll.default, X, [5]),
    (aten.roll.default, X, [7, 1], [1, 1]),
    (aten.roll.default, EMPTY, [1], [0]),
    (aten.roll.default, EMPTY, [2]),
    (aten.roll.default, SCALAR, [1]),
    (aten.repeat.default, X, [2, 1, 3]),
    (aten.repeat.default, X, [2, 1, 2, 1]),
    (aten.repeat.default, SCALAR, [3]),
    (aten.repeat.default, EMPTY, [1, 2, 1]),
    (aten.repeat.default, X, [0, 1, 1]),
    (aten.repeat.default, t(1, 2), [3, 1]),
    (aten.reflection_pad1d.default, X, [2, 3]),
    (aten.reflection_pad1d.default, t(2, 1), [0, 0]),
    (aten.reflection_pad2d.default, X, [1, 2, 0, 2]),
    (aten.reflection_pad3d.default, t(1, 3, 2, 3, 4), [1, 2, 1, 0, 1, 1]),
    (aten.reflection_pad1d.default, t(2, 5), [-1, 3]),
]
JOINS = [
    (aten.cat.default, [X, X], 1),
    (aten.cat.default, [X, t(2, 1, 4, dtype=torch.float64)], -2),
    (aten.cat.default, [X, EMPTY], 1),
    (aten.cat.default, [torch.empty(0), X], 0),
    (aten.cat.default, [torch.empty(0), torch.empty(0)]),
    (aten.cat.default, [t(2), t(3), t(1), t(0)]),
    (aten.cat.default, [EMPTY, EMPTY], 1),
    (aten.cat.default, [EMPTY, EMPTY], 0),
    (aten.cat.default, [t(2, dtype=torch.int32), t(3, dtype=torch.bfloat16)]),
    (aten.cat.default, [t(2, dtype=torch.bool), t(3, dtype=torch.bool)]),
    (aten.stack.default, [X, X], 1),
    (aten.stack.default, [SCALAR, SCALAR]),
    (aten.stack.default, [X, X, X], -1),
    (aten.constant_pad_nd.default, X, [1, 2], 0.5),
    (aten.constant_pad_nd.default, X, [1, 2, 0, 3]),
    (aten.constant_pad_nd.default, X, [-1, 2, 1, -2], 7),
    (aten.constant_pad_nd.default, X, [-1, -1]),
    (aten.constant_pad_nd.default, EMPTY, [1, 1, 2, 0], 3),
    (aten.constant_pad_nd.default, t(3, dtype=torch.int64), [1, 1], 2.7),
    (aten.constant_pad_nd.default, t(3, dtype=torch.bool), [1, 1], True),
    (aten.constant_pad_nd.default, t(2, 2), [0, 0, 1, 0], float("-inf")),
    (aten.constant_pad_nd.default, t(1, 2), [0, 0, 1, 1], float("nan")),
    (aten.slice_scatter.default, X, t(2, 3, 2) * 9, 2, 1, 3),
    (aten.slice_scatter.default, X, t(2, 3, 2) * 9, 2, 0, END, 2),
    (aten.slice_scatter.default, X, t(2, 2, 4) * 9, 1, -2),
    (aten.slice_scatter.default, X, t(2, 0, 4), 1, 3, 3),
    (aten.slice_scatter.default, X, X * 2, 1),
    (aten.slice_scatter.default, t(7), t(3) * -1, 0, 1, 6, 2),
    (aten.select_scatter.default, X, t(2, 4) * 9, 1, -1),
    (aten.select_scatter.default, X, t(3, 4) * 9, 0, 0),
    (aten.select_scatter.default, t(1, 2), t(2) * 5, 0, 0),
]


@pytest.mark.parametrize("case", [*VIEWS, *COPIES, *JOINS], ids=lambda case: " ".join(spell(part) for part in case))
def test_equals_eager(case: tuple[object, ...]) -> None:
    op, *args = case
    check_op(op, *args, rtol=0, atol=0)


@pytest.mark.parametrize(("cases", "fresh"), [(VIEWS, False), (COPIES, True)], ids=["views", "copies"])
def test_a_view_makes_no_nest_and_a_copy_is_marked_fresh(cases: list[tuple[object, ...]], fresh: bool) -> None:
    for op, *args in cases:
        inputs, results = lower_op(op, args, {})
        assert not inputs.low.nests, op
        assert [result is not None and result.fresh for result in results] == [fresh] * len(results), op


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int8, torch.bool], ids=str)
def test_joins_keep_bits_of_every_dtype(dtype: torch.dtype) -> None:
    x = t(2, 3, dtype=dtype)
    check_op(aten.cat.default, [x, x], 1, rtol=0, atol=0)
    check_op(aten.constant_pad_nd.default, x, [1, 0], rtol=0, atol=0)


def test_views_compose_on_strided_inputs() -> None:
    def chain(x: torch.Tensor) -> torch.Tensor:
        y = x.transpose(1, 2).reshape(4, 15).flip(0)[1:, ::2].unflatten(1, (4, 2)).roll(1, 1)
        return torch.cat([y, y.expand(3, 4, 2)], 0) * 1

    check(chain, torch.randn(3, 4, 10)[:, :, ::2].transpose(0, 2).contiguous().transpose(0, 2)[..., :5])


def test_inplace_writes_through_views() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x[:, 1:].mul_(2)
        z = y.clone()
        z[:, 0] = x[:, 1]
        z[0, 0, ::2] = 7
        return z + x

    check(fn, torch.randn(2, 3, 4), torch.randn(2, 3, 4))


def test_r10_views_of_inputs_stay_views() -> None:
    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        return [x.view(-1), x.flatten(1), x.mT, x[1:, ::2], x.diagonal(), x.unfold(0, 1, 1), x.view(2, 2, 2, 3)]

    program, _ = lowered(fn, (X.reshape(4, 6),))
    assert {spec.kind for spec in program.outputs} == {OutputKind.INPUT_VIEW}
    check(fn, X.reshape(4, 6))
    program, _ = lowered(lambda x: x.mT.flatten(), (X.reshape(4, 6),))
    assert [spec.kind for spec in program.outputs] == [OutputKind.BUFFER]


def test_r10_views_beside_a_copy_into_an_input_are_of_their_own_inputs() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x.copy_(y)
        return x[0], y[1:], y

    for y in (t(3), t(3, 3), t(3, 3).T):
        x = torch.zeros(2, 3) if y.dim() == 1 else torch.zeros(3, 3)
        program, names = lowered(fn, (x, y))
        assert [(spec.kind, spec.buffer) for spec in program.outputs] == [
            (OutputKind.INPUT_VIEW, names[k]) for k in (0, 1, 1)
        ]
        check(fn, x, y)


def test_every_masked_load_of_cat_is_guarded_where_it_could_leave_its_tensor() -> None:
    inputs, _ = lower_op(aten.cat.default, [[t(2), t(3)]], {})
    body = inputs.low.nests[0].body
    assert [i.mask is not None for i in body if isinstance(i, Load)] == [True, True]


REFUSED = [
    (aten.as_strided.default, (t(3, 4)[:, :2], [2], [1]), "not dense"),
    (aten.as_strided.default, (X, [2], [1], 3), "storage offset"),
    (aten.as_strided.default, (X, [5], [6]), "beyond"),
]


@pytest.mark.parametrize(("op", "args", "message"), REFUSED, ids=["gaps", "offset", "beyond"])
def test_as_strided_is_refused_where_memory_is_not_known(
    op: torch._ops.OpOverload, args: tuple[object, ...], message: str
) -> None:
    with pytest.raises(Unsupported, match=message):
        lower_op(op, args, {})
