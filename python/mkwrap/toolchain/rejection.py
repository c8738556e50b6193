"""Makes rejections of what compilers and checks say, telling a verdict on the text from trouble of the machine."""

from __future__ import annotations

from collections.abc import Iterable

from mkwrap.stages import Rejected, Variant

LATE = "not measured: checking the variants before it took too long"
"""The reason of a variant for whose check no time was left."""

# What g++, ptxas, Triton, linkers and the system print where the same text compiles another time, and what is said here
# where a compiler, a linker or a check ran out of time.
_TROUBLE = (
    "No space left on device",
    "File too large",
    "annot allocate memory",
    "out of memory",
    "Killed signal",
    "died of SIGKILL",
    " ran for more than ",
    LATE,
)


def rejection(variant: Variant, reason: str, *, transient: bool = False) -> Rejected:
    """Reject a variant; the rejection is transient where `reason` speaks of lacking disk, memory or time, or is said to be."""
    return Rejected(variant, reason, transient or any(trouble in reason for trouble in _TROUBLE))


def settled(rejected: Iterable[Rejected]) -> bool:
    """Whether a choice beside these rejections may be kept: none of them may be gone another time."""
    return not any(entry.transient for entry in rejected)
