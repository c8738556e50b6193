"""Hand-made kernels, sources and schedules for the tests of tuning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import sympy
from tests.python.nests import Size

from mkwrap.codegen.template import Language
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol
from mkwrap.ir.nodes import Axis, Buffer, Nest, Origin, Role
from mkwrap.options import Options
from mkwrap.stages import (
    Access,
    Binary,
    BufferArgument,
    Candidates,
    Device,
    Kernel,
    Launch,
    Parameter,
    Program,
    Rejected,
    Schedule,
    Selection,
    Source,
    Step,
    Variant,
    WorkspaceArgument,
)
from mkwrap.targets.target import Target
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.cxx import KERNEL_FLAGS, compile_source
from mkwrap.toolchain.pool import Advance, Compiler, build, silent
from mkwrap.tune.early import Means
from mkwrap.tune.recall import recall
from mkwrap.tune.tuner import tune

LOOP = "for (long i = 0; i < {n}; ++i) y[i] = x[i] + 1.0f; return 0;"
SLOW = "for (int k = 0; k < 40; ++k) for (long i = 0; i < {n}; ++i) ((volatile float*)y)[i] = x[i] + 1.0f; return 0;"


def vector(name: str, extent: Size, dtype: DType = DType.FLOAT32, role: Role = Role.TEMPORARY) -> Buffer:
    """Return a dense buffer of one dimension."""
    return Buffer(name, dtype, (sympy.sympify(extent),), (sympy.Integer(1),), role)


def plus_one(extent: Size = 64, name: str = "kernel0") -> Kernel:
    """Return arg1[i] = arg0[i] + 1."""
    i, body = axis_symbol("i"), BodyBuilder()
    one = body.constant(1.0, DType.FLOAT32)
    body.store("arg1", (i,), body.compute("add", body.load("arg0", DType.FLOAT32, (i,)), one))
    origins = (Origin("aten.add", "model.py:3: x + 1"),)
    nest = Nest(name, (Axis(i, sympy.sympify(extent)),), (), body.body(), origins)
    x, y = vector("arg0", extent), vector("arg1", extent)
    return Kernel(name, nest, (Parameter(x, Access.READ), Parameter(y, Access.WRITE)))


def schedule_of(*kernels: Kernel) -> Schedule:
    """Return a schedule that uses each kernel once."""
    program = Program({}, (), (), (), {})
    steps = tuple(Step(k.name, tuple(p.buffer.name for p in k.parameters)) for k in kernels)
    return Schedule(program, {k.name: k for k in kernels}, steps, {}, sympy.Integer(0))


def source_of(kernel: Kernel, label: str, body: str, **workspace: int | bool) -> Source:
    """Return a C++ source whose entry gets float* y, const float* x and (with workspace_bytes=…) unsigned char* w."""
    entry = f"mkw_{kernel.name}_{re.sub('[^a-z0-9]', '_', label)}"
    extent = int(kernel.parameters[0].buffer.shape[0])
    text = (
        f'extern "C" __attribute__((visibility("default"))) int {entry}(void* const* args, const long*) {{\n'
        "  const float* x = (const float*)args[0]; float* y = (float*)args[1]; (void)x; (void)y;\n"
        f"  {body.replace('{n}', str(extent))}\n}}\n"
    )
    args: tuple[BufferArgument | WorkspaceArgument, ...] = (BufferArgument(0), BufferArgument(1))
    if workspace:
        args = (*args, WorkspaceArgument())
    return Source(
        Variant(kernel.name, label),
        "cpp",
        text,
        (Launch(entry, args),),
        workspace_bytes=int(workspace.get("workspace_bytes", 0)),
        zero_workspace=bool(workspace.get("zero_workspace", False)),
    )


@cache
def _compiled(text: str, entry: str) -> Binary | Rejected:
    source = Source(Variant("", ""), "cpp", text, (Launch(entry, ()),))
    return compile_source(source, "g++", ("-O2", *(flag for flag in KERNEL_FLAGS if flag != "-O3")), Path())


def compile_plain(source: Source) -> Binary | Rejected:
    """Compile with -O2; equal texts once per test run."""
    result = _compiled(source.text, source.launches[0].entry)
    return replace(result, source=source) if isinstance(result, Binary) else replace(result, variant=source.variant)


def target_of(*, present: bool = True, name: str = "test device", kind: str = "cpu") -> Target:
    """Return a target that compiles hand-made sources for this machine."""
    return Target(
        name=f"{kind}:test",
        kind="cpu" if kind == "cpu" else "cuda",
        device=Device(kind, "test", units=1, name=name),
        language=Language("cpp", ()),
        compile=compile_plain,
        toolchain="g++ for tests",
        present=present,
    )


def built(
    kernel: Kernel, bodies: Mapping[str, str] | Sequence[Source]
) -> tuple[Candidates, dict[str, tuple[Binary | Rejected, ...]]]:
    """Return candidates and binaries of one kernel: variant labels with the bodies of their entries, or sources."""
    if isinstance(bodies, Mapping):
        sources: Sequence[Source] = [source_of(kernel, label, body) for label, body in bodies.items()]
    else:
        sources = bodies
    candidates = Candidates(schedule_of(kernel), {kernel.name: tuple(s.variant for s in sources)})
    return candidates, {kernel.name: build(sources, Compiler(compile_plain, "g++ for tests", 2))}


def choose(
    candidates: Candidates,
    binaries: Mapping[str, Sequence[Binary | Rejected]],
    target: Target,
    options: Options,
    cache: Cache | None = None,
    advance: Advance = silent,
) -> Selection:
    """Recall and tune as a compile does, all being built."""
    sources = {
        name: tuple(entry.source if isinstance(entry, Binary) else entry for entry in entries)
        for name, entries in binaries.items()
    }
    recalled = recall(candidates, sources, target, options, cache=cache)
    return tune(candidates, binaries, recalled, target, options, Means(cache, advance))


def options_in(folder: Path, **fields: object) -> Options:
    """Return quick options that keep to a folder."""
    return Options(**{"tune": "quick", "cache_dir": folder, "jobs": 2, "threads": 1, **fields})  # type: ignore[arg-type]
