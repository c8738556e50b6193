"""Holds contests in a measuring process that may die: the candidate it died of is out, a new process goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from mkwrap.errors import InternalError
from mkwrap.toolchain.child import Child, Death
from mkwrap.tune.contest import At, Contest, Done, Fault, Prepare, Samples

# Beyond a candidate's own limit, which its process keeps by an alarm: for starting, filling memory and pipes.
_GRACE_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """Samples (microseconds per run) and faults by candidate number; `remark` says why nothing was measured, if so."""

    samples: dict[int, tuple[float, ...]]
    faults: dict[int, str]
    remark: str = ""


class Referee:
    """Holds contests one after another; starts its process with the first, or early. Use as a context manager."""

    def __init__(self, kind: Literal["cpu", "cuda"]) -> None:
        self._kind = kind
        self._child: Child | None = None

    def __enter__(self) -> Referee:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dismiss()

    def hold(self, contest: Contest) -> Outcome:
        """Return what is known of each candidate after the contest. Every candidate without a fault was right."""
        faults: dict[int, str] = {}
        while True:
            numbers = [i for i in range(len(contest.candidates)) if i not in faults]
            if not numbers:
                return Outcome({}, faults)
            rest = replace(contest, candidates=tuple(contest.candidates[i] for i in numbers))
            attempt = self._attempt(rest)
            faults |= {numbers[i]: reason for i, reason in attempt.outcome.faults.items()}
            if attempt.culprit is None:
                samples = {numbers[i]: values for i, values in attempt.outcome.samples.items()}
                return Outcome(samples, faults, attempt.outcome.remark)
            faults[numbers[attempt.culprit]] = attempt.outcome.remark

    def start(self) -> Child:
        """Return the measuring process, started if there is none: it takes a moment in which others can work."""
        if self._child is None:
            self._child = Child("mkwrap.tune.worker")
            self._child.send(Prepare(self._kind))
        return self._child

    def _attempt(self, contest: Contest) -> _Attempt:
        child = self.start()
        child.send(contest)
        samples: dict[int, tuple[float, ...]] = {}
        faults: dict[int, str] = {}
        at, limit = -1, 0.0
        while True:
            match child.receive(limit + _GRACE_S):
                case At(number=at, limit=limit):
                    continue
                case Samples(number=number, values=values):
                    samples[number] = values
                case Fault(number=number, reason=reason):
                    faults[number] = reason
                case Done():
                    return _Attempt(Outcome(samples, faults), None)
                case Death(reason=reason):
                    self._dismiss()
                    remark = f"the measuring process {reason}"
                    return _Attempt(Outcome({}, faults, remark), at if at >= 0 else None)
                case other:
                    raise InternalError(f"the measuring process answered {type(other).__name__}")

    def _dismiss(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


@dataclass(frozen=True)
class _Attempt:
    """One process's part of a contest, and the candidate it died of (None: it lived, or died of no single one)."""

    outcome: Outcome
    culprit: int | None
