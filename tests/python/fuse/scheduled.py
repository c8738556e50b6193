"""Runs a schedule on the numpy interpreter: canonical kernels over parameters, temporaries in one shared arena."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.utils._pytree as pytree

from mkwrap.capture import capture
from mkwrap.fuse import fuse
from mkwrap.ir.interpret import allocate, interpret_nest
from mkwrap.ir.nodes import Buffer, Role
from mkwrap.ir.numeric import Array, storage_type
from mkwrap.ir.verify import verify
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.stages import OutputKind, Program, Schedule
from tests.python.lower.differential import Function, to_memory, to_tensor


def schedule_of(fn: Function, args: Sequence[object]) -> tuple[Schedule, tuple[str, ...]]:
    """Capture, lower and fuse; returns the schedule and the input names."""
    captured = capture(fn, tuple(args), {}, None, RULES)
    schedule = fuse(lower(captured))
    for kernel in schedule.kernels.values():
        verify(kernel.nest, {p.buffer.name: p.buffer for p in kernel.parameters})
    return schedule, tuple(spec.name for spec in captured.inputs)


def run_schedule(schedule: Schedule, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Execute every step; returns the memory of every buffer."""
    arena = np.full(int(schedule.arena_bytes) + 64, 0xA5, np.uint8)
    memory: dict[str, Array] = {}
    program = schedule.program
    for name, buffer in program.buffers.items():
        if buffer.role is Role.INPUT:
            memory[name] = inputs[name]
        elif buffer.role is Role.CONSTANT:
            memory[name] = program.constants[name].data.view(storage_type(buffer.dtype))
        elif buffer.role is Role.OUTPUT:
            memory[name] = allocate(buffer, {})
        elif name in schedule.placements:
            start = int(schedule.placements[name])
            memory[name] = arena[start:].view(storage_type(buffer.dtype)) if start % 8 == 0 else arena
    for step in schedule.steps:
        kernel = schedule.kernels[step.kernel]
        views = {
            p.buffer.name: _view(memory[name], p.buffer.shape, p.buffer.strides)
            for p, name in zip(kernel.parameters, step.buffers, strict=True)
        }
        interpret_nest(kernel.nest, views)
    return memory


def _view(base: Array, shape: Sequence[object], strides: Sequence[object]) -> Array:
    extents = [int(n) for n in shape]  # type: ignore[call-overload]
    steps = [int(s) * base.itemsize for s in strides]  # type: ignore[call-overload]
    if 0 in extents:
        return np.empty(extents, base.dtype)
    return np.lib.stride_tricks.as_strided(base, extents, steps)


def scheduled(fn: Function, args: Sequence[object]) -> list[object]:
    """Differential backend: the fused, scheduled program."""
    schedule, names = schedule_of(fn, args)
    tensors = [leaf for leaf in pytree.tree_leaves(tuple(args)) if isinstance(leaf, torch.Tensor)]
    inputs = dict(zip(names, tensors, strict=True))
    memory = run_schedule(schedule, {name: to_memory(tensor) for name, tensor in inputs.items()})
    return leaves_of(schedule.program, inputs, lambda buffer: to_tensor(memory[buffer.name], buffer.dtype))


def leaves_of(
    program: Program, inputs: Mapping[str, torch.Tensor], read: Callable[[Buffer], torch.Tensor]
) -> list[object]:
    """Return the leaves of the result; `read` gives an output buffer's tensor."""
    leaves: list[object] = []
    for spec in program.outputs:
        match spec.kind:
            case OutputKind.BUFFER:
                leaves.append(read(program.buffers[spec.buffer]))
            case OutputKind.INPUT_VIEW:
                source = inputs[spec.buffer]
                shape, strides = [int(n) for n in spec.shape], [int(s) for s in spec.strides]
                leaves.append(source.as_strided(shape, strides, source.storage_offset() + int(spec.offset)).clone())
            case OutputKind.SAME:
                leaves.append(leaves[spec.same_as])
            case OutputKind.VALUE:
                leaves.append(spec.value)
    return leaves
