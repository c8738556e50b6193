"""Steps of a CPU library: plain calls of the linked kernels."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from mkwrap.codegen.wrapper.contents import Contents
from mkwrap.codegen.wrapper.launcher import (
    Call,
    Launcher,
    Layout,
    spell_argument,
    step_origin,
    step_title,
    write_checked,
)
from mkwrap.codegen.wrapper.text import spell_comment, spell_string
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Binary, Device, Program, SizeArgument

_CONSTANT = "const_cast<unsigned char*>(runtime::part_bytes(context->parts, {part}))"


def _workspace(binary: Binary) -> Expr:
    return sympy.sympify(binary.source.workspace_bytes)


def _declare(writer: Writer, contents: Contents, layout: Layout) -> None:
    del layout
    entries = dict.fromkeys(_entry(a.binary) for found in contents.kernels.values() for a in found)
    writer.lines(f'extern "C" int32_t {entry}(void* const* args, const int64_t* sizes);' for entry in entries)


def _plan(
    writer: Writer, contents: Contents, layout: Layout, devices: Sequence[Device], features: Sequence[str], counts: str
) -> None:
    del contents
    if len(devices) != 1:
        raise InternalError("a CPU library has one target")
    if features:
        writer.line("constexpr const char* kFeatures[] = {" + ", ".join(map(spell_string, features)) + "};")
    table = "kFeatures" if features else "nullptr"
    arena = "0" if counts else str(layout.arena_bytes)
    fields = [
        spell_string(devices[0].arch),
        table,
        str(len(features)),
        arena,
        "mkw_parts",
        *([counts] if counts else []),
    ]
    writer.line(f"constexpr runtime::CpuPlan kPlan = {{{', '.join(fields)}}};")


def _begin(writer: Writer, program: Program, layout: Layout) -> None:
    writer.line("static_cast<void>(stream);")
    if program.symbols:
        write_checked(writer, "runtime::grow_scratch(*context, shape.scratch_bytes, nullptr, &context->error)")
    writer.line("[[maybe_unused]] unsigned char* const arena = context->scratch;")
    if layout.has_workspace:
        size = "shape.arena_bytes" if program.symbols else "kArenaBytes"
        writer.line(f"[[maybe_unused]] unsigned char* const workspace = context->scratch + {size};")


def _step(writer: Writer, call: Call) -> None:
    source = call.binary.source
    launch = source.launches[0]
    pointers = [spell_argument(call, a, _CONSTANT) for a in launch.args if not isinstance(a, SizeArgument)]
    sizes = [spell_argument(call, a, _CONSTANT) for a in launch.args if isinstance(a, SizeArgument)]
    writer.line(spell_comment(step_title(call), 2))
    with writer.block(""):
        if source.zero_workspace:
            writer.line(f"memset(workspace, 0, {call.layout.values.spell(source.workspace_bytes)});")
        if pointers:
            writer.line("void* const args[] = {" + ", ".join(pointers) + "};")
        if sizes:
            writer.line("const int64_t sizes[] = {" + ", ".join(sizes) + "};")
        arguments = f"{'args' if pointers else 'nullptr'}, {'sizes' if sizes else 'nullptr'}"
        where = f"{spell_string(call.kernel.name)}, {spell_string(step_origin(call.step))}"
        with writer.block(f"if ({launch.entry}({arguments}) != 0)"):
            writer.line(f"return runtime::index_out_of_range(&context->error, {where});")


def _entry(binary: Binary) -> str:
    launches = binary.source.launches
    if len(launches) != 1 or len(binary.images) != 1:
        raise InternalError(
            f"the CPU variant {binary.source.variant.label} has {len(launches)} launches; one is called"
        )
    if not launches[0].entry.isidentifier():
        raise InternalError(f"the entry {launches[0].entry!r} is no C name")
    return launches[0].entry


LAUNCHER = Launcher(
    header="mkwrap/cpu_model.h",
    device_type="MKW_DEVICE_CPU",
    alignment=64,
    workspace=_workspace,
    images=False,
    declare=_declare,
    plan=_plan,
    begin=_begin,
    address="runtime::address",
    pointer="unsigned char*",
    step=_step,
)
