"""Makes rejections of what compilers and checks say, telling a verdict on the text from trouble of the machine."""

from __future__ import annotations

from collections.abc import Iterable

from mkwrap.stages import Rejected, Variant
from mkwrap.toolchain.trouble import TROUBLE


def rejection(variant: Variant, reason: str, *, transient: bool = False) -> Rejected:
    """Reject a variant; the rejection is transient where `reason` speaks of lacking disk, memory or time, or is said to be."""
    return Rejected(variant, reason, transient or any(trouble in reason for trouble in TROUBLE))


def settled(rejected: Iterable[Rejected]) -> bool:
    """Whether a choice beside these rejections may be kept: none of them may be gone another time."""
    return not any(entry.transient for entry in rejected)
