"""What the manifest says of an open choice, as the values that contests are made of, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mkwrap.ir.nodes import Nest, Origin
from mkwrap.stages import Binary, Kernel, Rejected, Source, Timing, Variant
from mkwrap.toolchain.rejection import rejection, settled
from mkwrap.toolchain.relink import (
    AlternativeEntry,
    BuiltEntry,
    KernelEntry,
    LinkedLibrary,
    OpenEntry,
    OpenPointEntry,
    RejectedEntry,
    TimingEntry,
    TunedEntry,
)
from mkwrap.tune.contest import Call, Contest
from mkwrap.tune.here import Here
from mkwrap.tune.match import LIMITS, Entrants, cache_bytes_of, now
from mkwrap.tune.race import contest_of


def contest_in(
    library: LinkedLibrary, kernel: KernelEntry, race: OpenEntry | OpenPointEntry, here: Here, mode: str
) -> Contest:
    """Return one of a kernel's races as the contest to hold here; raises `LibraryFormatError` where it cannot be read."""
    alternatives = kernel["open"]["alternatives"]
    blobs = library.parts.blobs
    given = [bytes(blobs[part]) for part in race["given"]]
    text = bytes(blobs[race["race"]]).decode()
    contest = contest_of(text, given, LIMITS[mode], lambda call: _located(library, alternatives, call))
    return replace(contest, cache_bytes=cache_bytes_of(here.device))


def _located(library: LinkedLibrary, alternatives: Sequence[AlternativeEntry], call: Call) -> Call:
    """Give a call its image: a cubin among the parts, or code in the library itself."""
    launches = [launch for alternative in alternatives for launch in alternative["launches"]]
    launch = next(launch for launch in launches if launch["digest"] == call.image and launch["entry"] == call.entry)
    if launch["part"] is not None:
        return replace(call, image=bytes(library.parts.blobs[launch["part"]]))
    path = str(library.path.resolve())
    return replace(call, entry="mkw_get_api", image=path, offset=library.code_offset(launch["entry"]))


def entrants_of(kernel: KernelEntry, rejected: Sequence[Rejected] = ()) -> Entrants:
    """Return the kernel and its variants as far as a library knows them: by name."""
    name = kernel["name"]
    origins = tuple(Origin(*origin.partition(" ")[::2]) for origin in kernel["origins"])
    variants = [Variant(name, alternative["variant"]) for alternative in kernel["open"]["alternatives"]]
    candidates = (*variants, *(entry.variant for entry in rejected))
    own = Kernel(name, Nest(name, (), (), (), origins), ())
    return Entrants(own, tuple(map(stand_in, variants)), tuple(rejected), candidates)


def stand_in(variant: Variant) -> Binary:
    """Return a binary that says no more than which variant it is of."""
    return Binary(Source(variant, "", "", ()), ())


def rejections(kernel: str, entries: Iterable[RejectedEntry]) -> tuple[Rejected, ...]:
    """Return variants that were rejected where the library was built; their reasons tell which may be gone."""
    return tuple(rejection(Variant(kernel, entry["variant"]), entry["reason"]) for entry in entries)


def rejected_entries(rejected: Iterable[Rejected]) -> list[RejectedEntry]:
    """Return rejections as the manifest has them."""
    return [RejectedEntry(variant=entry.variant.label, reason=entry.reason) for entry in rejected]


def timing_entries(timings: Iterable[Timing]) -> list[TimingEntry]:
    """Return times as the manifest has them."""
    return [
        {"variant": t.variant.label, "median_us": t.median_us, "spread_us": t.spread_us, "runs": t.runs}
        for t in timings
    ]


def closed_entry(kernel: KernelEntry, winner: AlternativeEntry, rejected: Iterable[Rejected], mode: str) -> KernelEntry:
    """Return the entry of a kernel that a choice is made for, without its evidence: the winner, and whether it is a row."""
    closed = kernel.copy()
    del closed["open"]
    images = [
        BuiltEntry(variant=a["variant"], images=[launch["digest"] for launch in a["launches"]])
        for a in kernel["open"]["alternatives"]
    ]
    # Beside a rejection that may be gone another time the choice is this library's alone: no row of a record.
    tuned: TunedEntry = {"mode": mode, "measured_at": now(), "images": images}
    closed["tuned"] = tuned if settled(rejected) else None
    closed["winner"] = winner["variant"]
    closed["alternative"] = winner["alternative"]
    closed["workspace_bytes"] = winner["workspace_bytes"]
    closed["scratch_bytes"] = winner["scratch_bytes"]
    closed["most_scratch_bytes"] = winner["most_scratch_bytes"]
    closed["constants"] = winner["constants"]
    closed["launches"] = winner["launches"]
    return closed
