"""The main module of a measuring process: runs, checks and times the candidates of one contest after another.

It may die of a candidate: it says what it is about to run, so that its parent knows which.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mkwrap import _C
from mkwrap.errors import DriverError
from mkwrap.toolchain.channel import Channel
from mkwrap.toolchain.trouble import LATE
from mkwrap.tune.contest import Answer, At, Contest, Done, Fault, Prepare, Samples
from mkwrap.tune.cpu_bench import CpuBench
from mkwrap.tune.cuda_bench import CudaBench
from mkwrap.tune.spread import standard_error, summary, undisturbed
from mkwrap.tune.values import Bytes, Standard, standard

_FIRST_ROUNDS = 2
_BATCHES = 4
_SLOW_S = 0.02
# A candidate that takes so many times as long as the fastest, and long enough to trust the clock, is not raced: as many runs
# of it as fill a batch of the fastest's would take most of the time.
_HOPELESS = 3.0
_TRUSTED_S = 100e-6
# Rounds go on, up to so many times the wanted number, while the best median's relative standard error is above this.
_MOST_DISTURBED = 5
_CERTAIN = 0.01
# Rounds between two looks at the clock.
_MOST_ROUNDS = 8


class Bench(Protocol):
    """What a device offers to measure with."""

    def run(self, number: int) -> float | str:
        """Run a candidate on fresh memories; returns the seconds of a run, or what went wrong."""

    def results(self) -> list[Bytes]:
        """Return copies of the written memories, in order."""

    def compare(self, standards: Sequence[Standard]) -> str:
        """Say how the written memories differ from their standards, in order; "" where they agree."""

    def sample(self, numbers: Sequence[int], rounds: int) -> list[list[float]]:
        """Time candidates in interleaved rounds; microseconds per run, per candidate and round."""


def hold(contest: Contest, bench: Bench, send: Callable[[Answer], None]) -> None:
    """Check every candidate, then race those that are right; all that is learnt is sent as it is learnt."""
    race = _Race(contest, bench, send)
    survivors = race.check()
    if len(survivors) > 1:
        race.measure(survivors)
    send(Done())


class _Race:
    def __init__(self, contest: Contest, bench: Bench, send: Callable[[Answer], None]) -> None:
        self._contest = contest
        self._limits = contest.limits
        self._bench = bench
        self._send = send
        self._deadline = 0.0
        self._samples: dict[int, list[float]] = {}
        self._seconds: dict[int, float] = {}
        self._given_up: set[int] = set()
        self._failed: set[int] = set()

    def check(self) -> list[int]:
        """Run every candidate; returns the numbers of those whose result is right."""
        written = [memory for memory in self._contest.memories if memory.written]
        standards: list[Standard] | None = None
        if self._contest.expected is not None:
            expected = (np.frombuffer(data, np.uint8) for data in self._contest.expected)
            standards = [standard(*pair) for pair in zip(written, expected, strict=True)]
        survivors: list[int] = []
        deadline = time.monotonic() + self._limits.check
        for number in range(len(self._contest.candidates)):
            if len(survivors) > 1 and time.monotonic() > deadline:
                self._send(Fault(number, LATE))
                continue
            self._announce(number)
            seconds = self._bench.run(number)
            fault = seconds if isinstance(seconds, str) else self._bench.compare(standards) if standards else ""
            if fault or isinstance(seconds, str):
                self._send(Fault(number, fault))
                continue
            if standards is None:
                standards = [standard(*pair) for pair in zip(written, self._bench.results(), strict=True)]
            self._seconds[number] = seconds
            survivors.append(number)
        return survivors

    def measure(self, numbers: list[int]) -> None:
        """Race candidates until their medians are known or the time is over."""
        self._deadline = time.monotonic() + self._limits.budget
        fastest = min(self._seconds.values())
        for place, number in enumerate(sorted(numbers, key=lambda number: self._seconds[number] > _SLOW_S)):
            late = place > 1 and time.monotonic() > self._deadline
            if not late and self._hopeless(number, max(_HOPELESS * fastest, _TRUSTED_S)):
                self._given_up.add(number)
            if number in self._failed:
                continue
            if late or number in self._given_up:
                self._samples[number] = [1e6 * self._seconds[number]]
                continue
            seconds = self._seconds[number]
            self._announce(number)
            self._take([number], _FIRST_ROUNDS if seconds < _SLOW_S else 1)
        self._rounds()
        # A disturbance of all its first rounds may have cost a candidate the race: it gets them once more.
        out = {*self._racing(), *self._given_up}
        dropped = [number for number in self._samples if number not in out]
        if dropped and time.monotonic() < self._deadline:
            self._announce(-1)
            self._take(dropped, _FIRST_ROUNDS)
            if any(number in self._racing() for number in dropped):
                self._rounds()
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, values in sorted(self._samples.items()):
            self._send(Samples(number, tuple(undisturbed(values))))

    def _hopeless(self, number: int, limit: float) -> bool:
        """Whether a candidate takes longer than a limit; what is not much longer is run once more, as a run may be disturbed."""
        if limit < self._seconds[number] <= _SLOW_S:
            self._announce(number)
            again = self._bench.run(number)
            if isinstance(again, str):
                self._send(Fault(number, again))
                self._failed.add(number)
                return True
            self._seconds[number] = min(self._seconds[number], again)
        return self._seconds[number] > limit

    def _racing(self) -> list[int]:
        """Return the candidates that may still win, by their fastest samples."""
        fastest = {number: min(values) for number, values in self._samples.items()}
        limit = self._limits.drop * min(fastest.values())
        return [number for number, sample in fastest.items() if sample <= limit]

    def _rounds(self) -> None:
        """Do rounds of all that race until enough of them were undisturbed, or the time is over."""
        block = 1
        while len(racing := self._racing()) > 1 and time.monotonic() < self._deadline:
            missing = self._missing(racing)
            if missing <= 0:
                return
            self._announce(-1)
            begin = time.monotonic()
            block = min(block, missing)
            self._take(racing, block)
            end = time.monotonic()
            block = max(1, min(_MOST_ROUNDS, int((self._deadline - end) * block / max(end - begin, 1e-6))))

    def _missing(self, numbers: list[int]) -> int:
        """Return how many rounds are to be done: up to the wanted undisturbed ones, more while the best is uncertain."""
        done = max(len(self._samples[number]) for number in numbers)
        calm = {number: undisturbed(self._samples[number]) for number in numbers}
        least = min(len(values) for values in calm.values())
        left = _MOST_DISTURBED * self._limits.rounds - done
        if least < self._limits.rounds:
            return min(left, self._limits.rounds - least)
        median, spread = min(summary(values) for values in calm.values())
        return left if standard_error(spread, least) > _CERTAIN * median else 0

    def _take(self, numbers: list[int], rounds: int) -> None:
        """Add one sample per round: the best of some batches, since what disturbs a batch only makes it longer."""
        batches = 1 if any(self._fastest(number) > _SLOW_S for number in numbers) else _BATCHES
        for number, values in zip(numbers, self._bench.sample(numbers, rounds * batches), strict=True):
            best = [min(values[i : i + batches]) for i in range(0, len(values), batches)]
            self._samples.setdefault(number, []).extend(best)

    def _fastest(self, number: int) -> float:
        """Return the seconds of a candidate's fastest run so far."""
        return min([self._seconds[number], *(us * 1e-6 for us in self._samples.get(number, ()))])

    def _announce(self, number: int) -> None:
        limit = self._limits.hang * (1 if number >= 0 else len(self._contest.candidates))
        self._send(At(number, limit))
        # The alarm's default action ends the process even inside a kernel that never returns, and with the parent gone.
        signal.setitimer(signal.ITIMER_REAL, limit)


def main() -> None:
    """Hold contests until the parent closes its end."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Read by OpenMP's runtime, which comes with the first kernel: its threads stay each on its processor.
    os.putenv("OMP_PROC_BIND", "true")
    channel = Channel()
    context: _C.CudaContext | None = None
    for message in channel.messages():
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert isinstance(message, Prepare | Contest)
        if message.kind == "cuda" and context is None:
            # Held to the end: to make a device's context takes a third of a second, and the last holder's end destroys it.
            context = _opened(isinstance(message, Prepare))
        if isinstance(message, Contest):
            try:
                # Its memories go with it, before the next contest's come.
                hold(message, CpuBench(message) if message.kind == "cpu" else CudaBench(message), channel.send)
            except MemoryError as error:
                channel.send(Done(f"memory is short: {error}"))
            signal.setitimer(signal.ITIMER_REAL, 0)


def _opened(early: bool) -> _C.CudaContext | None:
    """Open the device; before a contest a failure is nobody's: the contest will say what it is."""
    try:
        return _C.CudaContext(0)
    except DriverError:
        if early:
            return None
        raise


if __name__ == "__main__":
    main()
