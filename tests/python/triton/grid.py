"""A grid of reductions and scans: rows and columns by decades, three axes, three dtypes, every operation in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.utils._pytree import tree_leaves

from mkwrap.ir.nodes import Role
from mkwrap.stages import Device, Kernel, OutputKind, Schedule, Source
from tests.python.fuse.scheduled import schedule_of
from tests.python.triton.oracle import short_split, sources, torch_dtype, view, walking

Function: TypeAlias = Callable[[torch.Tensor, int], object]
Launch: TypeAlias = Callable[[Source, Mapping[int, torch.Tensor]], None]
"""`launch(source, memory)` runs a source on flat tensors, one per kernel parameter."""

FLOATS: Mapping[str, Function] = {
    "sum": lambda x, dim: x.sum(dim),
    "softmax": lambda x, dim: torch.softmax(x * 4, dim),
    "max with indices": lambda x, dim: x.max(dim),
    "var_mean": lambda x, dim: torch.var_mean(x, dim, correction=0),
    "argmin": lambda x, dim: x.argmin(dim),
    "logsumexp": lambda x, dim: torch.logsumexp(x * 4, dim),
    "amin and amax": lambda x, dim: (x.amin(dim), x.amax(dim)),
}
INTEGERS: Mapping[str, Function] = {
    "sum": lambda x, dim: x.sum(dim),
    "max with indices": lambda x, dim: x.max(dim),
    "argmin": lambda x, dim: x.argmin(dim),
    "amin and amax": lambda x, dim: (x.amin(dim), x.amax(dim)),
}
SCANS: Mapping[str, Function] = {
    "cumsum": lambda x, dim: x.cumsum(dim),
    "cummax": lambda x, dim: x.cummax(dim),
    "logcumsumexp": lambda x, dim: torch.logcumsumexp(x * 4, dim),
    "cummin": lambda x, dim: x.cummin(dim),
    "share so far": lambda x, dim: torch.softmax(x * 4, dim).cumsum(dim),
}
INTEGER_SCANS: Mapping[str, Function] = {
    "cumsum": lambda x, dim: x.cumsum(dim),
    "cummax": lambda x, dim: x.cummax(dim),
    "cumprod": lambda x, dim: x.cumprod(dim),
    "cummin": lambda x, dim: x.cummin(dim),
}
VIEWS: Mapping[str, Function] = {
    "every other column": lambda x, dim: x[:, ::2].sum(dim),
    "transposed": lambda x, dim: x.t().amax(dim),
    "expanded": lambda x, dim: x[:, None, :].expand(-1, 3, -1).sum((dim, 2)),
    "one row in": lambda x, dim: x[1:, 1:].max(dim),
    "flipped": lambda x, dim: x.flip(1).argmin(dim),
    "first and third axis": lambda x, dim: x.view(2, -1, 3, x.shape[1] // 3).sum((0, dim + 1)),
    "last axes swapped": lambda x, dim: torch.softmax(x.view(-1, 3, x.shape[1] // 3).mT, dim + 1),
    "all": lambda x, dim: torch.var_mean(x, correction=dim - 1),
}
"""Reductions of views of a matrix with an even number of rows, and columns that 3 divides, along dimension 1."""
ACCURACY = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.int64: 0.0, torch.int8: 0.0}
DTYPES = (torch.float32, torch.bfloat16, torch.int64)
AXES = ("inner", "outer", "middle")


@dataclass(frozen=True)
class Point:
    """A reduction or scan of dimension `dim` of an array of a shape."""

    name: str
    function: Function
    shape: tuple[int, ...]
    dim: int
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.name} along {self.dim} of {self.shape} {self.dtype}"

    def make(self, device: str) -> torch.Tensor:
        """Numbers from 0 to 1 with few digits, so that there are ties; integers of either sign."""
        generator = torch.Generator(device).manual_seed(math.prod(self.shape) + self.dim)
        if self.dtype is torch.int64:
            return torch.randint(-(2**40), 2**40, self.shape, generator=generator, device=device)
        if self.dtype is torch.int8:
            return torch.randint(-128, 128, self.shape, generator=generator, device=device, dtype=torch.int8)
        return torch.randint(0, 1 << 14, self.shape, generator=generator, device=device).to(self.dtype) / (1 << 14)


def points(
    sizes: Sequence[int],
    most: int,
    floats: Mapping[str, Function] = FLOATS,
    integers: Mapping[str, Function] = INTEGERS,
) -> Iterator[Point]:
    """Every axis of every pair of sizes whose product is at most `most`; operations and dtypes take turns."""
    turn = 0
    for rows in sizes:
        for length in sizes:
            if rows * length > most:
                continue
            for axis in AXES:
                dtype = DTYPES[turn % 3]
                table = integers if dtype is torch.int64 else floats
                name = tuple(table)[turn // 3 % len(table)]
                yield Point(name, table[name], *_shape(axis, rows, length), dtype)
                turn += 1


def _shape(axis: str, rows: int, length: int) -> tuple[tuple[int, ...], int]:
    if axis == "inner":
        return (rows, length), 1
    if axis == "outer":
        return (length, rows), 0
    inner = next(k for k in range(math.isqrt(rows), 0, -1) if rows % k == 0)
    return (rows // inner, length, inner), 1


def check_point(point: Point, device: Device, place: str, launch: Launch, small: bool = True) -> int:
    """Compare every choice of variants with eager; returns how many there were.

    `small`: also what is offered for larger sizes only, in small tiles.
    """
    x = point.make(place)
    expected = tree_leaves(point.function(x.double() if x.is_floating_point() else x, point.dim))
    schedule, (argument,) = schedule_of(lambda x: point.function(x, point.dim), (x,))
    choices = {name: every_source(kernel, device, small) for name, kernel in schedule.kernels.items()}
    most = max(map(len, choices.values()), default=1)
    for k in range(most):
        picked = {kernel: found[k % len(found)] for kernel, found in choices.items()}
        labels = ", ".join(source.variant.label for source in picked.values())
        results = _run(schedule, {argument: x.reshape(-1)}, picked, launch)
        room = ACCURACY[point.dtype]
        for got, want in zip(results, expected, strict=True):
            message = f"{point}: {labels}"
            torch.testing.assert_close(
                got, want.to(got.dtype), rtol=room, atol=room, msg=lambda text, m=message: f"{m}\n{text}"
            )
    return most


def every_source(kernel: Kernel, device: Device, small: bool) -> list[Source]:
    """Every variant that is offered, and those that are offered for larger sizes only."""
    return [*sources(kernel, device), *(short_split(kernel) if small else ()), *(walking(kernel) if small else ())]


def _run(
    schedule: Schedule, inputs: Mapping[str, torch.Tensor], picked: Mapping[str, Source], launch: Launch
) -> list[torch.Tensor]:
    buffers = schedule.program.buffers
    memory = dict(inputs)
    (x,) = inputs.values()
    for name, buffer in buffers.items():
        if name not in memory:
            assert buffer.role is not Role.CONSTANT
            count = max(int(buffer.storage_elements), 1)
            memory[name] = torch.empty(count, dtype=torch_dtype(buffer.dtype), device=x.device)
    for step in schedule.steps:
        launch(picked[step.kernel], {k: memory[name] for k, name in enumerate(step.buffers)})
    outputs = schedule.program.outputs
    assert all(spec.kind is OutputKind.BUFFER for spec in outputs)
    return [view(memory[spec.buffer], buffers[spec.buffer]) for spec in outputs]
