"""Steps of a CUDA library: launches of embedded cubins through the driver."""

from __future__ import annotations

import re
from collections.abc import Sequence

import sympy

from mkwrap.codegen.wrapper.blobs import PlacedImage
from mkwrap.codegen.wrapper.contents import Contents
from mkwrap.codegen.wrapper.launcher import Call, Launcher, Layout, spell_argument, step_title, write_checked
from mkwrap.codegen.wrapper.sizes import ARRAY, is_static
from mkwrap.codegen.wrapper.text import spell_comment, spell_string
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Largest, rounded_up
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Binary, Device, Image, Launch, Program, SizeArgument

_CONSTANT = "context->constants + {offset}"
_ALIGNMENT = 256
_SIZE_TYPES = {DType.INT64: "int64_t", DType.INT32: "int32_t"}


def _workspace(binary: Binary) -> Expr:
    scratch = [_global_scratch(image, launch) for launch, image in zip(*_pairs(binary), strict=True)]
    return rounded_up(binary.source.workspace_bytes, _ALIGNMENT) + Largest(0, *scratch)


def _pairs(binary: Binary) -> tuple[tuple[Launch, ...], tuple[Image, ...]]:
    launches = binary.source.launches
    if len(launches) != len(binary.images):
        raise InternalError(
            f"{binary.source.variant.label} has {len(launches)} launches and {len(binary.images)} images"
        )
    for launch in launches:
        if launch.options.get("num_ctas", 1) != 1:
            raise InternalError(
                f"{binary.source.variant.label} asks for a cluster launch, which host code does not make"
            )
    return launches, binary.images


def _global_scratch(image: Image, launch: Launch) -> Expr:
    """Triton's global scratch is per block: bytes × blocks of the grid (triton's launcher, `_allocation`)."""
    if image.global_scratch_bytes == 0:
        return sympy.Integer(0)
    if image.global_scratch_alignment > _ALIGNMENT:
        raise InternalError(f"{image.entry} wants scratch aligned to {image.global_scratch_alignment} bytes")
    x, y, z = (sympy.sympify(extent) for extent in launch.grid)
    return rounded_up(image.global_scratch_bytes * x * y * z, _ALIGNMENT)


def _declare(writer: Writer, contents: Contents, layout: Layout) -> None:
    """Declare nothing: images are parts."""


def _plan(
    writer: Writer, contents: Contents, layout: Layout, devices: Sequence[Device], features: Sequence[str], counts: str
) -> None:
    del features
    images, constants = layout.parts.images, layout.parts.constants
    with writer.block("constexpr runtime::CudaArch kArchs[] =", "};"):
        for device in devices:
            major, minor, exact = _capability(device.arch)
            writer.line(f"{{{spell_string(device.arch)}, {major}, {minor}, {'true' if exact else 'false'}}},")
    if images:
        with writer.block("constexpr runtime::CudaImage kImages[] =", "};"):
            for placed in images:
                names = f"{spell_string(placed.image.entry)}, {spell_string(placed.title)}"
                sizes = f"{placed.image.threads}, {placed.image.shared_bytes}"
                place = f"{placed.kernel}, {placed.alternative}, {_elected_on(contents, placed)}"
                place += _by_part(contents, layout, placed)
                writer.line(f"{{{names}, {placed.part}, {sizes}, {place}}},")
    if constants.placed:
        with writer.block("constexpr runtime::CudaConstant kConstants[] =", "};"):
            writer.lines(f"{{{c.part}, {c.offset}}}," for c in constants.placed)
    checked = layout.checked_steps
    if checked:
        with writer.block("constexpr runtime::CudaCheckedStep kCheckedSteps[] =", "};"):
            writer.lines(f"{{{spell_string(step.kernel)}, {spell_string(step.origin)}}}," for step in checked)
    tables = f"{'kImages' if images else 'nullptr'}, {len(images)}"
    tables += f", {'kConstants' if constants.placed else 'nullptr'}, {len(constants.placed)}"
    head = f"kArchs, {len(devices)}, mkw_parts"
    arena = "0" if counts else str(layout.arena_bytes)
    tail = f"{constants.total}, {arena}, {'kCheckedSteps' if checked else 'nullptr'}, {len(checked)}"
    tail += f", {counts}" if counts else ""
    writer.line(f"constexpr runtime::CudaPlan kPlan = {{{head}, {tables}, {tail}}};")


def _elected_on(contents: Contents, placed: PlacedImage) -> int:
    """Return the target on which sizes may choose the image's binary, −1 where they choose none."""
    name = list(contents.kernels)[placed.kernel]
    target = contents.kernels[name][placed.alternative].target
    return target if contents.dispatch(name, target) else -1


def _by_part(contents: Contents, layout: Layout, placed: PlacedImage) -> str:
    """Spell the part that is the table of the image's kernel, "" where there is none."""
    name = list(contents.kernels)[placed.kernel]
    part = layout.parts.tables.get((name, contents.kernels[name][placed.alternative].target))
    return "" if part is None else f", {part}"


def _capability(arch: str) -> tuple[int, int, bool]:
    """Split "sm_90a". From 9.0 on Triton compiles for the architecture-specific set (sm_90a), which runs there only."""
    match = re.fullmatch(r"sm_(\d+)(\d)([af]?)", arch)
    if match is None:
        raise InternalError(f"{arch!r} is no CUDA architecture")
    major, minor = int(match[1]), int(match[2])
    return major, minor, bool(match[3]) or major >= 9


def _begin(writer: Writer, program: Program, layout: Layout) -> None:
    write_checked(writer, "runtime::earlier_fault(kPlan, context->faults, &context->error)")
    writer.line("[[maybe_unused]] const mkw_model& model = *context->model;")
    writer.line("[[maybe_unused]] auto* const queue = static_cast<CUstream>(stream);")
    writer.line("const runtime::CurrentContext current(model.driver, model.context);")
    write_checked(writer, "current.status(&context->error)")
    if program.symbols:
        write_checked(writer, "runtime::grow_scratch(*context, shape.scratch_bytes, queue, &context->error)")
    writer.line("[[maybe_unused]] const CUdeviceptr arena = context->scratch;")
    if layout.has_workspace:
        size = "shape.arena_bytes" if program.symbols else "kArenaBytes"
        writer.line(f"[[maybe_unused]] const CUdeviceptr workspace = context->scratch + {size};")


def _step(writer: Writer, call: Call) -> None:
    source, values = call.binary.source, call.layout.values
    writer.line(spell_comment(step_title(call), 2))
    if source.zero_workspace:
        write_checked(writer, f"runtime::zero(*context, workspace, {values.spell(source.workspace_bytes)}, queue)")
    for launch, image in zip(*_pairs(call.binary), strict=True):
        if any(is_static(extent) and int(extent) == 0 for extent in launch.grid):
            continue
        with writer.block(""):
            _launch(writer, call, launch, image)


def _launch(writer: Writer, call: Call, launch: Launch, image: Image) -> None:
    values = call.layout.values
    names: list[str] = []
    for number, argument in enumerate(launch.args):
        kind = _SIZE_TYPES[argument.dtype] if isinstance(argument, SizeArgument) else "CUdeviceptr"
        value = spell_argument(call, argument, _CONSTANT)
        if isinstance(argument, SizeArgument) and not is_static(argument.expr) and argument.dtype is DType.INT32:
            what = spell_string(f"{call.kernel.name} takes {argument.expr} in 32 bits")
            writer.line(
                f"if ({value} > INT32_MAX) return runtime::too_large(kSizes, {ARRAY}, {what}, &context->error);"
            )
            kind, value = "auto", f"static_cast<int32_t>({value})"
        writer.line(f"{kind} p{number} = {value};")
        names.append(f"&p{number}")
    offset = values.spell(rounded_up(call.binary.source.workspace_bytes, _ALIGNMENT))
    global_scratch = f"workspace + {offset}" if image.global_scratch_bytes else "0"
    writer.line(f"CUdeviceptr scratch = {global_scratch};")
    writer.line("CUdeviceptr profile = 0;")
    # The driver does not look for the null pointer at the end; whoever checks the number of arguments does.
    writer.line("void* parameters[] = {" + ", ".join([*names, "&scratch", "&profile", "nullptr"]) + "};")
    grid = ", ".join(values.spell(extent) for extent in launch.grid)
    index = call.layout.parts.image(call.contents.number(call.step.kernel), call.alternative, image)
    write_checked(writer, f"runtime::launch(*context, kPlan, {index}, {{{grid}}}, queue, parameters)")


LAUNCHER = Launcher(
    header="mkwrap/cuda_context.h",
    device_type="MKW_DEVICE_CUDA",
    alignment=_ALIGNMENT,
    workspace=_workspace,
    images=True,
    declare=_declare,
    plan=_plan,
    begin=_begin,
    address="runtime::device_address",
    pointer="CUdeviceptr",
    step=_step,
)
