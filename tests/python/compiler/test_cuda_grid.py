"""Issue 3, must hold 2, on a real GPU: every forced variant of a grid of reductions and scans equals eager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from tests.python.compiler.forced import candidates_of
from tests.python.triton.grid import INTEGER_SCANS, INTEGERS, SCANS, VIEWS, Point, check_point, points

import mkwrap
from mkwrap import _C, Options
from mkwrap.stages import Binary, BufferArgument, Source, WorkspaceArgument
from mkwrap.targets import resolve
from mkwrap.targets.target import Target

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not _C.cuda_devices(), reason="no CUDA device, or no driver for it"),
]

SIZES = (1, 7, 10, 100, 1000, 1023, 10_000, 65_537, 100_000, 1_000_000, 1 << 24)
POINTS = (
    *points(SIZES, 1 << 24),
    *points((1, 10, 1000, 65_537, 1 << 24), 1 << 24, SCANS, INTEGER_SCANS),
)
PER_TEST = 6


class Launcher:
    """Compiles a source and runs it on device tensors."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = _C.CudaContext(0)

    def __call__(self, source: Source, memory: Mapping[int, torch.Tensor]) -> None:
        """Run every launch in order and wait; a workspace starts as zeros where asked for, else as garbage."""
        binary = self._target.compile(source)
        assert isinstance(binary, Binary), binary
        start = 0 if source.zero_workspace else 0xFF
        workspace = torch.full((int(source.workspace_bytes) + 64,), start, dtype=torch.uint8, device="cuda")
        launches = []
        for image, launch in zip(binary.images, source.launches, strict=True):
            assert image.global_scratch_bytes == 0
            args: list[_C.CudaArgument] = []
            for argument in launch.args:
                if isinstance(argument, BufferArgument):
                    args.append(("ptr", memory[argument.parameter].data_ptr()))
                elif isinstance(argument, WorkspaceArgument):
                    args.append(("ptr", workspace.data_ptr() + int(argument.offset)))
            function = self._context.load(image.blob, image.entry, image.shared_bytes)
            grid = (int(launch.grid[0]), 1, 1)
            launches.append(function.launch(grid, image.threads, image.shared_bytes, [*args, ("ptr", 0), ("ptr", 0)]))
        torch.cuda.synchronize()
        self._context.run(launches)


@pytest.mark.parametrize("first", range(0, len(POINTS), PER_TEST), ids=lambda first: str(POINTS[first]))
def test_every_forced_variant_equals_eager(first: int) -> None:
    target = resolve("cuda", Options())
    launch = Launcher(target)
    for number, point in enumerate(POINTS[first : first + PER_TEST]):
        check_point(point, target.device, "cuda", launch, small=number % 3 == 0)


@pytest.mark.parametrize("shape", [(100, 3003), (4, 120_000), (20_000, 45)], ids=str)
def test_c33_reductions_of_views_equal_eager(shape: tuple[int, int]) -> None:
    target = resolve("cuda", Options())
    launch = Launcher(target)
    for name, function in VIEWS.items():
        check_point(Point(name, function, shape, 1, torch.float32), target.device, "cuda", launch)


def test_c15_programs_that_count_themselves_in_survive_a_thousand_runs_on_two_streams(quick: Options) -> None:
    x = torch.randn(3, 1 << 18, device="cuda")
    (kernel,) = candidates_of(total, (x,), quick, "cuda").variants.items()
    label = next(variant.label for variant in kernel[1] if "single=True" in variant.label)
    model = mkwrap.compile(total, (x,), options=replace(quick, force={kernel[0]: label}))
    first = model(x)
    torch.testing.assert_close(first, total(x), rtol=1e-4, atol=1e-2)
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    for _ in range(500):
        results = []
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(model(x))
        torch.cuda.synchronize()
        assert all(torch.equal(result, first) for result in results)


def total(x: torch.Tensor) -> torch.Tensor:
    return x.sum(1)


@pytest.mark.parametrize(
    ("shape", "dim"), [((2**31 + 77,), 0), ((2**24 + 3, 130), 0), ((130, 2**24 + 3), 1)], ids=["all", "columns", "rows"]
)
@pytest.mark.parametrize("name", ["sum", "argmin"])
def test_c28_more_than_2_to_31_elements_in_every_variant(name: str, shape: tuple[int, ...], dim: int) -> None:
    target = resolve("cuda", Options())
    assert (
        check_point(Point(name, INTEGERS[name], shape, dim, torch.int8), target.device, "cuda", Launcher(target)) >= 2
    )


def test_the_grid_has_every_axis_dtype_and_operation() -> None:
    assert {point.dtype for point in POINTS} == {torch.float32, torch.bfloat16, torch.int64}
    assert {len(point.shape) for point in POINTS} == {2, 3}
    assert max(max(point.shape) for point in POINTS) == 1 << 24
