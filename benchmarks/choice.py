"""How good the choice is: the tuner's winner beside every other variant, measured anew and longer. Writes JSON and a picture.

    python -m benchmarks.choice [--device cpu|cuda] [--tune full|quick] [--only TEXT …] [--part K/N]
                                [--images FOLDER [--build TARGET]] [--json FILE] [--picture FILE]

Each case is compiled cold. As soon as the tuner has decided a kernel, the same candidates race again, on the same inputs and in
the same process, in many more interleaved rounds: that is taken for the truth. The regret of a choice is its time over that of
the best variant. The best of several medians is too good by their noise, so that a perfect choice would seem to lose: the best is
therefore found in every other round and the ratio taken in the rounds between, then the other way round; the regret is the
geometric mean of both and may lie below 1. "entry 0" is what a fixed heuristic without measurement would have lost.

With `--json`, cases that the file already has and this run leaves out are kept: a machine can be measured in pieces. Variants
that the cost model prunes are not timed; their number is in the file.

`--build cuda:sm_90 --images FOLDER` compiles every variant on a machine that need not have the device and measures nothing; a run
with `--images FOLDER` on one that has it (same Triton) then spends its time on measuring. Its compile times are left out, being
not cold.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from benchmarks.case import Case
from benchmarks.choice_cases import cases
from benchmarks.choice_picture import draw
from benchmarks.machine import describe

from mkwrap import targets
from mkwrap.capture import capture
from mkwrap.codegen.wrapper.host import wrap
from mkwrap.codegen.wrapper.manifest import Description
from mkwrap.errors import MkwrapError
from mkwrap.examples import reader
from mkwrap.fuse import fuse
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.options import Options
from mkwrap.pytree import encode_call
from mkwrap.stages import Candidates, CapturedGraph, Selection
from mkwrap.targets.target import Target
from mkwrap.toolchain.build import Built, build_all
from mkwrap.toolchain.cache import Cache, package_version
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.libraries import published
from mkwrap.toolchain.pool import Compiler, silent
from mkwrap.tune.contest import Contest
from mkwrap.tune.cost import hopeful
from mkwrap.tune.early import Means
from mkwrap.tune.measure import Outcome, Referee
from mkwrap.tune.recall import Recalled, recall
from mkwrap.tune.tuner import tune
from mkwrap.variants import render, variants

ROUNDS = 30
BUDGET_S = 4.0
DROP = 4.0
"""A variant slower than this times the best is measured in one round only: it is no rival."""


class Repeating(Referee):
    """A referee that, after each contest, holds it once more for the truth, and keeps both outcomes."""

    def __init__(self, kind: Literal["cpu", "cuda"]) -> None:
        super().__init__(kind)
        self.outcomes: list[tuple[Outcome, Outcome]] = []
        self.tuning_s, self.repeating_s = 0.0, 0.0

    def hold(self, contest: Contest) -> Outcome:
        """Hold the contest as the tuner asks for, then again; return the first outcome."""
        begin = time.monotonic()
        outcome = super().hold(contest)
        between = time.monotonic()
        limits = replace(contest.limits, budget=BUDGET_S, rounds=ROUNDS, drop=DROP)
        if len(outcome.samples) > 1:
            self.outcomes.append((outcome, super().hold(replace(contest, limits=limits))))
        self.tuning_s += between - begin
        self.repeating_s += time.monotonic() - between
        return outcome


@dataclass(frozen=True)
class Race:
    """A kernel's variants: the truth in µs, in even and in odd rounds; which one the tuner elected; entry 0 comes first."""

    kernel: str
    labels: tuple[str, ...]
    halves: tuple[tuple[float, float], ...]
    elected: int

    def loss(self, chosen: int) -> float:
        """Return the chosen variant's time over the best's."""
        logs = []
        for find, judge in ((0, 1), (1, 0)):
            best = min(range(len(self.halves)), key=lambda k: self.halves[k][find])
            logs.append(math.log(self.halves[chosen][judge] / self.halves[best][judge]))
        return math.exp(statistics.fmean(logs))


def main() -> None:
    """Run the cases asked for, print the table and the summary, write what is asked for."""
    parser = argparse.ArgumentParser(description="the tuner's choice beside the true best")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--tune", default="full", choices=("full", "quick"))
    parser.add_argument("--only", nargs="*", default=[""], help="run the cases whose name contains one of these")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th case, from the K-th")
    parser.add_argument("--images", type=Path, help="a folder to keep compiled kernels in, or to find them")
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
    for case in found:
        result["cases"][case.name] = row = _measured(case, options.device, options.tune, options.images)
        print(_line(case.name, row), flush=True)
        # Written after every case: what is measured is not lost if the time on a machine ends.
        result["summary"] = _summary(result["cases"])
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print("\n" + "\n".join(f"{name:<32}{value}" for name, value in _summary(result["cases"]).items()))
    if options.picture:
        draw(result, options.picture)


def _earlier(path: Path | None) -> dict[str, Any]:
    earlier: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.exists() else {"cases": {}}
    return earlier


def _build(found: Iterable[Case], name: str, images: Path) -> None:
    """Compile every variant of the cases into a cache, for a device that need not be there."""
    settings = Options(cache_dir=images, progress=False)
    target = targets.resolve(name, settings)
    for case in found:
        torch.manual_seed(0)
        fn, inputs = case.make("cpu")
        *_, binaries = _built(fn, inputs, target, settings)
        print(f"{case.name:<52}{sum(map(len, binaries.values())):3d} variants", flush=True)


def _measured(case: Case, device: Literal["cpu", "cuda"], mode: str, images: Path | None) -> dict[str, Any]:
    """Compile a case, cold unless its images are there, and race its variants; returns the case's row of the result."""
    torch.manual_seed(0)
    fn, inputs = case.make(device)
    referee = Repeating(device)
    with tempfile.TemporaryDirectory(prefix="mkwrap-choice-") as folder, referee:
        cache_dir = Path(folder) if images is None else images
        settings = Options(tune="quick" if mode == "quick" else "full", cache_dir=cache_dir, progress=False)
        target = targets.resolve(device, settings)
        referee.start()
        begin = time.monotonic()
        try:
            selection = _compiled(fn, inputs, target, settings, referee)
        except MkwrapError as error:
            return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        seconds = time.monotonic() - begin - referee.repeating_s
    out = sum(len(rejected) for rejected in selection.rejected.values())
    row = _row(_races(selection, referee)) | {"rejected_or_pruned": out}
    if images is None:
        row |= {"compile_s": round(seconds, 3), "tuning_s": round(referee.tuning_s, 3)}
    return row


def _compiled(
    fn: Callable[..., object], inputs: tuple[torch.Tensor, ...], target: Target, options: Options, referee: Referee
) -> Selection:
    """Run the stages of `mkwrap.compile` up to the library, with a referee of our own."""
    captured, candidates, recalled, binaries = _built(fn, inputs, target, options)
    means = Means(referee=referee, read=reader(captured.samples))
    selection = tune(candidates, binaries, recalled, target, options, means)
    # Only a choice for a device that is not here stays open.
    assert isinstance(selection, Selection)
    call = encode_call(captured.in_spec, captured.out_spec, captured.constant_args)
    description = Description(target.device, target.features, package_version(), call)
    published(wrap(selection, description), selection.schedule.program, options)
    return selection


def _built(
    fn: Callable[..., object], inputs: tuple[torch.Tensor, ...], target: Target, options: Options
) -> tuple[CapturedGraph, Candidates, Recalled, Built]:
    """Run the stages up to the binaries of every variant that may win."""
    compiler = Compiler(
        target.compile, f"{target.toolchain} {headers_digest()}", options.jobs, Cache(options.cache_dir)
    )
    captured = capture(fn, inputs, {}, None, RULES)
    candidates = variants(fuse(lower(captured)), target)
    sources = hopeful(render(candidates, target), candidates.schedule, target.device, {})
    # Without a cache or a record nothing is recalled: every choice is made anew.
    recalled = recall(candidates, sources, target, options)
    return captured, candidates, recalled, build_all(sources, lambda _kernel: None, compiler, silent)


def _races(selection: Selection, referee: Repeating) -> list[Race]:
    """Give names to the outcomes: contests are held in the order of the kernels, and timings are in that of the candidates."""
    contested = [name for name in selection.schedule.kernels if selection.timings[name]]
    races = []
    for name, (first, truth) in zip(contested, referee.outcomes, strict=True):
        labels = dict(zip(sorted(first.samples), (t.variant.label for t in selection.timings[name]), strict=True))
        numbers = [number for number in labels if number in truth.samples]
        samples = [truth.samples[number] for number in numbers]
        winner = selection.winners[name].only.source.variant.label
        halves = tuple((statistics.median(s[::2]), statistics.median(s[1::2] or s)) for s in samples)
        names = tuple(labels[number] for number in numbers)
        races.append(Race(name, names, halves, names.index(winner)))
    return races


def _row(races: Sequence[Race]) -> dict[str, Any]:
    """Return a case's row; of several kernels, the losses are weighted by their time."""
    row: dict[str, Any] = {
        "kernels": {
            race.kernel: {
                "elected": race.labels[race.elected],
                "truth_us": {label: round(min(pair), 3) for label, pair in zip(race.labels, race.halves, strict=True)},
            }
            for race in races
        },
    }
    if races:
        weights = [min(min(pair) for pair in race.halves) for race in races]

        def weighted(losses: Sequence[float]) -> float:
            return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)

        row["regret"] = round(weighted([race.loss(race.elected) for race in races]), 4)
        row["entry_0"] = round(weighted([race.loss(0) for race in races]), 4)
    return row


def _line(name: str, row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"{name:<52}failed: {row['failed']}"
    count = sum(len(kernel["truth_us"]) for kernel in row["kernels"].values())
    share = f"tuning {row['tuning_s']:.1f} of {row['compile_s']:.1f} s" if "compile_s" in row else "built before"
    if "regret" not in row:
        return f"{name:<52}one variant; {share}"
    return f"{name:<52}{count:3d} variants   regret {row['regret']:.3f}   entry 0 {row['entry_0']:.3f}   {share}"


def _summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the rows come to."""
    raced = {name: row for name, row in rows.items() if "regret" in row}
    if not raced:
        return {"cases": 0}
    worst = max(raced, key=lambda name: raced[name]["regret"])
    cold = [row for row in raced.values() if "compile_s" in row]
    share = sum(row["tuning_s"] for row in cold) / sum(row["compile_s"] for row in cold) if cold else None
    return {
        "cases": len(raced),
        "variants": sum(len(kernel["truth_us"]) for row in raced.values() for kernel in row["kernels"].values()),
        "regret, geometric mean": round(_mean(row["regret"] for row in raced.values()), 4),
        "regret, worst": raced[worst]["regret"],
        "worst case": worst,
        "entry 0, geometric mean": round(_mean(row["entry_0"] for row in raced.values()), 4),
        "entry 0, worst": max(row["entry_0"] for row in raced.values()),
        "tuning, share of compile time": None if share is None else round(share, 3),
        "failed": [name for name, row in rows.items() if "failed" in row],
    }


def _mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(values)


if __name__ == "__main__":
    main()
