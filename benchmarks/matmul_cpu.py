"""CPU matrix products beside torch.mm and numpy, in GFLOP/s and in parts of the measured peak. Writes JSON.

    python -m benchmarks.matmul_cpu [--threads N] [--only TEXT] [--rounds N] [--json FILE]

The shapes are those of MiniLM-L6 (hidden 384, intermediate 1536, 12 heads of 32) at 1 × 128 and 8 × 128 tokens. Weights are
constants, as in a model: mkwrap packs them at compile time, torch gets them in their own layout (out, in). All peers take turns
in every round. The table shows each peer's fastest call (the peak is a fastest run, too) and mkwrap's fastest variant with its
label; the JSON has medians and half the interquartile range as well.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.machine import describe

from mkwrap import targets
from mkwrap.capture import capture
from mkwrap.codegen.cpp import matmul
from mkwrap.fuse import fuse
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.options import Options, default_jobs
from mkwrap.stages import Binary, BufferArgument, ConstantData, Kernel, Variant
from mkwrap.targets.target import Target
from mkwrap.toolchain.headers import include_dir
from mkwrap.toolchain.packing import pack

Call = Callable[[], object]

_PEAK = """
#include <mkwrap/simd_loops.h>
extern "C" void peak(float* data, int64_t steps, int threads) {
  constexpr int W = MKW_VECTOR_BYTES / 4, SUMS = MKW_VECTOR_BYTES == 64 ? 24 : 12;
#pragma omp parallel num_threads(threads)
  {
    mkw::Vec<float, W> sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = mkw::load(mkw::Full<W>{}, data + i * W);
    const auto x = mkw::splat<W>(data[0]);
    for (int64_t p = 0; p < steps; ++p) {
#pragma GCC unroll 24
      for (int i = 0; i < SUMS; ++i) sums[i] = mkw::fma(x, x, sums[i]);
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = mkw::add(sums[0], sums[i]);
    if (sums[0][0] == 12345.0f) data[0] = 1;
  }
}
"""


@dataclass(frozen=True)
class Case:
    """A product of `batch` (m × k) by (k × n) matrices; a weight where there is no batch, else heads of a (b, s, h·d) tensor."""

    name: str
    batch: int
    m: int
    n: int
    k: int

    @property
    def flops(self) -> int:
        """Additions and multiplications."""
        return 2 * self.batch * self.m * self.n * self.k


CASES = (
    *(
        Case(f"{role} {tokens}×{n}×{k}", 1, tokens, n, k)
        for tokens in (128, 1024)
        for role, n, k in (("projection", 384, 384), ("up", 1536, 384), ("down", 384, 1536))
    ),
    Case("scores 96 × 128×128×32", 96, 128, 128, 32),
    Case("context 96 × 128×32×128", 96, 128, 32, 128),
)


def main() -> None:
    """Run the cases asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="CPU matrix products beside torch.mm and numpy")
    parser.add_argument("--threads", type=int, default=default_jobs())
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    target = targets.resolve("cpu", Options(threads=options.threads))
    result: dict[str, object] = {"machine": describe(), "threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        peak = _peak(target, Path(folder), options.threads)
        print(f"peak {peak:.0f} GFLOP/s on {options.threads} threads")
        rows = {
            c.name: _measure(c, target, Path(folder), options.rounds, peak) for c in CASES if options.only in c.name
        }
    result["peak_gflops"], result["cases"] = round(peak, 1), rows
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _library(target: Target, text: str, folder: Path, name: str) -> ctypes.CDLL:
    path = folder / f"{name}.so"
    command = [
        "g++",
        "-std=c++20",
        "-O3",
        "-fopenmp",
        "-fPIC",
        "-shared",
        *target.flags,
        f"-I{include_dir()}",
        "-x",
        "c++",
    ]
    subprocess.run([*command, "-", "-o", str(path)], input=text, text=True, check=True)
    return ctypes.CDLL(str(path))


def _peak(target: Target, folder: Path, threads: int) -> float:
    """Multiply-adds in registers alone: GFLOP/s of all threads, the best of several runs."""
    function = _library(target, _PEAK, folder, "peak").peak
    data = np.full(1024, 1e-3, np.float32)
    lanes = target.device.vector_bytes // 4
    sums = 24 if lanes == 16 else 12
    # Runs shorter than a time slice: some are not interrupted.
    steps, best = 40_000, 0.0
    for _ in range(300):
        start = time.perf_counter()
        function(ctypes.c_void_p(data.ctypes.data), ctypes.c_int64(steps), ctypes.c_int(threads))
        best = max(best, 2 * threads * steps * sums * lanes / (time.perf_counter() - start) / 1e9)
    return best


def _measure(case: Case, target: Target, folder: Path, rounds: int, peak: float) -> dict[str, object]:
    module, x, peers = _peers(case)
    calls = {**peers, **_variants(module, x, target, folder)}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    rates = {name: case.flops / min(t) / 1e9 for name, t in times.items()}
    best = max((name for name in rates if name not in peers), key=lambda name: rates[name])
    shown = "  ".join(f"{name} {rates[name]:4.0f}" for name in peers)
    print(f"{case.name:26s} mkwrap {rates[best]:4.0f} ({rates[best] / peak:4.0%} of peak)  {shown}  {best}")
    return {name: {"best_gflops": round(rates[name], 1), **_spread(t)} for name, t in times.items()}


def _spread(times: Sequence[float]) -> dict[str, float]:
    """Fastest, median and half the interquartile range, in microseconds."""
    low, middle, high = statistics.quantiles(times, n=4)
    return {
        "best_us": round(min(times) * 1e6, 1),
        "median_us": round(middle * 1e6, 1),
        "spread_us": round((high - low) / 2 * 1e6, 1),
    }


def _peers(case: Case) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, Call]]:
    """The product as a module with its inputs, and how torch and numpy are called."""
    torch.manual_seed(0)
    if case.batch == 1:
        weight, x = torch.randn(case.n, case.k), torch.randn(case.m, case.k)
        out, right, left = torch.empty(case.m, case.n), weight.t(), x
        module: torch.nn.Module = _Linear(weight)
        return module, (x,), _calls(left, right, out)
    heads = torch.randn(8, case.m, 12, 32).transpose(1, 2)
    other = torch.randn(8, 128, 12, 32).transpose(1, 2)
    a = heads if case.k == 32 else torch.randn(8, 12, case.m, case.k)
    b = other.transpose(-1, -2) if case.n == 128 else other
    return _Product(), (a, b), _calls(a, b, torch.empty(8, 12, case.m, case.n))


def _calls(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> dict[str, Call]:
    left, right, result = a.numpy(), b.numpy(), out.numpy()
    return {
        "torch": lambda: torch.matmul(a, b, out=out),
        "numpy": lambda: np.matmul(left, right, out=result),
    }


class _Linear(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight)


class _Product(torch.nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


def _variants(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], target: Target, folder: Path
) -> dict[str, Call]:
    """One call per variant of the module's matrix product, on the inputs' own memory."""
    captured = capture(module, inputs, {}, None, RULES)
    schedule = fuse(lower(captured))
    (step,) = (s for s in schedule.steps if s.kernel.startswith("matmul"))
    kernel = schedule.kernels[step.kernel]
    memory: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}
    for parameter, name in zip(kernel.parameters, step.buffers, strict=True):
        places = [spec.name for spec in captured.inputs]
        if name in schedule.program.constants:
            memory[parameter.buffer.name] = schedule.program.constants[name].data
        elif name in places:
            tensor = inputs[places.index(name)]
            size = tensor.untyped_storage().nbytes()
            memory[parameter.buffer.name] = np.ctypeslib.as_array(
                (ctypes.c_uint8 * size).from_address(tensor.data_ptr())
            )
        else:
            size = int(parameter.buffer.storage_elements) * parameter.buffer.dtype.itemsize
            memory[parameter.buffer.name] = np.zeros(size, np.uint8)
    found = [Variant(kernel.name, "matmul", params) for params in matmul.TEMPLATE.space(kernel, target.device)]
    return {variant.label: _call(variant, kernel, memory, target, folder) for variant in found}


def _call(
    variant: Variant,
    kernel: Kernel,
    memory: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]],
    target: Target,
    folder: Path,
) -> Call:
    """Build a variant and bind it to memory."""
    binary = target.compile(matmul.TEMPLATE.render(kernel, variant, target.device))
    if not isinstance(binary, Binary):
        raise RuntimeError(binary.reason)
    image = binary.images[0]
    paths = [folder / f"{image.entry}.{ending}" for ending in ("o", "so")]
    paths[0].write_bytes(image.blob)
    subprocess.run(["g++", "-shared", "-fopenmp", str(paths[0]), "-o", str(paths[1]), "-lm"], check=True)
    entry = ctypes.CDLL(str(paths[1]))[image.entry]
    alive = [_argument(binary, number, kernel, memory) for number in range(len(binary.source.launches[0].args))]
    addresses = (ctypes.c_void_p * len(alive))(
        *[-(-a.ctypes.data // 64) * 64 if k else a.ctypes.data for a, k in alive]
    )

    def call() -> Sequence[object]:
        entry(addresses, None)
        return alive

    return call


def _argument(
    binary: Binary, number: int, kernel: Kernel, memory: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], bool]:
    """Memory of one launch argument, and whether it is to be used from its first multiple of 64 bytes."""
    argument = binary.source.launches[0].args[number]
    if not isinstance(argument, BufferArgument):
        return np.zeros(int(binary.source.workspace_bytes) + 64, np.uint8), True
    buffer = kernel.parameters[argument.parameter].buffer
    if argument.packing is None:
        return memory[buffer.name], False
    return np.asarray(pack(ConstantData(buffer.name, memory[buffer.name]), buffer, argument.packing)), False


if __name__ == "__main__":
    main()
