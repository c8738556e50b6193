"""Libraries that the whole compiler made for a GPU, launched on the fake driver: each launch fits its cubin."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap.errors import CompilerError
from mkwrap.toolchain.headers import cuda_include, include_dir

ROOT = Path(__file__).parents[3]


def _has_cuda_header() -> bool:
    try:
        cuda_include()
    except CompilerError:
        return False
    return True


pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++"),
    pytest.mark.skipif(not _has_cuda_header(), reason="no triton, hence neither cuda.h nor ptxas"),
]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the fake driver and the program that runs any library on it."""
    folder = tmp_path_factory.mktemp("fake")
    tests = ROOT / "tests" / "cpp"
    flags = ["-std=c++17", "-O0", "-I", str(include_dir()), "-I", str(cuda_include()), "-I", str(tests)]
    fake = [str(tests / "fake_driver" / name) for name in ("fake_driver.cpp", "cubin.cpp")]
    shared = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(["g++", *flags, *fake, *shared], check=True)
    program = [str(tests / "run_any.cpp"), *map(str, (ROOT / "csrc" / "loader").glob("*.cpp"))]
    subprocess.run(
        ["g++", *flags, "-I", str(ROOT / "csrc"), *program, "-ldl", "-o", str(folder / "run_any")], check=True
    )
    return folder / "run_any"


def _mixed(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = torch.softmax(x @ w + 1, -1)
    return y, x.sum(0), torch.nn.functional.layer_norm(x, (x.shape[-1],)).relu()


def test_every_launch_fits_its_cubin(runner: Path, tmp_path: Path) -> None:
    options = mkwrap.Options(tune="off", cache_dir=tmp_path / "cache")
    model = mkwrap.compile(_mixed, (torch.randn(64, 32), torch.randn(32, 48)), target="cuda:sm_90", options=options)
    model.save(tmp_path / "model.so")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(runner.parent), "FAKE_DRIVER_ARCH": "90"}
    done = subprocess.run([runner, tmp_path / "model.so"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("launches: ")[1]) >= 6, done.stdout  # two runs of three kernels or more

    for call in ("cuModuleLoadData", "cuLaunchKernel"):
        failing = {**environment, "FAKE_DRIVER_FAIL": call}
        done = subprocess.run([runner, tmp_path / "model.so"], env=failing, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"{call} failed with CUDA_ERROR_UNKNOWN" in done.stderr
