"""Steps of a CUDA library: launches of embedded cubins through the driver."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mkwrap.codegen.wrapper.contents import Contents
from mkwrap.codegen.wrapper.launcher import Call, Launcher, Layout, spell_argument, step_title
from mkwrap.codegen.wrapper.sizes import is_static, largest, round_up, spell_size
from mkwrap.codegen.wrapper.text import spell_comment, spell_string
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.dtypes import DType
from mkwrap.stages import Binary, Device, Image, Launch, Program, SizeArgument, SymbolSpec

_CONSTANT = "context->constants + {offset}"
_ALIGNMENT = 256
_SIZE_TYPES = {DType.INT64: "int64_t", DType.INT32: "int32_t"}


def _workspace(binary: Binary, symbols: Sequence[SymbolSpec]) -> int:
    own = round_up(largest(binary.source.workspace_bytes, symbols), _ALIGNMENT)
    return own + max((_global_scratch(b, a, symbols) for a, b in zip(*_pairs(binary), strict=True)), default=0)


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


def _global_scratch(image: Image, launch: Launch, symbols: Sequence[SymbolSpec]) -> int:
    """Triton's global scratch is per block: bytes × blocks of the grid (triton's launcher, `_allocation`)."""
    if image.global_scratch_bytes == 0:
        return 0
    if image.global_scratch_alignment > _ALIGNMENT:
        raise InternalError(f"{image.entry} wants scratch aligned to {image.global_scratch_alignment} bytes")
    x, y, z = (largest(extent, symbols) for extent in launch.grid)
    return round_up(image.global_scratch_bytes * x * y * z, _ALIGNMENT)


def _declare(writer: Writer, contents: Contents, layout: Layout) -> None:
    """Declare nothing: images are parts."""


def _plan(writer: Writer, layout: Layout, devices: Sequence[Device], features: Sequence[str]) -> None:
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
                writer.line(f"{{{placed.part}, {names}, {sizes}, {placed.kernel}, {placed.alternative}}},")
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
    tail = f"{constants.total}, {layout.arena_bytes}, {'kCheckedSteps' if checked else 'nullptr'}, {len(checked)}"
    writer.line(f"constexpr runtime::CudaPlan kPlan = {{{head}, {tables}, {tail}}};")


def _capability(arch: str) -> tuple[int, int, bool]:
    """Split "sm_90a". From 9.0 on Triton compiles for the architecture-specific set (sm_90a), which runs there only."""
    match = re.fullmatch(r"sm_(\d+)(\d)([af]?)", arch)
    if match is None:
        raise InternalError(f"{arch!r} is no CUDA architecture")
    major, minor = int(match[1]), int(match[2])
    return major, minor, bool(match[3]) or major >= 9


def _begin(writer: Writer, program: Program, workspace: bool) -> None:
    del program
    fault = "runtime::earlier_fault(kPlan, context->faults, &context->error)"
    writer.line(f"if (const mkw_status status = {fault}) return status;")
    writer.line("[[maybe_unused]] const mkw_model& model = *context->model;")
    writer.line("[[maybe_unused]] auto* const queue = static_cast<CUstream>(stream);")
    writer.line("const runtime::CurrentContext current(model.driver, model.context);")
    writer.line("if (const mkw_status status = current.status(&context->error)) return status;")
    writer.line("[[maybe_unused]] const CUdeviceptr arena = context->scratch;")
    if workspace:
        writer.line("const CUdeviceptr workspace = context->scratch + kArenaBytes;")


def _step(writer: Writer, call: Call) -> None:
    source = call.binary.source
    writer.line(spell_comment(step_title(call), 2))
    if source.zero_workspace:
        _checked(writer, f"runtime::zero(*context, workspace, {spell_size(source.workspace_bytes)}, queue)")
    scratch = round_up(largest(source.workspace_bytes, call.program.symbols), _ALIGNMENT)
    for launch, image in zip(*_pairs(call.binary), strict=True):
        if any(is_static(extent) and spell_size(extent) == "0" for extent in launch.grid):
            continue
        with writer.block(""):
            _launch(writer, call, launch, image, scratch)


def _launch(writer: Writer, call: Call, launch: Launch, image: Image, scratch: int) -> None:
    names: list[str] = []
    for number, argument in enumerate(launch.args):
        kind = _SIZE_TYPES[argument.dtype] if isinstance(argument, SizeArgument) else "CUdeviceptr"
        value = spell_argument(call, argument, _CONSTANT)
        if isinstance(argument, SizeArgument) and not is_static(argument.expr) and argument.dtype is DType.INT32:
            value = f"static_cast<int32_t>({value})"
        writer.line(f"{kind} p{number} = {value};")
        names.append(f"&p{number}")
    global_scratch = f"workspace + {scratch}" if image.global_scratch_bytes else "0"
    writer.line(f"CUdeviceptr scratch = {global_scratch};")
    writer.line("CUdeviceptr profile = 0;")
    # The driver does not look for the null pointer at the end; whoever checks the number of arguments does.
    writer.line("void* parameters[] = {" + ", ".join([*names, "&scratch", "&profile", "nullptr"]) + "};")
    grid = ", ".join(spell_size(extent) for extent in launch.grid)
    index = call.layout.parts.image(call.contents.number(call.step.kernel), call.alternative, image)
    _checked(writer, f"runtime::launch(*context, kPlan, {index}, {{{grid}}}, queue, parameters)")


def _checked(writer: Writer, expression: str) -> None:
    writer.line(f"if (const mkw_status status = {expression}) return status;")


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
