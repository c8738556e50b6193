"""What test_time_cuda.py runs in a process whose CUDA driver is the stub."""

from __future__ import annotations

import array
import ctypes
import gc
import re
import sys
from collections.abc import Callable

import pytest

from mkwrap import _C, errors

CUBIN = b"\x7fELF and the rest"


def alive() -> int:
    return int(ctypes.CDLL("libcuda.so.1").stub_alive())


def fails(error: type[Exception], text: str, call: Callable[..., object], *args: object) -> None:
    with pytest.raises(error, match=re.escape(text)):
        call(*args)


def read(context: _C.CudaContext, address: int, count: int) -> list[float]:
    values = array.array("f", [0.0] * count)
    context.download(address, values)
    return values.tolist()


def memory(context: _C.CudaContext) -> None:
    x = context.allocate(16)
    y = context.allocate(16)
    context.upload(x, array.array("f", [1, 2, 3, 4]))
    context.copy(y, x, 16)
    context.fill(x, 0, 8)
    assert read(context, x, 4) == [0, 0, 3, 4]
    assert read(context, y, 4) == [1, 2, 3, 4]
    fails(BufferError, "", context.download, x, b"read-only bytes!")
    context.free(x)
    fails(ValueError, "not allocated", context.free, x)


def launches(context: _C.CudaContext) -> None:
    fails(errors.DriverError, "cuModuleLoadData", context.load, b"text", "add")
    fails(errors.DriverError, "cuModuleGetFunction failed with CUDA_ERROR_NOT_FOUND (500)", context.load, CUBIN, "sub")
    fails(errors.DriverError, "cuFuncSetAttribute", context.load, CUBIN, "add", 300_000)
    function = context.load(CUBIN, "add", 100_000)
    assert (function.registers, function.local_bytes) == (24, 8)
    x = context.allocate(32)
    context.fill(x, 0, 32)
    launch = function.launch((1, 1, 1), 8, 0, [("ptr", x), ("i32", 5), ("i64", -3)])
    context.run([launch, launch])
    assert read(context, x, 8) == [-6] * 5 + [0] * 3
    context.run([(x, 0, 4), launch])
    assert read(context, x, 3) == [-3, -9, -9]
    nothing = function.launch((0, 1, 1), 8, 0, [("ptr", x), ("i32", 5), ("i64", 1)])
    context.run([nothing])
    assert read(context, x, 3) == [-3, -9, -9]
    fails(ValueError, "not f32", function.launch, (1, 1, 1), 8, 0, [("f32", 1)])
    too_small = function.launch((1, 1, 1), 4, 0, [("ptr", x), ("i32", 5), ("i64", 1)])
    fails(errors.DriverError, "cuLaunchKernel", context.run, [too_small])


def timing(context: _C.CudaContext) -> None:
    function = context.load(CUBIN, "add")
    x, y, fresh = (context.allocate(4) for _ in range(3))
    for address in (x, y, fresh):
        context.fill(address, 0, 4)

    def add(address: int, step: int) -> _C.CudaLaunch:
        return function.launch((1, 1, 1), 1, 0, [("ptr", address), ("i32", 1), ("i64", step)])

    one = [[add(x, 1)], [add(y, 1)]]
    two = [[add(x, 0), add(x, 0)]]
    replays = [_C.CudaReplay(context, one, unroll=5), _C.CudaReplay(context, two, unroll=5)]
    samples = _C.time_cuda(context, replays, rounds=3)
    assert samples == [[1000.0] * 3, [2000.0] * 3], samples
    # Two replays a round, of which three runs of five are on x and two on y.
    assert (read(context, x, 1), read(context, y, 1)) == ([18], [12])
    _C.time_cuda(context, [_C.CudaReplay(context, one, unroll=2)], rounds=2, restore=[(x, fresh, 4)])
    assert read(context, x, 1) == [1]
    too_small = function.launch((1, 1, 1), 1, 0, [("ptr", x), ("i32", 2), ("i64", 1)])
    fails(errors.DriverError, "cuLaunchKernel", _C.CudaReplay, context, [[too_small]], 1)
    fails(ValueError, "at least one run", _C.CudaReplay, context, [], 1)
    assert _C.time_cuda(context, replays[1:], rounds=1) == [[2000.0]], "usable after a failure"


def comparing(context: _C.CudaContext) -> None:
    """Compare more than two pieces of device memory with bytes on the host."""
    count = (5 << 20) // 2
    bits = array.array("H", range(1000)) * -(-count // 1000)
    expected = bits[:count]
    x = context.allocate(2 * count)
    context.upload(x, expected[:1000])
    context.repeat(x, 2000, 2 * count)
    reference = _C.Reference("uint16", expected, 0.0)
    assert context.compare(x, reference) == (0, 0)
    for place in (count - 1, (4 << 20) // 2, 7):
        context.fill(x + 2 * place, 0xFF, 2)
    assert context.compare(x, reference) == (3, 7)
    got = array.array("H", [0]) * count
    context.download(x, got)
    assert [k for k in range(count) if got[k] != expected[k]] == [7, (4 << 20) // 2, count - 1]
    fails(ValueError, "nothing to repeat", context.repeat, x, 0, 8)


def main() -> None:
    (device,) = _C.cuda_devices()
    assert device == (0, "Stub", (9, 0), 132, 232448, 50 << 20, 80 << 30, 13000)
    assert device.multiprocessors == 132
    fails(errors.DriverError, "cuDeviceGet", _C.CudaContext, 3)
    before = alive()
    context = _C.CudaContext(0)
    memory(context)
    launches(context)
    timing(context)
    comparing(context)
    function = context.load(CUBIN, "add")
    del context
    assert function.registers == 24, "a function keeps its context"
    del function
    gc.collect()
    assert alive() == before
    assert "torch" not in sys.modules


main()
