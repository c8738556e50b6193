"""How good the choice is: the tuner's winner beside every other variant, measured anew and longer. Writes JSON and a picture.

    python -m benchmarks.choice [--device cpu|cuda] [--tune full|quick] [--only TEXT …] [--part K/N] [--cold N]
                                [--images FOLDER [--build TARGET]] [--json FILE] [--picture FILE]

Each case is compiled. Then all its variants race again, in many more interleaved rounds: that is taken for the truth. Variants
that the cost model prunes take part, though the tuner never saw them. The regret of a choice is its time over that of the best
variant. The best of several medians is too good by their noise, so that a perfect choice would seem to lose: the best is
therefore found in every other round and the ratio taken in the rounds between, then the other way round; the regret is the
geometric mean of both and may lie below 1. "pruning" is the part of it that no tuner could avoid: the best variant that was not
pruned over the best. "entry 0" is what a fixed heuristic without measurement would have lost.

With `--json`, cases that the file already has and this run leaves out are kept: a machine can be measured in pieces.

`--build cuda:sm_90 --images FOLDER` compiles every variant on a machine that need not have the device and measures nothing; a run
with `--images FOLDER` on one that has it (same torch and Triton) then spends its time on measuring. Compile times are those of
cold compiles: of all cases, but with `--images` of none, or of as many as `--cold` says.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.case import Case
from benchmarks.choice_cases import cases
from benchmarks.choice_picture import draw
from benchmarks.choice_race import Course, Race, opened
from benchmarks.machine import describe

from mkwrap import targets
from mkwrap.errors import MkwrapError
from mkwrap.options import Options


def main() -> None:
    """Run the cases asked for, print the table and the summary, write what is asked for."""
    parser = argparse.ArgumentParser(description="the tuner's choice beside the true best")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--tune", default="full", choices=("full", "quick"))
    parser.add_argument("--only", nargs="*", default=[""], help="run the cases whose name contains one of these")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th case, from the K-th")
    parser.add_argument("--images", type=Path, help="a folder to keep compiled kernels in, or to find them")
    parser.add_argument("--cold", type=int, help="compile so many cases, spread over all, with an empty cache")
    parser.add_argument(
        "--build", default="", metavar="TARGET", help="compile for this target into --images, measure nothing"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="a .png or .svg of all cases in the result (needs matplotlib)")
    options = parser.parse_args()
    part, parts = (int(number) for number in options.part.split("/"))
    found = [c for c in cases(options.device) if any(text in c.name for text in options.only)][part - 1 :: parts]
    if options.build:
        _build(found, options.build, options.images)
        return
    result = _earlier(options.json)
    result |= {"machine": describe(), "device": options.device, "tune": options.tune}
    cold = _cold(found, options.cold if options.cold is not None else 0 if options.images else len(found))
    with Course(options.device, options.tune, options.images) as course:
        for case in found:
            result["cases"][case.name] = row = measured(case, course, cold=case.name in cold)
            print(_line(case.name, row), flush=True)
            # Written after every case: what is measured is not lost if the time on a machine ends.
            result["summary"] = _summary(result["cases"])
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print("\n" + "\n".join(f"{name:<40}{value}" for name, value in _summary(result["cases"]).items()))
    if options.picture:
        draw(result, options.picture)


def _earlier(path: Path | None) -> dict[str, Any]:
    earlier: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.exists() else {"cases": {}}
    return earlier


def _cold(found: Sequence[Case], count: int) -> set[str]:
    """Return the names of so many cases, at equal distances: tables of cases go family by family."""
    count = min(count, len(found))
    return {found[k * len(found) // count].name for k in range(count)}


def _build(found: Iterable[Case], name: str, images: Path) -> None:
    """Compile every variant of the cases into a cache, for a device that need not be there."""
    settings = Options(cache_dir=images, progress=False)
    target = targets.resolve(name, settings)
    for case in found:
        torch.manual_seed(0)
        fn, inputs = case.make("cpu")
        made = opened(fn, inputs, target)
        binaries = made.built(target, settings, made.written)
        print(f"{case.name:<52}{sum(map(len, binaries.values())):3d} variants", flush=True)


def measured(case: Case, course: Course, *, cold: bool) -> dict[str, Any]:
    """Compile a case and race its variants; returns its row of the result."""
    try:
        raced = course.run(case, cold=cold)
    except MkwrapError as error:
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    row = _row(raced.races) | {"rejected": raced.rejected}
    if raced.compile_s is not None:
        row |= {"compile_s": round(raced.compile_s, 3), "tuning_s": round(raced.tuning_s, 3)}
    return row


def _row(races: Sequence[Race]) -> dict[str, Any]:
    """Return a case's row; of several kernels, the losses are weighted by their time."""
    row: dict[str, Any] = {
        "kernels": {
            race.kernel: {
                "elected": race.labels[race.elected],
                "pruned": [race.labels[k] for k in sorted(race.pruned)],
                "truth_us": {label: round(min(pair), 3) for label, pair in zip(race.labels, race.halves, strict=True)},
            }
            for race in races
        },
    }
    if races:
        weights = [min(min(pair) for pair in race.halves) for race in races]

        def weighted(losses: Iterable[float]) -> float:
            return round(sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights), 4)

        row["regret"] = weighted(race.loss(race.elected) for race in races)
        row["pruning"] = weighted(race.loss_of_pruning() for race in races)
        row["entry_0"] = weighted(race.loss(0) for race in races)
    return row


def _line(name: str, row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"{name:<52}failed: {row['failed']}"
    count = sum(len(kernel["truth_us"]) for kernel in row["kernels"].values())
    pruned = sum(len(kernel["pruned"]) for kernel in row["kernels"].values())
    share = f"tuning {row['tuning_s']:.1f} of {row['compile_s']:.1f} s" if "compile_s" in row else "built before"
    if "regret" not in row:
        return f"{name:<52}one variant; {share}"
    return (
        f"{name:<52}{count:3d} variants   regret {row['regret']:.3f}   entry 0 {row['entry_0']:.3f}   "
        f"pruning {row['pruning']:.3f} ({pruned} pruned)   {share}"
    )


def _summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the rows come to."""
    raced = {name: row for name, row in rows.items() if "regret" in row}
    if not raced:
        return {"cases": 0}
    kernels = [kernel for row in raced.values() for kernel in row["kernels"].values()]
    summary: dict[str, Any] = {
        "cases": len(raced),
        "variants": sum(len(kernel["truth_us"]) for kernel in kernels),
        "variants, pruned": sum(len(kernel["pruned"]) for kernel in kernels),
        "cases with pruned variants": sum(any(k["pruned"] for k in row["kernels"].values()) for row in raced.values()),
    }
    for key, name in (("regret", "regret"), ("pruning", "regret by pruning"), ("entry_0", "entry 0")):
        worst = max(raced, key=lambda case, key=key: raced[case][key])  # type: ignore[misc]
        summary |= {
            f"{name}, geometric mean": round(statistics.geometric_mean(row[key] for row in raced.values()), 4),
            f"{name}, worst": raced[worst][key],
            f"{name}, worst case": worst,
        }
    cold = [row for row in raced.values() if "compile_s" in row]
    share = sum(row["tuning_s"] for row in cold) / sum(row["compile_s"] for row in cold) if cold else None
    return summary | {
        "cold compiles": len(cold),
        "tuning, share of cold compile time": None if share is None else round(share, 3),
        "failed": [name for name, row in rows.items() if "failed" in row],
    }


if __name__ == "__main__":
    main()
