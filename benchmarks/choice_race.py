"""One case of `benchmarks.choice`: the choice as a compile makes it, and the truth about all variants."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

import torch
from benchmarks.case import Case

from mkwrap import targets
from mkwrap.capture import capture
from mkwrap.codegen.wrapper.host import wrap
from mkwrap.codegen.wrapper.manifest import Description
from mkwrap.errors import MeasureError
from mkwrap.examples import reader
from mkwrap.fuse import fuse
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.options import Options
from mkwrap.pytree import encode_call
from mkwrap.stages import Candidates, CapturedGraph, Selection
from mkwrap.targets.target import Target
from mkwrap.toolchain.build import EVERY, Built, Rendered, build_all
from mkwrap.toolchain.cache import Cache, package_version
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.libraries import published
from mkwrap.toolchain.pool import Children, Compiler, silent
from mkwrap.tune.contest import Contest
from mkwrap.tune.cost import hopeful
from mkwrap.tune.early import Early, Means, started_early
from mkwrap.tune.measure import Outcome, Referee
from mkwrap.tune.recall import recall
from mkwrap.tune.tuner import tune
from mkwrap.variants import render, variants

ROUNDS = 30
BUDGET_S = 4.0
DROP = 4.0
"""A variant slower than this times the best is measured in one round only: it is no rival."""
PRUNED = "pruned:"
"""How the reasons of the cost model begin."""


@dataclass(frozen=True)
class Race:
    """A kernel's variants: the truth in µs, in even and in odd rounds; entry 0 comes first."""

    kernel: str
    labels: tuple[str, ...]
    halves: tuple[tuple[float, float], ...]
    elected: int
    pruned: frozenset[int] = frozenset()
    """Those that the compile ruled out by the cost model, unmeasured."""

    def loss(self, chosen: int) -> float:
        """Return the chosen variant's time over the best's."""
        return self._ratio([chosen])

    def loss_of_pruning(self) -> float:
        """Return the time of the best variant that was not pruned over the best's."""
        return self._ratio([k for k in range(len(self.labels)) if k not in self.pruned])

    def _ratio(self, among: Sequence[int]) -> float:
        """Return the time of the best among some over the best's; which they are is found in the rounds between."""
        logs = []
        for find, judge in ((0, 1), (1, 0)):
            best = min(range(len(self.halves)), key=lambda k: self.halves[k][find])
            chosen = min(among, key=lambda k: self.halves[k][find])
            logs.append(math.log(self.halves[chosen][judge] / self.halves[best][judge]))
        return math.exp(statistics.fmean(logs))


@dataclass(frozen=True)
class Raced:
    """What a case came to."""

    races: tuple[Race, ...]
    rejected: dict[str, str]
    """Label → reason of the variants that no race had: not built, or wrong."""
    compile_s: float | None
    """Of a cold compile up to the library; None where images were there before."""
    tuning_s: float


class Patient(Referee):
    """A referee that measures in many more rounds than it is asked for, and keeps the samples."""

    def __init__(self, kind: Literal["cpu", "cuda"]) -> None:
        super().__init__(kind)
        self.outcomes: list[Outcome] = []

    def hold(self, contest: Contest) -> Outcome:
        """Hold the contest for longer."""
        limits = replace(contest.limits, budget=BUDGET_S, rounds=ROUNDS, drop=DROP)
        self.outcomes.append(super().hold(replace(contest, limits=limits)))
        return self.outcomes[-1]


@dataclass(frozen=True)
class Opened:
    """A case up to the text of all its variants."""

    captured: CapturedGraph
    candidates: Candidates
    written: Rendered

    def built(self, target: Target, options: Options, sources: Rendered, children: Children | None = None) -> Built:
        """Compile sources, all of them."""
        identity = f"{target.toolchain} {headers_digest()}"
        compiler = Compiler(target.compile, identity, options.jobs, Cache(options.cache_dir), children)
        return build_all(sources, lambda _kernel: EVERY, compiler, silent)


def opened(fn: Callable[..., object], inputs: tuple[torch.Tensor, ...], target: Target) -> Opened:
    """Run the stages before the build."""
    captured = capture(fn, inputs, {}, None, RULES)
    candidates = variants(fuse(lower(captured)), target)
    return Opened(captured, candidates, render(candidates, target))


class Course:
    """Where races are held; a context manager. Its processes serve all cases, except those that are compiled cold."""

    def __init__(self, device: Literal["cpu", "cuda"], mode: Literal["full", "quick"], images: Path | None) -> None:
        self._device = device
        self._mode = mode
        self._images = images
        self._patient = Patient(device)
        self._referee = Referee(device)
        self._stack = ExitStack()

    def __enter__(self) -> Course:
        self._stack.enter_context(self._patient)
        self._stack.enter_context(self._referee)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, case: Case, *, cold: bool) -> Raced:
        """Compile a case as `mkwrap.compile` does, then race all its variants; `cold`: with nothing built before.

        Raises `MkwrapError` for what a compile raises, and for a winner that was wrong when it was measured again.
        """
        torch.manual_seed(0)
        fn, inputs = case.make(self._device)
        with tempfile.TemporaryDirectory(prefix="mkwrap-choice-") as folder:
            place = Path(folder) if cold or self._images is None else self._images
            options = Options(tune=self._mode, cache_dir=place, progress=False)
            target = targets.resolve(self._device, options)
            begin = time.monotonic()
            with self._processes(target, options, cold) as early:
                case_opened = opened(fn, inputs, target)
                selection, tuning_s = _elected(case_opened, target, options, early)
                if cold:
                    _link(case_opened, selection, target, options)
                compile_s = time.monotonic() - begin
            races, truth = self._truth(case_opened, selection, target, options)
        rejected = {r.variant.label: r.reason for found in truth.rejected.values() for r in found}
        return Raced(races, rejected, compile_s if cold else None, tuning_s)

    @contextmanager
    def _processes(self, target: Target, options: Options, cold: bool) -> Iterator[Early]:
        if cold:
            with started_early(target, options) as early:
                yield early
        else:
            with Children() as children:
                yield Early(children, self._referee)

    def _truth(
        self, case: Opened, selection: Selection, target: Target, options: Options
    ) -> tuple[tuple[Race, ...], Selection]:
        """Race all variants for longer: for a device of an architecture that the cost model does not know, none is pruned."""
        everything = replace(target, device=replace(target.device, arch=""))
        binaries = case.built(target, options, case.written)
        self._patient.outcomes.clear()
        means = Means(referee=self._patient, read=reader(case.captured.samples))
        recalled = recall(case.candidates, case.written, target, options)
        truth = tune(case.candidates, binaries, recalled, everything, options, means)
        assert isinstance(truth, Selection)
        contested = [name for name in truth.schedule.kernels if truth.timings[name]]
        outcomes = [outcome for outcome in self._patient.outcomes if outcome.samples]
        pairs = zip(contested, outcomes, strict=True)
        return tuple(_race(name, selection, truth, outcome) for name, outcome in pairs), truth


def _elected(case: Opened, target: Target, options: Options, early: Early) -> tuple[Selection, float]:
    """Run the stages from the build to the choice; returns the seconds of the last one, too."""
    sources = hopeful(case.written, case.candidates, target.device, {})
    # Without a cache or a record nothing is recalled: every choice is made anew.
    recalled = recall(case.candidates, sources, target, options)
    binaries = case.built(target, options, sources, early.children)
    means = Means(referee=early.referee, read=reader(case.captured.samples))
    begin = time.monotonic()
    selection = tune(case.candidates, binaries, recalled, target, options, means)
    # Only a choice for a device that is not here stays open.
    assert isinstance(selection, Selection)
    return selection, time.monotonic() - begin


def _link(case: Opened, selection: Selection, target: Target, options: Options) -> None:
    call = encode_call(case.captured.in_spec, case.captured.out_spec, case.captured.constant_args)
    description = Description(target.device, target.features, package_version(), call)
    published(wrap(selection, description), selection.schedule.program, options)


def _race(name: str, selection: Selection, truth: Selection, outcome: Outcome) -> Race:
    """Give names to an outcome: contests are held in the order of the kernels, and timings are in that of the samples."""
    samples = [outcome.samples[number] for number in sorted(outcome.samples)]
    labels = tuple(timing.variant.label for timing in truth.timings[name])
    winner = selection.winners[name].only.source.variant.label
    if winner not in labels:
        raise MeasureError(f"{winner} of {name} was elected, and then had no time: {truth.rejected[name]}")
    out = {r.variant.label for r in selection.rejected[name] if r.reason.startswith(PRUNED)}
    halves = tuple((statistics.median(s[::2]), statistics.median(s[1::2] or s)) for s in samples)
    pruned = frozenset(k for k, label in enumerate(labels) if label in out)
    return Race(name, labels, halves, labels.index(winner), pruned)
