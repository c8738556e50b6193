"""How good the dispatched binary is on shapes that nobody tuned for. Writes JSON and a picture.

    python -m benchmarks.dispatch [--device cpu|cuda] [--tune full|quick] [--only TEXT …] [--shapes N] [--points N]
                                  [--no-peers] [--no-embedded] [--jobs N] [--json FILE] [--picture FILE]

Each case is compiled once with dynamic sizes. On each unseen shape these run interleaved:

    dispatched      the library compiled once
    truth           a library compiled and tuned for exactly this shape ("ground truth hint")
    smallest, middle, largest      libraries with one hint only
    embedded        the best of all binaries in the library, each forced: what benchmarking at run time would find
    dynamic=True, mark_dynamic     torch.compile, recompiling as it sees fit

Regret is dispatched over truth. On a GPU runs are replayed as CUDA graphs over rotating memory, so that kernels are compared,
not hosts. Libraries are compiled side by side in `--jobs` processes; tuning holds the device's lock. With `--json`, cases that
the file has and this run leaves out are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from benchmarks.burst import Callee, Sample, Tensors, timed
from benchmarks.dispatch_cases import DynamicCase, Shape, cases
from benchmarks.dispatch_picture import draw
from benchmarks.machine import describe

import mkwrap
from mkwrap import Options
from mkwrap.errors import MkwrapError
from mkwrap.toolchain.relink import KernelEntry, Manifest

SINGLE = ("smallest", "middle", "largest")


def main() -> None:
    """Run the cases asked for, print the table and the summary, write what is asked for."""
    parser = argparse.ArgumentParser(description="the dispatched binary beside the ground truth")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--tune", default="quick", choices=("full", "quick"))
    parser.add_argument("--only", nargs="*", default=[""], help="run the cases whose name contains one of these")
    parser.add_argument("--shapes", type=int, default=99, help="take so many unseen shapes of each case at most")
    parser.add_argument("--points", type=int, default=128, help="`Options.max_points` of the library")
    parser.add_argument("--no-peers", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-embedded", action="store_true", help="force no binary of the library by itself")
    parser.add_argument("--jobs", type=int, default=0, help="libraries that are compiled at once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="a .png or .svg of all cases in the result (needs matplotlib)")
    asked = parser.parse_args()
    found = [c for c in cases(asked.device) if any(text in c.name for text in asked.only)]
    result: dict[str, Any] = {"cases": {}}
    if asked.json and asked.json.exists():
        result = json.loads(asked.json.read_text())
    result |= {"machine": describe(), "device": asked.device, "tune": asked.tune}
    compilers = Compilers(asked.jobs or (1 if asked.device == "cpu" else 6))
    with tempfile.TemporaryDirectory(prefix="mkwrap-dispatch-") as folder:
        plain = Options(tune=asked.tune, cache_dir=Path(folder), progress=False, max_points=asked.points)
        for case in found:
            try:
                case.build()
            except ImportError as error:
                print(f"\n{case.name}\n  left out: {error}")
                continue
            job = Job(case.name, asked.device, replace(plain, hints=case.hints))
            row = _measured(job, asked, compilers)
            result["cases"][case.name] = row
            print(_line(row["summary"]), flush=True)
            if asked.json:
                asked.json.parent.mkdir(parents=True, exist_ok=True)
                asked.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if asked.picture:
        draw(result, asked.picture)


@dataclass(frozen=True)
class Job:
    """One library to compile: of a case, with dynamic sizes or for one shape, by which hints and forced variants."""

    name: str
    """The case's: it holds functions, which no process takes from another, so that each finds it anew."""
    device: str
    options: Options
    at: tuple[tuple[str, int], ...] = ()
    """The shape of a static library; () for dynamic sizes."""
    example: tuple[tuple[str, int], ...] = ()
    """The shape of the example inputs; () for the case's own."""

    @property
    def case(self) -> DynamicCase:
        """The case of that name."""
        return next(case for case in cases(self.device) if case.name == self.name)


def _compiled(job: Job) -> mkwrap.Model:
    case = job.case
    inputs = case.make(dict(job.at or job.example) or case.example, job.device)
    dims = None if job.at else case.dims
    return mkwrap.compile(case.build(), inputs, dynamic_shapes=dims, options=job.options)


def _library(job: Job) -> Path | str:
    """Compile in a process of its own; return the library's path, or what went wrong."""
    try:
        return Path(_compiled(job).path)
    except MkwrapError as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


class Compilers:
    """Processes that compile libraries side by side; measuring a kernel still takes the device for itself."""

    def __init__(self, count: int) -> None:
        self._pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))

    def models(self, jobs: Mapping[str, Job]) -> dict[str, mkwrap.Model]:
        """Compile some libraries and load them; those that fail are missing, and a line says why."""
        begun = {name: self._pool.submit(_library, job) for name, job in jobs.items()}
        models = {}
        for name, future in begun.items():
            answer = future.result()
            if isinstance(answer, str):
                print(f"    {name} left out: {answer[:160]}")
                continue
            models[name] = mkwrap.load(answer)
        return models


def _measured(job: Job, asked: argparse.Namespace, compilers: Compilers) -> dict[str, Any]:
    torch.manual_seed(0)
    case, device = job.case, job.device
    shapes = case.shapes[: asked.shapes]
    print(f"\n{case.name}", flush=True)
    fn = case.build()
    begin = time.monotonic()
    models = compilers.models({"dispatched": job})
    row: dict[str, Any] = {"compile_s": round(time.monotonic() - begin, 2), "shapes": []}
    row["kernels"] = [_table(kernel) for kernel in _kernels(models["dispatched"])]
    static = replace(job.options, hints="auto")
    exact = {f"@{k}": replace(job, at=tuple(shape.items()), options=static) for k, shape in enumerate(shapes)}
    embedded = {} if asked.no_embedded else _embedded(job, row["kernels"])
    models |= compilers.models({**_single(job), **embedded, **exact})
    row["single"] = {name: _winners(models[name]) for name in SINGLE if name in models}
    callees: dict[str, Callee] = {name: each.run_into for name, each in models.items() if not name.startswith("@")}
    if not asked.no_peers:
        callees |= _peers(case, fn)
    for k, shape in enumerate(shapes):
        if f"@{k}" not in models:
            continue
        inputs = case.make(shape, device)
        with torch.no_grad():
            outputs = tuple(torch.empty_like(t) for t in _leaves(fn(*inputs)))
        taken = timed({"truth": models[f"@{k}"].run_into, **callees}, inputs, outputs, device)
        row["shapes"].append(_shape_row(shape, taken))
        times = "  ".join(f"{name} {us:.2f}" for name, us in row["shapes"][-1]["us"].items())
        print(f"  {' '.join(f'{name}={size}' for name, size in shape.items()):<28}{times}", flush=True)
    row["summary"] = _summary(row["shapes"])
    return row


def _kernels(model: mkwrap.Model) -> list[KernelEntry]:
    return cast(Manifest, model.manifest)["kernels"]


def _winners(model: mkwrap.Model) -> list[str]:
    """Return what wins of each kernel at a library's only hint."""
    return [kernel["winner"] for kernel in _kernels(model)]


def _table(kernel: KernelEntry) -> dict[str, object]:
    """Return what the result keeps of a kernel: its dispatch table, a line for each row."""
    table = kernel["dispatch"]["rows"] if "dispatch" in kernel else []
    rows = [
        f"{'×'.join(map(str, row['point']))}: {row['variant']}" + (" with handicap" if row["handicap"] else "")
        for row in table
    ]
    variants = list(dict.fromkeys(row["variant"] for row in table))
    symbols = kernel["dispatch"]["symbols"] if "dispatch" in kernel else []
    named: dict[str, object] = {"name": kernel["name"], "winner": kernel["winner"], "symbols": symbols}
    return named | {"variants": variants, "rows": rows}


def _shape_row(shape: Shape, taken: Mapping[str, Sample]) -> dict[str, Any]:
    """Return what was measured at one shape; of the forced binaries only the best is kept."""
    times = {name: round(sample.median, 3) for name, sample in taken.items() if not name.startswith("=")}
    spread = {name: round(sample.spread, 3) for name, sample in taken.items() if not name.startswith("=")}
    embedded = [sample.median for name, sample in taken.items() if name.startswith("=")]
    if embedded:
        times["embedded"] = round(min(*embedded, taken["dispatched"].median), 3)
    return {"shape": dict(shape), "us": times, "spread_us": spread}


def _single(job: Job) -> dict[str, Job]:
    """Libraries that know one hint: the least sizes, the middle, and the largest that the case allows."""
    case = job.case
    low = {name: max(least, 2) for name, (least, _) in case.ranges.items()}
    share = min(1.0, math.log(case.limit) / sum(math.log(most) for _, most in case.ranges.values()))
    high = {name: round(most**share) for name, (_, most) in case.ranges.items()}
    hints = dict(zip(SINGLE, (low, case.example, high), strict=True))
    # The example's own point is always a hint: compiled with the hint as the example there is one only.
    return {
        name: replace(job, example=tuple(hint.items()), options=replace(job.options, hints=[dict(hint)]))
        for name, hint in hints.items()
    }


def _embedded(job: Job, kernels: Sequence[Mapping[str, Any]]) -> dict[str, Job]:
    """Force each binary that the library holds, where it is of one kernel; names begin with "="."""
    if len(kernels) != 1:
        return {}
    (kernel,) = kernels
    labels = kernel["variants"]
    if len(labels) < 2:
        return {}
    return {f"={label}": replace(job, options=replace(job.options, force={kernel["name"]: label})) for label in labels}


def _peers(case: DynamicCase, fn: Callable[..., object]) -> dict[str, Callee]:
    torch._dynamo.reset()
    torch._dynamo.config.cache_size_limit = 64

    def whole(inputs: Tensors, _outputs: Tensors, compiled: Callable[..., object]) -> object:
        with torch.no_grad():
            return compiled(*inputs)

    def marked(inputs: Tensors, outputs: Tensors, compiled: Callable[..., object]) -> object:
        for tensor, dims in zip(inputs, case.dims.values(), strict=True):
            for dim in dims:
                if tensor.shape[dim] > 1:
                    torch._dynamo.mark_dynamic(tensor, dim)
        return whole(inputs, outputs, compiled)

    dynamic = torch.compile(fn, dynamic=True)
    recompiled = torch.compile(_another(fn))
    return {
        "dynamic=True": lambda i, o: whole(i, o, dynamic),
        "mark_dynamic": lambda i, o: marked(i, o, recompiled),
    }


def _another(fn: Callable[..., object]) -> Callable[..., object]:
    """Return a function of its own that does the same, so that two compiled forms share no cache of code."""

    def another(*inputs: torch.Tensor) -> object:
        return fn(*inputs)

    return another


def _leaves(value: object) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the shapes come to: regret, and how far the other ways are from the truth."""
    summary: dict[str, Any] = {"shapes": len(rows)}
    for name in dict.fromkeys(name for row in rows for name in row["us"] if name != "truth"):
        ratios = [row["us"][name] / row["us"]["truth"] for row in rows if name in row["us"]]
        summary[name] = {"geometric mean": round(statistics.geometric_mean(ratios), 4), "worst": round(max(ratios), 3)}
    singles = [
        row["us"]["dispatched"] / min(row["us"][name] for name in SINGLE if name in row["us"])
        for row in rows
        if any(name in row["us"] for name in SINGLE)
    ]
    if singles:
        summary["dispatched over the best single hint"] = {"worst": round(max(singles), 3)}
    return summary


def _line(summary: Mapping[str, Any]) -> str:
    lines = [f"  {summary['shapes']} shapes, time over the truth's:"]
    for name, ratio in summary.items():
        if name != "shapes":
            mean = f"{ratio['geometric mean']:.3f}" if "geometric mean" in ratio else "     "
            lines.append(f"    {name:<38}{mean}   worst {ratio['worst']:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
