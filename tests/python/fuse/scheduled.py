"""Runs a schedule on the numpy interpreter: canonical kernels over parameters, temporaries in one shared arena."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import sympy
import torch
import torch.utils._pytree as pytree

from mkwrap.capture import capture
from mkwrap.fuse import fuse
from mkwrap.fuse.offsets import ALIGNMENT
from mkwrap.ir.interpret import allocate, evaluate_all, interpret_nest, sizes_of_call
from mkwrap.ir.nodes import Buffer, Role
from mkwrap.ir.numeric import Array, storage_type
from mkwrap.ir.verify import verify
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.stages import OutputKind, Program, Schedule
from tests.python.lower.differential import Function, to_memory, to_tensor


def schedule_of(
    fn: Function, args: Sequence[object], dynamic_shapes: object = None
) -> tuple[Schedule, tuple[str, ...]]:
    """Capture, lower and fuse; returns the schedule and the input names."""
    captured = capture(fn, tuple(args), {}, dynamic_shapes, RULES)
    schedule = fuse(lower(captured))
    sizes = {spec.symbol for spec in schedule.program.symbols}
    for kernel in schedule.kernels.values():
        verify(kernel.nest, {p.buffer.name: p.buffer for p in kernel.parameters}, sizes)
    return schedule, tuple(spec.name for spec in captured.inputs)


def run_schedule(schedule: Schedule, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Execute every step at the sizes of the inputs; returns the memory of every buffer."""
    program = schedule.program
    sizes = sizes_of_call(program.symbols, {name: array.shape for name, array in inputs.items()})
    (arena_bytes,) = evaluate_all((schedule.arena_bytes,), sizes)
    arena = np.full(arena_bytes + 64, 0xA5, np.uint8)
    memory: dict[str, Array] = {}
    for name, buffer in program.buffers.items():
        if buffer.role is Role.INPUT:
            memory[name] = inputs[name]
        elif buffer.role is Role.CONSTANT:
            memory[name] = program.constants[name].data.view(storage_type(buffer.dtype))
        elif buffer.role is Role.OUTPUT:
            memory[name] = allocate(buffer, sizes)
        elif name in schedule.placements:
            (start,) = evaluate_all((schedule.placements[name],), sizes)
            assert start % ALIGNMENT == 0
            memory[name] = arena[start : start + (len(arena) - start) // 8 * 8].view(storage_type(buffer.dtype))
    for step in schedule.steps:
        kernel = schedule.kernels[step.kernel]
        views = {
            p.buffer.name: _view(
                memory[name], evaluate_all(p.buffer.shape, sizes), evaluate_all(p.buffer.strides, sizes)
            )
            for p, name in zip(kernel.parameters, step.buffers, strict=True)
        }
        interpret_nest(kernel.nest, views, sizes)
    return memory


def _view(base: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
    if 0 in shape:
        return np.empty(shape, base.dtype)
    return np.lib.stride_tricks.as_strided(base, shape, [step * base.itemsize for step in strides])


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
    sizes = sizes_of_call(program.symbols, {name: tensor.shape for name, tensor in inputs.items()})
    leaves: list[object] = []
    for spec in program.outputs:
        match spec.kind:
            case OutputKind.BUFFER:
                leaves.append(read(program.buffers[spec.buffer]))
            case OutputKind.INPUT_VIEW:
                source = inputs[spec.buffer]
                shape, strides = evaluate_all(spec.shape, sizes), evaluate_all(spec.strides, sizes)
                (offset,) = evaluate_all((sympy.sympify(spec.offset),), sizes)
                leaves.append(source.as_strided(shape, strides, source.storage_offset() + offset).clone())
            case OutputKind.SAME:
                leaves.append(leaves[spec.same_as])
            case OutputKind.VALUE:
                leaves.append(spec.value)
    return leaves
