"""How long the compile of an already recorded graph takes, stage by stage: choices and images come from the cache.

    python -m benchmarks.warm [--json result.json] [--repeat 3]

Each case is compiled once cold, then `--repeat` times warm in processes of their own, as a second run of a program would;
the median of each stage is shown. Imports are not counted. The goal: capture aside, at most 0.5 s. With `--json`, cases that
the file already has and this run leaves out are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cases import CPU_CASES, CUDA_CASES
from benchmarks.machine import describe

GOAL_S = 0.5

_COMPILE = """
import json, sys, time
import torch
import mkwrap
from benchmarks.cases import CPU_CASES, CUDA_CASES
case = next(case for case in (*CPU_CASES, *CUDA_CASES) if case.name == sys.argv[1])
fn, inputs = case.make(sys.argv[2])
options = mkwrap.Options(tune="quick", cache_dir=sys.argv[3], progress=False)
mkwrap.compile  # Imported when it is asked for.
with torch.no_grad():
    start = time.perf_counter()
    model = mkwrap.compile(fn, inputs, options=options)
print(json.dumps({**model.compilation.seconds, "all": time.perf_counter() - start}))
"""


def stages(case: str, device: str, cache: str) -> Mapping[str, float]:
    """Compile in a fresh process; returns seconds by stage, and of the whole call as "all"."""
    command = [sys.executable, "-c", _COMPILE, case, device, cache]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds: dict[str, float] = json.loads(printed.splitlines()[-1])
    return seconds


def main() -> None:
    """Measure every case and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--cases", nargs="*", help="names of the cases; default: all")
    options = parser.parse_args()
    results: dict[str, Mapping[str, float]] = {}
    if options.json is not None and options.json.exists():
        results |= json.loads(options.json.read_text())["seconds"]
    for case in CPU_CASES if options.device == "cpu" else CUDA_CASES:
        if options.cases and case.name not in options.cases:
            continue
        with tempfile.TemporaryDirectory(prefix="mkwrap-warm-") as cache:
            cold = stages(case.name, options.device, cache)
            runs = [stages(case.name, options.device, cache) for _ in range(options.repeat)]
        median = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
        rest = median["all"] - median["capture"]
        results[case.name] = {**median, "beside capture": rest, "cold": cold["all"]}
        largest = sorted((s for s in median if s not in ("capture", "all")), key=lambda stage: -median[stage])[:4]
        spent = ", ".join(f"{stage} {median[stage]:.3f}" for stage in largest)
        verdict = "" if rest <= GOAL_S else f"  above {GOAL_S}"
        print(f"{case.name:<24}capture {median['capture']:5.2f}  beside it {rest:6.3f}{verdict}  ({spent})", flush=True)
    if options.json is not None:
        text = json.dumps({"machine": describe(), "seconds": results}, indent=1)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
