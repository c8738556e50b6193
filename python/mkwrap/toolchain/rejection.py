"""Makes rejections of what compilers say, telling a verdict on the text from trouble of the machine."""

from __future__ import annotations

from mkwrap.stages import Rejected, Variant

# What g++, ptxas, Triton and the system print where the same text compiles another time.
_TROUBLE = (
    "No space left on device",
    "File too large",
    "annot allocate memory",
    "out of memory",
    "Killed signal",
    "died of SIGKILL",
)


def rejection(variant: Variant, reason: str, *, transient: bool = False) -> Rejected:
    """Reject a variant; the rejection is transient where `reason` speaks of a full disk or memory, or is said to be."""
    return Rejected(variant, reason, transient or any(trouble in reason for trouble in _TROUBLE))
