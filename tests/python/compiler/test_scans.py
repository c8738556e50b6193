"""Scans and sorts compiled for the CPU: every forced variant gives what eager gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.python.compiler.forced import candidates_of, forced_models, kernels_of
from tests.python.compiler.test_variants import agree, random
from tests.python.lower.differential import same

import mkwrap
from mkwrap import Options
from mkwrap.errors import UnsupportedOpError

pytestmark = pytest.mark.toolchain
INF, NAN = float("inf"), float("nan")


def running_sum(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(0)


def labels_of(fn: Callable[..., object], args: tuple[torch.Tensor, ...], options: Options) -> list[str]:
    """Return the variants of the first kernel."""
    found = candidates_of(fn, args, options).variants
    return [variant.label for variant in next(iter(found.values()))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
def test_c16_every_forced_variant_of_a_split_scan_of_3_7_million_elements_equals_eager(
    dtype: torch.dtype, two_threads: Options
) -> None:
    x = (random(3_700_000) * 10).to(dtype)
    labels = labels_of(running_sum, (x,), two_threads)
    parts = {label.partition("parts=")[2].rstrip("]").partition(",")[0] for label in labels}
    assert {"", "2"} < parts, "one walk, a part per thread, and parts that a cache holds"
    assert any("add=True" in label for label in labels) == (dtype is not torch.bfloat16)
    expected = running_sum(x)
    largest = float(expected.abs().max())
    for forced in forced_models(running_sum, (x,), two_threads):
        # docs/numerics.md: ε of each result, and of what its part alone sums up to where parts are added to. Of 16-bit
        # floats, it is eager's sum in float32 whose error grows.
        beyond = 1e-4 * largest if dtype is torch.bfloat16 else 2**-23 * largest if "add=True" in forced.label else 0.0
        same(forced.model(x), expected, forced.label, {torch.float32: 1e-6, torch.int64: 0.0}.get(dtype, 1e-2), beyond)


def test_c16_the_variants_of_a_split_scan_race(two_threads: Options, tmp_path: Path) -> None:
    options = replace(two_threads, tune="quick", cache_dir=tmp_path)
    x = random(3_700_000)
    model = mkwrap.compile(running_sum, (x,), target="cpu", options=options)
    (kernel,) = kernels_of(model)
    timings = kernel["timings"]
    assert isinstance(timings, list)
    assert {t["variant"] for t in timings} == set(labels_of(running_sum, (x,), two_threads))
    assert kernel["winner"] == min(timings, key=lambda t: t["median_us"])["variant"] or "noise" in str(kernel["reason"])
    agree(model(x), running_sum(x), "the winner")


def all_scans(x: torch.Tensor, dim: int) -> tuple[object, ...]:
    found: list[object] = [x.cumsum(dim), x.cumprod(dim), x.cummax(dim), x.cummin(dim)]
    if x.dtype.is_floating_point:
        found.append(x.logcumsumexp(dim))
    return tuple(found)


@pytest.mark.parametrize(
    ("shape", "dim", "dtype"),
    [
        ((7, 130), 1, torch.float32),
        ((7, 130), 1, torch.bool),
        ((130, 19), 0, torch.float32),
        ((130, 19), 0, torch.int64),
        ((3, 40, 5), 1, torch.bfloat16),
        ((2, 9001), 1, torch.float32),
        ((2, 9001), 1, torch.int64),
    ],
    ids=str,
)
def test_c1_every_forced_scan_equals_eager(
    shape: tuple[int, ...], dim: int, dtype: torch.dtype, two_threads: Options
) -> None:
    x = random(*shape)
    x[:, 3:9] = 0
    x[1] = x[1].clamp(-0.5, 0.5)
    if dtype.is_floating_point:
        x[0, -1], x[1, 1], x[1, 2] = NAN, INF, -INF
    x = x.to(dtype)
    expected = all_scans(x, dim)
    for forced in forced_models(lambda x: all_scans(x, dim), (x,), two_threads):
        agree(forced.model(x), expected, forced.label)


FUSED: dict[str, tuple[Callable[[torch.Tensor], object], tuple[int, ...]]] = {
    "softmax, then its running sum": (lambda x: torch.softmax(x, -1).cumsum(-1), (33, 200)),
    "a mean of running sums": (lambda x: (x.sigmoid().cumsum(1) * 2).mean(1), (33, 200)),
    "a mean so far": (lambda x: x.cumsum(0) / torch.arange(1, 301)[:, None], (300, 40)),
    "running sums of columns and rows": (lambda x: x.cumsum(0).cumsum(1), (50, 60)),
    "a running maximum's distance": (lambda x: x.cummax(1).values - x, (20, 3000)),
    "of every other column": (lambda x: x[:, ::2].t().cumsum(1), (30, 64)),
    "from the end": (lambda x: x.flip(1).cumsum(1).flip(1), (30, 65)),
    "nucleus": (lambda x: x.softmax(-1).sort(-1, descending=True)[0].cumsum(-1) < 0.9, (20, 500)),
}


@pytest.mark.parametrize("name", FUSED)
def test_every_forced_variant_of_fused_scans_equals_eager(name: str, two_threads: Options) -> None:
    fn, shape = FUSED[name]
    x = random(*shape)
    for forced in forced_models(fn, (x,), two_threads):
        agree(forced.model(x), fn(x), forced.label, 1e-5)


def test_a_mutated_input_takes_its_running_sum(two_threads: Options) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        x.cumsum_(1)
        return x + 1

    ours, theirs = random(9, 80), random(9, 80)
    for forced in forced_models(fn, (ours,), two_threads):
        a, b = ours.clone(), theirs.clone()
        agree(forced.model(a), fn(b), forced.label)
        agree(a, b, f"{forced.label}, the input")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((9, 33), torch.float32),
        ((9, 33), torch.bool),
        ((5, 1000), torch.bfloat16),
        ((5, 1000), torch.int64),
        ((1, 4096), torch.float32),
    ],
    ids=str,
)
def test_c1_every_forced_sort_equals_eager(shape: tuple[int, ...], dtype: torch.dtype, two_threads: Options) -> None:
    x = random(*shape)
    if dtype.is_floating_point:
        x[0, 5], x[0, 7], x[0, 9], x[0, 10] = NAN, INF, -INF, -0.0
    x = (x if dtype.is_floating_point else x * 3).to(dtype)

    def orders(x: torch.Tensor) -> tuple[object, ...]:
        every = (
            x.sort(stable=True, dim=1),
            x.sort(stable=True, dim=1, descending=True),
            x.sort(stable=True, dim=0)[1],
            torch.argsort(x, dim=1, stable=True),
        )
        if x.dtype is torch.bool:
            return every
        return (*every, x.topk(3, dim=1)[0], x.topk(2, dim=1, largest=False)[0], x.kthvalue(4, 1)[0])

    expected = orders(x)
    for forced in forced_models(orders, (x,), two_threads):
        agree(forced.model(x), expected, forced.label, 0.0)


def test_a_row_too_long_to_sort_is_refused_with_its_line(two_threads: Options) -> None:
    with pytest.raises(UnsupportedOpError, match=r"5000 elements(.|\n)*4096(.|\n)*test_scans.py:\d+"):
        mkwrap.compile(lambda x: x.sort(0), (torch.zeros(5000),), target="cpu", options=two_threads)
