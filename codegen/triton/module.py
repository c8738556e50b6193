"""Joins kernel functions into one Python module of Triton: a `Source`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mkwrap.codegen.triton.body import FAULT
from mkwrap.codegen.triton.prelude import definitions
from mkwrap.codegen.triton.scans import combines
from mkwrap.codegen.triton.sizes import Sizes, sizes_of
from mkwrap.codegen.triton.spelling import SIGNATURE
from mkwrap.codegen.triton.tile import size_name
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import value_dtypes
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import BoundsCheck, Expr, Instruction, Load, Store
from mkwrap.stages import (
    Argument,
    BufferArgument,
    FaultArgument,
    Guard,
    Kernel,
    Launch,
    Params,
    SizeArgument,
    Source,
    Variant,
    WorkspaceArgument,
)

_HEAD = """\
import triton
import triton.language as tl
from triton.language.extra import libdevice
"""


@dataclass(frozen=True)
class Formal:
    """One argument of a kernel function: its name, Triton type, meaning, whether 16 divides it, and what else does."""

    name: str
    type: str
    argument: Argument
    aligned: bool
    multiple: int = 1


@dataclass(frozen=True)
class Function:
    """One kernel function before it has a name. `body` is indented text; `grid` counts programs."""

    formals: tuple[Formal, ...]
    body: str
    grid: int | Expr
    num_warps: int
    num_stages: int
    needs: frozenset[str]
    contract: bool
    """Fuse products and sums into multiply-adds. Off but for matrix products: eager rounds after every operation, and
    x·y − x·y must be 0."""


def formals_of(kernel: Kernel, instructions: Iterable[Instruction], sizes: Sizes) -> tuple[Formal, ...]:
    """Formals for the parameters that some instructions touch, in the kernel's order, for all sizes, and for faults."""
    instructions = tuple(instructions)
    touched = {i.buffer for i in instructions if isinstance(i, Load | Store)}
    formals = [
        Formal(p.buffer.name, f"*{SIGNATURE[p.buffer.dtype]}", BufferArgument(k), p.buffer.alignment % 16 == 0)
        for k, p in enumerate(kernel.parameters)
        if p.buffer.name in touched
    ]
    kind, dtype = ("i64", DType.INT64) if sizes.wide else ("i32", DType.INT32)
    formals += [
        Formal(size_name(s), kind, SizeArgument(s, dtype), False, sizes.multiples.get(s, 1)) for s in sizes.symbols
    ]
    if any(isinstance(i, BoundsCheck) for i in instructions):
        formals.append(Formal(FAULT, f"*{SIGNATURE[DType.INT32]}", FaultArgument(), False))
    return tuple(formals)


def workspace_formal(name: str, dtype: DType, offset: int | Expr) -> Formal:
    """Formal for a part of the workspace; `offset` in bytes, a multiple of 16."""
    return Formal(name, f"*{SIGNATURE[dtype]}", WorkspaceArgument(offset), True)


def function(
    writer: Writer,
    formals: Sequence[Formal],
    grid: int | Expr,
    needs: Iterable[str],
    params: Params,
) -> Function:
    """Finish a function; `num_warps` and `num_stages` come from the variant's params (4 and 1 where not named)."""
    options = dict(params)
    warps, stages = options.get("num_warps", 4), options.get("num_stages", 1)
    whole = [f for f in formals if f.multiple > 1]
    shown = "".join(f"    {f.name} = {f.name} // {f.multiple} * {f.multiple}\n" for f in whole)
    return Function(tuple(formals), shown + writer.text(), grid, int(warps), int(stages), frozenset(needs), False)


def source(
    kernel: Kernel,
    variant: Variant,
    functions: Sequence[Function],
    workspace_bytes: int | Expr = 0,
    guards: Iterable[Guard] = (),
) -> Source:
    """Name the functions by the digest of all that their code depends on and join them into one module.

    `guards` of the template's own come before those of the form, which the variant's params say.
    """
    needs = {name for f in functions for name in f.needs}
    own = combines(kernel.nest, value_dtypes(kernel.nest), needs)
    prelude = "\n\n".join((*definitions(needs), *own))
    canonical = repr((prelude, [(_signature(f), f.body, f.num_warps, f.num_stages, f.contract) for f in functions]))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
    names = [f"mkw_{variant.template}_{digest}" + (f"_{k}" if k else "") for k in range(len(functions))]
    parts = [_header(kernel, variant) + _HEAD] + ([prelude] if prelude else [])
    parts += [_definition(name, f) for name, f in zip(names, functions, strict=True)]
    launches = tuple(_launch(name, f) for name, f in zip(names, functions, strict=True))
    every = tuple(dict.fromkeys((*guards, *sizes_of(kernel, variant.params).guards)))
    return Source(variant, "triton", "\n\n".join(parts), launches, workspace_bytes, guards=every)


def _header(kernel: Kernel, variant: Variant) -> str:
    lines = [f"# {kernel.name}: {variant.label}"]
    lines += [f"#   {origin.op} at {origin.location}" for origin in dict.fromkeys(kernel.nest.origins)]
    # An origin's source line may hold anything; a comment must stay one line.
    return "".join(" ".join(line.splitlines()) + "\n" for line in lines)


def _definition(name: str, function: Function) -> str:
    arguments = ", ".join(formal.name for formal in function.formals)
    return f"@triton.jit\ndef {name}({arguments}):\n{function.body}"


def _signature(function: Function) -> tuple[tuple[str, str], ...]:
    return tuple((formal.name, formal.type) for formal in function.formals)


def _launch(name: str, function: Function) -> Launch:
    options = {"num_stages": function.num_stages, "num_warps": function.num_warps}
    return Launch(
        entry=name,
        args=tuple(formal.argument for formal in function.formals),
        grid=(function.grid, 1, 1),
        options={"enable_fp_fusion": function.contract, **options},
        signature=_signature(function),
        divisible_by_16=tuple(k for k, formal in enumerate(function.formals) if formal.aligned),
    )
