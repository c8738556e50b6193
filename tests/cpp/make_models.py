"""Makes fifty different models of few programs, their host code instrumented for a sanitizer (R3).

Usage: make_models.py OUTPUT_FOLDER FLAG PTXAS, with PYTHONPATH naming the repository and its python folder; FLAG is
passed to the compiler of the host code. Libraries of dynamic sizes go into the folder `dynamic` there. On a vector of
8 numbers (a GPU's: 128), model `NN_operation.so` gives x `operation` NN.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tests.python.wrapper.dynamic_selections import cuda_tables, cuda_tables_both, tables
from tests.python.wrapper.selections import Hand, cpu_binary, cpu_description, cuda_image

from mkwrap.codegen.wrapper import Description, wrap
from mkwrap.stages import Access, Binary, BufferArgument, Device, Launch, Source, Variant
from mkwrap.toolchain.link import link
from mkwrap.toolchain.seal import TRAILER_BYTES, publish

OPERATIONS = {"add": "x[i] + w[i]", "sub": "x[i] - w[i]", "mul": "x[i] * w[i]", "max": "x[i] > w[i] ? x[i] : w[i]"}
MODELS = 10
# Bytes to find in the linked file.
PLACEHOLDER = np.arange(1, 9, dtype=np.float32) * np.float32(np.pi)


def on_cpu(operation: str) -> Hand:
    """Make y = x `operation` w over 8 numbers, w a constant."""
    hand = Hand()
    hand.input("x", 8)
    hand.output("y", 8)
    hand.constant("w", PLACEHOLDER)
    body = f"""const float *x = (const float*)args[0], *w = (const float*)args[1]; float* y = (float*)args[2];
    for (int64_t i = 0; i < 8; ++i) y[i] = {OPERATIONS[operation]};
    return 0;"""
    accesses = (Access.READ, Access.READ, Access.WRITE)
    hand.kernel("apply", accesses, cpu_binary("mkw_apply", body, 3))
    hand.step("apply", "x", "w", "y")
    return hand


def on_cuda(ptxas: Path) -> Hand:
    """Make a library with one image and one constant; the fake driver runs nothing."""
    hand = Hand()
    hand.input("x", 128)
    hand.output("y", 128)
    hand.constant("w", PLACEHOLDER)
    launch = Launch("apply", (BufferArgument(0), BufferArgument(1), BufferArgument(2)))
    source = Source(Variant("apply", "hand"), "triton", "", (launch,))
    hand.kernel("apply", (Access.READ, Access.READ, Access.WRITE), Binary(source, (cuda_image("apply", ptxas, 3),)))
    hand.step("apply", "x", "w", "y")
    return hand


def with_constant(library: bytes, constant: npt.NDArray[np.float32], path: Path) -> None:
    """Write a linked library with another constant."""
    image = library[:-TRAILER_BYTES]
    assert image.count(PLACEHOLDER.tobytes()) == 1
    publish(image.replace(PLACEHOLDER.tobytes(), constant.tobytes()), path)


def main() -> None:
    """Write every library into the output folder."""
    output, flag, ptxas = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    output.mkdir(parents=True, exist_ok=True)
    compiler = output / "compiler"
    compiler.write_text(f'#!/bin/sh\nexec g++ {flag} -g "$@"\n')
    compiler.chmod(0o755)
    made = {operation: (on_cpu(operation), cpu_description()) for operation in OPERATIONS}
    made["cuda"] = (on_cuda(ptxas), Description(Device("cuda", "sm_90"), (), "0.0.test", {}))
    dynamic = {"tables": (tables(), cpu_description()), "cuda_tables": (cuda_tables(ptxas), made["cuda"][1])}
    (output / "dynamic").mkdir(exist_ok=True)
    for name, (hand, description) in dynamic.items():
        selection = hand.selection()
        path = output / "dynamic" / f"{name}.so"
        link(wrap(selection, description), selection.schedule.program, str(compiler), path)
    selections = cuda_tables_both(ptxas)
    both = Description(Device("cuda", "sm_80"), (), "0.0.test", {}, (Device("cuda", "sm_90"),))
    path = output / "dynamic" / "cuda_tables_both.so"
    link(wrap(selections[0], both, selections[1:]), selections[0].schedule.program, str(compiler), path)
    for operation, (hand, description) in made.items():
        selection = hand.selection()
        template = output / f"{operation}.template"
        link(wrap(selection, description), selection.schedule.program, str(compiler), template)
        for number in range(MODELS):
            constant = np.full(8, number, np.float32)
            with_constant(template.read_bytes(), constant, output / f"{number:02}_{operation}.so")
        template.unlink()


main()
