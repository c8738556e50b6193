"""The model source of a library: signature tables, checks, and a straight-line `run`, rendered once.

Where a kernel has several alternatives (its choice is open, differs by target or by size) a step switches over them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from mkwrap.artifact import HostCode, Open, OpenPoints, Row
from mkwrap.codegen.wrapper import launch_cpu, launch_cuda
from mkwrap.codegen.wrapper.blobs import place_parts
from mkwrap.codegen.wrapper.checks import write_checks, write_output_shapes
from mkwrap.codegen.wrapper.contents import AnySelection, Contents, choice_of, contents_of
from mkwrap.codegen.wrapper.launcher import (
    Call,
    Launcher,
    Layout,
    checked_steps,
    output_buffers,
    used_buffers,
    write_checked,
)
from mkwrap.codegen.wrapper.manifest import ABI_VERSION, Description, render_manifest
from mkwrap.codegen.wrapper.shapes import (
    chosen,
    write_derive_shapes,
    write_shape_queries,
    write_size_up,
    write_tables,
)
from mkwrap.codegen.wrapper.signature import SIZE_TEXTS, write_signature, write_symbols
from mkwrap.codegen.wrapper.sizes import ARRAY, Values, largest, most_of, round_up
from mkwrap.codegen.wrapper.tables import packed_tables
from mkwrap.codegen.wrapper.text import spell_comment
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.index import rounded_up
from mkwrap.stages import Access, Image, Schedule

LAUNCHERS: Mapping[str, Launcher] = {"cpu": launch_cpu.LAUNCHER, "cuda": launch_cuda.LAUNCHER}
PARTS = "parts.bin"
"""The file that the text embeds: the directory and every part."""
_DIRECTORY_BYTES, _PART_BYTES, _ROW_BYTES = 24, 16, 8
_ALIGNMENT = 64


def wrap(selection: AnySelection, description: Description, further: Sequence[AnySelection] = ()) -> HostCode:
    """Render the host code of a choice; equal selections and descriptions give equal text.

    `further` are selections for further targets of the same kind over the same schedule, in the order of
    `description.further`. Raises `CaptureError` where a step writes to a constant.
    """
    kind = description.device.kind
    launcher = LAUNCHERS[kind]
    contents = contents_of((selection, *further))
    layout = _lay_out(contents, launcher)
    traffic = _traffic_bytes(contents.schedule)
    apart = _apart(contents) if kind == "cpu" else ()
    manifest = render_manifest(contents, layout, traffic, description, apart).encode()
    writer = Writer("  ")
    _write_head(writer, launcher, contents, layout, apart)
    body = _body(contents, launcher, layout)
    _write_plan(writer, contents, launcher, layout, description)
    writer.lines(body)
    _write_api(
        writer, contents, launcher, layout, (layout.parts.texts + 1, len(manifest), -1 if traffic is None else traffic)
    )
    objects = _objects(contents) if kind == "cpu" else ()
    parts = layout.parts.blobs(manifest, packed_tables(contents), _texts(contents, writer.text()))
    return HostCode(kind, writer.text(), parts, layout.rows, objects, apart, manifest.decode())


def _body(contents: Contents, launcher: Launcher, layout: Layout) -> list[str]:
    """Return the functions of the model.

    What derives sizes stands before what uses them, and is written after it: only then is known what is used.
    """
    program, values = contents.schedule.program, layout.values
    derived, checks, sized, run = (Writer("  ") for _ in range(4))
    write_checks(checks, program, values)
    write_output_shapes(checks, program, values, launcher.device_type)
    write_derive_shapes(derived, program, values)
    first = len(values)
    _write_run(run, contents, launcher, layout)
    write_size_up(sized, contents, layout, first)
    write_shape_queries(run, contents)
    return [line for part in (derived, checks, sized, run) for line in part.text().splitlines()]


def _write_plan(
    writer: Writer, contents: Contents, launcher: Launcher, layout: Layout, description: Description
) -> None:
    """Write the tables: the plan, the signature, the symbols, and those that sizes choose binaries by."""
    program, counts = contents.schedule.program, ""
    if program.symbols:
        writer.line(f"constexpr int32_t kValueCount = {len(layout.values)};")
        writer.line(f"constexpr int32_t kElectedCount = {len(contents.dispatched)};")
        most = largest(layout.arena_bytes, program.symbols)
        counts = f"{{kValueCount, kElectedCount, {'MKW_DYNAMIC' if most is None else most}}}"
    launcher.plan(writer, contents, layout, description.devices, description.features, counts)
    if not program.symbols:
        writer.line(f"[[maybe_unused]] constexpr uint64_t kArenaBytes = {layout.arena_bytes};")
    write_signature(writer, program)
    write_symbols(writer, program)
    write_tables(writer, contents)


def _texts(contents: Contents, host: str) -> bytes:
    """Return every text of the library as JSON: kernel → variant → text, and this host code under ""."""
    texts: dict[str, dict[str, str]] = {"": {"host": host}}
    for name, alternatives in contents.kernels.items():
        sources = [alternative.binary.source for alternative in alternatives]
        texts[name] = {source.variant.label: source.text for source in sources}
    return json.dumps(texts, ensure_ascii=False).encode()


def manifest_offset(parts: int, targets: int, kernels: int) -> int:
    """Return where the manifest, the first part, lies behind the directory (`mkwrap/parts.h`), in bytes from its start."""
    row = _ROW_BYTES + round_up(4 * kernels, _ROW_BYTES)
    return round_up(_DIRECTORY_BYTES + parts * _PART_BYTES + targets * row, _ALIGNMENT)


def _lay_out(contents: Contents, launcher: Launcher) -> Layout:
    symbols = contents.schedule.program.symbols
    scratch = {
        name: tuple(launcher.workspace(alternative.binary) for alternative in found)
        for name, found in contents.kernels.items()
    }
    rows = []
    for target, choices in enumerate(contents.defaults):
        wanted = [largest(scratch[name][n], symbols) for name in scratch for n in contents.running(name, target)]
        rows.append(Row(most_of(wanted, launcher.alignment), choices))
    return Layout(
        parts=place_parts(contents, images=launcher.images),
        arena_bytes=rounded_up(contents.schedule.arena_bytes, launcher.alignment),
        scratch=scratch,
        rows=tuple(rows),
        checked_steps=checked_steps(contents),
        values=Values(symbols),
    )


def _traffic_bytes(schedule: Schedule) -> int | None:
    """Estimate the bytes one run moves: every parameter of every step once, twice where it is read and written.

    With dynamic sizes, at their upper ends; None where they have none.
    """
    total = 0
    for step in schedule.steps:
        for parameter in schedule.kernels[step.kernel].parameters:
            elements = largest(parameter.buffer.numel, schedule.program.symbols)
            if elements is None:
                return None
            size = elements * parameter.buffer.dtype.itemsize
            total += 2 * size if parameter.access is Access.READ_WRITE else size
    return total


def _objects(contents: Contents) -> tuple[Image, ...]:
    images: dict[str, Image] = {}
    for found in contents.kernels.values():
        for image in (image for alternative in found for image in alternative.binary.images):
            if images.setdefault(image.entry, image).digest != image.digest:
                raise InternalError(f"two different objects define {image.entry}")
    return tuple(images.values())


def _apart(contents: Contents) -> tuple[str, ...]:
    """Return the entries of all alternatives of open kernels: closing the choice drops some of them."""
    return tuple(
        dict.fromkeys(
            image.entry
            for selection in contents.selections
            for name in contents.kernels
            if isinstance(choice := choice_of(selection, name), Open | OpenPoints)
            for binary in choice.binaries
            for image in binary.images
        )
    )


def _write_head(writer: Writer, launcher: Launcher, contents: Contents, layout: Layout, apart: Sequence[str]) -> None:
    writer.line("// A model compiled by mkwrap. The manifest says from what, for which machine and how it was chosen.")
    writer.line(f'#include "{launcher.header}"')
    if contents.dispatched:
        writer.line('#include "mkwrap/dispatch.h"')
    writer.line('#include "mkwrap/model_api.h"')
    if contents.open_tables:
        writer.line('#include "mkwrap/open_table.h"')
    writer.line('#include "mkwrap/parts.h"')
    writer.line('#include "mkwrap/sizes.h"')
    writer.line()
    writer.line(f'static_assert(MKW_ABI_VERSION == {ABI_VERSION}, "host code and headers differ");')
    writer.line("namespace runtime = mkwrap::runtime;")
    writer.line()
    codes = " ".join(f"MKW_PARTS_CODE({entry})" for entry in apart) or '""'
    writer.line(f'MKW_PARTS("{PARTS}", {codes});')
    launcher.declare(writer, contents, layout)
    writer.line()
    writer.line("namespace {")
    writer.line()


def _write_run(writer: Writer, contents: Contents, launcher: Launcher, layout: Layout) -> None:
    program = contents.schedule.program
    used = used_buffers(contents.schedule)
    writer.line()
    arguments = "mkw_context* context, const mkw_tensor* inputs, const mkw_tensor* outputs, void* stream"
    with writer.block(f"mkw_status run({arguments})"):
        writer.line("const mkw_device device = runtime::device_of(*context->model);")
        if program.symbols:
            writer.line("runtime::Shape& shape = context->shape;")
            writer.line(f"const int64_t* const {ARRAY} = shape.values;")
        shape, array = ("shape, ", f"{ARRAY}, ") if program.symbols else ("", "")
        write_checked(writer, f"check_inputs(device, inputs, {shape}&context->error)")
        write_checked(writer, f"check_outputs(device, inputs, outputs, {array}&context->error)")
        if program.symbols:
            writer.line("if (!shape.known)")
            with writer.indented():
                write_checked(writer, "size_up(*context->model, shape, &context->error)")
        launcher.begin(writer, program, layout)
        for names, array, prefix in (
            ([spec.name for spec in program.inputs], "inputs", "in"),
            ([spec.buffer for spec in output_buffers(program)], "outputs", "out"),
        ):
            for number, name in enumerate(names):
                if name in used:
                    value = f"{launcher.address}({array}[{number}])"
                    writer.line(f"[[maybe_unused]] {launcher.pointer} const {prefix}{number} = {value};")
        for number in range(len(contents.schedule.steps)):
            _write_step(writer, contents, launcher, layout, number)
        writer.line("return MKW_OK;")


def _write_step(writer: Writer, contents: Contents, launcher: Launcher, layout: Layout, number: int) -> None:
    step = contents.schedule.steps[number]
    count = len(contents.kernels[step.kernel])
    calls = [Call(number, step, alternative, contents, layout) for alternative in range(count)]
    if count == 1:
        launcher.step(writer, calls[0])
        return
    writer.line(spell_comment(f"{number}: {step.kernel}, {count} alternatives", 2))
    with writer.block(f"switch ({chosen(contents, step.kernel, '(*context->model)')})"):
        for call in calls:
            label = "default" if call is calls[-1] else f"case {call.alternative}"
            with writer.block(f"{label}:"):
                launcher.step(writer, call)
                writer.line("break;")


def _program_digest(text: str, contents: Contents) -> str:
    """Return a digest of all that a library is but for its constants' values, given the text up to its table."""
    images = [i.digest for found in contents.kernels.values() for a in found for i in a.binary.images]
    return hashlib.sha256(repr((text, images)).encode()).hexdigest()


def _write_api(
    writer: Writer, contents: Contents, launcher: Launcher, layout: Layout, sizes: tuple[int, int, int]
) -> None:
    """Write the table of functions; `sizes` are the number of parts, and the bytes of the manifest and of traffic."""
    program = contents.schedule.program
    inputs, outputs = len(program.inputs), len(output_buffers(program))
    constants = sum(c.size for c in layout.parts.constants.placed)
    parts, manifest, traffic = sizes
    at = manifest_offset(parts, len(layout.rows), len(contents.kernels))
    digest = _program_digest(writer.text(), contents)
    writer.line()
    writer.line("}  // namespace")
    writer.line()
    with writer.block('extern "C" const mkw_api mkw_api_table =', "};"):
        writer.line(f"MKW_ABI_VERSION, sizeof(mkw_api), {launcher.device_type}, {inputs}, {outputs},")
        tables = f"{'kInputs' if inputs else 'nullptr'}, {'kOutputs' if outputs else 'nullptr'}"
        writer.line(f"{tables}, mkw_parts + {at}, {manifest}, {constants}, {traffic},")
        writer.line("runtime::model_create<kPlan>, runtime::model_destroy, runtime::context_create,")
        writer.line("runtime::context_destroy, run, runtime::last_error, output_shapes,")
        writer.line(f'runtime::workspace_bytes, runtime::synchronize, "{digest}", mkw_parts,')
        weights = f"runtime::weights_create<mkw_api_table, {len(layout.parts.constants.placed)}>"
        writer.line(f"{weights}, runtime::weights_destroy, runtime::context_create_with,")
        symbols = f"{len(program.symbols)}, {len(contents.kernels)}, {'kSymbols' if program.symbols else 'nullptr'}"
        writer.line(f"{symbols}, bind_symbols, scratch_bytes, elected_for,")
        writer.line(f"runtime::context_reserve<scratch_bytes>, {SIZE_TEXTS if program.symbols else 'nullptr'},")
    writer.line()
    with writer.block('extern "C" [[gnu::visibility("default")]] const mkw_api* mkw_get_api(uint32_t version)'):
        writer.line("return version == MKW_ABI_VERSION ? &mkw_api_table : nullptr;")
