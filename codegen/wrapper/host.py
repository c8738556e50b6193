"""The model source of a library: signature tables, checks, and a straight-line `run`. Rendered once, after the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mkwrap.codegen.wrapper import launch_cpu, launch_cuda
from mkwrap.codegen.wrapper.blobs import MANIFEST, binary_of, embedded, place_constants
from mkwrap.codegen.wrapper.checks import write_checks, write_output_shapes
from mkwrap.codegen.wrapper.launcher import (
    Call,
    Launcher,
    Layout,
    output_buffers,
    used_buffers,
)
from mkwrap.codegen.wrapper.manifest import ABI_VERSION, Description, render_manifest
from mkwrap.codegen.wrapper.signature import symbols_read, write_signature
from mkwrap.codegen.wrapper.sizes import largest, round_up
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.stages import Access, Blob, HostCode, Image, Selection

LAUNCHERS: Mapping[str, Launcher] = {"cpu": launch_cpu.LAUNCHER, "cuda": launch_cuda.LAUNCHER}


def wrap(selection: Selection, description: Description) -> HostCode:
    """Render the host code of a closed choice; equal selections and descriptions give equal text.

    Raises `CaptureError` where a step writes to a constant, `DynamicShapeError` where a dynamic size has no upper bound.
    """
    kind = description.device.kind
    launcher = LAUNCHERS[kind]
    layout = _plan(selection, launcher)
    traffic = _traffic_bytes(selection)
    manifest = render_manifest(selection, layout, traffic, description)
    images = launch_cuda.distinct_images(selection) if kind == "cuda" else {}
    writer = Writer("  ")
    _write_head(writer, launcher, len(manifest.encode()))
    launcher.declare(writer, selection, layout, description.device, description.features)
    writer.line(f"[[maybe_unused]] constexpr uint64_t kArenaBytes = {layout.arena_bytes};")
    write_signature(writer, selection.schedule.program)
    write_checks(writer, selection.schedule.program)
    _write_run(writer, selection, launcher, layout, tuple(images))
    write_output_shapes(writer, selection.schedule.program, launcher.device_type)
    _write_api(writer, selection, launcher, layout, traffic)
    blobs: dict[str, Blob] = {**embedded(layout.constants)}
    blobs.update({launch_cuda.image_file(n): image.blob for n, (image, _) in enumerate(images.values())})
    blobs[MANIFEST] = manifest.encode()
    return HostCode(kind, writer.text(), blobs, _objects(selection) if kind == "cpu" else (), manifest)


def _plan(selection: Selection, launcher: Launcher) -> Layout:
    symbols = selection.schedule.program.symbols
    workspaces = [launcher.workspace(binary_of(selection, step.kernel), symbols) for step in selection.schedule.steps]
    return Layout(
        constants=place_constants(selection),
        arena_bytes=round_up(largest(selection.schedule.arena_bytes, symbols), launcher.alignment),
        workspace_bytes=round_up(max(workspaces, default=0), launcher.alignment),
    )


def _traffic_bytes(selection: Selection) -> int:
    """Estimate the bytes one run moves: every parameter of every step once, twice where it is read and written."""
    symbols = selection.schedule.program.symbols
    total = 0
    for step in selection.schedule.steps:
        for parameter in selection.schedule.kernels[step.kernel].parameters:
            size = largest(parameter.buffer.numel, symbols) * parameter.buffer.dtype.itemsize
            total += 2 * size if parameter.access is Access.READ_WRITE else size
    return total


def _objects(selection: Selection) -> tuple[Image, ...]:
    images: dict[str, Image] = {}
    for step in selection.schedule.steps:
        for image in binary_of(selection, step.kernel).images:
            if images.setdefault(image.entry, image).digest != image.digest:
                raise InternalError(f"two different objects define {image.entry}")
    return tuple(images.values())


def _write_head(writer: Writer, launcher: Launcher, manifest_bytes: int) -> None:
    writer.line("// A model compiled by mkwrap. The manifest says from what, for which machine and how it was chosen.")
    writer.line(f'#include "{launcher.header}"')
    writer.line('#include "mkwrap/embed.h"')
    writer.line('#include "mkwrap/model_api.h"')
    writer.line('#include "mkwrap/sizes.h"')
    writer.line()
    writer.line(f'static_assert(MKW_ABI_VERSION == {ABI_VERSION}, "host code and headers differ");')
    writer.line("namespace runtime = mkwrap::runtime;")
    writer.line()
    writer.line(f'MKW_EMBED(char, mkw_manifest, "{MANIFEST}");')
    writer.line(f"constexpr uint64_t kManifestBytes = {manifest_bytes};")


def _write_run(writer: Writer, selection: Selection, launcher: Launcher, layout: Layout, images: Sequence[str]) -> None:
    program = selection.schedule.program
    used = used_buffers(selection)
    calls = [
        Call(
            number,
            step,
            selection.schedule.kernels[step.kernel],
            binary_of(selection, step.kernel),
            selection,
            layout,
            images,
        )
        for number, step in enumerate(selection.schedule.steps)
    ]
    writer.line()
    arguments = "mkw_context* context, const mkw_tensor* inputs, const mkw_tensor* outputs, void* stream"
    with writer.block(f"mkw_status run({arguments})"):
        writer.line("const mkw_device device = runtime::device_of(*context->model);")
        for check in ("check_inputs(device, inputs", "check_outputs(device, inputs, outputs"):
            writer.line(f"if (const mkw_status status = {check}, &context->error)) return status;")
        launcher.begin(writer, program, layout.workspace_bytes > 0)
        symbols_read(writer, program)
        for names, array, prefix in (
            ([spec.name for spec in program.inputs], "inputs", "in"),
            ([spec.buffer for spec in output_buffers(program)], "outputs", "out"),
        ):
            for number, name in enumerate(names):
                if name in used:
                    value = f"{launcher.address}({array}[{number}])"
                    writer.line(f"[[maybe_unused]] {launcher.pointer} const {prefix}{number} = {value};")
        for call in calls:
            launcher.step(writer, call)
        writer.line("return MKW_OK;")


def _write_api(writer: Writer, selection: Selection, launcher: Launcher, layout: Layout, traffic: int) -> None:
    program = selection.schedule.program
    inputs, outputs = len(program.inputs), len(output_buffers(program))
    constants = sum(c.size for c in layout.constants.placed)
    writer.line()
    with writer.block("constexpr mkw_api kApi =", "};"):
        writer.line(f"MKW_ABI_VERSION, sizeof(mkw_api), {launcher.device_type}, {inputs}, {outputs},")
        tables = f"{'kInputs' if inputs else 'nullptr'}, {'kOutputs' if outputs else 'nullptr'}"
        writer.line(f"{tables}, mkw_manifest, kManifestBytes, {constants}, {traffic},")
        writer.line("runtime::model_create<kPlan>, runtime::model_destroy, runtime::context_create<kPlan>,")
        writer.line("runtime::context_destroy, run, runtime::last_error, output_shapes,")
        writer.line("runtime::workspace_bytes<kPlan>,")
    writer.line()
    writer.line("}  // namespace")
    writer.line()
    with writer.block('extern "C" [[gnu::visibility("default")]] const mkw_api* mkw_get_api(uint32_t version)'):
        writer.line("return version == MKW_ABI_VERSION ? &kApi : nullptr;")
