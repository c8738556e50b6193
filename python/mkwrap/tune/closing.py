"""Makes the open choices of a library on the machine they were left to: the same contests, referee and selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from mkwrap.artifact import Row
from mkwrap.codegen.wrapper.host import LAUNCHERS
from mkwrap.codegen.wrapper.sizes import round_up
from mkwrap.errors import MeasureError
from mkwrap.ir.nodes import Nest, Origin
from mkwrap.options import Options
from mkwrap.stages import Binary, Kernel, Rejected, Source, Variant
from mkwrap.toolchain.pool import Advance
from mkwrap.toolchain.rejection import rejection, settled
from mkwrap.toolchain.relink import (
    AlternativeEntry,
    BuiltEntry,
    KernelEntry,
    LinkedLibrary,
    Manifest,
    RejectedEntry,
    TargetEntry,
)
from mkwrap.tune.contest import Call
from mkwrap.tune.here import Here
from mkwrap.tune.match import LIMITS, Entrants, cache_bytes_of, decide, now
from mkwrap.tune.measure import Referee
from mkwrap.tune.race import contest_of
from mkwrap.tune.recall import Decision


def open_kernels(manifest: Manifest, target: int) -> list[KernelEntry]:
    """Return the kernels whose choice on a target is open."""
    return [kernel for kernel in manifest["kernels"] if kernel["target"] == target and "open" in kernel]


@dataclass(frozen=True)
class Closed:
    """A library whose choices on one target are made."""

    image: bytes
    lasting: bool
    """Whether every choice made may be kept: none was made beside a rejection that may be gone another time."""


def close(library: LinkedLibrary, here: Here, options: Options, advance: Advance) -> Closed:
    """Measure every open kernel of this machine's target; return the library of the winners.

    Other targets of the library stay as they are. Raises `NoVariantError` for a kernel of which no variant gives the right
    result, `MeasureError` where measuring itself failed, `LibraryFormatError` for a race that cannot be read.
    """
    todo = open_kernels(library.manifest, here.number)
    decided: dict[str, KernelEntry] = {}
    with Referee(here.kind) as referee:
        for done, kernel in enumerate(todo):
            advance("tune", done, len(todo))
            decided[kernel["name"]] = closed_kernel(
                kernel, _raced(library, kernel, here, options, referee), options.tune
            )
    advance("tune", len(todo), len(todo))
    lasting = all(kernel["tuned"] is not None for kernel in decided.values())
    return Closed(closed_library(library, here, decided), lasting)


def closed_library(library: LinkedLibrary, here: Here, decided: Mapping[str, KernelEntry]) -> bytes:
    """Return the library with some kernels of one target decided."""
    manifest = library.manifest
    kernels = [
        decided.get(kernel["name"], kernel) if kernel["target"] == here.number else kernel
        for kernel in manifest["kernels"]
    ]
    target: TargetEntry = manifest["targets"][here.number].copy()
    target["device"], target["units"] = here.device.name, here.device.units
    if target["tuning"] is not None:
        target["tuning"] = {"device": asdict(here.device), "versions": target["tuning"]["versions"]}
    targets = [target if n == here.number else other for n, other in enumerate(manifest["targets"])]
    own = [kernel for kernel in kernels if kernel["target"] == here.number]
    alignment = LAUNCHERS[target["kind"]].alignment
    # With dynamic sizes every run computes what its binaries need.
    wanted = [] if manifest["symbols"] else [kernel["scratch_bytes"] for kernel in own]
    row = Row(round_up(max(wanted, default=0), alignment), tuple(kernel["alternative"] for kernel in own))
    rows = [row if n == here.number else other for n, other in enumerate(library.parts.rows)]
    memory = manifest["memory"].copy()
    if not manifest["symbols"]:
        memory["workspace"] = max(row.workspace_bytes for row in rows)
    changed: Manifest = {**manifest, "target": targets[0], "targets": targets, "kernels": kernels, "memory": memory}
    return library.with_choice(changed, rows)


def _raced(library: LinkedLibrary, kernel: KernelEntry, here: Here, options: Options, referee: Referee) -> Decision:
    """Hold a kernel's contest."""
    alternatives = kernel["open"]["alternatives"]
    blobs = library.parts.blobs
    given = [bytes(blobs[part]) for part in kernel["open"]["given"]]
    text = bytes(blobs[kernel["open"]["race"]]).decode()
    contest = contest_of(text, given, LIMITS[options.tune], lambda call: _located(library, alternatives, call))
    contest = replace(contest, cache_bytes=cache_bytes_of(here.device))
    entrants = _entrants(kernel)
    decision, lasting = decide(entrants, entrants.variants, referee.hold(contest), ())
    if not lasting:
        raise MeasureError(f"the kernel {kernel['name']} was {decision.reason}")
    return decision


def _located(library: LinkedLibrary, alternatives: Sequence[AlternativeEntry], call: Call) -> Call:
    """Give a call its image: a cubin among the parts, or code in the library itself."""
    launches = [launch for alternative in alternatives for launch in alternative["launches"]]
    launch = next(launch for launch in launches if launch["digest"] == call.image and launch["entry"] == call.entry)
    if launch["part"] is not None:
        return replace(call, image=bytes(library.parts.blobs[launch["part"]]))
    path = str(library.path.resolve())
    return replace(call, entry="mkw_get_api", image=path, offset=library.code_offset(launch["entry"]))


def _entrants(kernel: KernelEntry) -> Entrants:
    """Return the kernel and its variants as far as a library knows them: by name."""
    name = kernel["name"]
    origins = tuple(Origin(*origin.partition(" ")[::2]) for origin in kernel["origins"])
    variants = [Variant(name, alternative["variant"]) for alternative in kernel["open"]["alternatives"]]
    binaries = tuple(Binary(Source(variant, "", "", ()), ()) for variant in variants)
    return Entrants(Kernel(name, Nest(name, (), (), (), origins), ()), binaries, (), tuple(variants))


def _rejected(kernel: KernelEntry) -> list[Rejected]:
    """Return the variants that were rejected where the library was built; their reasons tell which may be gone."""
    return [rejection(Variant(kernel["name"], entry["variant"]), entry["reason"]) for entry in kernel["rejected"]]


def closed_kernel(kernel: KernelEntry, decision: Decision, mode: str) -> KernelEntry:
    """Return what the manifest says of a kernel after its choice."""
    label = decision.winner.label
    winner = next(a for a in kernel["open"]["alternatives"] if a["variant"] == label)
    closed = kernel.copy()
    del closed["open"]
    closed["winner"] = label
    closed["reason"] = decision.reason
    closed["timings"] = [
        {"variant": t.variant.label, "median_us": t.median_us, "spread_us": t.spread_us, "runs": t.runs}
        for t in decision.timings
    ]
    rejected = (*_rejected(kernel), *decision.rejected)
    closed["rejected"] = [RejectedEntry(variant=entry.variant.label, reason=entry.reason) for entry in rejected]
    images = [
        BuiltEntry(variant=a["variant"], images=[launch["digest"] for launch in a["launches"]])
        for a in kernel["open"]["alternatives"]
    ]
    # Beside a rejection that may be gone another time the choice is this library's alone: no row of a record.
    closed["tuned"] = {"mode": mode, "measured_at": now(), "images": images} if settled(rejected) else None
    closed["alternative"] = winner["alternative"]
    closed["workspace_bytes"] = winner["workspace_bytes"]
    closed["scratch_bytes"] = winner["scratch_bytes"]
    closed["constants"] = winner["constants"]
    closed["launches"] = winner["launches"]
    return closed
