"""Reductions over a grid of rows and columns up to 2^24 elements: every forced variant equals eager.

Numbers are small whole ones, so that sums of floats are exact in any order, and there are many ties.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.python.compiler.forced import forced_models

from mkwrap import Options

pytestmark = pytest.mark.toolchain
N = 1 << 24
Results = tuple[torch.Tensor, ...]
Shape = tuple[int, ...]
F32, BF16, I64 = torch.float32, torch.bfloat16, torch.int64

# (shape, reduced dimension, dtype): inner, outer and middle; each extent 1 somewhere, and each dtype in each place.
SMALL: tuple[tuple[Shape, int, torch.dtype], ...] = (
    ((1, 1), 1, F32),
    ((1, 1000), 1, I64),
    ((1000, 1), 1, BF16),
    ((37, 130), 1, F32),
    ((3001, 1), 0, F32),
    ((130, 37), 0, BF16),
    ((1, 257), 0, I64),
    ((5, 19, 33), 1, F32),
    ((3, 300, 2), 1, I64),
    ((65, 4, 1), 1, BF16),
)
LARGE: tuple[tuple[Shape, int, torch.dtype], ...] = (
    ((1, N), 1, F32),
    ((1 << 12, 1 << 12), 1, BF16),
    ((1 << 22, 4), 1, F32),
    ((N, 1), 0, BF16),
    ((1 << 22, 4), 0, F32),
    ((1 << 11, 1 << 12), 0, I64),
    ((16, 1 << 20), 0, F32),
    ((1, N), 0, F32),
    ((4, 1 << 20, 4), 1, BF16),
    ((1 << 12, 16, 256), 1, I64),
)


def whole_numbers(shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def reductions(dim: int) -> Callable[[torch.Tensor], Results]:
    """Three results of one walk, one of them with positions."""
    return lambda x: (x.sum(dim), x.amax(dim), x.argmax(dim))


def exact(x: torch.Tensor, dim: int) -> Results:
    """Return what eager gives; the sum in float64, since eager's own of bfloat16 depends on the order."""
    return x.double().sum(dim).to(x.dtype), x.amax(dim), x.argmax(dim)


def check(shape: Shape, dim: int, dtype: torch.dtype, options: Options) -> None:
    x = whole_numbers(shape, dtype)
    expected = exact(x, dim)
    for forced in forced_models(reductions(dim), (x,), options):
        actual = forced.model(x)
        for a, e in zip(actual, expected, strict=True):
            assert torch.equal(a, e), f"{forced.label}: {(a != e).sum()} of {e.numel()} differ"


def names(cases: tuple[tuple[Shape, int, torch.dtype], ...]) -> list[str]:
    return [f"{'x'.join(map(str, shape))}-{dim}-{str(dtype)[6:]}" for shape, dim, dtype in cases]


@pytest.mark.parametrize(("shape", "dim", "dtype"), SMALL, ids=names(SMALL))
def test_c1_every_forced_variant_over_small_grids(
    shape: Shape, dim: int, dtype: torch.dtype, two_threads: Options
) -> None:
    check(shape, dim, dtype, two_threads)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "dim", "dtype"), LARGE, ids=names(LARGE))
def test_c1_every_forced_variant_over_large_grids(
    shape: Shape, dim: int, dtype: torch.dtype, two_threads: Options
) -> None:
    check(shape, dim, dtype, two_threads)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "dim"), [((4, 1 << 20), 1), ((1 << 18, 16), 1), ((1 << 16, 64), 0)])
@pytest.mark.parametrize("dtype", [F32, BF16], ids=["float32", "bfloat16"])
def test_c32_variance_over_large_grids(shape: Shape, dim: int, dtype: torch.dtype, two_threads: Options) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    bound = {F32: 1e-5, BF16: 2**-8}[dtype]
    variance, mean = torch.var_mean(x.double(), dim)
    for forced in forced_models(lambda x: torch.var_mean(x, dim), (x,), two_threads):
        actual = forced.model(x)
        assert ((actual[0].double() - variance).abs() <= bound * variance).all(), forced.label
        assert ((actual[1].double() - mean).abs() <= bound * (mean.abs() + variance.sqrt())).all(), forced.label
