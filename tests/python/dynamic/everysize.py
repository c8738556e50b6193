"""Compiles a function to a schedule once, with dynamic sizes, and runs it on the interpreter at any size, as a call would."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.utils._pytree as pytree

from mkwrap.capture import capture
from mkwrap.fuse import fuse
from mkwrap.ir.interpret import evaluate_all, sizes_of_call
from mkwrap.ir.verify import verify
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.stages import CapturedGraph, Relation, Schedule
from tests.python.fuse.scheduled import leaves_of, run_schedule
from tests.python.lower.differential import Function, same, to_memory, to_tensor


class OutOfRangeError(Exception):
    """A call whose sizes the program is not for."""


@dataclass(frozen=True)
class Dynamic:
    """A function with dynamic sizes, fused."""

    fn: Function
    captured: CapturedGraph
    schedule: Schedule

    def run(self, *args: object) -> list[object]:
        """Check the arguments as a call does and run the schedule; raises `OutOfRangeError`."""
        tensors = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)]
        program = self.schedule.program
        inputs = {spec.name: tensor for spec, tensor in zip(program.inputs, tensors, strict=True)}
        sizes = sizes_of_call(program.symbols, {name: tensor.shape for name, tensor in inputs.items()})
        for spec in program.symbols:
            if not spec.low <= sizes[spec.symbol] <= spec.high:
                raise OutOfRangeError(f"{spec.symbol} is {sizes[spec.symbol]}, not {spec.low} … {spec.high}")
        for relation in program.relations:
            if not holds(relation, *evaluate_all((relation.left, relation.right), sizes)):
                raise OutOfRangeError(f"{relation.left} {relation.op} {relation.right}, asked for at {relation.origin}")
        for spec in program.inputs:
            tensor = inputs[spec.name]
            if evaluate_all(spec.shape, sizes) != tuple(tensor.shape):
                raise OutOfRangeError(f"{spec.path} is {tuple(tensor.shape)}, not {spec.shape}")
            strides = evaluate_all(spec.strides, sizes)
            pairs = zip(strides, tensor.stride(), tensor.shape, strict=True)
            if tensor.numel() and not all(a == b or n == 1 for a, b, n in pairs):
                raise OutOfRangeError(f"{spec.path} has strides {tensor.stride()}, not {spec.strides}")
        memory = run_schedule(self.schedule, {name: to_memory(tensor) for name, tensor in inputs.items()})
        return leaves_of(program, inputs, lambda buffer: to_tensor(memory[buffer.name], buffer.dtype))

    def check(self, *args: object) -> None:
        """Compare with eager: the leaves of the result, and mutated arguments."""
        ours, theirs = copy.deepcopy(args), copy.deepcopy(args)
        with torch.no_grad():
            expected, _ = pytree.tree_flatten(self.fn(*theirs))
        actual = self.run(*ours)
        assert len(actual) == len(expected)
        shapes = [tuple(t.shape) for t in pytree.tree_leaves(args) if isinstance(t, torch.Tensor)]
        for k, (a, e) in enumerate(zip(actual, expected, strict=True)):
            same(a, e, f"result {k} for inputs of {shapes}")
        for k, (a, e) in enumerate(zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True)):
            same(a, e, f"argument {k} for inputs of {shapes}")


def holds(relation: Relation, left: int, right: int) -> bool:
    """Whether a relation holds between two numbers."""
    return {"==": left == right, "!=": left != right, "<": left < right, "<=": left <= right}[relation.op]


def dynamic(fn: Function, args: Sequence[object], dynamic_shapes: object) -> Dynamic:
    """Capture, lower and fuse with dynamic sizes; every kernel is verified."""
    captured = capture(fn, tuple(args), {}, dynamic_shapes, RULES)
    schedule = fuse(lower(captured))
    sizes = {spec.symbol for spec in schedule.program.symbols}
    for kernel in schedule.kernels.values():
        verify(kernel.nest, {p.buffer.name: p.buffer for p in kernel.parameters}, sizes)
    return Dynamic(fn, captured, schedule)
