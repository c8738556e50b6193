"""The CUDA half of the binding against a driver whose device is the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.toolchain
def test_cuda_without_a_gpu(tmp_path: Path) -> None:
    here = Path(__file__).parent
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"]
    library = str(tmp_path / "libcuda.so.1")
    subprocess.run(["g++", *flags, str(here / "stub_driver.cpp"), "-o", library], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, str(here / "cuda_scenario.py")],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
