"""What a choice is found by and where its evidence comes from: plain values, part of the stages' and of the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Key:
    """What a choice is found by in a tuning record; sha256, hexadecimal."""

    choice: str
    """Of the kernel and of every candidate's label and text."""
    nest: str
    """Of the kernel alone: axes, body and parameters."""


class Provenance(Enum):
    """Where the evidence for a choice comes from."""

    NONE = "nothing was measured"
    MEASURED = "measured by this compile"
    CACHE = "a row of the cache"
    RECORD = "a row of the given record"


@dataclass(frozen=True)
class Tuned:
    """When and how a choice was measured, and between which binaries."""

    mode: str
    """The tuning mode: "full" or "quick"."""
    measured_at: str
    """UTC, ISO 8601 to the second."""
    images: Mapping[str, tuple[str, ...]]
    """Label of each variant that was built → the digests of its images."""


@dataclass(frozen=True)
class Versions:
    """The versions of what decides binaries and times."""

    mkwrap: str
    """With a digest of its C++ headers, which kernels are compiled against: `0.1.0+3f2a…`."""
    toolchain: str
    """The target's: compiler, version and flags."""
    torch: str


@dataclass(frozen=True)
class Hints:
    """The points that a program of dynamic sizes is tuned at; each gives a size to each of its symbols."""

    example: Mapping[sympy.Symbol, int] = field(default_factory=dict)
    """The sizes of the example call; empty where all sizes are static."""
    points: tuple[Mapping[sympy.Symbol, int], ...] = ()
    """All of them, the example's first, the others in order."""
    left_out: tuple[Mapping[sympy.Symbol, int], ...] = ()
    """Points asked for that `Options.max_points` has no room for."""
