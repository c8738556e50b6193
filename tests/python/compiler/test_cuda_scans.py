"""On a real GPU: whole programs that scan, every forced variant against eager, in float64 where rows are long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch._higher_order_ops.associative_scan import associative_scan

import mkwrap
from mkwrap import Options

pytestmark = pytest.mark.cuda

SHAPES = [(300, 20_000), (2, 300_001)]
DTYPES = [torch.float32, torch.bfloat16, torch.int64]


def forced(fn: Callable[..., object], inputs: tuple[torch.Tensor, ...], options: Options) -> list[mkwrap.Model]:
    """Return a model of every variant of the only kernel: those measured, and those not worth measuring."""
    first = mkwrap.compile(fn, inputs, options=replace(options, tune="quick"))
    (kernel,) = first.manifest["kernels"]
    assert all(rejected["reason"].startswith("pruned:") for rejected in kernel["rejected"]), kernel["rejected"]
    labels = [entry["variant"] for entry in (*kernel["timings"], *kernel["rejected"])]
    assert len(labels) >= 2
    models = [mkwrap.compile(fn, inputs, options=replace(options, force={kernel["name"]: label})) for label in labels]
    return [first, *models]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dim", [0, 1])
def test_every_forced_variant_of_cumsum_equals_eager(
    shape: tuple[int, int], dtype: torch.dtype, dim: int, quick: Options
) -> None:
    torch.manual_seed(0)
    shape = shape if dim == 1 else shape[::-1]
    x = torch.randint(-9, 9, shape, device="cuda").to(dtype)
    exact = x.double().cumsum(dim) if dtype.is_floating_point else x.cumsum(dim)
    room = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.int64: 0.0}[dtype]
    for model in forced(lambda x: torch.cumsum(x, dim), (x,), quick):
        y = model(x)
        assert y.dtype is dtype
        torch.testing.assert_close(y.to(exact.dtype), exact, rtol=room, atol=room * float(exact.abs().max()))


@pytest.mark.parametrize("length", [3_700_000, 2**26])
def test_c16_a_long_scan_equals_eager_and_is_never_persistent(length: int, quick: Options) -> None:
    x = torch.randn(length, device="cuda")
    exact = x.double().cumsum(0)
    for model in forced(lambda x: x.cumsum(0), (x,), quick):
        (kernel,) = model.manifest["kernels"]
        assert not kernel["winner"].startswith("persistent")
        torch.testing.assert_close(model(x).double(), exact, rtol=1e-5, atol=1e-6 * float(exact.abs().max()))


OTHERS: dict[str, tuple[Callable[..., object], tuple[int, ...]]] = {
    "cummax": (lambda x: torch.cummax(x, 1), (3, 100_000)),
    "cummin of columns": (lambda x: torch.cummin(x, 0), (20_000, 70)),
    "logcumsumexp": (lambda x: torch.logcumsumexp(x, 1), (3, 100_000)),
    "softmax, cumsum, comparison": (lambda x: torch.softmax(x, -1).cumsum(-1) > 0.9, (64, 1000)),
    "running mean": (lambda x: x.abs().cumsum(0) / torch.arange(1, 100_001, device=x.device), (100_000,)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_scans_and_what_surrounds_them(name: str, quick: Options) -> None:
    fn, shape = OTHERS[name]
    torch.manual_seed(0)
    x = torch.randn(shape, device="cuda")
    expected = fn(x)
    for model in forced(fn, (x,), quick):
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_c15_two_streams_and_a_thousand_runs(quick: Options) -> None:
    """Each stream has a model of its own, and each run clears its states."""
    x = torch.randint(-9, 9, (1_000_000,), device="cuda")
    expected = x.cumsum(0)
    models = forced(lambda x: x.cumsum(0), (x,), quick)
    one, *_, other = [m for m in models if m.manifest["kernels"][0]["winner"].startswith("split_scan")]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    for _ in range(1000):
        for stream, model in zip(streams, (one, other), strict=True):
            with torch.cuda.stream(stream):
                y = model(x)
    for stream in streams:
        stream.synchronize()
    assert torch.equal(y, expected)


def test_an_associative_scan_of_torchs_front_equals_one_after_another(quick: Options) -> None:
    """`combine_mode="pointwise"`, which torch has for CUDA tensors alone: along a middle dim, from either end."""

    def linear(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return a[0] * b[0], a[1] * b[0] + b[1]

    def fn(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        slope, shift = associative_scan(linear, (x, y), 1)
        return slope, shift, associative_scan(torch.maximum, y, 1, reverse=True)

    torch.manual_seed(0)
    x, y = torch.rand(5, 700, 3, device="cuda"), torch.randn(5, 700, 3, device="cuda")
    rows = [(x[:, 0].double(), y[:, 0].double())]
    for k in range(1, 700):
        rows.append(linear(rows[-1], (x[:, k].double(), y[:, k].double())))
    expected = [*(torch.stack(part, 1) for part in zip(*rows, strict=True)), y.flip(1).cummax(1)[0].flip(1)]
    results = mkwrap.compile(fn, (x, y), options=replace(quick, tune="quick"))(x, y)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted.float(), rtol=1e-4, atol=1e-5)
