"""Makes the libraries that the C++ tests load, from selections written by hand.

Usage: make_libraries.py OUTPUT_FOLDER [PTXAS], with PYTHONPATH naming the repository and its python folder; without
ptxas no CUDA library is made.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import sympy
from tests.python.wrapper.dynamic_selections import cuda_tables, cuda_tables_both, tables
from tests.python.wrapper.selections import Hand, add_one, cpu_binary, cpu_description, cuda_image

from mkwrap.artifact import Open, OpenSelection, Race
from mkwrap.codegen.wrapper import Description, wrap
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import size_symbol
from mkwrap.stages import (
    Access,
    Binary,
    BufferArgument,
    Device,
    FaultArgument,
    Launch,
    Packing,
    Source,
    SymbolSpec,
    Variant,
    WorkspaceArgument,
)
from mkwrap.toolchain.link import link
from mkwrap.toolchain.relink import LinkedLibrary
from mkwrap.toolchain.seal import TRAILER_BYTES, publish
from mkwrap.tune.closing import closed_kernel, closed_library
from mkwrap.tune.here import Here
from mkwrap.tune.recall import Decision

READ, WRITE = Access.READ, Access.WRITE


def pipeline() -> Hand:
    """Make y = (x · w) + rowsum(x · w) and z = w packed in reverse: arena, zeroed workspace, raw and packed constant."""
    hand = Hand()
    hand.input("x", 4, 8)
    hand.output("y", 4, 8)
    hand.output("z", 8)
    hand.temporary("t", 64, 4, 8)
    hand.arena_bytes = 64 + 4 * 8 * 4
    hand.constant("w", np.arange(8, dtype=np.float32))
    scale = """const float *x = (const float*)args[0], *w = (const float*)args[1]; float* t = (float*)args[2];
    for (int i = 0; i < 32; ++i) t[i] = x[i] * w[i % 8];
    return 0;"""
    hand.kernel("scale", (READ, READ, WRITE), cpu_binary("mkw_scale", scale, 3))
    sums = """const float* t = (const float*)args[0]; float *y = (float*)args[1], *sums = (float*)args[2];
    for (int i = 0; i < 32; ++i) sums[i / 8] += t[i];
    for (int i = 0; i < 32; ++i) y[i] = t[i] + sums[i / 8];
    return 0;"""
    arguments = (BufferArgument(0), BufferArgument(1), WorkspaceArgument(0))
    hand.kernel("sums", (READ, WRITE), cpu_binary("mkw_sums", sums, arguments, 16, zero_workspace=True))
    p = sympy.Symbol("p0", integer=True, nonnegative=True)
    reverse = Packing(DType.FLOAT32, (8,), (p,), (7 - p,))
    copy = """const float* w = (const float*)args[0]; float* z = (float*)args[1];
    for (int i = 0; i < 8; ++i) z[i] = w[i];
    return 0;"""
    hand.kernel("copy", (READ, WRITE), cpu_binary("mkw_copy", copy, (BufferArgument(0, reverse), BufferArgument(1))))
    hand.step("scale", "x", "w", "t")
    hand.step("sums", "t", "y")
    hand.step("copy", "w", "z")
    return hand


def gather() -> Hand:
    """Make y[i] = x[index[i]] with an index that may be out of range."""
    hand = Hand()
    hand.input("x", 4)
    hand.input("index", 3, dtype=DType.INT64, alignment=8)
    hand.output("y", 3)
    body = """const float* x = (const float*)args[0]; const int64_t* index = (const int64_t*)args[1];
    float* y = (float*)args[2]; int32_t bad = 0;
    for (int i = 0; i < 3; ++i) { if ((uint64_t)index[i] < 4) y[i] = x[index[i]]; else bad = 1; }
    return bad;"""
    hand.kernel("gather", (READ, READ, WRITE), cpu_binary("mkw_gather", body, 3))
    hand.step("gather", "x", "index", "y", origin="aten.index (model.py:7: y = x[index])")
    return hand


def dynamic() -> Hand:
    """Make x [n, 2n] → y [2n]: sizes are expressions over n in 1 … 64."""
    n = size_symbol("s0")
    hand = Hand(symbols=(SymbolSpec(n, 1, 64, "x", 0),))
    hand.input("x", n, 2 * n)
    hand.output("y", 2 * n)
    hand.temporary("t", 0, 2 * n)
    hand.arena_bytes = 8 * n
    body = """const float* x = (const float*)args[0]; float* y = (float*)args[1];
    y[0] = x[0];
    return 0;"""
    hand.kernel("first", (READ, WRITE), cpu_binary("mkw_first", body, 2))
    hand.step("first", "x", "t")
    hand.step("first", "t", "y")
    return hand


def cuda_add_one(ptxas: Path) -> Hand:
    """Make y = x + 1 twice through the arena, with a constant, a workspace and much shared memory."""
    hand = Hand()
    hand.input("x", 128)
    hand.output("y", 128)
    hand.temporary("t", 0, 128)
    hand.arena_bytes = 512
    hand.constant("w", np.arange(128, dtype=np.float32))
    partial, final = (cuda_image(name, ptxas, shared_bytes=100_000) for name in ("partial", "final"))
    launches = (
        Launch("partial", (BufferArgument(0), WorkspaceArgument(0))),
        Launch("final", (WorkspaceArgument(0), BufferArgument(1))),
    )
    source = Source(Variant("split", "hand"), "triton", "", launches, 512, zero_workspace=True)
    hand.kernel("split", (READ, WRITE), Binary(source, (partial, final)))
    scratch = cuda_image("add_scratch", ptxas, 3, global_scratch_bytes=16, global_scratch_alignment=16)
    launch = Launch("add_scratch", (BufferArgument(0), BufferArgument(1), BufferArgument(2)), (3, 2, 1))
    three = Source(Variant("three", "hand"), "triton", "", (launch,))
    hand.kernel("three", (READ, WRITE, READ), Binary(three, (scratch,)))
    hand.step("split", "x", "t")
    hand.step("three", "t", "y", "w")
    return hand


def cuda_checked(ptxas: Path) -> Hand:
    """Make a library whose second step reports indices out of range."""
    hand = Hand()
    hand.input("x", 128)
    hand.output("y", 128)
    hand.temporary("t", 0, 128)
    hand.arena_bytes = 512
    for name, arguments in {"plain": (), "checked": (FaultArgument(),)}.items():
        launch = Launch(name, (BufferArgument(0), BufferArgument(1), *arguments))
        source = Source(Variant(name, "hand"), "triton", "", (launch,))
        image = cuda_image(name, ptxas, 2 + len(arguments))
        hand.kernel(name, (READ, WRITE), Binary(source, (image,)))
    hand.step("plain", "x", "t")
    hand.step("checked", "t", "y", origin="aten.embedding (model.py:7: y = w[index])")
    return hand


def drop_image(library: Path, image: bytes) -> None:
    """Drop an image of a linked library, as closing an open choice drops those of the losers."""
    content = library.read_bytes()[:-TRAILER_BYTES]
    start = content.index(b"MKWPARTS")
    place = content.index(image, start)
    entry = struct.pack("<QQ", place - start, len(image))
    assert content.count(entry) == 1
    publish(content.replace(entry, bytes(len(entry))), library)


H100 = Description(Device("cuda", "sm_90", name="NVIDIA H100"), (), "0.0.test", {})


def alternatives(ptxas: Path, arch: str) -> tuple[Binary, Binary]:
    """Make y = x + 1 in one launch of five blocks, and in two through a workspace."""
    whole, partial, final = (cuda_image(f"{name}_{arch}", ptxas, arch=arch) for name in ("whole", "partial", "final"))
    one = Launch(whole.entry, (BufferArgument(0), BufferArgument(1)), (5, 1, 1))
    two = (
        Launch(partial.entry, (BufferArgument(0), WorkspaceArgument(256))),
        Launch(final.entry, (WorkspaceArgument(256), BufferArgument(1)), (2, 3, 1)),
    )
    return (
        Binary(Source(Variant("add", "one"), "triton", "", (one,)), (whole,)),
        Binary(Source(Variant("add", "two"), "triton", "", two, 1000, zero_workspace=True), (partial, final)),
    )


def opened(hand: Hand, binaries: tuple[Binary, ...]) -> OpenSelection:
    """Leave the choice of the only kernel open."""
    closed = hand.selection()
    (name,) = closed.winners
    reasons = {name: "open: no device"}
    return OpenSelection(closed.schedule, {name: Open(binaries, Race("{}", ()))}, {}, {}, reasons)


def make_open(ptxas: Path, output: Path) -> None:
    """Write a library with an open choice, what becomes of it by either choice, and one for two architectures."""
    hand = Hand()
    hand.input("x", 128)
    hand.output("y", 128)
    binaries = {arch: alternatives(ptxas, arch) for arch in ("sm_80", "sm_90")}
    hand.kernel("add", (READ, WRITE), binaries["sm_90"][0])
    hand.step("add", "x", "y")
    selection = opened(hand, binaries["sm_90"])
    program = selection.schedule.program
    path = output / "cuda_open.so"
    link(wrap(selection, H100), program, "g++", path)
    library = LinkedLibrary(path)
    (kernel,) = library.manifest["kernels"]
    for label in ("one", "two"):
        decided = {"add": closed_kernel(kernel, Decision(Variant("add", label), "measured"), "full")}
        here = Here(0, "cuda", H100.device)
        publish(closed_library(library, here, decided, {}), output / f"cuda_closed_{label}.so")
    older = Device("cuda", "sm_80", name="NVIDIA A100")
    further = replace(selection, choices={"add": Open(binaries["sm_90"], Race("{}", ()))})
    first = replace(selection, choices={"add": Open(binaries["sm_80"], Race("{}", ()))})
    description = Description(older, (), "0.0.test", {}, (H100.device,))
    link(wrap(first, description, (further,)), program, "g++", output / "cuda_both.so")


def main() -> None:
    """Write every library into the output folder."""
    output = Path(sys.argv[1])
    made = {
        "add_one": (add_one(8), cpu_description(("sse4_2",))),
        "add_two": (add_one(8, addend=2.0), cpu_description()),
        "foreign": (add_one(8), cpu_description(("sse4_2", "no_such_feature"))),
        "pipeline": (pipeline(), cpu_description()),
        "gather": (gather(), cpu_description()),
        "dynamic": (dynamic(), cpu_description()),
        "tables": (tables(), cpu_description()),
    }
    if len(sys.argv) > 2:
        made["cuda"] = (cuda_add_one(Path(sys.argv[2])), H100)
        made["cuda_tables"] = (cuda_tables(Path(sys.argv[2])), H100)
        made["cuda_checked"] = (cuda_checked(Path(sys.argv[2])), H100)
    for name, (hand, description) in made.items():
        selection = hand.selection()
        link(wrap(selection, description), selection.schedule.program, "g++", output / f"{name}.so")
    if len(sys.argv) > 2:
        incomplete = output / "cuda_without_image.so"
        incomplete.write_bytes((output / "cuda_checked.so").read_bytes())
        drop_image(incomplete, made["cuda_checked"][0].binaries["checked"].images[0].blob)
        older = Device("cuda", "sm_80", name="NVIDIA A100")
        selections = cuda_tables_both(Path(sys.argv[2]))
        host = wrap(selections[0], Description(older, (), "0.0.test", {}, (H100.device,)), selections[1:])
        link(host, selections[0].schedule.program, "g++", output / "cuda_tables_both.so")
        make_open(Path(sys.argv[2]), output)


main()
