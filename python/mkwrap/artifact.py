"""Values from the choice on: what is left open, host code, the library. Continues `stages.py`; no logic.

tune → wrap → link → load
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mkwrap.stages import (
    Binary,
    Dispatch,
    Hints,
    Image,
    Key,
    Packing,
    Point,
    PointChoice,
    Provenance,
    Rejected,
    Schedule,
    Timing,
    Tuned,
    Variant,
)

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class EmbeddedConstant:
    """A constant's bytes as a kernel reads them: packed, or dense in the buffer's strides."""

    constant: str
    packing: Packing | None = None


Blob: TypeAlias = bytes | EmbeddedConstant


@dataclass(frozen=True)
class Race:
    """What an open choice is decided by on the target machine: a contest as text, and the bytes it numbers."""

    text: str
    """JSON; written and read by `tune.race`. It names images by their digests."""
    given: tuple[Blob, ...]


@dataclass(frozen=True)
class Open:
    """A choice left to the target machine. Until it is made the first binary runs."""

    binaries: tuple[Binary, ...]
    race: Race


@dataclass(frozen=True)
class PointRace:
    """What decides an open choice at one point of a kernel with dynamic sizes: a race of static sizes."""

    racers: tuple[Variant, ...]
    """The variants in the race, in order."""
    race: Race
    pruned: tuple[Rejected, ...] = ()
    """Variants worth running there that do not race."""
    beside: Point | None = None
    """The point next to it where sizes are odd, which has a race, too."""


@dataclass(frozen=True)
class OpenPoints:
    """The choice of a kernel with dynamic sizes, left to the target machine. Until it is made sizes choose by `table`."""

    binaries: tuple[Binary, ...]
    """With those of their guards that may fail."""
    symbols: tuple[sympy.Symbol, ...]
    """The kernel's, in the order of its points; a table may do without some."""
    worth: Mapping[Point, tuple[Variant, ...]]
    """At each point that was asked for, the example's first: the variants worth running there, best first."""
    races: Mapping[Point, PointRace]
    """At these points, then between and beside them."""
    table: Dispatch


@dataclass(frozen=True)
class OpenSelection:
    """The choice as far as it is made: what the device alone can decide is open."""

    schedule: Schedule
    choices: Mapping[str, Dispatch | Open | OpenPoints]
    timings: Mapping[str, tuple[Timing, ...]]
    rejected: Mapping[str, tuple[Rejected, ...]]
    reasons: Mapping[str, str]
    keys: Mapping[str, Key] = field(default_factory=dict)
    """Per kernel: what its rows in a tuning record are found by."""
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    """Per kernel whose choice is made and was measured: what the record says beyond times."""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    """Per kernel; no part of the library."""
    points: Mapping[str, tuple[PointChoice, ...]] = field(default_factory=dict)
    """Of each kernel with dynamic sizes: the choice at each of its points, a guess where it is open."""
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True)
class Row:
    """One target's line of a library's directory: the workspace its choice needs (bytes), per kernel its alternative."""

    workspace_bytes: int | None
    """With dynamic sizes the most that it needs, None where they have no upper ends."""
    choices: tuple[int, ...]


@dataclass(frozen=True)
class HostCode:
    """The C++ of one library, rendered once: model source, parts it embeds, objects to link, and the manifest (JSON)."""

    kind: str
    """"cpu" or "cuda"."""
    text: str
    parts: tuple[Blob, ...]
    """What the text refers to by number; the first is the manifest."""
    rows: tuple[Row, ...]
    """One per target."""
    objects: tuple[Image, ...]
    apart: tuple[str, ...]
    """Entries of objects that the target machine may drop: each is linked into a segment of its own."""
    manifest: str


@dataclass(frozen=True)
class Library:
    """A linked library and its manifest (JSON)."""

    path: Path
    manifest: str
    kept: bool = True
    """Whether it is in the cache; else it is alone in a folder of its own, which is removed with the model."""
