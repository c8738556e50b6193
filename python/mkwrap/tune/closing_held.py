"""Keeps what the contests of an open choice gave: a closing that was broken off goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from mkwrap.stages import Variant
from mkwrap.toolchain.cache import Cache, digest
from mkwrap.toolchain.rejection import rejection, settled
from mkwrap.tune.measure import Outcome

KIND = "contest"
"""What the cache calls outcomes of contests."""
_FORMAT = "1"


@dataclass(frozen=True)
class Held:
    """The contests that were held before of a library's choices on a device; with no cache none is, and none is kept."""

    cache: Cache | None
    question: str
    """Digest of all that the contests depend on: the library, the device, the mode, mkwrap's version."""

    def outcome(self, contest: str, candidates: int, hold: Callable[[], Outcome]) -> Outcome:
        """Return the outcome of a contest of that name between so many: what the cache has of it, else that of `hold`, kept."""
        if self.cache is None:
            return hold()
        key = digest(self.question, _FORMAT, contest)
        payload = self.cache.get(KIND, key)
        known = None if payload is None else _decoded(payload)
        if known is not None:
            return known
        outcome = hold()
        if _lasting(outcome, candidates):
            self.cache.put(KIND, key, _encoded(outcome))
        return outcome


def _lasting(outcome: Outcome, candidates: int) -> bool:
    """Whether a contest need not be held again: it was held to its end, left somebody, and no fault may be gone another time."""
    # The rule is about reasons alone.
    faults = [rejection(Variant("", str(number)), reason) for number, reason in outcome.faults.items()]
    return not outcome.remark and settled(faults) and len(faults) < candidates


def _encoded(outcome: Outcome) -> bytes:
    return json.dumps([list(outcome.samples.items()), list(outcome.faults.items())]).encode()


def _decoded(payload: bytes) -> Outcome | None:
    """Return the outcome that a payload stands for; None where it is none: the contest is then held."""
    try:
        samples, faults = json.loads(payload)
        return Outcome({int(number): tuple(map(float, values)) for number, values in samples}, dict(faults))
    except (TypeError, ValueError):
        return None
