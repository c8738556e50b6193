"""On a real GPU: choices left open, made there, against eager."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

import mkwrap
from mkwrap import Options, errors

pytestmark = [pytest.mark.cuda, pytest.mark.toolchain]


class Block(torch.nn.Module):
    """A product with a weight, a norm, a softmax over rows, a sum over columns, rows by index."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(512, 768))

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = F.gelu(F.layer_norm(x @ self.weight, (768,)))
        return y, torch.softmax(x, -1), x.sum(0), x[index]


@pytest.fixture(scope="module")
def block() -> Block:
    torch.manual_seed(0)
    return Block().cuda()


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1000, 512, device="cuda"), torch.randint(0, 1000, (300,), device="cuda")


def agree(model: mkwrap.Model, block: Block, inputs: tuple[torch.Tensor, ...]) -> None:
    for got, expected in zip(model(*inputs), block(*inputs), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)


def test_a_choice_left_open_is_made_on_the_gpu(
    block: Block, inputs: tuple[torch.Tensor, ...], shared_cache: Path, tmp_path: Path
) -> None:
    options = Options(tune="quick", cache_dir=shared_cache, progress=False)
    opened = mkwrap.compile(block, inputs, options=replace(options, tune="later"))
    agree(opened, block, inputs)
    # No compiler, and a cache that knows nothing.
    elsewhere = replace(options, cache_dir=tmp_path / "cache", cxx="no-such-compiler")
    closed = mkwrap.tune_library(opened.path, tmp_path / "tuned.so", elsewhere)
    agree(closed, block, inputs)
    assert closed.path.stat().st_size < opened.path.stat().st_size
    assert all(k.variants[0].median_us is not None for k in closed.report.kernels if len(k.variants) > 1)
    assert not any(kernel.is_open for kernel in closed.report.kernels)
    again = mkwrap.load(opened.path, tune=True, options=elsewhere)
    assert again.report == closed.report
    # Measured at compile time on the same device it elects variants as fast: the medians are of the same contests.
    measured = mkwrap.compile(block, inputs, options=options)
    agree(measured, block, inputs)
    for one, other in zip(closed.report.kernels, measured.report.kernels, strict=True):
        times = {row.variant: row.median_us for row in one.variants if row.median_us is not None}
        if one.winner in times and other.winner in times:
            assert times[one.winner] <= 1.25 * times[other.winner], (one.name, one.winner, other.winner)


def test_c41_the_fitting_architecture_of_several_runs(
    block: Block, inputs: tuple[torch.Tensor, ...], shared_cache: Path, tmp_path: Path
) -> None:
    major, minor = torch.cuda.get_device_capability()
    here, other = f"cuda:sm_{major}{minor}", "cuda:sm_80" if (major, minor) != (8, 0) else "cuda:sm_90"
    options = Options(tune="quick", cache_dir=shared_cache, progress=False)
    both = mkwrap.compile(block, inputs, target=[other, here], options=options)
    agree(both, block, inputs)
    assert [kernel.is_open for kernel in both.report.kernels if kernel.arch == other.removeprefix("cuda:")]
    if major >= 9:
        foreign = mkwrap.compile(block, inputs, target=other, options=options)
        foreign.save(tmp_path / "foreign.so")
        with pytest.raises(errors.ArchitectureError, match=rf"sm_80; this device .* is sm_{major}{minor}"):
            mkwrap.load(tmp_path / "foreign.so")
        with pytest.raises(errors.ArchitectureError, match=rf"sm_80; this device .* is sm_{major}{minor}"):
            mkwrap.tune_library(tmp_path / "foreign.so", tmp_path / "tuned.so", options)


def test_c22_choices_of_dynamic_sizes_left_open_are_made_on_the_gpu(shared_cache: Path, tmp_path: Path) -> None:
    rows, cols = Dim("rows", min=1, max=100_000), Dim("cols", min=1, max=8192)

    def program(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.softmax(x, -1), (x * x).sum(0), torch.relu(x @ w)

    def arguments(rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(rows, cols, device="cuda"), torch.randn(cols, 96, device="cuda") / cols**0.5

    def compiled(options: Options) -> mkwrap.Model:
        dims = ({0: rows, 1: cols}, {0: cols})
        return mkwrap.compile(program, arguments(64, 512), dynamic_shapes=dims, options=options)

    def check(model: mkwrap.Model) -> None:
        for size in ((1, 1), (64, 512), (64, 511), (3, 8192), (70_000, 16), (4096, 1000), (513, 130)):
            args = arguments(*size)
            for got, expected in zip(model(*args), program(*args), strict=True):
                torch.testing.assert_close(got, expected, rtol=5e-3, atol=5e-3)
            said = mkwrap.explain(model, rows=size[0], cols=size[1]).kernels
            assert tuple(kernel.alternative for kernel in said) == model.elected(args)

    hints = {"rows": [1, 64, 4096], "cols": [16, 512, 4096]}
    options = Options(tune="quick", cache_dir=shared_cache, progress=False, hints=hints)
    opened = compiled(replace(options, tune="later"))
    assert all(kernel.is_open for kernel in opened.report.kernels)
    check(opened)
    # No compiler, and a cache that knows nothing.
    elsewhere = replace(options, cache_dir=tmp_path / "cache", cxx="no-such-compiler")
    closed = mkwrap.tune_library(opened.path, tmp_path / "tuned.so", elsewhere)
    check(closed)
    assert closed.path.stat().st_size < opened.path.stat().st_size
    assert not any(kernel.is_open for kernel in closed.report.kernels)
    for kernel in closed.report.kernels:
        assert any(point.median_us is not None for point in kernel.points)
    # The record made without a compiler answers a compile, which elects the same.
    assert closed.save_tuning(tmp_path / "rows.jsonl") == len(closed.report.kernels)
    recorded = compiled(replace(options, tuning=tmp_path / "rows.jsonl", require_tuning=True))
    check(recorded)
    for one, other in zip(closed.report.kernels, recorded.report.kernels, strict=True):
        assert one.points == other.points
