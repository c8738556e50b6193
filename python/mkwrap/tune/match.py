"""Decides kernels by measurement: one contest each, under the device's lock, unless a row of a record knows the answer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mkwrap.artifact import Open, Race
from mkwrap.errors import NoVariantError, ProcessError
from mkwrap.options import Options
from mkwrap.stages import Binary, Device, Kernel, Provenance, Rejected, Schedule, Timing, Tuned, Variant
from mkwrap.targets.target import Target
from mkwrap.toolchain.rejection import rejection, settled
from mkwrap.tune.bind import Binder, link_objects
from mkwrap.tune.contest import OUT_OF_RANGE, Contest, Limits
from mkwrap.tune.cost import prune
from mkwrap.tune.early import Means
from mkwrap.tune.expected import expected_results
from mkwrap.tune.inputs import memories
from mkwrap.tune.lock import device_to_itself
from mkwrap.tune.measure import Outcome, Referee
from mkwrap.tune.race import race_of
from mkwrap.tune.recall import (
    Decision,
    PointsDecision,
    Recalled,
    cached_row,
    decision_of,
    images_of,
    keep_row,
    row_of,
    versions_of,
)
from mkwrap.tune.record import Row
from mkwrap.tune.samples import Samples
from mkwrap.tune.select import select
from mkwrap.tune.spread import summary

LIMITS: Mapping[str, Limits] = {
    # 20 rounds of 4 × 0.4 ms tell variants a few percent apart; the budget bounds slow kernels and disturbed rounds.
    "full": Limits(budget=3.0, rounds=20, batch_us=400.0),
    "quick": Limits(budget=0.9, rounds=7, batch_us=200.0, check=10.0),
}


@dataclass(frozen=True)
class Entrants:
    """One kernel's variants after the build: at least one that can run, in order, and the rejected."""

    kernel: Kernel
    binaries: tuple[Binary, ...]
    rejected: tuple[Rejected, ...]
    candidates: tuple[Variant, ...]
    """All of the kernel's variants, also those that are rejected or that nobody built."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that can run."""
        return tuple(binary.source.variant for binary in self.binaries)


class Matches:
    """Contests between the variants of a schedule's kernels on a target that is present. Use as a context manager."""

    def __init__(self, schedule: Schedule, target: Target, options: Options, recalled: Recalled, means: Means) -> None:
        self._schedule = schedule
        self._target = target
        self._options = options
        self._recalled = recalled
        self._cache = means.cache
        self._samples = Samples(schedule, means.read)
        self._stack = contextlib.ExitStack()
        self._referee = means.referee or self._stack.enter_context(Referee(target.kind))
        self._objects: Mapping[str, Path | str] = {}
        self._trouble = ""

    def __enter__(self) -> Matches:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def known(self, entrants: Entrants) -> Decision | None:
        """Return what the record or an earlier process decided on such a device between these very binaries, or None."""
        row = self._recalled.rows.get(entrants.kernel.name)
        if row is None:
            return None
        given = entrants.kernel.name in self._recalled.recorded
        provenance = Provenance.RECORD if given else Provenance.CACHE
        return decision_of(row, entrants.candidates, entrants.binaries, provenance)

    def prepare(self, entrants: Sequence[Entrants]) -> None:
        """Make the binaries of all kernels that will be measured loadable.

        Where the system has no room for files or processes nothing is measured: the defaults are right, too.
        """
        if not entrants:
            return
        try:
            self._referee.start()
            if self._target.kind == "cpu":
                temporary = tempfile.TemporaryDirectory(prefix="mkwrap-tune-", ignore_cleanup_errors=True)
                folder = Path(self._stack.enter_context(temporary))
                images = [image for entry in entrants for binary in entry.binaries for image in binary.images]
                self._objects = link_objects(images, self._options.cxx, folder)
        except ProcessError as error:
            self._trouble = str(error)
        except OSError as error:
            self._trouble = f"cannot write to {tempfile.gettempdir()}: {error.strerror}"

    def play(self, entrants: Entrants) -> Decision:
        """Measure and decide; a decision is kept unless the measuring itself failed.

        Raises `NoVariantError` where no variant gives the right result.
        """
        if self._trouble:
            return Decision(entrants.variants[0], f"not measured: {self._trouble}")
        with self.device():
            # Another process may have measured it since, holding the device.
            elsewhere = self._kept(entrants)
            if elsewhere is not None:
                return elsewhere
            return self._noted(entrants, *self.contest(entrants, self._schedule, self._samples))

    @property
    def trouble(self) -> str:
        """Say why nothing can be measured; "" where it can."""
        return self._trouble

    def device(self) -> contextlib.AbstractContextManager[None]:
        """Take the device from others while something is measured."""
        return device_to_itself(self._target.kind, self._target.device.name)

    def alone(self, entrants: Entrants) -> Decision | None:
        """Decide a kernel of which one variant is left; None where there are more."""
        if len(entrants.binaries) > 1:
            return None
        (variant,) = entrants.variants
        if not entrants.rejected:
            return Decision(variant, "not measured: there is one variant")
        return self._noted(entrants, Decision(variant, "not measured: the other variants were rejected"), lasting=True)

    def _kept(self, entrants: Entrants) -> Decision | None:
        row = self.kept_row(entrants.kernel)
        return None if row is None else decision_of(row, entrants.candidates, entrants.binaries, Provenance.CACHE)

    def kept_row(self, kernel: Kernel) -> Row | None:
        """Return the row that the cache has for a kernel by now."""
        if self._cache is None:
            return None
        key = self._recalled.keys[kernel.name].choice
        return cached_row(self._cache, key, self._target.device, versions_of(self._target), self._options.tune)

    def keep(self, kernel: Kernel, decision: Decision | PointsDecision) -> None:
        """Keep a decision that was measured in the cache."""
        if self._cache is not None:
            keep_row(self._cache, row_of(kernel, self._recalled.keys[kernel.name], self._target, decision))

    def _noted(self, entrants: Entrants, decision: Decision, lasting: bool) -> Decision:
        """Complete a decision by what the build rejected, in the order of the variants; keep it if it is lasting."""
        place = {variant: k for k, variant in enumerate(entrants.candidates)}
        rejected = sorted(
            (*entrants.rejected, *decision.rejected), key=lambda entry: place.get(entry.variant, len(place))
        )
        provenance = Provenance.MEASURED if decision.timings else Provenance.NONE
        decision = replace(decision, rejected=tuple(rejected), provenance=provenance)
        if not lasting or not settled(rejected):
            return decision
        decision = replace(decision, tuned=Tuned(self._options.tune, now(), images_of(entrants.binaries)))
        self.keep(entrants.kernel, decision)
        return decision

    def left_open(self, entrants: Entrants, reason: str) -> tuple[Decision, Open | None]:
        """Describe the race for another machine; nothing is to be decided there where one variant is left.

        Variants pruned for the device they were written for do not travel.
        """
        binaries, pruned = self.pruned(entrants)
        rejected = (*entrants.rejected, *pruned)
        first = binaries[0].source.variant
        if len(binaries) == 1:
            others = "the other variants were rejected" if rejected else "there is one variant"
            return Decision(first, f"not measured: {others}", (), rejected), None
        race = self.race(entrants.kernel, binaries, self._schedule, self._samples)
        return Decision(first, reason, (), rejected), Open(binaries, race)

    def pruned(self, entrants: Entrants) -> tuple[tuple[Binary, ...], tuple[Rejected, ...]]:
        """Return which binaries of a static kernel race, and which do not, as others promise more."""
        return prune(entrants.kernel, entrants.binaries, self._target.device)

    def race(
        self,
        kernel: Kernel,
        binaries: Sequence[Binary],
        schedule: Schedule,
        samples: Samples | None,
        share: int = 1,
    ) -> Race:
        """Describe the contest of a static kernel's binaries for another machine.

        It is one of `share` races among which the right results that may travel are divided.
        """
        cache_bytes = cache_bytes_of(self._target.device)
        return race_of(schedule, kernel, binaries, LIMITS["full"], samples, cache_bytes, share)

    def contest(self, entrants: Entrants, schedule: Schedule, samples: Samples | None) -> tuple[Decision, bool]:
        """Measure a static kernel's variants as its use in a static schedule; returns whether the decision may be kept."""
        kernel = entrants.kernel
        cache_bytes = cache_bytes_of(self._target.device)
        own = memories(schedule, kernel, schedule.program.constants, samples, cache_bytes)
        binder = Binder(kernel, list(own))
        binaries, pruned = self.pruned(entrants)
        out = list(pruned)
        racers, runners = [], []
        for binary in binaries:
            images = [self._loadable(binary.source.variant, image.digest, image.blob) for image in binary.images]
            refused = [image for image in images if isinstance(image, Rejected)]
            if refused:
                out.append(refused[0])
                continue
            racers.append(binary.source.variant)
            runners.append(binder.bind(binary, [image for image in images if not isinstance(image, Rejected)]))
        if not runners:
            return decide(entrants, [], Outcome({}, {}), out)
        expected = expected_results(kernel, binder.memories)
        limits = LIMITS[self._options.tune]
        contest = Contest(self._target.kind, tuple(binder.memories), tuple(runners), limits, expected, cache_bytes)
        return decide(entrants, racers, self._referee.hold(contest), out)

    def _loadable(self, variant: Variant, image: str, blob: bytes) -> str | bytes | Rejected:
        if self._target.kind != "cpu":
            return blob
        place = self._objects[image]
        return str(place) if isinstance(place, Path) else rejection(variant, place)


def now() -> str:
    """Return the time as rows of a record have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cache_bytes_of(device: Device) -> int:
    """Return the size of the last cache before memory."""
    return device.l2_bytes if device.kind == "cuda" else device.l3_bytes


def decide(
    entrants: Entrants, racers: Sequence[Variant], outcome: Outcome, out: Sequence[Rejected]
) -> tuple[Decision, bool]:
    """Return a decision, and whether it is worth keeping."""
    first = entrants.variants[0]
    survivors = [variant for i, variant in enumerate(racers) if i not in outcome.faults]
    unjudged = [] if survivors else [i for i, reason in sorted(outcome.faults.items()) if reason == OUT_OF_RANGE]
    faults = {i: reason for i, reason in sorted(outcome.faults.items()) if i not in unjudged}
    rejected = (*out, *(rejection(racers[i], reason) for i, reason in faults.items()))
    if unjudged:
        # The inputs are at fault, not these variants: any of them is as good as the first.
        return Decision(racers[unjudged[0]], "not measured: no valid index values are known", (), rejected), True
    if not survivors:
        raise no_variant(entrants.kernel, (*entrants.rejected, *rejected))
    if outcome.remark:
        return Decision(survivors[0], f"not measured: {outcome.remark}", (), rejected), False
    timings = []
    for i, values in sorted(outcome.samples.items()):
        median, spread = summary(values)
        timings.append(Timing(racers[i], median, spread, len(values)))
    if not timings:
        return Decision(survivors[0], "not measured: the other variants were rejected", (), rejected), True
    verdict = select(timings, next((i for i, timing in enumerate(timings) if timing.variant == first), None))
    return Decision(timings[verdict.winner].variant, verdict.reason, tuple(timings), rejected), True


def no_variant(kernel: Kernel, rejected: Sequence[Rejected]) -> NoVariantError:
    """Make the error for a kernel of which no variant is left."""
    origins = ", ".join(dict.fromkeys(origin.op for origin in kernel.nest.origins)) or "no known operation"
    lines = [f"every variant of kernel {kernel.name} ({origins}) was rejected:"]
    lines.extend(f"  {entry.variant.label}: {entry.reason}" for entry in rejected)
    return NoVariantError("\n".join(lines))
