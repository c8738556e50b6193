"""Runs rendered Triton on CPU memory with Triton's own interpreter; libdevice is numpy here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sympy
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, interpreter_builder

from mkwrap.codegen.triton.spelling import SIGNATURE
from mkwrap.errors import IndexRangeError
from mkwrap.ir.dtypes import DType
from mkwrap.points import source_at
from mkwrap.stages import BufferArgument, FaultArgument, Source, WorkspaceArgument
from triton import knobs

TORCH: Mapping[DType, torch.dtype] = {dtype: getattr(torch, dtype.value) for dtype in DType}


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        tensors = [a for a in args if isinstance(a, tl.tensor)]
        kind = tensors[0].dtype
        with np.errstate(all="ignore"):
            data = np.asarray(function(*[a.handle.data if isinstance(a, tl.tensor) else a for a in args]))
        data = data.astype(tensors[0].handle.data.dtype)
        shape = list(data.shape)
        # The interpreter keeps scalars as arrays of one element.
        is_block = any(t.type.is_block() for t in tensors)
        return tl.tensor(TensorHandle(data, kind), tl.block_type(kind, shape) if is_block else kind)

    return call


def _vectorized(function: Callable[..., float]) -> Callable[..., Any]:
    return np.vectorize(function, otypes=[np.float64])


def _from_torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
    return lambda x: function(torch.from_numpy(np.ascontiguousarray(x))).numpy()


LIBDEVICE = SimpleNamespace(
    **{
        name: _elementwise(getattr(np, name))
        for name in ["exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan"]
    },
    **{
        name: _elementwise(getattr(np, name))
        for name in ["sinh", "cosh", "tanh", "copysign", "nextafter", "hypot", "trunc", "fmod", "rint"]
    },
    **{
        name: _elementwise(getattr(np, f"arc{name[1:]}"))
        for name in ["asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2"]
    },
    erf=_elementwise(_vectorized(math.erf)),
    erfc=_elementwise(_vectorized(math.erfc)),
    erfinv=_elementwise(_from_torch(torch.erfinv)),
    lgamma=_elementwise(_from_torch(torch.lgamma)),
    pow=_elementwise(np.power),
    rsqrt=_elementwise(lambda x: 1 / np.sqrt(x)),
)


def _widened(handle: TensorHandle) -> TensorHandle:
    """The interpreter keeps bfloat16 as bit patterns, which its own `dot` forgets to decode."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _cast(source: TensorHandle, target: tl.dtype) -> TensorHandle:
    """The interpreter casts between bfloat16 and float32 alone as values, all others as the bits they are kept in.

    To bfloat16 it truncates, where a GPU rounds to the nearest, ties to even.
    """
    cast = InterpreterBuilder.cast_impl
    if tl.bfloat16 in (source.dtype.scalar, target.scalar) and source.dtype.scalar != target.scalar:
        source = cast(interpreter_builder, source, tl.float32)
        if target.scalar == tl.bfloat16:
            wide = torch.from_numpy(np.ascontiguousarray(source.data, np.float32))
            return TensorHandle(wide.bfloat16().view(torch.uint16).numpy(), tl.bfloat16)
    return cast(interpreter_builder, source, target)


def _patch_index(tensor: type[tl.tensor], *scope: Any) -> None:
    """Triton 3.6 takes `int` of an array of one element, which newer numpy refuses."""
    _PATCH_TENSOR(tensor, *scope)
    tensor.__index__ = lambda self: int(self.handle.data.reshape(()))


_PATCH_TENSOR = interpreter._patch_lang_tensor


def _combined(ops: Any, kinds: list[Any], earlier: list[Any], later: list[Any]) -> list[Any]:
    """Apply the combining function of a scan or reduction to arrays at once."""
    tensors = [ops.to_tensor(a, kind) for side in (earlier, later) for a, kind in zip(side, kinds, strict=True)]
    found = ops.combine_fn.fn(*tensors)
    return [r.handle.data for r in (found if isinstance(found, tuple) else (found,))]


def _scan(self: Any, given: Any) -> list[Any]:
    """All lanes at once in log₂ steps, where the interpreter's own walks element by element (Hillis, Steele 1986)."""
    kinds, data = [t.dtype for t in given], [t.handle.data for t in given]
    width, step = data[0].shape[self.axis], 1
    lanes = np.arange(width).reshape([-1 if k == self.axis else 1 for k in range(data[0].ndim)])
    while step < width:
        joined = _combined(self, kinds, [np.roll(a, step, self.axis) for a in data], data)
        data = [np.where(lanes < step, a, b) for a, b in zip(data, joined, strict=True)]
        step *= 2
    return [self.to_tensor(a, kind) for a, kind in zip(data, kinds, strict=True)]


def _reduce(self: Any, given: Any) -> list[Any]:
    """Halves at once; extents are powers of two."""
    kinds = [t.dtype for t in given]
    axis = 0 if self.axis is None else self.axis
    data = [t.handle.data.reshape(-1) if self.axis is None else t.handle.data for t in given]
    while data[0].shape[axis] > 1:
        halves = [np.split(a, 2, axis=axis) for a in data]
        data = _combined(self, kinds, [a for a, _ in halves], [b for _, b in halves])
    if self.axis is None and self.keep_dims:
        data = [a.reshape([1] * len(given[0].shape)) for a in data]
    elif not self.keep_dims:
        data = [np.squeeze(a, axis=axis) for a in data]
    return [self.to_tensor(a if a.shape else a.item(), kind) for a, kind in zip(data, kinds, strict=True)]


@contextmanager
def _interpreting() -> Iterator[None]:
    dot = interpreter_builder.create_dot
    with knobs.runtime.scope(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.ScanOps, "generic_scan", _scan)
        patch.setattr(interpreter.ReduceOps, "generic_reduce", _reduce)
        knobs.runtime.interpret = True
        interpreter._patch_lang_tensor = _patch_index
        interpreter_builder.cast_impl = _cast
        interpreter_builder.create_dot = lambda a, b, *rest: dot(_widened(a), _widened(b), *rest)
        try:
            yield
        finally:
            del interpreter_builder.create_dot, interpreter_builder.cast_impl
            interpreter._patch_lang_tensor = _PATCH_TENSOR


def dirty_workspace(source: Source) -> torch.Tensor:
    """Bytes for a source's workspace, all ones; the 64 at the end are spare, so that a view of none is one of memory."""
    return torch.full((int(source.workspace_bytes) + 64,), 0xFF, dtype=torch.uint8)


def run(
    source: Source,
    memory: Mapping[int, torch.Tensor],
    folder: Path,
    sizes: Mapping[sympy.Symbol, int] | None = None,
    workspace: torch.Tensor | None = None,
) -> None:
    """Run all launches; `memory` holds a flat tensor per kernel parameter, written in place; `sizes` the dynamic ones.

    `workspace` is used as it is found, and cleared first only where the source asks for it, as the artifact does; pass
    the same one to several runs to show that what one leaves does not reach the next. If None, a dirty one is made.
    Raises `IndexRangeError` where a kernel reports an index out of range.
    """
    source = source_at(source, sizes or {})
    path = folder / f"{source.launches[0].entry}.py"
    path.write_text(source.text)
    namespace: dict[str, Any] = {"__name__": "generated"}
    fault = torch.zeros(1, dtype=torch.int32)
    workspace = dirty_workspace(source) if workspace is None else workspace
    if source.zero_workspace:
        workspace[: int(source.workspace_bytes)].zero_()
    with _interpreting(), np.errstate(all="ignore"):
        exec(compile(source.text, str(path), "exec"), namespace)
        namespace["libdevice"] = LIBDEVICE
        for launch in source.launches:
            arguments: list[Any] = []
            for argument, (_, kind) in zip(launch.args, launch.signature, strict=True):
                if isinstance(argument, BufferArgument):
                    arguments.append(memory[argument.parameter])
                elif isinstance(argument, WorkspaceArgument):
                    arguments.append(workspace[int(argument.offset) :].view(_SIGNATURE[kind]))
                elif isinstance(argument, FaultArgument):
                    arguments.append(fault)
                else:
                    arguments.append(int(argument.expr))
            grid = tuple(int(extent) for extent in launch.grid)
            namespace[launch.entry][grid](*arguments)
    if fault.item():
        raise IndexRangeError(source.variant.label)


_SIGNATURE = {f"*{name}": TORCH[dtype] for dtype, name in SIGNATURE.items()}
