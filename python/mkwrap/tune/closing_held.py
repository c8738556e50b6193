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


@dataclass(frozen=True)
class Held:
    """The contests that were held before of a library's choices on a device; with no cache none is, and none is kept."""

    cache: Cache | None
    question: str
    """Digest of all that the contests depend on: the library, the device, the mode, mkwrap's version."""

    def outcome(self, contest: str, hold: Callable[[], Outcome]) -> Outcome:
        """Return the outcome of a contest of that name in the library: what the cache has of it, else that of `hold`, kept."""
        if self.cache is None:
            return hold()
        key = digest(self.question, contest)
        known = self.cache.get(KIND, key)
        if known is not None:
            return _decoded(known)
        outcome = hold()
        if _lasting(outcome):
            self.cache.put(KIND, key, _encoded(outcome))
        return outcome


def _lasting(outcome: Outcome) -> bool:
    """Whether a contest need not be held again: it was held to its end, and no fault may be gone another time.

    One without times is none of these: it was short, or left nobody, which the user may mend.
    """
    # The rule is about reasons alone.
    faults = [rejection(Variant("", str(number)), reason) for number, reason in outcome.faults.items()]
    return bool(outcome.samples) and not outcome.remark and settled(faults)


def _encoded(outcome: Outcome) -> bytes:
    return json.dumps([list(outcome.samples.items()), list(outcome.faults.items())]).encode()


def _decoded(payload: bytes) -> Outcome:
    # The cache vouches for the bytes, and the question has mkwrap's version: no other code wrote them.
    samples, faults = json.loads(payload)
    return Outcome({number: tuple(values) for number, values in samples}, dict(faults))
