"""Contests on a CUDA device: on a driver whose device is the host, and on a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mkwrap

ROOT = Path(__file__).parents[3]


@pytest.mark.toolchain
def test_c14_c37_a_contest_clears_workspaces_holds_one_kernels_memory_and_gives_it_back(tmp_path: Path) -> None:
    stub = ROOT / "tests" / "python" / "binding" / "stub_driver.cpp"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]
    subprocess.run(["g++", *flags, str(stub), "-o", str(tmp_path / "libcuda.so.1")], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "cuda_bench_scenario.py")],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _softmax(cache: Path, rows: int, columns: int, dtype: torch.dtype) -> None:
    x = torch.randn(rows, columns, device="cuda").to(dtype)
    mkwrap.compile(lambda x: torch.softmax(x, -1), (x,), options=mkwrap.Options(cache_dir=cache))


@pytest.mark.cuda
@pytest.mark.alone
def test_c37_nothing_stays_allocated_on_the_device_after_compile(tmp_path: Path) -> None:
    torch.cuda.init()
    _softmax(tmp_path, 64, 1000, torch.float32)
    free, _ = torch.cuda.mem_get_info()
    _softmax(tmp_path, 8192, 4096, torch.bfloat16)
    torch.cuda.empty_cache()
    assert free - torch.cuda.mem_get_info()[0] < 32 << 20
