"""Issue 3, must hold 2, on a real GPU: every forced variant of a grid of reductions equals eager."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from tests.python.triton.grid import check_point, points

from mkwrap import _C, Options
from mkwrap.stages import Binary, BufferArgument, Source, WorkspaceArgument
from mkwrap.targets import resolve
from mkwrap.targets.target import Target

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not _C.cuda_devices(), reason="no CUDA device, or no driver for it"),
]

SIZES = (1, 7, 10, 100, 1000, 1023, 10_000, 65_537, 100_000, 1_000_000, 1 << 24)
POINTS = tuple(points(SIZES, 1 << 24))
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
    for point in POINTS[first : first + PER_TEST]:
        check_point(point, target.device, "cuda", launch)


def test_the_grid_has_every_axis_dtype_and_operation() -> None:
    assert {point.dtype for point in POINTS} == {torch.float32, torch.bfloat16, torch.int64}
    assert {len(point.shape) for point in POINTS} == {2, 3}
    assert max(max(point.shape) for point in POINTS) == 1 << 24
