"""How good the dispatched binary is on shapes that nobody tuned for. Writes JSON and a picture.

    python -m benchmarks.dispatch [--device cpu|cuda] [--tune full|quick] [--only TEXT …] [--shapes N] [--no-peers]
                                  [--images FOLDER [--build TARGET]] [--json FILE] [--picture FILE]

Each case is compiled once with dynamic sizes. On each unseen shape these run interleaved:

    dispatched      the library compiled once
    truth           a library compiled and tuned for exactly this shape ("ground truth hint")
    smallest, middle, largest      libraries with one hint only
    embedded        the best of all binaries in the library, each forced: what benchmarking at run time would find
    dynamic=True, mark_dynamic     torch.compile, recompiling as it sees fit

Regret is dispatched over truth. On a GPU runs are replayed as CUDA graphs over rotating memory, so that kernels are compared,
not hosts. `--build cuda:sm_90 --images FOLDER` compiles all kernels without the device; a run with `--images FOLDER` finds them.
With `--json`, cases that the file has and this run leaves out are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.burst import Callee, Tensors, timed
from benchmarks.dispatch_cases import DynamicCase, Shape, cases
from benchmarks.dispatch_picture import draw
from benchmarks.machine import describe

import mkwrap
from mkwrap import Options
from mkwrap.errors import MkwrapError

SINGLE = ("smallest", "middle", "largest")


def main() -> None:
    """Run the cases asked for, print the table and the summary, write what is asked for."""
    parser = argparse.ArgumentParser(description="the dispatched binary beside the ground truth")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--tune", default="quick", choices=("full", "quick"))
    parser.add_argument("--only", nargs="*", default=[""], help="run the cases whose name contains one of these")
    parser.add_argument("--shapes", type=int, default=99, help="take so many unseen shapes of each case at most")
    parser.add_argument("--no-peers", action="store_true", help="leave torch.compile out")
    parser.add_argument("--images", type=Path, help="a folder to keep compiled kernels in, or to find them")
    parser.add_argument(
        "--build", default="", metavar="TARGET", help="compile for this target into --images, measure nothing"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="a .png or .svg of all cases in the result (needs matplotlib)")
    asked = parser.parse_args()
    found = [c for c in cases(asked.device) if any(text in c.name for text in asked.only)]
    result: dict[str, Any] = {"cases": {}}
    if asked.json and asked.json.exists():
        result = json.loads(asked.json.read_text())
    result |= {"machine": describe(), "device": asked.device, "tune": asked.tune}
    for case in found:
        try:
            fn = case.build()
        except ImportError as error:
            print(f"\n{case.name}\n  left out: {error}")
            continue
        with _folder(asked.images) as folder:
            options = Options(tune=asked.tune, cache_dir=folder, progress=False)
            if asked.build:
                _build(case, fn, asked.build, options, case.shapes[: asked.shapes])
                continue
            result["cases"][case.name] = row = _measured(case, fn, asked, options)
        print(_line(row["summary"]), flush=True)
        if asked.json:
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if asked.picture:
        draw(result, asked.picture)


@contextmanager
def _folder(images: Path | None) -> Iterator[Path]:
    """Give the folder of images, or a new one that is cold."""
    if images is not None:
        yield images
        return
    with tempfile.TemporaryDirectory(prefix="mkwrap-dispatch-") as folder:
        yield Path(folder)


def _compiled(
    case: DynamicCase,
    fn: Callable[..., object],
    options: Options,
    device: str,
    *,
    at: Shape | None = None,
    target: str | None = None,
) -> mkwrap.Model:
    """Compile a case with dynamic sizes, or statically for one shape."""
    inputs = case.make(at or case.example, device)
    dims = None if at is not None else case.dims
    return mkwrap.compile(fn, inputs, dynamic_shapes=dims, target=target, options=options)


def _with_hints(case: DynamicCase, options: Options) -> Options:
    return replace(options, hints=case.hints)


def _build(
    case: DynamicCase, fn: Callable[..., object], target: str, options: Options, shapes: Sequence[Shape]
) -> None:
    """Compile every kernel of a case's libraries, for a device that need not be there."""
    later = replace(options, tune="later")
    begin = time.monotonic()
    _compiled(case, fn, _with_hints(case, later), "cpu", target=target)
    for shape in shapes:
        _compiled(case, fn, later, "cpu", at=shape, target=target)
    print(f"{case.name:<44}{time.monotonic() - begin:6.1f} s", flush=True)


def _measured(
    case: DynamicCase, fn: Callable[..., object], asked: argparse.Namespace, options: Options
) -> dict[str, Any]:
    torch.manual_seed(0)
    print(f"\n{case.name}", flush=True)
    device = asked.device
    begin = time.monotonic()
    model = _compiled(case, fn, _with_hints(case, options), device)
    row: dict[str, Any] = {"compile_s": round(time.monotonic() - begin, 2), "shapes": []}
    row["kernels"] = json.loads(json.dumps(model.manifest["kernels"]))
    models = {"dispatched": model, **_single(case, fn, options, device), **_embedded(case, fn, model, options, device)}
    callees: dict[str, Callee] = {name: each.run_into for name, each in models.items()}
    if not asked.no_peers:
        callees |= _peers(case, fn)
    for shape in case.shapes[: asked.shapes]:
        truth = _compiled(case, fn, options, device, at=shape)
        inputs = case.make(shape, device)
        with torch.no_grad():
            outputs = tuple(torch.empty_like(t) for t in _leaves(fn(*inputs)))
        taken = timed({"truth": truth.run_into, **callees}, inputs, outputs, device)
        times = {name: round(sample.median, 3) for name, sample in taken.items() if not name.startswith("=")}
        embedded = [sample.median for name, sample in taken.items() if name.startswith("=")]
        if embedded:
            times["embedded"] = round(min(*embedded, taken["dispatched"].median), 3)
        spread = {name: round(sample.spread, 3) for name, sample in taken.items() if not name.startswith("=")}
        row["shapes"].append({"shape": dict(shape), "us": times, "spread_us": spread})
        at = " ".join(f"{name}={size}" for name, size in shape.items())
        print(f"  {at:<28}" + "  ".join(f"{name} {us:.2f}" for name, us in times.items()), flush=True)
    row["summary"] = _summary(row["shapes"])
    return row


def _single(case: DynamicCase, fn: Callable[..., object], options: Options, device: str) -> dict[str, mkwrap.Model]:
    """Compile libraries that know one hint: the least sizes, the middle, and the largest that the case allows."""
    low = {name: max(least, 2) for name, (least, _) in case.ranges.items()}
    share = min(1.0, math.log(case.limit) / sum(math.log(most) for _, most in case.ranges.values()))
    high = {name: round(most**share) for name, (_, most) in case.ranges.items()}
    hints = dict(zip(SINGLE, (low, case.example, high), strict=True))
    models = {}
    for name, hint in hints.items():
        # The example's own point is always a hint: compiled with the hint as the example there is one only.
        inputs = case.make(hint, device)
        models[name] = mkwrap.compile(
            fn, inputs, dynamic_shapes=case.dims, options=replace(options, hints=[dict(hint)])
        )
    return models


def _embedded(
    case: DynamicCase, fn: Callable[..., object], model: mkwrap.Model, options: Options, device: str
) -> dict[str, mkwrap.Model]:
    """Force each binary that the library holds, where it is of one kernel; names begin with "="."""
    kernels: list[dict[str, Any]] = json.loads(json.dumps(model.manifest["kernels"]))
    if len(kernels) != 1:
        return {}
    (kernel,) = kernels
    labels = dict.fromkeys(row["variant"] for row in kernel.get("dispatch", {}).get("rows", ()))
    forced = {}
    for label in labels if len(labels) > 1 else ():
        with_one = replace(_with_hints(case, options), force={kernel["name"]: label})
        try:
            forced[f"={label}"] = _compiled(case, fn, with_one, device)
        except MkwrapError as error:
            print(f"    {label} cannot be forced: {error}")
    return forced


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
