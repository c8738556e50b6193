"""Libraries that the whole compiler made for a GPU, launched on the fake driver: each launch fits its cubin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.python.wrapper.fakes import has_cuda_header, run_on_fake
from torch.export import Dim

import mkwrap

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif(not has_cuda_header(), reason="no triton, hence neither cuda.h nor ptxas"),
]


def _mixed(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = torch.softmax(x @ w + 1, -1)
    return y, x.sum(0), torch.nn.functional.layer_norm(x, (x.shape[-1],)).relu()


def test_every_launch_fits_its_cubin(runner: Path, tmp_path: Path) -> None:
    options = mkwrap.Options(tune="off", cache_dir=tmp_path / "cache")
    model = mkwrap.compile(_mixed, (torch.randn(64, 32), torch.randn(32, 48)), target="cuda:sm_90", options=options)
    model.save(tmp_path / "model.so")
    done = run_on_fake(runner, tmp_path / "model.so")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("launches: ")[1]) >= 6, done.stdout  # two runs of three kernels or more

    for call in ("cuModuleLoadData", "cuLaunchKernel"):
        done = run_on_fake(runner, tmp_path / "model.so", FAKE_DRIVER_FAIL=call)
        assert done.returncode == 1
        assert f"{call} failed with CUDA_ERROR_UNKNOWN" in done.stderr


SIZES = ((64, 32), (1, 1), (0, 32), (3, 700), (65, 48), (4096, 17), (70_000, 16))


def _by_sizes(x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.softmax(x + bias, -1), x.sum(0), x.cumsum(0)


@pytest.mark.slow
def test_c29_every_launch_of_dynamic_sizes_fits_its_cubin_and_the_device(runner: Path, tmp_path: Path) -> None:
    rows, cols = Dim("rows", min=0, max=2**20), Dim("cols", min=1, max=2**13)
    hints = {"rows": [64, 4096], "cols": [32, 1024]}
    options = mkwrap.Options(tune="off", hints=hints, cache_dir=tmp_path / "cache")
    example = (torch.randn(64, 32), torch.randn(32))
    shapes = ({0: rows, 1: cols}, {0: cols})
    model = mkwrap.compile(_by_sizes, example, dynamic_shapes=shapes, target="cuda:sm_90", options=options)
    model.save(tmp_path / "model.so")
    calls = [f"{tmp_path / 'model.so'}@{n}x{k}/{k}x1,{k}/1" for n, k in SIZES]
    done = run_on_fake(runner, calls[0], "90", *calls[1:])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" ran\n") == len(SIZES)
    launches = [line for line in done.stdout.splitlines() if line.startswith("launch ")]
    assert len({line.split()[2] for line in launches}) > 3  # grids follow the sizes
