"""The fake driver, built for Python tests, and libraries run on it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mkwrap.errors import CompilerError
from mkwrap.toolchain.headers import cuda_include, include_dir

ROOT = Path(__file__).parents[3]


def has_cuda_header() -> bool:
    """Whether cuda.h and ptxas are there."""
    try:
        cuda_include()
    except CompilerError:
        return False
    return True


def build_runner(folder: Path) -> Path:
    """Build the fake driver and the program that runs any library on it."""
    tests = ROOT / "tests" / "cpp"
    flags = ["-std=c++17", "-O0", "-I", str(include_dir()), "-I", str(cuda_include()), "-I", str(tests)]
    fake = [str(tests / "fake_driver" / name) for name in ("fake_driver.cpp", "cubin.cpp", "errors.cpp")]
    shared = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(["g++", *flags, *fake, *shared], check=True)
    program = [str(tests / "run_any.cpp"), *map(str, (ROOT / "csrc" / "loader").glob("*.cpp"))]
    subprocess.run(
        ["g++", *flags, "-I", str(ROOT / "csrc"), *program, "-ldl", "-o", str(folder / "run_any")], check=True
    )
    return folder / "run_any"


def run_on_fake(
    runner: Path, library: Path | str, arch: str = "90", *more: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run libraries twice each on zeros; prints a line per launch: entry, grid, threads, bytes of shared memory.

    A library is a path, or `path@SHAPES` where its sizes are dynamic (tests/cpp/run_any.cpp).
    """
    variables = {
        **os.environ,
        "LD_LIBRARY_PATH": str(runner.parent),
        "FAKE_DRIVER_ARCH": arch,
        "FAKE_DRIVER_LOG": "1",
        **environment,
    }
    return subprocess.run([runner, library, *more], env=variables, capture_output=True, text=True, check=False)
