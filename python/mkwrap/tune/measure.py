"""Holds contests in a measuring process that may die: the candidate it died of is out, a new process goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from mkwrap.errors import InternalError, ProcessError
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
    short: bool = False
    """What `remark` says is that the contest takes more memory than there is: contests of smaller sizes may be held."""


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
        """Return what is known of each candidate after the contest. Every candidate without a fault was right.

        A process that others ended, or that died of no single candidate, is replaced once at the same place; a candidate
        that it dies of is out.
        """
        faults: dict[int, str] = {}
        forgiven: set[int | None] = set()
        while True:
            numbers = [i for i in range(len(contest.candidates)) if i not in faults]
            if not numbers:
                return Outcome({}, faults)
            rest = replace(contest, candidates=tuple(contest.candidates[i] for i in numbers))
            try:
                attempt = self._attempt(rest)
            except ProcessError as error:
                return Outcome({}, faults, str(error))
            faults |= {numbers[i]: reason for i, reason in attempt.outcome.faults.items()}
            if attempt.death is None:
                samples = {numbers[i]: values for i, values in attempt.outcome.samples.items()}
                return replace(attempt.outcome, samples=samples, faults=faults)
            place = None if attempt.culprit is None else numbers[attempt.culprit]
            if (place is None or attempt.death.outside) and place not in forgiven:
                forgiven.add(place)
                continue
            remark = f"the measuring process {attempt.death.reason}"
            if place is None:
                return Outcome({}, faults, remark)
            faults[place] = remark

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
                case Done(remark=remark):
                    return _Attempt(Outcome(samples, faults, remark, short=bool(remark)))
                case Death() as death:
                    self._dismiss()
                    return _Attempt(Outcome({}, faults), death, at if at >= 0 else None)
                case other:
                    raise InternalError(f"the measuring process answered {type(other).__name__}")

    def _dismiss(self) -> None:
        if self._child is not None:
            # Between contests it has nothing to finish, and an interpreter takes its time to end in good order.
            self._child.kill()
            self._child.close()
            self._child = None


@dataclass(frozen=True)
class _Attempt:
    """One process's part of a contest."""

    outcome: Outcome
    death: Death | None = None
    culprit: int | None = None
    """The candidate it died of; None: of no single one."""
