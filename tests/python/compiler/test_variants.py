"""Every variant of real kernels, forced one by one, gives what eager gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from tests.python.compiler.forced import candidates_of, forced_models, forcings, kernels_of
from tests.python.lower.differential import same

import mkwrap
from mkwrap import Options

pytestmark = pytest.mark.toolchain
INF, NAN = float("inf"), float("nan")
FLOATS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def agree(actual: object, expected: object, what: str, tolerance: float | None = None) -> None:
    """Compare every leaf; tolerances are by dtype where not given."""
    leaves = zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True)
    for k, (a, e) in enumerate(leaves):
        exact = not (isinstance(e, torch.Tensor) and e.is_floating_point())
        same(a, e, f"{what}, result {k}", 0.0 if exact else tolerance, 0.0 if exact else tolerance)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@FLOATS
def test_c1_every_forced_softmax_over_1024_columns_equals_eager(dtype: torch.dtype, two_threads: Options) -> None:
    def softmax(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, -1)

    x = random(64, 1024, dtype=dtype)
    forces = forcings(candidates_of(softmax, (x,), two_threads))
    assert len(forces) >= 2
    for force in forces:
        model = mkwrap.compile(softmax, (x,), target="cpu", options=replace(two_threads, force=force))
        assert [(kernel["winner"], kernel["reason"]) for kernel in kernels_of(model)] == [(*force.values(), "forced")]
        agree(model(x), softmax(x), str(force))


def norm_gelu_residual(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.layer_norm(x + r, (x.shape[-1],))) + r


KERNELS: dict[str, tuple[Callable[..., object], tuple[tuple[int, ...], ...]]] = {
    "softmax of a few long rows": (lambda x: torch.softmax(torch.tanh(x), -1), ((3, 70_001),)),
    "softmax of columns": (lambda x: torch.softmax(x, 0), ((300, 70),)),
    "layer norm, gelu, residual": (norm_gelu_residual, ((65, 200), (65, 200))),
    "sums of columns": (lambda x: (x.float() * x.float()).sum(0), ((2000, 33),)),
    "sum of all": (lambda x: x.float().sum(), ((70, 1001),)),
    "transposed sum": (lambda x: x.t() + x.float().sum(1), ((33, 129),)),
    "pointwise, transposed": (lambda x: (x.t() + 1).contiguous(), ((65, 130),)),
    "pointwise, strided": (lambda x: torch.sigmoid(x[:, ::2]) * x[:, 1::2], ((9, 400),)),
    "large copy": (lambda x: x + 1, ((1100, 1024),)),
    "product with epilogue": (lambda x, w: F.gelu(x @ w), ((40, 70), (70, 50))),
    "one row times a matrix": (lambda x, w: x @ w.t(), ((1, 70), (50, 70))),
    "batched product": (lambda x, w: x @ w.transpose(1, 2), ((3, 40, 33), (3, 50, 33))),
}


NARROW = ("layer norm, gelu, residual", "sums of columns", "pointwise, transposed", "product with epilogue")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*[(name, torch.float32) for name in KERNELS], *[(name, torch.bfloat16) for name in NARROW]],
    ids=[*KERNELS, *[f"{name}, bfloat16" for name in NARROW]],
)
def test_c1_every_forced_variant_equals_eager(name: str, dtype: torch.dtype, two_threads: Options) -> None:
    fn, shapes = KERNELS[name]
    args = tuple(random(*shape, dtype=dtype) for shape in shapes)
    expected = fn(*args)
    models = list(forced_models(fn, args, two_threads))
    assert len(models) >= 2
    for forced in models:
        agree(forced.model(*args), expected, forced.label, 1e-4 if dtype is torch.float32 else 3e-2)


# ── extrema, infinities, variances: every forced variant ─────────────────────────────────────────────────────────────────


def awkward_rows(length: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows with NaN in the first, the last and some other lanes, ties, zeros of both signs, and infinities."""
    x = random(10, length, dtype=dtype)
    x[1, 0] = NAN
    x[2, -1] = NAN
    x[3, [length // 3, length // 2, length - 2]] = NAN
    x[4] = NAN
    x[5, [length // 2, length - 1]] = 9
    x[5, [length // 3, length - 3]] = -9
    x[6] = torch.where(torch.arange(length) % 3 == 1, 0.0, -0.0).to(dtype)
    x[7] = -INF
    x[8] = INF
    x[9, 1::2] = -INF
    return x


def extrema(x: torch.Tensor) -> tuple[object, ...]:
    return x.amax(1), x.amin(1), x.argmax(1), x.argmin(1), x.max(1), x.min(1)


# Lengths that fill no whole vector; the last is long enough for each row to be split between threads.
@FLOATS
@pytest.mark.parametrize("length", [5, 1037])
@pytest.mark.parametrize("layout", ["rows", "columns", "one row"])
def test_c30_extrema_of_nan_ties_and_zeros_in_every_forced_variant(
    layout: str, length: int, dtype: torch.dtype, two_threads: Options
) -> None:
    x = awkward_rows(length, dtype)
    if layout == "columns":
        x = x.t().contiguous().t()
    wanted: Callable[[torch.Tensor], tuple[object, ...]] = extrema
    if layout == "one row":
        x, wanted = x[3], lambda x: (x.amax(), x.amin(), x.argmax(), x.argmin())
    for forced in forced_models(wanted, (x,), two_threads):
        agree(forced.model(x), wanted(x), forced.label, 0.0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64], ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_c30_extrema_of_integers_and_truth_values_in_every_forced_variant(
    layout: str, dtype: torch.dtype, two_threads: Options
) -> None:
    x = (random(5, 77) * 3).abs().to(dtype)
    x[1], x[2] = 0, 1
    x = x if layout == "rows" else x.t().contiguous().t()

    def functions(x: torch.Tensor) -> tuple[object, ...]:
        return x.max(1), x.min(1), x.amax(1), x.amin(1), x < x.flip(1), x >= x.flip(0), torch.maximum(x, x.flip(0))

    for forced in forced_models(functions, (x,), two_threads):
        agree(forced.model(x), functions(x), forced.label)


@FLOATS
@pytest.mark.parametrize("length", [7, 1037])
@pytest.mark.parametrize("dim", [1, 0], ids=["rows", "columns"])
def test_c31_softmax_of_infinities_in_every_forced_variant(
    dim: int, length: int, dtype: torch.dtype, two_threads: Options
) -> None:
    x = random(6, length, dtype=dtype)
    x[0] = -INF
    x[1, length // 2] = INF
    x[2, [0, -1]] = INF
    x[3, 1:] = -INF
    x[4, -1] = NAN
    x = x if dim == 1 else x.t().contiguous()

    def functions(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.softmax(dim), x.log_softmax(dim), x.logsumexp(dim)

    for forced in forced_models(functions, (x,), two_threads):
        agree(forced.model(x), functions(x), forced.label)


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.var(1), F.layer_norm(x, (x.shape[1],))


# docs/numerics.md: float32's bounds at that distance from zero, and half an ulp of a bfloat16 result.
@pytest.mark.parametrize(
    ("dtype", "mean", "deviation", "rounding"),
    [(torch.float32, 1e4, 1.0, 0.0), (torch.bfloat16, 8.0, 0.5, 2**-8)],
    ids=["float32", "bfloat16"],
)
@pytest.mark.parametrize("layout", ["rows", "columns", "few long rows"])
def test_c32_variance_and_layer_norm_far_from_zero_in_every_forced_variant(
    layout: str, dtype: torch.dtype, mean: float, deviation: float, rounding: float, two_threads: Options
) -> None:
    x = (random(*((2, 100_003) if layout == "few long rows" else (9, 3000))) * deviation + mean).to(dtype)
    if layout == "columns":
        x = x.t().contiguous().t()
    variance, normal = statistics(x.double())
    distance = 2**-24 * mean / deviation
    for forced in forced_models(statistics, (x,), two_threads):
        ours, normalised = (result.double() for result in forced.model(x))
        assert ((ours - variance).abs() / variance).max() <= 2 * distance + rounding, forced.label
        error = (normalised - normal).abs() / (1 + normal.abs())
        assert error.max() <= 8 * distance + rounding, forced.label
