"""Makes the open choices of a library on the machine they were left to: the same contests, referee and selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from mkwrap.artifact import Row
from mkwrap.codegen.wrapper.host import LAUNCHERS
from mkwrap.codegen.wrapper.manifest import most_workspace
from mkwrap.codegen.wrapper.sizes import most_of
from mkwrap.errors import MeasureError
from mkwrap.options import Options
from mkwrap.toolchain.pool import Advance
from mkwrap.toolchain.relink import (
    KernelEntry,
    LinkedLibrary,
    Manifest,
    OpenEntry,
    OpenPointEntry,
    SymbolEntry,
    TargetEntry,
)
from mkwrap.tune.closing_entries import (
    closed_entry,
    contest_in,
    entrants_of,
    rejected_entries,
    rejections,
    timing_entries,
)
from mkwrap.tune.closing_held import Held
from mkwrap.tune.closing_points import closed_at_points
from mkwrap.tune.here import Here
from mkwrap.tune.match import decide
from mkwrap.tune.measure import Outcome, Referee
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


def close(library: LinkedLibrary, here: Here, options: Options, advance: Advance, held: Held) -> Closed:
    """Measure every open kernel of this machine's target; return the library of the winners.

    Other targets of the library stay as they are; contests in `held` are not held again. Raises `NoVariantError` for a kernel
    of which no variant gives the right result, `MeasureError` where measuring itself failed, `LibraryFormatError` for a race
    that cannot be read.
    """
    todo = open_kernels(library.manifest, here.number)
    decided: dict[str, KernelEntry] = {}
    tables: dict[int, bytes] = {}
    with Referee(here.kind) as referee:

        def hold(kernel: KernelEntry, race: OpenEntry | OpenPointEntry, numbers: Sequence[int]) -> Outcome:
            def play() -> Outcome:
                contest = contest_in(library, kernel, race, here, options.tune)
                return referee.hold(replace(contest, candidates=tuple(contest.candidates[n] for n in numbers)))

            # Equal parts are stored once: a race's text may be that of several, between other values.
            name = repr((kernel["name"], race["race"], race["given"], list(numbers)))
            return held.outcome(name, len(numbers), play)

        for done, kernel in enumerate(todo):
            show = partial(advance, "tune", done, len(todo))
            symbols = library.manifest["symbols"]
            decided[kernel["name"]], table = _closed_kernel(kernel, symbols, partial(hold, kernel), options, show)
            if table is not None:
                tables[kernel["table"]] = table
    advance("tune", len(todo), len(todo))
    lasting = all(kernel["tuned"] is not None for kernel in decided.values())
    return Closed(closed_library(library, here, decided, tables), lasting)


def closed_library(
    library: LinkedLibrary, here: Here, decided: Mapping[str, KernelEntry], tables: Mapping[int, bytes]
) -> bytes:
    """Return the library with some kernels of one target decided, and other tables in some parts."""
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
    wanted = [size for kernel in own for size in _most_scratch(kernel)]
    row = Row(most_of(wanted, alignment), tuple(kernel["alternative"] for kernel in own))
    rows = [row if n == here.number else other for n, other in enumerate(library.parts.rows)]
    memory = manifest["memory"].copy()
    memory["workspace"] = most_workspace(rows)
    changed: Manifest = {**manifest, "target": targets[0], "targets": targets, "kernels": kernels, "memory": memory}
    return library.with_choice(changed, rows, tables)


def _most_scratch(kernel: KernelEntry) -> list[int | None]:
    """Return what each binary that a kernel may run needs at most, in bytes."""
    if "dispatch" in kernel:
        return [entry["most_scratch_bytes"] for entry in kernel["dispatch"]["alternatives"]]
    return [kernel["most_scratch_bytes"]]


def _closed_kernel(
    kernel: KernelEntry,
    sizes: Sequence[SymbolEntry],
    hold: Callable[[OpenEntry | OpenPointEntry, Sequence[int]], Outcome],
    options: Options,
    show: Callable[[str], None],
) -> tuple[KernelEntry, bytes | None]:
    """Hold a kernel's contests; returns what the manifest then says of it and, with dynamic sizes, its table."""
    if "points" in kernel["open"]:
        return closed_at_points(kernel, sizes, hold, options, show)
    show(kernel["name"])
    entrants = entrants_of(kernel)
    outcome = hold(kernel["open"], range(len(entrants.variants)))
    decision, lasting = decide(entrants, entrants.variants, outcome, ())
    if not lasting:
        raise MeasureError(f"the kernel {kernel['name']} was {decision.reason}")
    return closed_kernel(kernel, decision, options.tune), None


def closed_kernel(kernel: KernelEntry, decision: Decision, mode: str) -> KernelEntry:
    """Return what the manifest says of a kernel after its choice."""
    label = decision.winner.label
    winner = next(a for a in kernel["open"]["alternatives"] if a["variant"] == label)
    rejected = (*rejections(kernel["name"], kernel["rejected"]), *decision.rejected)
    closed = closed_entry(kernel, winner, rejected, mode)
    closed["reason"] = decision.reason
    closed["timings"] = timing_entries(decision.timings)
    closed["rejected"] = rejected_entries(rejected)
    return closed
