"""On a real GPU: dynamic shapes tuned at several sizes equal eager around every point, whatever variant is elected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
import torch
import torch.nn.functional as F
from tests.python.compiler.forced import kernels_of
from tests.python.lower.differential import same
from torch.export import Dim

import mkwrap
from mkwrap import Model, Options

pytestmark = pytest.mark.cuda

ROWS, COLS = Dim("rows", min=1, max=100_000), Dim("cols", min=1, max=8192)
HINTS = {"rows": [1, 64, 4096], "cols": [16, 1000]}


def block(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.layer_norm(x, (x.shape[-1],))) + x


CASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "pointwise": lambda x: torch.relu(x + 1) * x,
    "softmax": lambda x: torch.softmax(x, -1),
    "layer norm, gelu, residual": block,
    "column sums": lambda x: (x * x).sum(0),
    "running sums": lambda x: torch.cumsum(x, -1),
    "transposed": lambda x: x.t().contiguous() + 1,
}


def tuned(
    fn: Callable[..., torch.Tensor], args: Sequence[torch.Tensor], dims: Sequence[object], options: Options
) -> Model:
    return mkwrap.compile(fn, tuple(args), dynamic_shapes=tuple(dims), options=options)


def around(hints: Sequence[int], most: int) -> list[int]:
    """Return 1, each hint and its neighbours, the means of neighbours, and a size beyond them."""
    means = [math.isqrt(a * b) for a, b in pairwise(hints)]
    sizes = {1, *means, *(hint + step for hint in hints for step in (-1, 0, 1)), min(most, 2 * hints[-1] + 1)}
    return sorted(size for size in sizes if 1 <= size <= most)


@pytest.mark.parametrize("name", CASES)
def test_c21_around_every_point_the_result_equals_eager(name: str, quick: Options) -> None:
    fn = CASES[name]
    options = replace(quick, tune="quick", hints=HINTS)
    model = tuned(fn, [torch.randn(64, 256, device="cuda")], [{0: ROWS, 1: COLS}], options)
    assert all(kernel["points"] for kernel in kernels_of(model))
    for rows in around([1, 64, 4096], 100_000):
        for cols in (1, 15, 16, 17, 126, 128, 999, 1000, 1024, 2001):
            x = torch.randn(rows, cols, device="cuda")
            same(model(x), fn(x), f"{name} {rows}×{cols}", 1e-4, 1e-4)


@pytest.mark.parametrize("name", ["softmax", "column sums", "running sums"])
def test_variants_that_were_tuned_equal_eager_where_they_are_forced(name: str, quick: Options) -> None:
    fn, args, dims = CASES[name], [torch.randn(64, 256, device="cuda")], [{0: ROWS, 1: COLS}]
    options = replace(quick, tune="quick", hints=HINTS)
    for kernel in kernels_of(tuned(fn, args, dims, options)):
        labels = {str(t["variant"]) for point in kernel["points"] for t in point["timings"]}  # type: ignore[attr-defined]
        # Each takes a compile: some are enough, drawn anew for each program.
        for label in Random(name).sample(sorted(labels), min(len(labels), 6)):
            forced = tuned(fn, args, dims, replace(options, force={str(kernel["name"]): label}))
            for rows, cols in ((1, 1), (3, 17), (64, 1000), (65, 1024), (4097, 33)):
                x = torch.randn(rows, cols, device="cuda")
                same(forced(x), fn(x), f"{label} {rows}×{cols}", 1e-4, 1e-4)


def test_c25_a_product_of_few_rows_runs_what_was_tuned_for_few(quick: Options) -> None:
    def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x @ w

    x = torch.randn(16, 8192, device="cuda", dtype=torch.bfloat16)
    w = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) / 90
    dims = [{0: Dim("rows", min=1, max=16384)}, None]
    model = tuned(product, [x, w], dims, replace(quick, tune="quick", hints={"rows": [16, 4096]}))
    (kernel,) = kernels_of(model)
    points: Mapping[int, str] = {p["at"]["rows"]: p["winner"] for p in kernel["points"]}  # type: ignore[attr-defined]
    for rows in (1, 15, 16, 17, 100, 256, 4095, 4096, 4097):
        y = torch.randn(rows, 8192, device="cuda", dtype=torch.bfloat16)
        same(model(y, w).float(), product(y, w).float(), f"{rows} rows", 2e-2, 2e-2)
    (few,) = mkwrap.explain(model, rows=15).kernels
    assert few.variant == points[16]


def test_c29_rows_beyond_the_limit_of_a_grid_s_second_axis(quick: Options) -> None:
    options = replace(quick, tune="quick", hints={"rows": [64, 4096]})
    for name in ("softmax", "column sums", "transposed"):
        model = tuned(CASES[name], [torch.randn(64, 8, device="cuda")], [{0: ROWS}], options)
        x = torch.randn(99_999, 8, device="cuda")
        same(model(x), CASES[name](x), name, 1e-3, 1e-3)
