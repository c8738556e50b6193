"""Timing CPU kernels: samples, rotation, zeroing, restoring."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mkwrap import _C, errors

pytestmark = pytest.mark.toolchain

KERNELS = """
#include <stdint.h>
#include <unistd.h>
int32_t add(void* const* args, const int64_t* sizes) {
  float* x = args[0];
  for (int64_t i = 0; i < sizes[0]; ++i) x[i] += 1;
  return 0;
}
int32_t count(void* const* args, const int64_t* sizes) {
  (void)sizes;
  ++*(int64_t*)args[0];
  return *(unsigned char*)args[1] != 0;
}
int32_t slow(void* const* args, const int64_t* sizes) {
  (void)args; (void)sizes;
  usleep(2000);
  return 1;
}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "k.c").write_text(KERNELS)
    subprocess.run(["gcc", "-O2", "-fPIC", "-shared", "k.c", "-o", "k.so"], cwd=folder, check=True)
    return str(folder / "k.so")


def at(array: npt.NDArray[np.generic]) -> int:
    return int(array.ctypes.data)


def test_run(kernels: str) -> None:
    x, y = np.zeros(4, np.float32), np.zeros(4, np.float32)
    kernel = _C.CpuKernel(kernels, "add", [[at(x)], [at(y)]], sizes=[3])
    assert [kernel.run(which) for which in (0, 1, 2)] == [0, 0, 0]
    assert (x.tolist(), y.tolist()) == ([2, 2, 2, 0], [1, 1, 1, 0])
    assert _C.CpuKernel(kernels, "slow", [[]]).run() == 1


def test_samples(kernels: str) -> None:
    x = np.zeros(4096, np.float32)
    fast = _C.CpuKernel(kernels, "add", [[at(x)]], sizes=[16])
    slow = _C.CpuKernel(kernels, "slow", [[]])
    samples = _C.time_cpu([fast, slow], rounds=3, batch_us=500.0)
    assert [len(s) for s in samples] == [3, 3]
    assert max(samples[0]) < 50
    assert min(samples[1]) >= 2000


def test_calls_zero_and_rotation(kernels: str) -> None:
    counts = np.zeros(2, np.int64)
    flags = np.full(4, 255, np.uint8)
    lists = [[at(counts), at(flags)], [at(counts) + 8, at(flags)]]
    kernel = _C.CpuKernel(kernels, "count", lists, zero=[(at(flags), 2)])
    _C.time_cpu([kernel], rounds=5, calls=[4])
    assert counts.tolist() == [10, 15], "four timed calls and one untimed, with the last list, in each round"
    assert flags.tolist() == [0, 0, 255, 255]
    assert kernel.run() == 0


def test_restore(kernels: str) -> None:
    x, fresh = np.zeros(2, np.float32), np.full(2, 10, np.float32)
    kernel = _C.CpuKernel(kernels, "add", [[at(x)]], sizes=[2])
    _C.time_cpu([kernel], rounds=3, calls=[5], restore=[(at(x), at(fresh), 8)])
    assert x.tolist() == [16, 16], "the fresh values and one round"


def test_pin(kernels: str) -> None:
    kernel = _C.CpuKernel(kernels, "slow", [[]])
    assert len(_C.time_cpu([kernel], rounds=1, calls=[1], pin=[min(os.sched_getaffinity(0))])[0]) == 1
    with pytest.raises(OSError, match="sched_setaffinity"):
        _C.time_cpu([kernel], rounds=1, calls=[1], pin=[1000])


def test_errors(kernels: str, tmp_path: Path) -> None:
    with pytest.raises(errors.CompilerError, match=r"missing\.so"):
        _C.CpuKernel(str(tmp_path / "missing.so"), "add", [[0]])
    with pytest.raises(errors.CompilerError, match="no entry subtract"):
        _C.CpuKernel(kernels, "subtract", [[0]])
    with pytest.raises(ValueError, match="argument list"):
        _C.CpuKernel(kernels, "slow", [])
    with pytest.raises(ValueError, match="one number per kernel"):
        _C.time_cpu([_C.CpuKernel(kernels, "slow", [[]])], rounds=1, calls=[1, 2])


@pytest.mark.skipif(bool(_C.cuda_devices()), reason="there is a CUDA device")
def test_r4_no_driver() -> None:
    assert _C.cuda_devices() == []
    with pytest.raises(errors.DriverError, match="CUDA"):
        _C.CudaContext()
