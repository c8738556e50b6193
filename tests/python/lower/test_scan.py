"""Scans and sorts equal eager on the interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import sympy
import torch
from tests.python.lower.differential import check, interpreted, lowered, same
from tests.python.lower.single_op import check_op, run_op
from torch._higher_order_ops.associative_scan import associative_scan, associative_scan_op
from torch._subclasses.fake_tensor import FakeTensorMode

from mkwrap.capture import _export, _FlatModule, _refuse_unsupported, capture
from mkwrap.errors import CaptureError, UnsupportedOpError
from mkwrap.fuse import fuse
from mkwrap.ir.analysis import scans
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Scan, Sort
from mkwrap.ir.ops import SORT_LIMIT
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.lower.lowering import Lowering, Unsupported
from mkwrap.lower.tensor import whole
from mkwrap.origins import source_location

aten = torch.ops.aten
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
SHAPES = [(3, 4, 5), (1, 7), (2, 1, 3), (6,), (1,), (), (0,), (2, 0, 3), (0, 4)]
inf, nan = math.inf, math.nan


def sample(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape))
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else 5, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS, *INTS], ids=str)
def test_scans_along_every_dim(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = sample(shape, dtype)
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        for op in (aten.cumsum.default, aten.cumprod.default, aten.cummax.default, aten.cummin.default):
            check_op(op, x, dim)
        if dtype.is_floating_point:
            check_op(aten.logcumsumexp.default, x, dim)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS, *INTS], ids=str)
def test_sorts_along_every_dim(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = sample(shape, dtype)
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        for descending in (False, True):
            check_op(aten.sort.stable, x, stable=True, dim=dim, descending=descending)


@pytest.mark.parametrize("target", [torch.int32, torch.int64, torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_sums_and_products_in_another_dtype(dtype: torch.dtype, target: torch.dtype) -> None:
    x = sample((3, 6), dtype).abs() if dtype is not torch.bool else sample((3, 6), dtype)
    check_op(aten.cumsum.default, x, 1, dtype=target)
    check_op(aten.cumprod.default, x, 0, dtype=target)


@pytest.mark.parametrize(
    "row",
    [
        [1.0, nan, 2.0, nan, 3.0],
        [nan, -inf, inf, nan, 0.0],
        [-inf, -inf, -inf, -inf, -inf],
        [-inf, 1.0, inf, 2.0, -inf],
        [0.0, -0.0, 0.0, -0.0, -0.0],
        [2.0, 2.0, 1.0, 2.0, 1.0],
    ],
    ids=str,
)
def test_special_values(row: list[float]) -> None:
    for dtype in FLOATS:
        x = torch.tensor([row, row[::-1]], dtype=dtype)
        for op in (aten.cumsum, aten.cumprod, aten.cummax, aten.cummin, aten.logcumsumexp):
            check_op(op.default, x, 1)
        for descending in (False, True):
            check_op(aten.sort.stable, x, stable=True, dim=-1, descending=descending)


def test_integers_wrap() -> None:
    x = torch.full((70,), 3, dtype=torch.int64)
    check_op(aten.cumprod.default, x, 0)
    check_op(aten.cumsum.default, x * 100, 0, dtype=torch.int8)


def test_16_bit_rows_are_accumulated_in_float32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.full((1000,), 0.1, dtype=dtype)
        check_op(aten.cumsum.default, x, 0, rtol=0, atol=0)


def test_a_view_is_read_in_place() -> None:
    x = torch.randn(4, 6, 5)
    for view in (x.transpose(0, 2), x[:, ::2], x[1:2].expand(3, 6, 5), x.flip(1)):
        for dim in range(3):
            check_op(aten.cumsum.default, view, dim)
            check_op(aten.cummax.default, view, dim)


def test_scans_fuse_with_what_is_before_and_after_them() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = ((x * y).sigmoid().cumsum(1) + y).exp()
        return total, torch.softmax(x, -1).cumsum(-1)

    args = (torch.randn(3, 8), torch.randn(3, 8))
    check(fn, *args)
    schedule = fuse(lowered(fn, args)[0])
    assert [sum(isinstance(i, Scan) for i in nest.body) for nest in schedule.program.nests] == [2]
    assert [kernel.rpartition("_")[0] for kernel in schedule.kernels] == ["scan"]


def test_top_elements() -> None:
    x = torch.tensor([[3.0, nan, 1.0, 2.0], [0.5, -1.0, 4.0, inf]])
    for largest in (True, False):
        for k in range(5):
            check_op(aten.topk.default, x, k, 1, largest)
    check_op(aten.topk.default, x.T, 2, 0, True, True)
    for k in (1, 3, 4):
        check_op(aten.kthvalue.default, x, k, 1)
        check_op(aten.kthvalue.default, x, k, 1, True)
    check_op(aten.topk.default, torch.tensor(3.0), 1)
    check_op(aten.kthvalue.default, torch.tensor(3.0), 1)


def test_orders_asked_for_by_other_names() -> None:
    x = torch.randperm(24).reshape(4, 6)
    check(
        lambda x: (
            torch.argsort(x, 0),
            torch.argsort(x, dim=1, descending=True, stable=True),
            torch.msort(x),
            torch.sort(x, descending=True),
            x.topk(3, sorted=False, dim=0)[0].sum(0),
        ),
        x,
    )


def test_equal_elements_of_an_unstable_sort_keep_their_order() -> None:
    x = torch.tensor([2, 1, 2, 1, 2, 1])
    values, places = run_op(aten.sort.default, x, 0, True)
    assert values is not None
    assert places is not None
    assert (values.tolist(), places.tolist()) == ([2, 2, 2, 1, 1, 1], [0, 2, 4, 1, 3, 5])


def test_a_long_row_is_refused_by_line() -> None:
    assert len(lowered(lambda x: x.sort(), (torch.zeros(SORT_LIMIT),))[0].nests) == 3
    with pytest.raises(UnsupportedOpError, match=rf"at most {SORT_LIMIT} are(.|\n)*test_scan.py:\d+: .*topk\(3\)"):
        lowered(lambda x: x.topk(3), (torch.zeros(SORT_LIMIT + 1),))


# ── scans with a function of the user's ──────────────────────────────────────────────────────────────────


Combine = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], list[torch.Tensor]]


def one_after_another(combine: Combine, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    rows = [[x[0] for x in xs]]
    for k in range(1, xs[0].shape[0]):
        rows.append(combine(rows[-1], [x[k] for x in xs]))
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


def scan_op(combine: Combine, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Call the operator itself: torch's front refuses pointwise functions on the CPU."""
    count = len(xs)
    return list(associative_scan_op(lambda *parts: combine(parts[:count], parts[count:]), list(xs), ()))


def linear(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [a[0] * b[0], a[1] * b[0] + b[1]]


def segmented(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [a[0] | b[0], torch.where(b[0], b[1], a[1] + b[1])]


def checked(cases: Sequence[tuple[Combine, tuple[torch.Tensor, ...]]]) -> None:
    """Compare interpreted scans, captured together, with the functions applied one element after another."""

    def fn(*arguments: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        scanned = [scan_op(combine, xs) for (combine, _), xs in zip(cases, arguments, strict=True)]
        return [result for results in scanned for result in results]

    results = interpreted(fn, [xs for _, xs in cases])
    expected = [part for combine, xs in cases for part in one_after_another(combine, xs)]
    for got, wanted in zip(results, expected, strict=True):
        same(got, wanted, "scan")


ASSOCIATIVE: tuple[tuple[Combine, int], ...] = (
    (linear, 2),
    (lambda a, b: [torch.logaddexp(a[0], b[0])], 1),
    (lambda a, b: [torch.maximum(a[0], b[0]) * 1.0], 1),
)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_associative_scans(dtype: torch.dtype) -> None:
    shapes = [(7,), (5, 3), (1, 4), (6, 2, 2)] if dtype is torch.float32 else [(5, 3)]
    checked(
        [
            (combine, (sample(shape, dtype), sample(shape, dtype) / 2)[:count])
            for combine, count in ASSOCIATIVE
            for shape in shapes
        ]
    )


def test_an_associative_scan_of_several_dtypes() -> None:
    flags = torch.tensor([True, False, False, True, False, True, False, False])
    checked([(segmented, (flags, torch.arange(8.0))), (segmented, (flags, torch.arange(8)))])


def test_a_function_with_other_than_pointwise_operations_is_refused() -> None:
    x = torch.randn(6, 4)
    for combine in (
        lambda a, b: [a[0] + b[0].sum(-1, keepdim=True)],
        lambda a, b: [a[0] + b[0].flip(0)],
    ):
        with pytest.raises(UnsupportedOpError, match=r"pointwise operations only(.|\n)*test_scan.py"):
            lowered(lambda x, combine=combine: scan_op(combine, [x]), (x,))


def test_a_function_with_tensors_from_outside_is_refused() -> None:
    """Torch hands such tensors to the operator beside the values that are scanned."""
    graph = torch.fx.symbolic_trace(lambda a, b, y: [a * b * y])
    with pytest.raises(Unsupported, match="reads tensors from outside"):
        RULES[associative_scan_op](Lowering(), graph, [], [torch.randn(4)])


def test_a_pointwise_associative_scan_on_the_gpu_is_captured_as_one_scan() -> None:
    """Torch's front yields the operator for CUDA tensors, by way of dynamo; fake ones are captured without a device."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(3, 8, device="cuda")

    def fn(x: torch.Tensor) -> list[torch.Tensor]:
        product, shift = associative_scan(lambda a, b: tuple(linear(a, b)), (x, x + 1), 1)
        return [product, shift, associative_scan(torch.add, x, -1, reverse=True)]

    exported, _ = _export(_FlatModule(fn, lambda fn, tensors: fn(*tensors)), [x], [{}])  # type: ignore[arg-type, return-value]
    nodes = exported.graph.find_nodes(op="call_function", target=associative_scan_op)
    assert ["associative_scan(" in source_location(node) for node in nodes] == [True, True]
    assert all("test_scan.py" in source_location(node) for node in nodes)
    _refuse_unsupported(exported.graph_module, RULES.keys(), {})
    low = Lowering(rules=RULES)
    for node in nodes:
        graph = getattr(exported.graph_module, node.args[0].target)
        shape = [sympy.Integer(n) for n in node.args[1][0].meta["val"].shape]
        RULES[associative_scan_op](low, graph, [whole(low.temporary(DType.FLOAT32, shape)) for _ in node.args[1]], ())
    assert [len(scan.dests) for nest in low.nests for scan in scans(nest)] == [2, 1]


def test_a_generic_associative_scan_is_what_torch_makes_of_it() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return associative_scan(torch.add, x, 1, combine_mode="generic", reverse=True)

    check(fn, torch.randn(3, 8))


def test_a_pointwise_associative_scan_on_the_cpu_is_refused_with_torchs_reason() -> None:
    with pytest.raises(CaptureError, match="need to be on CUDA"):
        lowered(lambda x: associative_scan(torch.add, x, 0), (torch.randn(4),))


def test_equal_functions_make_equal_kernels() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        first = scan_op(linear, [x, x])
        return [*first, *scan_op(linear, [y.exp().relu() * 0 + first[0], y])]

    captured = capture(fn, (torch.randn(6, 4), torch.randn(6, 4)), {}, None, RULES)
    found = [scan for nest in lower(captured).nests for scan in scans(nest)]
    assert len(found) == 2
    assert found[0].combine == found[1].combine
    assert not any(isinstance(i, Sort) for nest in lower(captured).nests for i in nest.body)
