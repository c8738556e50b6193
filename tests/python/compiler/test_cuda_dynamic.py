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


def test_c23_sizes_that_are_expressions_equal_eager(quick: Options) -> None:
    def derived(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # 64 rows, rows + 1, and rows × columns elements.
        return x.reshape(-1) * 2, F.pad(x[:, 0], (0, 1)) + 1, (x[:, :1] * y).reshape(-1)

    args = (torch.randn(6, 64, device="cuda"), torch.randn(9, device="cuda"))
    hints = [{"rows": 3, "cols": 5}, {"rows": 1000, "cols": 70}]
    model = mkwrap.compile(
        derived, args, dynamic_shapes=({0: ROWS}, {0: COLS}), options=replace(quick, tune="quick", hints=hints)
    )
    for rows, cols in ((1, 1), (3, 5), (6, 9), (999, 70), (1000, 71), (4097, 129)):
        pair = torch.randn(rows, 64, device="cuda"), torch.randn(cols, device="cuda")
        for number, both in enumerate(zip(model(*pair), derived(*pair), strict=True)):
            same(*both, f"result {number} at {rows}, {cols}", 1e-5, 1e-5)


def test_c24_products_with_surroundings_equal_eager_and_are_chosen_by_their_own_size(quick: Options) -> None:
    x, w = (torch.randn(*shape, device="cuda", dtype=torch.bfloat16) for shape in ((96, 256), (256, 512)))
    bias = torch.randn(512, device="cuda", dtype=torch.bfloat16)
    square = torch.randn(96, 96, device="cuda", dtype=torch.bfloat16)
    options = replace(quick, tune="quick", hints={"rows": [8, 512]})
    cases: list[tuple[Callable[..., torch.Tensor], list[torch.Tensor], list[object]]] = [
        (lambda x, w: x @ w, [x, w], [{0: ROWS}, None]),
        (lambda x, w, b: torch.relu(x @ w + b), [x, w, bias], [{0: ROWS}, None, None]),
        (lambda x, w: x.t() @ w, [x.t().contiguous(), w], [{1: ROWS}, None]),
        (lambda x: x @ x, [square], [{0: ROWS, 1: ROWS}]),
    ]
    for fn, args, dims in cases:
        model = tuned(fn, args, dims, options)
        for row in mkwrap.explain(model, rows=5).kernels:
            assert set(row.symbols) <= {"rows"}
        for rows in (1, 7, 8, 9, 64, 511, 512, 513):
            first = torch.randn(*(rows if s == 96 else s for s in args[0].shape), device="cuda").bfloat16()
            given = [first, *args[1:]]
            same(model(*given).float(), fn(*given).float(), f"{rows} rows", 2e-2, 2e-1)


def test_c26_the_cap_bounds_what_is_measured(quick: Options) -> None:
    hints = {"rows": [1, 64, 4096], "cols": [16, 100, 1000]}
    options = replace(quick, tune="quick", hints=hints, max_points=4)
    model = tuned(CASES["softmax"], [torch.randn(64, 100, device="cuda")], [{0: ROWS, 1: COLS}], options)
    assert (len(model.report.points), len(model.report.left_out)) == (4, 5)
    for rows, cols in ((1, 16), (64, 100), (65, 101), (4096, 1000)):
        x = torch.randn(rows, cols, device="cuda")
        same(model(x), torch.softmax(x, -1), f"{rows}×{cols}", 1e-4, 1e-4)
