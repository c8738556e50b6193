"""Libraries that the whole compiler made for a GPU, launched on the fake driver: each launch fits its cubin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.python.wrapper.fakes import has_cuda_header, run_on_fake

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
