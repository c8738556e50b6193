"""Host code: what is in it, what is refused, and that nothing in a user's program can break its text."""

from __future__ import annotations

import ctypes
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy
from tests.python.wrapper.selections import Hand, add_one, cpu_description

from mkwrap.artifact import EmbeddedConstant, Row
from mkwrap.codegen.wrapper import Description, wrap
from mkwrap.errors import CaptureError, InternalError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol, size_symbol
from mkwrap.stages import (
    Access,
    Binary,
    BufferArgument,
    Device,
    Image,
    Launch,
    OutputKind,
    OutputSpec,
    Packing,
    Rejected,
    SizeArgument,
    Source,
    SymbolSpec,
    Timing,
    Variant,
)
from mkwrap.toolchain.link import link

READ, WRITE = Access.READ, Access.WRITE
H100 = Description(Device("cuda", "sm_90", name="NVIDIA H100"), (), "0.0.test", {})
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def _binary(entry: str, launch: Launch | None = None) -> Binary:
    """A binary that is never linked."""
    launch = launch or Launch(entry, (BufferArgument(0), BufferArgument(1)))
    image = Image(launch.entry, entry.encode(), f"digest-{entry}")
    return Binary(Source(Variant(entry, "hand"), "cpp", "", (launch,)), (image,))


def _copy(binary: Binary | None = None) -> Hand:
    hand = Hand()
    hand.input("x", 8)
    hand.output("y", 8)
    hand.kernel("copy", (READ, WRITE), binary or _binary("mkw_copy"))
    hand.step("copy", "x", "y")
    return hand


def _manifest(hand: Hand) -> dict[str, object]:
    manifest: dict[str, object] = json.loads(wrap(hand.selection(), cpu_description()).manifest)
    return manifest


def test_equal_selections_give_equal_text() -> None:
    first, second = (wrap(_copy().selection(), cpu_description()) for _ in range(2))
    assert first == second


def test_c27_a_static_program_has_no_dispatch_and_no_size_variables() -> None:
    text = wrap(_copy().selection(), cpu_description()).text
    assert "n_" not in text
    assert "MKW_DYNAMIC" not in text
    assert "size_out_of_range" not in text


def test_c2_only_the_winners_images_are_in_the_library() -> None:
    hand = _copy()
    loser = Variant("copy", "loser")
    timings = {"copy": (Timing(Variant("copy", "hand"), 1.0, 0.1, 9), Timing(loser, 2.0, 0.1, 9))}
    rejected = {"copy": (Rejected(Variant("copy", "wrong"), "differs from the default"),)}
    host = wrap(hand.selection(timings, rejected), cpu_description())
    assert [image.entry for image in host.objects] == ["mkw_copy"]
    kernel = json.loads(host.manifest)["kernels"][0]
    assert [row["variant"] for row in kernel["timings"]] == ["hand", "loser"]
    assert kernel["rejected"] == [{"variant": "wrong", "reason": "differs from the default"}]
    assert (kernel["winner"], kernel["reason"], kernel["uses"]) == ("hand", "measured", 1)


def test_a_kernel_used_twice_is_linked_once() -> None:
    hand = _copy()
    hand.step("copy", "x", "y", origin="aten.other (model.py:2)")
    host = wrap(hand.selection(), cpu_description())
    assert len(host.objects) == 1
    assert host.text.count("int32_t mkw_copy(") == 1
    assert json.loads(host.manifest)["kernels"][0]["steps"] == [0, 1]


def test_two_objects_of_one_name_are_a_defect() -> None:
    hand = _copy()
    other = replace(_binary("mkw_copy").images[0], digest="another")
    hand.kernel("other", (READ, WRITE), Binary(hand.binaries["copy"].source, (other,)))
    hand.step("other", "x", "y")
    with pytest.raises(InternalError, match="two different objects define mkw_copy"):
        wrap(hand.selection(), cpu_description())


def test_a_constant_is_embedded_once_per_layout_and_dropped_when_only_its_packed_copy_is_read() -> None:
    p = axis_symbol("p0")
    reverse = Packing(DType.FLOAT32, (8,), (p,), (7 - p,))
    launch = Launch("mkw_packed", (BufferArgument(0, reverse), BufferArgument(1)))
    hand = _copy(_binary("mkw_packed", launch))
    hand.constant("w", np.arange(8, dtype=np.float32))
    hand.constant("unused", np.arange(8, dtype=np.float32))
    hand.steps = []
    hand.step("copy", "w", "y")
    hand.step("copy", "w", "y")
    host = wrap(hand.selection(), cpu_description())
    assert [blob for blob in host.parts if isinstance(blob, EmbeddedConstant)] == [EmbeddedConstant("w", reverse)]
    assert [c["name"] for c in json.loads(host.manifest)["constants"]] == ["w"]


def test_writing_to_a_constant_is_refused() -> None:
    hand = _copy()
    hand.constant("w", np.zeros(8, np.float32))
    hand.steps = []
    hand.step("copy", "x", "w")
    with pytest.raises(CaptureError, match="writes to w"):
        wrap(hand.selection(), cpu_description())


def test_defects_of_earlier_stages_are_named() -> None:
    hand = _copy()
    hand.temporary("t", 0, 8)
    hand.placements.clear()
    hand.step("copy", "x", "t")
    with pytest.raises(InternalError, match="binds t, a temporary without a place"):
        wrap(hand.selection(), cpu_description())


def test_outputs_that_are_no_buffers_are_described() -> None:
    hand = _copy()
    buffer = hand.outputs[0]
    hand.outputs[:0] = [OutputSpec(OutputKind.VALUE, value=float("nan"))]
    view = replace(buffer, kind=OutputKind.INPUT_VIEW, buffer="x", offset=2, identical=False)
    hand.outputs += [view, OutputSpec(OutputKind.SAME, same_as=1), OutputSpec(OutputKind.VALUE, value=None)]
    host = wrap(hand.selection(), cpu_description())
    outputs = json.loads(host.manifest)["outputs"]
    assert [output["kind"] for output in outputs] == ["value", "buffer", "input_view", "same", "value"]
    assert outputs[0]["value"] == {"float": "nan"}
    assert (outputs[1]["index"], outputs[2]["input"], outputs[2]["offset"], outputs[3]["same_as"]) == (0, 0, 2, 1)
    assert '"output[1]"' in host.text  # the leaf's number


def test_memory_is_accounted() -> None:
    hand = _copy()
    hand.constant("w", np.zeros(8, np.float32))
    hand.arena_bytes = 100
    hand.step("copy", "w", "y")
    memory = _manifest(hand)["memory"]
    assert memory == {"arena": 128, "workspace": 0, "constants": 32, "traffic": 4 * 32}


def test_an_unbounded_size_has_no_most_scratch() -> None:
    n = size_symbol("s0")
    hand = Hand(symbols=(SymbolSpec(n, 2, 2**63 - 1, "x", 0),))
    hand.input("x", n)
    hand.output("y", n)
    hand.arena_bytes = 4 * n
    hand.kernel("copy", (READ, WRITE), _binary("mkw_copy"))
    hand.step("copy", "x", "y")
    host = wrap(hand.selection(), cpu_description())
    assert "{kValueCount, kElectedCount, MKW_DYNAMIC}" in host.text
    assert json.loads(host.manifest)["memory"] == {"arena": None, "workspace": 0, "constants": 0, "traffic": 64}


def test_messages_write_dynamic_sizes_as_the_signature_does() -> None:
    rows, cols, long = size_symbol("rows"), size_symbol("cols"), size_symbol("l" * 80)
    hand = Hand(
        symbols=(
            SymbolSpec(rows, 1, 300, "x", 0, 2),
            SymbolSpec(cols, 0, 2**63 - 1, "x", 1),
            SymbolSpec(long, 1, 8, "named", 0),
        )
    )
    hand.input("x", 2 * rows, cols)
    hand.input("bias", cols)
    hand.input("named", long)
    hand.input("fixed", 3)
    hand.output("y", 2 * rows * cols, 64)
    text = wrap(hand.selection(), cpu_description()).text
    table = text.split("constexpr mkw_size_text kSizeTexts[] = {\n")[1].split("};")[0]
    assert [line.strip() for line in table.splitlines()] == [
        '{"[2*rows, cols]", "[cols, 1]", " with rows in 1..300, cols >= 0"},',
        '{"[cols]", "[1]", " with cols >= 0"},',
        f'{{"[{"l" * 80}]", "[1]", ""}},',
        '{"[3]", "[1]", ""},',
        '{"[2*cols*rows, 64]", "[64, 1]", " with rows in 1..300, cols >= 0"},',
    ]


HOSTILE = ('say "hi" \\', "end \\", "??/", "*/ } ;", "ünï\tcode\n#error", "%s%n", "x" * 500)


@pytest.mark.toolchain
@needs_compiler
def test_nothing_in_a_users_program_breaks_the_text(tmp_path: Path) -> None:
    hand = add_one(8)
    binary = hand.binaries["add_one"]
    for number, text in enumerate(HOSTILE):
        hand.kernel(
            f"k{number}", (READ, WRITE), replace(binary, source=replace(binary.source, variant=Variant(text, text)))
        )
        hand.step(f"k{number}", "x", "y", origin=text)
    hand.inputs[0] = replace(hand.inputs[0], path=f"kwargs[{HOSTILE[0]!r}]")
    selection = hand.selection()
    host = wrap(selection, cpu_description())
    assert max(map(len, (line for line in host.text.splitlines() if line.lstrip().startswith("//")))) <= 100
    library = link(host, selection.schedule.program, "g++", tmp_path / "model.so")
    assert ctypes.CDLL(str(library.path)).mkw_get_api(2) != 0
    assert json.loads(library.manifest)["inputs"][0]["path"] == f"kwargs[{HOSTILE[0]!r}]"


def _cuda(launch: Launch, **image: int) -> Hand:
    made = Image(launch.entry, b"cubin", "d", **{"threads": 128, **image})
    return _copy(Binary(Source(Variant("copy", "hand"), "triton", "", (launch,), 100), (made,)))


def test_cuda_launches_carry_sizes_grids_and_both_scratch_pointers() -> None:
    n = sympy.Integer(5)
    arguments = (BufferArgument(0), BufferArgument(1), SizeArgument(n, DType.INT32), SizeArgument(n))
    host = wrap(_cuda(Launch("copy", arguments, (7, 2, 1)), shared_bytes=60_000).selection(), H100)
    assert "int32_t p2 = 5;" in host.text
    assert "int64_t p3 = 5;" in host.text
    assert "void* parameters[] = {&p0, &p1, &p2, &p3, &scratch, &profile, nullptr};" in host.text
    assert "{7, 2, 1}" in host.text
    assert '{"sm_90", 9, 0, true},' in host.text
    assert "kPlan = {kArchs, 1, mkw_parts, kImages, 1, nullptr, 0, 0, 0, nullptr, 0};" in host.text
    assert host.parts[1:-1] == (b"cubin",)
    assert host.rows == (Row(256, (0,)),)
    assert host.objects == ()


def test_cuda_global_scratch_is_per_block() -> None:
    launch = Launch("copy", (BufferArgument(0), BufferArgument(1)), (7, 2, 1))
    hand = _cuda(launch, global_scratch_bytes=32, global_scratch_alignment=16)
    host = wrap(hand.selection(), H100)
    assert json.loads(host.manifest)["memory"]["workspace"] == 256 + 512  # 100 and 32 · 14 bytes, each rounded up
    assert "CUdeviceptr scratch = workspace + 256;" in host.text


def test_c20_an_empty_grid_is_no_launch() -> None:
    host = wrap(_cuda(Launch("copy", (BufferArgument(0), BufferArgument(1)), (0, 1, 1))).selection(), H100)
    assert "runtime::launch(" not in host.text


def test_cluster_launches_are_refused() -> None:
    launch = Launch("copy", (BufferArgument(0), BufferArgument(1)), options={"num_ctas": 2})
    with pytest.raises(InternalError, match="cluster"):
        wrap(_cuda(launch).selection(), H100)


@pytest.mark.parametrize(("arch", "plan"), [("sm_80", "8, 0, false"), ("sm_100a", "10, 0, true")])
def test_architectures(arch: str, plan: str) -> None:
    launch = Launch("copy", (BufferArgument(0), BufferArgument(1)))
    description = replace(H100, device=replace(H100.device, arch=arch))
    assert f'{{"{arch}", {plan}}},' in wrap(_cuda(launch).selection(), description).text
    with pytest.raises(InternalError, match="no CUDA architecture"):
        wrap(_cuda(launch).selection(), replace(H100, device=replace(H100.device, arch="gfx90a")))
