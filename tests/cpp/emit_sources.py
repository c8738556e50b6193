"""Writes C++ that the compiler emits, for the static checks: kernels of a CPU model, host code of CPU and CUDA models.

Usage: emit_sources.py OUTPUT_FOLDER. Writes a compile_commands.json beside them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.export import Dim

import mkwrap
from mkwrap.capture import Callee
from mkwrap.options import TuneMode
from mkwrap.toolchain.cxx import KERNEL_FLAGS
from mkwrap.toolchain.headers import cuda_include, include_dir
from mkwrap.toolchain.link import HOST_FLAGS


def program(
    x: torch.Tensor, w: torch.Tensor, table: torch.Tensor, index: torch.Tensor, half: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Use every template of a language: products, reductions, gathers, transposes, 16-bit floats, integers."""
    y = torch.softmax(x @ w + 1, -1)
    wide = half.float()
    return (
        y,
        F.layer_norm(x, (x.shape[-1],)).relu(),
        x.sum(0),
        x.argmax(1),
        table[index],
        F.gelu(half),
        wide @ w,
        torch.var_mean(wide, 1)[0],
        (x.t() + 1).contiguous(),
        (index + 1) // 3,
    )


INPUTS = (
    torch.randn(48, 64),
    torch.randn(64, 64),
    torch.randn(10, 64),
    torch.tensor([3, 0, 9]),
    torch.randn(48, 64).to(torch.bfloat16),
)


def two_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Use kernels of few variants."""
    return torch.softmax(x, -1), x.sum(0)


def ordered(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Use the templates of scans and sorts."""
    return x.cumsum(1), x.cummax(0)[1], x.logcumsumexp(1), x.sort(1)[0], x.long().sort(1, descending=True)[1]


def emit(
    model: Callee,
    inputs: tuple[torch.Tensor, ...],
    target: str | list[str],
    tune: TuneMode,
    output: Path,
    *,
    by_size: bool = False,
) -> None:
    """Compile for a target; keep its host code and, of each kernel, the first source in C++ of each template.

    `by_size`: both sizes of the first input are dynamic, so that kernels choose among binaries.
    """
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder)
        shapes = ({0: Dim("rows", min=1, max=4096), 1: Dim("cols", min=1, max=4096)},) if by_size else None
        hints = {"rows": [1, 512], "cols": [16, 2048]}
        options = mkwrap.Options(tune=tune, progress=False, dump_dir=dump, hints=hints if by_size else "auto")
        mkwrap.compile(model, inputs, dynamic_shapes=shapes, target=target, options=options)
        kind = target.partition(":")[0] if isinstance(target, str) else "cuda"
        name = f"host-{kind}-{tune}{'-by-size' if by_size else ''}.cpp"
        shutil.copy(next(dump.glob("*-wrap.cpp")), output / name)
        for path in sorted(dump.glob("*-render-*.cpp")):
            kept = output / f"kernel-{path.stem.split('-', 3)[3]}.cpp"
            if not kept.exists():
                shutil.copy(path, kept)


def compile_commands(output: Path) -> list[dict[str, object]]:
    """Say how each source is compiled; clang-tidy reads it."""
    include = ["-I", str(include_dir().resolve()), "-I", str(cuda_include())]
    flags = {"kernel": [*KERNEL_FLAGS, "-march=x86-64-v3"], "host": [*HOST_FLAGS]}
    return [
        {
            "directory": str(output),
            "file": str(path),
            "arguments": ["g++", *flags[path.stem.partition("-")[0]], *include, "-c", str(path)],
        }
        for path in sorted(output.glob("*.cpp"))
    ]


def main() -> None:
    """Write the sources and the commands."""
    output = Path(sys.argv[1]).resolve()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # For its kernels; the host code of the larger program then takes the place of its own.
    emit(ordered, INPUTS[:1], "cpu:x86-64-v3", "off", output)
    for target in ("cpu:x86-64-v3", "cuda:sm_90"):
        emit(program, INPUTS, target, "off", output)
    emit(two_rows, INPUTS[:1], "cpu:x86-64-v3", "off", output, by_size=True)
    emit(two_rows, INPUTS[:1], "cuda:sm_90", "off", output, by_size=True)
    # Choices left open, and two architectures in one library: steps switch over alternatives.
    emit(two_rows, INPUTS[:1], "cpu:x86-64-v3", "later", output)
    emit(two_rows, INPUTS[:1], ["cuda:sm_80", "cuda:sm_90"], "later", output)
    (output / "compile_commands.json").write_text(json.dumps(compile_commands(output), indent=1))


main()
