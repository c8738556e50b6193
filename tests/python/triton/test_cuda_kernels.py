"""Every variant of hand-built kernels on a real GPU, against the numpy oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch

from mkwrap import _C
from mkwrap.ir.dtypes import DType
from mkwrap.options import Options
from mkwrap.stages import Binary, BufferArgument, FaultArgument, Kernel, WorkspaceArgument
from mkwrap.targets import cuda
from tests.python.triton.nests import (
    BF16,
    F16,
    F32,
    F64,
    group_norm_sums,
    layer_norm,
    log_sum_exp,
    padded_gather,
    product,
    reduction,
    scalar_op,
    softmax,
    spread,
    transpose,
)
from tests.python.triton.oracle import Memory, answer, compare, copy, fill, short_split, sources, walking
from tests.python.triton.test_reductions import infinite_rows, with_special_rows

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not _C.cuda_devices(), reason="no CUDA device, or no driver for it"),
]

UNARY = (
    "exp",
    "log",
    "sin",
    "tanh",
    "erf",
    "erfinv",
    "lgamma",
    "digamma",
    "sqrt",
    "rsqrt",
    "sigmoid",
    "round",
    "expm1",
)
CASES: dict[str, Callable[[], Kernel]] = {
    **{op: partial(scalar_op, op, F32, 5000) for op in UNARY},
    **{f"{op}_f64": partial(scalar_op, op, F64, 5000) for op in UNARY},
    "floordiv": lambda: scalar_op("floordiv", F32, 5000),
    "mod": lambda: scalar_op("mod", F32, 5000),
    "shl": lambda: scalar_op("shl", DType.INT32, 500),
    "shr": lambda: scalar_op("shr", DType.INT8, 500),
    "transpose": lambda: transpose(300, 700, BF16),
    "transpose_f32": lambda: transpose(512, 512, F32),
    "softmax": lambda: softmax(700, 4096, BF16),
    "softmax_odd": lambda: softmax(300, 1000, F32),
    "softmax_columns": lambda: softmax(500, 60, outer=True),
    "softmax_split": lambda: softmax(2, 100_000),
    "softmax_in_place": lambda: softmax(300, 3000, in_place=True),
    "layer_norm": lambda: layer_norm(200, 4096, BF16),
    "layer_norm_odd": lambda: layer_norm(100, 777, F32),
    "layer_norm_split": lambda: layer_norm(1, 50_000),
    "group_sums": lambda: group_norm_sums(8, 4, 6, 100),
    **{f"{op}_rows": partial(reduction, op, 100, 3000) for op in ("sum", "maximum", "argmax", "argmin", "welford")},
    **{f"{op}_columns": partial(reduction, op, 300, 200, outer=True) for op in ("sum", "minimum", "argmin", "welford")},
    **{f"{op}_split": partial(reduction, op, 2, 300_000) for op in ("sum", "argmax", "welford", "maximum")},
    "log_sum_exp": lambda: log_sum_exp(300, 1500),
    "log_sum_exp_columns": lambda: log_sum_exp(400, 300, outer=True),
    "kept_in_a_workspace": lambda: spread(30, 5000),
    "kept_in_a_result": lambda: spread(30, 5000, "value"),
    "kept_in_a_later_result": lambda: spread(3, 50_000, "result"),
    "sum_tall": lambda: reduction("sum", 200, 20_000, outer=True),
    "prod": lambda: reduction("prod", 50, 60, DType.INT64),
    "any": lambda: reduction("maximum", 50, 600, DType.BOOL),
    "max_int8": lambda: reduction("maximum", 50, 600, DType.INT8),
    "mm_bf16": lambda: product(300, 200, 500, BF16),
    "mm_f16": lambda: product(256, 512, 256, F16, transposed=False, activation="tanh"),
    "mm_f32": lambda: product(200, 300, 333, F32),
    "mm_batch": lambda: product(100, 64, 96, BF16, batch=5),
    "mm_f64": lambda: product(100, 64, 96, F64),
    "mm_int8": lambda: product(100, 64, 96, DType.INT8),
    "mv": lambda: product(1, 500, 600, BF16),
}
ROOMS = {BF16: (3e-2, 3e-2), F16: (5e-3, 5e-3), F32: (2e-4, 2e-4), F64: (1e-9, 1e-9)}


def launch_all(context: _C.CudaContext, binary: Binary, memory: Memory, runs: int = 1) -> None:
    """Run a static binary on device copies of the memory, and bring everything back."""
    places = {k: context.allocate(max(flat.nbytes, 16)) for k, flat in memory.items()}
    workspace = context.allocate(int(binary.source.workspace_bytes) + 64)
    start = 0 if binary.source.zero_workspace else 0xFF
    context.fill(workspace, start, int(binary.source.workspace_bytes) + 64)
    fault = context.allocate(4)
    context.fill(fault, 0, 4)
    bytes_of = {k: flat.view(torch.uint8).numpy() for k, flat in memory.items() if flat.numel()}
    for k, data in bytes_of.items():
        context.upload(places[k], data)
    launches: list[_C.CudaLaunch | _C.CudaFill] = []
    if binary.source.zero_workspace:
        launches.append((workspace, 0, int(binary.source.workspace_bytes)))
    for image, launch in zip(binary.images, binary.source.launches, strict=True):
        assert image.global_scratch_bytes == 0
        args: list[_C.CudaArgument] = []
        for argument in launch.args:
            if isinstance(argument, BufferArgument):
                args.append(("ptr", places[argument.parameter]))
            elif isinstance(argument, WorkspaceArgument):
                args.append(("ptr", workspace + int(argument.offset)))
            elif isinstance(argument, FaultArgument):
                args.append(("ptr", fault))
            else:
                args.append(("i32" if argument.dtype is DType.INT32 else "i64", int(argument.expr)))
        loaded = context.load(image.blob, image.entry, image.shared_bytes)
        grid = (int(launch.grid[0]), 1, 1)
        launches.append(loaded.launch(grid, image.threads, image.shared_bytes, [*args, ("ptr", 0), ("ptr", 0)]))
    for _ in range(runs):
        context.run(launches)
    for k, data in bytes_of.items():
        context.download(places[k], data)
    word = np.zeros(1, np.int32)
    context.download(fault, word.data)
    assert not word[0], "an index out of range"
    for place in (*places.values(), workspace, fault):
        context.free(place)


def check(case: Kernel, memory: Memory, names: Sequence[str] = (), most: int = 99) -> None:
    target = cuda.resolve("cuda", Options())
    context = _C.CudaContext(0)
    want = answer(case, memory)
    coarsest = max((ROOMS[p.buffer.dtype] for p in case.parameters if p.buffer.dtype in ROOMS), default=(0.0, 0.0))
    for source in (*sources(case, target.device, names, most), *short_split(case), *walking(case)):
        binary = target.compile(source)
        assert isinstance(binary, Binary), binary
        got = copy(memory)
        launch_all(context, binary, got)
        compare(case, got, want, *coarsest, label=source.variant.label)


@pytest.mark.parametrize("name", CASES)
def test_every_variant_equals_the_oracle(name: str) -> None:
    case = CASES[name]()
    memory = fill(case)
    if name in ("log", "log_f64", "sqrt", "sqrt_f64", "rsqrt", "rsqrt_f64"):
        memory[0] = memory[0].abs() + 0.01
    if name.startswith("erfinv"):
        memory[0] = memory[0].clamp(-0.99, 0.99)
    check(case, memory)


@pytest.mark.parametrize("op", ["maximum", "minimum", "argmax", "argmin"])
@pytest.mark.parametrize("shape", [(5, 700), (5, 20_000)])
def test_c30_nan_and_ties_in_every_variant(op: str, shape: tuple[int, int]) -> None:
    case = reduction(op, *shape)
    check(case, with_special_rows(case, shape[1]))


def test_indices_are_clamped_and_masked() -> None:
    case = padded_gather(100, 33)
    memory = fill(case)
    memory[1] %= 7
    check(case, memory)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("make", [softmax, log_sum_exp])
def test_c31_rows_of_infinities_in_every_variant(make: Callable[..., Kernel], outer: bool) -> None:
    case = make(300, 1000, outer=outer)
    check(case, infinite_rows(case))
