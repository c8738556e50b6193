"""The frame of a matrix product's source: includes, the struct of pointers, the entry named by the text's digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sympy

from mkwrap.codegen.cpp.indexing import spell_index, variable
from mkwrap.codegen.cpp.spelling import CTYPES, header
from mkwrap.codegen.writer import Writer
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Compute, Expr, Instruction
from mkwrap.stages import (
    Access,
    Argument,
    BufferArgument,
    Kernel,
    Launch,
    SizeArgument,
    Source,
    Variant,
    WorkspaceArgument,
)


@dataclass(frozen=True)
class Pointer:
    """A member of the struct `arg` that all functions of a source take, and the launch argument behind it."""

    name: str
    dtype: DType
    writable: bool
    argument: Argument

    @property
    def ctype(self) -> str:
        """Return its C++ type."""
        return f"{'' if self.writable else 'const '}{CTYPES[self.dtype]}*"


def pointers(kernel: Kernel, names: Iterable[str]) -> tuple[Pointer, ...]:
    """One pointer per named parameter, in the kernel's order."""
    wanted = set(names)
    return tuple(
        Pointer(p.buffer.name, p.buffer.dtype, p.access is not Access.READ, BufferArgument(number))
        for number, p in enumerate(kernel.parameters)
        if p.buffer.name in wanted
    )


def headers(instructions: Sequence[Instruction], own: Iterable[str]) -> list[str]:
    """Include lines for the ops among instructions and for the template's own headers."""
    needed = {header(i.op) for i in instructions if isinstance(i, Compute)} | set(own)
    return [f"#include <mkwrap/{name}>" for name in sorted(needed)]


@contextmanager
def declare_sizes(writer: Writer, sizes: Sequence[sympy.Symbol]) -> Iterator[None]:
    """Write dynamic sizes as constants at the head of a function that takes `arg`: a store cannot change those."""
    for size in sizes:
        writer.line(f"[[maybe_unused]] const int64_t {variable(size)} = arg.{variable(size)};")
    yield


def team(threads: int, work: Expr, least: int) -> str:
    """Spell the clauses of a parallel region; work of a dynamic amount is shared only where there is enough of it."""
    clause = f"num_threads({threads})"
    if not work.free_symbols:
        return clause
    return f"{clause} if ({spell_index(work, {})} >= {least})"


@dataclass(frozen=True)
class Text:
    """The parts of a source's text. `entry` is the body of the entry function, which may name `arg`, sizes, `workspace`."""

    vector_bytes: int
    includes: Sequence[str]
    members: Sequence[Pointer]
    sizes: Sequence[sympy.Symbol]
    functions: str
    entry: str


def source_of(kernel: Kernel, variant: Variant, parts: Text, workspace_bytes: Expr | int) -> Source:
    """Put a source together; its entry is named after the digest of everything else in it but the comment."""
    members = parts.members
    origins = [" ".join(f"// {o.op} at {o.location}".split()).rstrip("\\") for o in kernel.nest.origins]
    comment = "\n".join([f"// {kernel.name}: {variant.label}", *origins])
    frame = [f"#define MKW_VECTOR_BYTES {parts.vector_bytes}", *parts.includes, "", "namespace {", ""]
    frame += ["struct Pointers {", *_fields(parts), "};", ""]
    text = "\n".join([*frame, parts.functions]) + "}  // namespace\n\n"
    unpacked = [f"({p.ctype})args[{k}]" for k, p in enumerate(members)]
    unpacked += [f"sizes[{k}]" for k in range(len(parts.sizes))]
    body = [f"  const Pointers arg = {{{', '.join(unpacked)}}};"]
    body += [f"  [[maybe_unused]] const int64_t {variable(size)} = arg.{variable(size)};" for size in parts.sizes]
    if workspace_bytes != 0:
        body.append(f"  char* const workspace = (char*)args[{len(members)}];")
    tail = "\n".join(body) + "\n" + parts.entry + "}\n"
    digest = hashlib.sha256((text + tail).encode()).hexdigest()[:12]
    name = f"mkw_{variant.template}_{digest}"
    taken = f"(void* const* args, const int64_t*{' sizes' if parts.sizes else ''})"
    head = f'extern "C" __attribute__((visibility("default"))) int32_t {name}{taken} {{\n'
    arguments: list[Argument] = [p.argument for p in members]
    if workspace_bytes != 0:
        arguments.append(WorkspaceArgument())
    arguments += [SizeArgument(size) for size in parts.sizes]
    return Source(
        variant=variant,
        language="cpp",
        text=f"{comment}\n{text}{head}{tail}",
        launches=(Launch(name, tuple(arguments)),),
        workspace_bytes=workspace_bytes,
    )


def _fields(parts: Text) -> list[str]:
    return [f"  {p.ctype} {p.name};" for p in parts.members] + [f"  int64_t {variable(size)};" for size in parts.sizes]
