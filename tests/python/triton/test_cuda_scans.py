"""Every variant of scans on a real GPU: against the numpy oracle, and many runs of one that looks back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from mkwrap import _C
from mkwrap.ir.dtypes import DType
from mkwrap.options import Options
from mkwrap.stages import Binary, Kernel
from mkwrap.targets import cuda
from tests.python.triton.nests import BF16, F32, F64, associative, scan, sort
from tests.python.triton.oracle import Memory, answer, compare, copy, fill, sources
from tests.python.triton.test_cuda_kernels import launch_all
from tests.python.triton.test_scan import several, softmax_then_cumsum

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not _C.cuda_devices(), reason="no CUDA device, or no driver for it"),
]

I64, I8 = DType.INT64, DType.INT8
CASES: dict[str, Callable[[], Kernel]] = {
    **{f"{op}_rows": partial(scan, op, 100, 3000) for op in ("sum", "prod", "cummax", "cummin", "logaddexp")},
    **{f"{op}_long": partial(scan, op, 2, 300_001) for op in ("sum", "cummax", "cummin", "logaddexp")},
    **{f"{op}_columns": partial(scan, op, 300, 200, outer=True) for op in ("sum", "cummax", "logaddexp")},
    **{f"{op}_tall": partial(scan, op, 130, 9001, outer=True) for op in ("sum", "cummin", "logaddexp")},
    **{
        f"{op}_{dtype.value}": partial(scan, op, 3, 70_000, dtype)
        for op in ("sum", "cummax")
        for dtype in (F64, I64, I8)
    },
    **{
        f"sum_{rows}x{n}": partial(scan, "sum", rows, n)
        for rows, n in ((1, 1), (1, 33), (5000, 3), (300, 20_000), (3000, 40_000))
    },
    "sum_3_700_000": lambda: scan("sum", 1, 3_700_000),
    "sum_2^26": lambda: scan("sum", 1, 2**26, I64),
    "cummax_2^24": lambda: scan("cummax", 1, 2**24),
    **{f"sort_{n}_{dtype.value}": partial(sort, 300, n, dtype, n > 100) for n in (17, 300) for dtype in (F32, F64, I8)},
    "scan_small": lambda: scan("sum", 2, 20_001),
    "scan_small_columns": lambda: scan("cummax", 40, 700, outer=True),
    "sort_4096": lambda: sort(100, 4096),
    "sort_columns": lambda: sort(300, 500, outer=True),
    "linear": lambda: associative(2, 100_000),
    "linear_columns": lambda: associative(200, 3000, outer=True),
    "several": lambda: several(3, 100_000),
    "softmax_then_cumsum": lambda: softmax_then_cumsum(100, 3000),
    "softmax_then_long_cumsum": lambda: softmax_then_cumsum(3, 40_000),
}


def filled(case: Kernel) -> Memory:
    """Factors near 1, so that products of many stay finite."""
    memory = fill(case)
    if "prod" in case.name or case.name in ("linear", "several"):
        for k, flat in memory.items():
            if flat.is_floating_point() and not flat.isnan().any():
                memory[k] = flat.clamp(-1, 1) * 0.01 + (0.5 if "prod" in case.name else 0.99)
    return memory


@pytest.mark.parametrize("name", CASES)
def test_every_variant_equals_the_oracle(name: str) -> None:
    """Three runs each: states and counters of one run are gone before the next (C14)."""
    case = CASES[name]()
    target, context = cuda.resolve("cuda", Options()), _C.CudaContext(0)
    memory = filled(case)
    want = answer(case, memory)
    greatest = max(float(flat.double().nan_to_num(0, 0, 0).abs().max()) for flat in want.values() if flat.numel())
    floats = any(p.buffer.dtype.is_float for p in case.parameters)
    room = 2e-2 if any(p.buffer.dtype is BF16 for p in case.parameters) else 3e-5 if floats else 0.0
    room = 1e-12 if any(p.buffer.dtype is F64 for p in case.parameters) else room
    for source in sources(case, target.device):
        binary = target.compile(source)
        assert isinstance(binary, Binary), binary
        got = copy(memory)
        launch_all(context, binary, got, runs=3)
        compare(case, got, want, room, room * max(greatest, 1.0), label=source.variant.label)


def test_c15_a_thousand_runs_of_a_look_back_agree_and_end() -> None:
    """Integers, so that every order of sums gives the same bits."""
    case = scan("sum", 7, 200_001, I64)
    target, context = cuda.resolve("cuda", Options()), _C.CudaContext(0)
    memory = fill(case)
    want = answer(case, memory)
    for source in sources(case, target.device, ["split_scan"]):
        binary = target.compile(source)
        assert isinstance(binary, Binary), binary
        got = copy(memory)
        launch_all(context, binary, got, runs=1000)
        compare(case, got, want, 0.0, 0.0, label=source.variant.label)


def test_c30_nan_sticks_in_every_variant() -> None:
    target, context = cuda.resolve("cuda", Options()), _C.CudaContext(0)
    for op in ("cummax", "cummin", "sum", "logaddexp"):
        case = scan(op, 3, 50_000)
        memory = fill(case)
        rows = memory[0].view(3, 50_000)
        rows[0, 30_000], rows[0, 40_000], rows[1, 0], rows[2, -1] = np.nan, np.nan, np.nan, np.nan
        rows[2, :20_000] = -np.inf
        want = answer(case, memory)
        for source in sources(case, target.device):
            binary = target.compile(source)
            assert isinstance(binary, Binary), binary
            got = copy(memory)
            launch_all(context, binary, got)
            compare(case, got, want, 3e-5, 3e-2, label=source.variant.label)
