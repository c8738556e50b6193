"""Reductions, softmax and normalisations equal eager on the interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.python.lower.differential import check, interpreted, lowered

from mkwrap.errors import UnsupportedOpError, UserError

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
inf, nan = math.inf, math.nan
few = pytest.mark.filterwarnings("ignore:.*degrees of freedom")


def several(*functions: Callable[[torch.Tensor], object]) -> Callable[[torch.Tensor], list[object]]:
    """Apply functions to one input and list the results: one capture for many cases."""
    return lambda x: [function(x) for function in functions]


def sample(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.rand(shape) > 0.5
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 5, shape).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 7), (2, 1, 3), (6,), ()])
def test_float_reductions(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    check(
        several(
            torch.sum,
            torch.mean,
            torch.prod,
            torch.amax,
            torch.max,
            torch.min,
            torch.argmax,
            torch.argmin,
            torch.aminmax,
            lambda x: x.sum(-1),
            lambda x: x.sum(-1, keepdim=True),
            lambda x: x.sum([]),
            lambda x: x.sum(0, dtype=torch.float32),
            lambda x: x.mean(0),
            lambda x: x.mean(0, keepdim=True),
            lambda x: x.prod(0),
            lambda x: x.max(-1),
            lambda x: x.min(0, keepdim=True),
            lambda x: x.argmax(-1, keepdim=True),
            lambda x: x.any(-1),
            lambda x: x.all(),
        ),
        sample(shape, dtype),
    )


@pytest.mark.parametrize("dtype", INTS)
def test_integer_reductions_promote_as_eager(dtype: torch.dtype) -> None:
    check(
        several(
            torch.sum,
            torch.prod,
            torch.amax,
            torch.any,
            torch.all,
            torch.count_nonzero,
            lambda x: x.sum((0, 2)),
            lambda x: x.sum(1, dtype=torch.int32),
            lambda x: x.sum(dtype=torch.float32),
            lambda x: x.prod(2),
            lambda x: x.max(1),
            lambda x: x.any(1),
            lambda x: x.all((0, 1)),
            lambda x: x.any(()),
            lambda x: x.amin((0, 1), keepdim=True),
            lambda x: x.mean(dtype=torch.float32),
        ),
        sample((3, 4, 2), dtype),
    )


def test_sum_of_integers_wraps() -> None:
    check(lambda x: x.sum(dtype=torch.int8), torch.full((300,), 100, dtype=torch.int8))


@pytest.mark.parametrize("dtype", FLOATS)
def test_variance_and_norms(dtype: torch.dtype) -> None:
    check(
        several(
            torch.var,
            torch.std,
            lambda x: torch.var_mean(x, 1),
            lambda x: torch.std_mean(x, (0, 2), keepdim=True),
            lambda x: x.var(1, correction=0),
            lambda x: x.var((0, 1), correction=2),
            lambda x: x.var((0, 1), unbiased=False),
            torch.linalg.vector_norm,
            *[lambda x, p=p: torch.linalg.vector_norm(x, p, 1) for p in (0, 1, 2, 3, 0.5, inf, -inf, -1)],
            lambda x: torch.linalg.vector_norm(x, 2, 1, dtype=torch.float64),
            lambda x: x.norm(dim=(0, 1), keepdim=True),
            lambda x: F.normalize(x, dim=1),
            lambda x: F.cosine_similarity(x, x + 1, dim=-1),
        ),
        sample((3, 4, 5), dtype),
    )


@few
def test_variance_of_too_few_elements_is_nan() -> None:
    check(several(lambda x: torch.var_mean(x, 1), lambda x: x.std(1, correction=5)), torch.randn(3, 1))
    check(lambda x: torch.var_mean(x, 1), torch.tensor([[inf], [1.0], [nan], [-inf]]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_family(dtype: torch.dtype, dim: int) -> None:
    check(
        several(
            lambda x: x.softmax(dim),
            lambda x: x.log_softmax(dim),
            lambda x: F.softmin(x, dim),
            lambda x: x.softmax(dim, dtype=torch.float32),
            lambda x: x.logsumexp(dim),
            lambda x: x.logsumexp((1, 2), keepdim=True),
            lambda x: torch._safe_softmax(x, dim),
        ),
        sample((4, 1, 9), dtype),
    )


def test_softmax_of_scalars_and_integers() -> None:
    check(several(lambda x: x.softmax(0), lambda x: x.log_softmax(-1), lambda x: x.logsumexp(0)), torch.tensor(3.0))
    check(lambda x: x.logsumexp(0), torch.arange(4))


@pytest.mark.parametrize("dtype", FLOATS)
def test_normalisations(dtype: torch.dtype) -> None:
    x, w, b = sample((2, 6, 5, 3), dtype), sample((6,), dtype), sample((6,), dtype)
    m, v = sample((6,), dtype), sample((6,), dtype).abs() + 0.5
    weight, bias = sample((5, 3), dtype), sample((5, 3), dtype)

    def fn(*tensors: torch.Tensor) -> list[object]:
        x, w, b, m, v, weight, bias = tensors
        return [
            F.layer_norm(x, (3,)),
            F.layer_norm(x, (5, 3), weight, bias, 1e-3),
            F.layer_norm(x, (5, 3), weight),
            F.group_norm(x, 3, w, b),
            F.group_norm(x, 6),
            F.batch_norm(x, m, v, w, b),
            F.batch_norm(x, m, v),
            F.rms_norm(x, (5, 3), weight),
            F.rms_norm(x, (3,), eps=1e-2),
        ]

    check(fn, x, w, b, m, v, weight, bias)
    if dtype is not torch.float16:
        check(F.instance_norm, x)


def test_bfloat16_input_with_float32_parameters() -> None:
    x = sample((4, 8), torch.bfloat16)
    check(lambda x, w, b: F.layer_norm(x, (8,), w, b), x, torch.randn(8), torch.randn(8))


def test_statistics_of_layer_norm_are_results() -> None:
    check(lambda x: torch.native_layer_norm(x, (5,), None, None, 1e-5), torch.randn(3, 5))


def test_statistics_that_differ_between_devices_are_refused_where_they_are_used() -> None:
    x = torch.randn(3, 5).bfloat16()
    check(lambda x: torch.native_layer_norm(x, (5,), None, None, 1e-5)[0], x)
    with pytest.raises(UnsupportedOpError, match=r"native_layer_norm.*its result 1 is used"):
        lowered(lambda x: torch.native_layer_norm(x, (5,), None, None, 1e-5), (x,))


def test_reduction_over_views() -> None:
    x = torch.randn(6, 8)
    check(several(lambda x: x.t()[::2].sum(1), lambda x: x.expand(3, 6, 8).sum(0), lambda x: x[:, ::3].amax(0)), x)
    check(lambda x: x.softmax(-1), x.t())
    check(lambda x: F.layer_norm(x, (4,)), torch.randn(8, 1).expand(8, 4))
    check(lambda x: x.sum((1, 2)), torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))


@few
def test_c19_reduced_extent_zero() -> None:
    empty = torch.zeros(2, 0)
    check(
        several(
            torch.sum,
            torch.prod,
            torch.mean,
            torch.any,
            torch.all,
            lambda x: x.sum(1),
            lambda x: x.prod(1),
            lambda x: x.mean(1),
            lambda x: x.any(1),
            lambda x: x.all(1),
            lambda x: torch.var_mean(x, 1),
            lambda x: x.std(1),
            lambda x: x.logsumexp(1),
            lambda x: x.softmax(1),
            lambda x: torch.linalg.vector_norm(x, 2, 1),
            lambda x: F.layer_norm(x, (0,)),
        ),
        empty,
    )
    check(several(torch.sum, torch.prod, lambda x: x.sum(1), lambda x: x.any(1)), empty.int())
    for fn in (lambda x: x.amax(1), lambda x: x.argmax(1), lambda x: x.max(), lambda x: x.min(1)):
        with pytest.raises((RuntimeError, IndexError)):
            fn(empty)
        with pytest.raises(UserError):
            interpreted(fn, [empty])


@few
def test_c20_outer_extent_zero() -> None:
    check(
        several(
            lambda x: x.sum(1),
            lambda x: x.amax(1),
            lambda x: x.max(1),
            lambda x: x.argmin(1, keepdim=True),
            lambda x: x.var(1),
            lambda x: x.softmax(1),
            lambda x: x.logsumexp(1),
            lambda x: F.layer_norm(x, (5,)),
        ),
        torch.zeros(0, 5),
    )
    check(lambda x: F.group_norm(x, 2), torch.zeros(0, 4, 3))


@pytest.mark.parametrize("dtype", FLOATS)
def test_c30_nan_ties_and_signed_zero(dtype: torch.dtype) -> None:
    rows = [
        [nan, 1, 2, 3],
        [1, 2, 3, nan],
        [1, nan, nan, 0],
        [nan, nan, nan, nan],
        [inf, nan, -inf, 0],
        [2, 7, 7, 2],
        [-0.0, 0.0, -0.0, 0.0],
        [-inf, -inf, -inf, -inf],
        [inf, 1, inf, 1],
    ]
    check(
        several(
            lambda x: x.amax(1),
            lambda x: x.amin(1),
            lambda x: x.argmax(1),
            lambda x: x.argmin(1),
            lambda x: x.max(1),
            lambda x: x.min(1),
            torch.argmax,
            torch.aminmax,
            torch.max,
        ),
        torch.tensor(rows, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_c31_softmax_of_infinities(dtype: torch.dtype) -> None:
    rows = [[-inf, -inf, -inf], [1, inf, 2], [inf, inf, 0], [-inf, 0, 1], [nan, 0, 1], [-inf, inf, 0]]
    check(
        several(
            lambda x: x.softmax(1),
            lambda x: x.log_softmax(1),
            lambda x: x.logsumexp(1),
            lambda x: torch._safe_softmax(x, 1),
        ),
        torch.tensor(rows, dtype=dtype),
    )


@pytest.mark.parametrize(
    ("dtype", "mean", "deviation", "bound"), [(torch.float32, 1e4, 1.0, 2e-3), (torch.bfloat16, 8.0, 0.5, 8e-3)]
)
def test_c32_variance_and_layer_norm_of_a_large_mean(
    dtype: torch.dtype, mean: float, deviation: float, bound: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(16, 1000, generator=generator, dtype=torch.float64) * deviation + mean).to(dtype)
    variance, normal = interpreted(lambda x: (x.var(1), F.layer_norm(x, (1000,))), [x])
    exact = x.double()
    assert isinstance(variance, torch.Tensor)
    assert isinstance(normal, torch.Tensor)
    torch.testing.assert_close(variance.double(), exact.var(1), rtol=bound, atol=0)
    torch.testing.assert_close(normal.double(), F.layer_norm(exact, (1000,)), rtol=bound, atol=bound)


def test_what_is_not_lowered_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="mode"):
        interpreted(lambda x: x.mode(0), [torch.randn(3)])
