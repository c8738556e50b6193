"""Decides kernels by measurement: one contest each, under the device's lock, unless an earlier process held it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mkwrap import _C
from mkwrap.errors import NoVariantError
from mkwrap.options import Options
from mkwrap.stages import Binary, Kernel, Rejected, Schedule, Timing, Variant
from mkwrap.targets.target import Target
from mkwrap.toolchain.cache import Cache, digest, package_version
from mkwrap.toolchain.records import Choice, get_choice, put_choice
from mkwrap.tune.bind import Binder, link_objects
from mkwrap.tune.contest import OUT_OF_RANGE, Contest, Limits
from mkwrap.tune.expected import expected_results
from mkwrap.tune.inputs import memories
from mkwrap.tune.measure import Outcome, Referee
from mkwrap.tune.select import select
from mkwrap.tune.spread import summary

LIMITS: Mapping[str, Limits] = {
    # 20 rounds of 4 × 0.4 ms tell variants a few percent apart; the budget bounds slow kernels and disturbed rounds.
    "full": Limits(budget=3.0, rounds=20, batch_us=400.0),
    "quick": Limits(budget=0.9, rounds=7, batch_us=200.0),
}
_LOCK_S = 600.0


@dataclass(frozen=True)
class Entrants:
    """One kernel's variants after the build: at least one that can run, in order, and the rejected."""

    kernel: Kernel
    binaries: tuple[Binary, ...]
    rejected: tuple[Rejected, ...]

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The variants that can run."""
        return tuple(binary.source.variant for binary in self.binaries)


@dataclass(frozen=True)
class Decision:
    """The winner of one kernel, why it won, and the evidence."""

    winner: Variant
    reason: str
    timings: tuple[Timing, ...] = ()
    rejected: tuple[Rejected, ...] = ()


class Matches:
    """Contests between the variants of a schedule's kernels on a target that is present. Use as a context manager."""

    def __init__(self, schedule: Schedule, target: Target, options: Options, cache: Cache | None) -> None:
        self._schedule = schedule
        self._target = target
        self._options = options
        self._cache = cache
        self._machine = digest(*_machine(target, options)) if target.present else ""
        self._stack = contextlib.ExitStack()
        self._referee = self._stack.enter_context(Referee())
        self._objects: Mapping[str, Path | str] = {}

    def __enter__(self) -> Matches:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def known(self, entrants: Entrants) -> Decision | None:
        """Return what an earlier process decided on this very machine between these very binaries, or None.

        A full measurement serves where a quick one is asked for, not the other way round.
        """
        if self._cache is None:
            return None
        for mode in dict.fromkeys(("full", self._options.tune)):
            choice = get_choice(self._cache, self._key(entrants, mode), entrants.variants)
            if choice is not None:
                return Decision(choice.winner, "cached", choice.timings, choice.rejected)
        return None

    def prepare(self, entrants: Sequence[Entrants]) -> None:
        """Make the binaries of all kernels that will be measured loadable."""
        if not entrants:
            return
        self._referee.start()
        if self._target.kind == "cpu":
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mkwrap-tune-")))
            images = [image for entry in entrants for binary in entry.binaries for image in binary.images]
            self._objects = link_objects(images, self._options.cxx, folder)

    def play(self, entrants: Entrants) -> Decision:
        """Measure and decide; a decision is kept unless the measuring itself failed.

        Raises `NoVariantError` where no variant gives the right result.
        """
        with self._device_to_itself():
            known = self.known(entrants)
            if known is not None:
                return known
            decision, lasting = self._measured(entrants)
        if lasting and self._cache is not None:
            choice = Choice(decision.winner, decision.timings, decision.rejected)
            put_choice(self._cache, self._key(entrants, self._options.tune), choice)
        return decision

    def _measured(self, entrants: Entrants) -> tuple[Decision, bool]:
        kernel = entrants.kernel
        binder = Binder(kernel, list(memories(self._schedule, kernel, self._schedule.program.constants)))
        unlinked: list[Rejected] = []
        racers, runners = [], []
        for binary in entrants.binaries:
            images = [self._loadable(binary.source.variant, image.digest, image.blob) for image in binary.images]
            refused = [image for image in images if isinstance(image, Rejected)]
            if refused:
                unlinked.append(refused[0])
                continue
            racers.append(binary.source.variant)
            runners.append(binder.bind(binary, [image for image in images if not isinstance(image, Rejected)]))
        if not runners:
            return _decide(entrants, [], Outcome({}, {}), unlinked)
        expected = expected_results(kernel, binder.memories)
        limits = LIMITS[self._options.tune]
        contest = Contest(self._target.kind, tuple(binder.memories), tuple(runners), limits, expected)
        return _decide(entrants, racers, self._referee.hold(contest), unlinked)

    def _loadable(self, variant: Variant, image: str, blob: bytes) -> str | bytes | Rejected:
        if self._target.kind != "cpu":
            return blob
        place = self._objects[image]
        return str(place) if isinstance(place, Path) else Rejected(variant, place)

    def _key(self, entrants: Entrants, mode: str) -> str:
        nest = entrants.kernel.nest
        what = repr((nest.axes, nest.reduction_axes, nest.body, entrants.kernel.parameters))
        who = [part for b in entrants.binaries for part in (b.source.variant.label, *(i.digest for i in b.images))]
        return digest(self._machine, mode, what, *who)

    @contextlib.contextmanager
    def _device_to_itself(self) -> Iterator[None]:
        """Keep other compiles on this machine from measuring on the device at the same time, whatever their cache."""
        name = f"mkwrap-{os.getuid()}-{digest(self._target.kind, self._target.device.name)[:16]}.lock"
        lock = FileLock(Path(tempfile.gettempdir()) / name)
        try:
            lock.acquire(_LOCK_S)
        except (Timeout, OSError):
            # A disturbed measurement is better than none.
            yield
            return
        try:
            yield
        finally:
            lock.release()


def _machine(target: Target, options: Options) -> tuple[str, ...]:
    """Return all that a timing depends on beside the binaries and the kernel."""
    driver = repr(_C.cuda_devices()) if target.kind == "cuda" else ""
    return (package_version(), target.name, repr(target.device), target.toolchain, driver, str(options.threads))


def _decide(
    entrants: Entrants, racers: Sequence[Variant], outcome: Outcome, unlinked: Sequence[Rejected]
) -> tuple[Decision, bool]:
    """Return a decision, and whether it is worth keeping."""
    first = entrants.variants[0]
    if racers and all(outcome.faults.get(i) == OUT_OF_RANGE for i in range(len(racers))):
        return Decision(racers[0], "not measured: no valid index values are known", (), tuple(unlinked)), True
    rejected = (*unlinked, *(Rejected(racers[i], reason) for i, reason in sorted(outcome.faults.items())))
    survivors = [variant for i, variant in enumerate(racers) if i not in outcome.faults]
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
