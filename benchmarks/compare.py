"""Eager, torch.compile, AOTInductor and mkwrap side by side, in one run: calls and compile times. Writes JSON.

    python -m benchmarks.compare [--device cpu|cuda] [--only TEXT …] [--skip PEER …] [--no-compile-times] [--json FILE]

With `--json`, cases that the file already has and this run leaves out are kept: a comparison can be made in pieces.
Calls are timed in interleaved rounds (every peer once per round); the table shows the median and half the interquartile
range, and how far each peer's results are from eager's (‖a − e‖ / ‖e‖ of the worst result). Compile times are taken in a
fresh process each, cold (empty caches) and cached (a second process), from after the imports to the first result.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.case import Case, Workload
from benchmarks.cases import CPU_CASES, CUDA_CASES, OVERHEAD
from benchmarks.machine import describe
from benchmarks.peers import PEERS, copy_of

import mkwrap

ROUNDS = 15
BATCH_SECONDS = 0.02
_ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""What rounding explains of a difference from eager, after a dozen layers of a network."""


def main() -> None:
    """Run the cases asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="mkwrap beside its peers")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", nargs="*", default=[""], help="run the cases whose name contains one of these")
    parser.add_argument("--skip", nargs="*", default=[], choices=sorted(PEERS), help="leave these peers out")
    parser.add_argument("--no-compile-times", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = [name for name in PEERS if name not in options.skip]
    cases = [
        c for c in (CUDA_CASES if options.device == "cuda" else CPU_CASES) if any(o in c.name for o in options.only)
    ]
    result = _earlier(options.json) | {"machine": describe(), "device": options.device}
    for case in cases:
        try:
            workload = case.make(options.device)
        except ImportError as error:
            print(f"\n{case.name}\n  left out: {error}")
            continue
        result["calls_us"][case.name] = _calls(case, workload, peers, options.device)
    if not options.no_compile_times:
        result["compile_s"] = _compile_times(peers, options.device)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"written to {options.json}")


def _earlier(path: Path | None) -> dict[str, Any]:
    """Return what the file holds, or an empty result."""
    if path is None or not path.exists():
        return {"calls_us": {}}
    earlier: dict[str, Any] = json.loads(path.read_text())
    return earlier


def _calls(case: Case, workload: Workload, peers: Sequence[str], device: str) -> dict[str, object]:
    torch.manual_seed(0)
    fn, inputs = workload
    calls: dict[str, Callable[[], object]] = {}
    rows: dict[str, dict[str, object]] = {}
    expected = _leaves(PEERS["eager"](fn, inputs, device)(*inputs))
    for name in peers:
        try:
            compiled = PEERS[name](fn, inputs, device)
            rows[name] = {"difference": _difference(_leaves(compiled(*inputs)), expected)}
            calls[name] = _bind(compiled, inputs)
            if case.bytes and isinstance(compiled, mkwrap.Model):
                # The fair row beside a copy into existing memory: the others also pay for new pages of the result.
                given = f"{name}, outputs given"
                rows[given] = rows[name].copy()
                calls[given] = _bind_into(compiled, inputs, expected)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
            rows[name] = {"failed": reason}
    if case.bytes:
        rows["copy of the same bytes"] = {}
        calls["copy of the same bytes"] = copy_of(case.bytes, device)
    with torch.no_grad():
        samples = _interleaved(calls, device)
    print(f"\n{case.name}")
    for name, row in rows.items():
        if name in samples:
            quartiles = statistics.quantiles(samples[name], n=4)
            row |= {"median": statistics.median(samples[name]), "spread": (quartiles[2] - quartiles[0]) / 2}
        print(f"  {name:<24}{_line(row, expected)}")
    return dict(rows)


def _line(row: Mapping[str, Any], expected: Sequence[torch.Tensor]) -> str:
    """Return a row of the table: the time, and the difference from eager, marked where it is no rounding."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    text = f"{row['median']:12.2f} µs  ± {row['spread']:.2f}"
    if row.get("difference"):
        wrong = not row["difference"] <= max(_ROUNDING.get(e.dtype, 0.0) for e in expected)
        text += f"   differs from eager by {row['difference']:.1e}{' — WRONG' if wrong else ''}"
    return text


def _bind(compiled: Callable[..., object], inputs: Sequence[torch.Tensor]) -> Callable[[], object]:
    if len(inputs) == 1:
        (only,) = inputs
        return lambda: compiled(only)
    return lambda: compiled(*inputs)


def _bind_into(
    model: mkwrap.Model, inputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]
) -> Callable[[], object]:
    taken, given = tuple(inputs), tuple(torch.empty_like(e) for e in expected)
    return lambda: model.run_into(taken, given)


def _leaves(value: object) -> list[torch.Tensor]:
    return [leaf.clone() for leaf in torch.utils._pytree.tree_leaves(value)]


def _difference(actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Return ‖a − e‖ / ‖e‖ of the worst result, in float64; infinite where shapes or dtypes differ.

    Norms rather than elements: a 16-bit result of many operations has elements that round far apart, in every peer.
    """
    worst = 0.0
    for a, e in zip(actual, expected, strict=True):
        if a.shape != e.shape or a.dtype != e.dtype:
            return math.inf
        difference, size = (a.double() - e.double()).norm().item(), e.double().norm().item()
        relative = difference / size if size else difference
        worst = math.inf if math.isnan(relative) else max(worst, relative)
    return worst


def _interleaved(calls: dict[str, Callable[[], object]], device: str) -> dict[str, list[float]]:
    """Return per callee ROUNDS samples in microseconds per call, rounds interleaved."""
    counts = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        one = max(_timed(call, 1, device), 1e-7)
        counts[name] = max(1, int(BATCH_SECONDS / max(_timed(call, max(1, int(1e-3 / one)), device), 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            samples[name].append(_timed(call, counts[name], device) * 1e6)
    return samples


def _timed(call: Callable[[], object], count: int, device: str) -> float:
    """Return seconds per call, back to back; on a GPU until the last one is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def _compile_times(peers: Sequence[str], device: str) -> dict[str, object]:
    print("\ncompile x+1, fresh process, from after the imports to the first result")
    rows: dict[str, object] = {}
    for name in peers:
        if name == "eager":
            continue
        with tempfile.TemporaryDirectory() as caches:
            seconds = [_compile_in_child(name, device, caches) for _ in range(2)]
        rows[name] = {OVERHEAD.name: {"cold": seconds[0], "cached": seconds[1]}}
        print(f"  {name:<24}cold {seconds[0]:6.2f} s   cached {seconds[1]:6.2f} s")
    return rows


def _compile_in_child(peer: str, device: str, caches: str) -> float:
    command = [sys.executable, "-m", "benchmarks.peers", peer, device, caches]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    lines = done.stdout.splitlines()
    return float(lines[-1]) if done.returncode == 0 and lines else float("nan")


if __name__ == "__main__":
    main()
