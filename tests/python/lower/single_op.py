"""Runs one rule alone: op(*args) lowered by its rule and interpreted, compared with the op itself in eager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy
import torch
import torch.utils._pytree as pytree
from tests.python.lower.differential import to_memory, to_tensor

from mkwrap.ir.interpret import allocate, interpret_nest
from mkwrap.ir.nodes import Buffer, Role
from mkwrap.ir.numeric import Array
from mkwrap.ir.verify import verify
from mkwrap.lower import RULES
from mkwrap.lower.lowering import Lowering, dtype_of
from mkwrap.lower.tensor import TensorValue, whole


class Inputs:
    """Turns tensors into input buffers of a lowering, sizes into expressions."""

    def __init__(self) -> None:
        self.low = Lowering()
        self.memory: dict[str, Array] = {}

    def take(self, leaf: object) -> object:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        shape = tuple(sympy.Integer(n) for n in leaf.shape)
        strides = tuple(sympy.Integer(n) for n in leaf.stride())
        buffer = Buffer(f"x{len(self.memory)}", dtype_of(leaf.dtype), shape, strides, Role.INPUT)
        self.low.buffers[buffer.name] = buffer
        self.memory[buffer.name] = to_memory(leaf)
        return whole(buffer)


def lower_op(
    op: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[Inputs, list[TensorValue | None]]:
    """Apply the rule of an op; returns the lowering's state and the results."""
    inputs = Inputs()
    own_args, own_kwargs = pytree.tree_map(inputs.take, (tuple(args), dict(kwargs)))
    result = RULES[op](inputs.low, *own_args, **own_kwargs)
    return inputs, [result] if isinstance(result, TensorValue) else list(result)


def run_op(op: torch._ops.OpOverload, *args: object, **kwargs: object) -> list[torch.Tensor | None]:
    """Lower an op, verify and interpret its nests; returns the results (None where the rule gives none)."""
    inputs, values = lower_op(op, args, kwargs)
    low, memory = inputs.low, inputs.memory
    outputs = []
    for k, value in enumerate(values):
        if value is None:
            outputs.append(None)
            continue
        buffer = Buffer(f"out{k}", value.dtype, value.shape, whole_strides(value), Role.OUTPUT)
        low.buffers[buffer.name] = buffer
        low.write_into(buffer, value)
        outputs.append(buffer)
    memory.update({name: allocate(b, {}) for name, b in low.buffers.items() if name not in memory})
    for nest in low.nests:
        verify(nest, low.buffers)
        interpret_nest(nest, memory)
    return [None if b is None else to_tensor(memory[b.name], b.dtype) for b in outputs]


def whole_strides(value: TensorValue) -> tuple[sympy.Expr, ...]:
    meta = torch.empty([int(n) for n in value.shape], device="meta")
    return tuple(sympy.Integer(n) for n in meta.stride())


def spell(value: object) -> str:
    """Spell an argument in a test's name."""
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else str(value)[:20]


def check_op(
    op: torch._ops.OpOverload, *args: object, rtol: float | None = None, atol: float | None = None, **kwargs: object
) -> None:
    """Compare every result's dtype, shape and values with eager's; tolerances are torch's by dtype where not given."""
    expected = op(*pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, args), **kwargs)
    expected = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    actual = run_op(op, *args, **kwargs)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol, equal_nan=True)
