"""Differential testing: run a function eagerly and through mkwrap, and compare every leaf of the result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.utils._pytree as pytree

from mkwrap.capture import capture
from mkwrap.ir.dtypes import DType
from mkwrap.ir.interpret import Leaf, interpret
from mkwrap.ir.numeric import Array
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.stages import OutputKind, Program

Function = Callable[..., object]
Backend = Callable[[Function, Sequence[object]], list[object]]
"""`backend(fn, args)` runs the compiled function, changes mutated arguments in place, returns the result's leaves."""

# Twice what eager itself differs by between its own kernels: sums are reordered, and 16-bit results may round apart.
TOLERANCE: Mapping[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (2e-5, 2e-5),
    torch.float16: (2e-3, 2e-3),
    torch.bfloat16: (1.6e-2, 1.6e-2),
}


def to_memory(tensor: torch.Tensor) -> Array:
    """View a CPU tensor as numpy memory with the same strides; bfloat16 as uint16 bits."""
    plain = tensor.detach()
    if plain.dtype is torch.bfloat16:
        plain = plain.view(torch.uint16)
    array: Array = plain.numpy()
    return array


def to_tensor(memory: Array, dtype: DType) -> torch.Tensor:
    """Copy numpy memory into a tensor of a dtype."""
    plain = torch.from_numpy(np.ascontiguousarray(memory).reshape(memory.shape))
    return plain.view(torch.bfloat16) if dtype is DType.BFLOAT16 else plain.clone()


def lowered(fn: Function, args: Sequence[object]) -> tuple[Program, list[str]]:
    """Capture and lower; returns the program and the names of its inputs in order of the tensor arguments."""
    captured = capture(fn, tuple(args), {}, None, RULES.keys())
    return lower(captured), [spec.name for spec in captured.inputs]


def interpreted(fn: Function, args: Sequence[object]) -> list[object]:
    """Backend: the numpy interpreter on the lowered, unfused program."""
    program, names = lowered(fn, args)
    tensors = [leaf for leaf in pytree.tree_leaves(tuple(args)) if isinstance(leaf, torch.Tensor)]
    memory = {name: to_memory(tensor) for name, tensor in zip(names, tensors, strict=True)}
    return [_leaf(program, k, leaf) for k, leaf in enumerate(interpret(program, memory))]


def _leaf(program: Program, k: int, leaf: Leaf) -> object:
    spec = program.outputs[k]
    while spec.kind is OutputKind.SAME:
        spec = program.outputs[spec.same_as]
    return to_tensor(leaf, spec.dtype) if isinstance(leaf, np.ndarray) else leaf


BACKENDS: Mapping[str, Backend] = {"interpret": interpreted}


def check(
    fn: Function,
    *args: object,
    rtol: float | None = None,
    atol: float | None = None,
    backend: str = "interpret",
) -> None:
    """Compare values, dtypes, shapes and structure of `fn(*args)`, and mutated arguments, with eager's.

    Arguments are copied for each run, with their strides. Tolerances are by dtype where not given; integers are exact.
    """
    ours, theirs = copy.deepcopy(args), copy.deepcopy(args)
    with torch.no_grad():
        expected, _ = pytree.tree_flatten(fn(*theirs))
    actual = BACKENDS[backend](fn, ours)
    assert len(actual) == len(expected), f"{len(actual)} leaves, eager has {len(expected)}"
    pairs = [(f"result {k}", a, e) for k, (a, e) in enumerate(zip(actual, expected, strict=True))]
    flat_ours, flat_theirs = pytree.tree_leaves(ours), pytree.tree_leaves(theirs)
    pairs += [(f"argument {k}", a, e) for k, (a, e) in enumerate(zip(flat_ours, flat_theirs, strict=True))]
    for what, a, e in pairs:
        same(a, e, what, rtol, atol)


def same(actual: object, expected: object, what: str, rtol: float | None = None, atol: float | None = None) -> None:
    """Assert that two leaves agree: tensors within tolerance (NaN equals NaN), others exactly."""
    if not isinstance(expected, torch.Tensor):
        assert (type(actual), actual) == (type(expected), expected), f"{what}: {actual!r}, eager has {expected!r}"
        return
    assert isinstance(actual, torch.Tensor), f"{what}: {type(actual)}, eager has a tensor"
    own_rtol, own_atol = TOLERANCE.get(expected.dtype, (0.0, 0.0))
    torch.testing.assert_close(
        actual,
        expected,
        rtol=own_rtol if rtol is None else rtol,
        atol=own_atol if atol is None else atol,
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )
