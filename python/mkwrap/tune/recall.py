"""The recall stage: what earlier compiles decided, found before anything is built, so that losers need no building.

A row answers a question: which candidate is fastest, for this kernel, between these texts, on this device, with these
versions. A row of another question is no answer. Rows the user gives (`Options.tuning`) go before rows of the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata

from mkwrap.errors import MissingTuningError
from mkwrap.options import Options
from mkwrap.stages import (
    Binary,
    Candidates,
    Device,
    Kernel,
    Key,
    PointChoice,
    Provenance,
    Rejected,
    Source,
    Timing,
    Tuned,
    Variant,
    Versions,
)
from mkwrap.targets.target import Target
from mkwrap.toolchain.build import EVERY, FIRST, Want, Wanted
from mkwrap.toolchain.cache import Cache, digest, package_version
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.records import source_digest
from mkwrap.tune.field import Field, field_of
from mkwrap.tune.points_record import RowChoices, choices_of, row_points, spell_point, summary
from mkwrap.tune.record import MODES, Point, Row, decode, encode, entries_of
from mkwrap.tune.table import Table

KIND = "choice"
"""What the cache calls its rows."""


@dataclass(frozen=True)
class Recalled:
    """What is known of a schedule's choices: every kernel's key, and the rows that answer it here."""

    keys: Mapping[str, Key]
    rows: Mapping[str, Row] = field(default_factory=dict)
    """Kernel → its row; kernels without an answer are missing."""
    recorded: frozenset[str] = frozenset()
    """The kernels whose rows the user gave."""

    fields: Mapping[str, Field] = field(default_factory=dict)
    """Kernels of dynamic sizes, as they are written."""
    choices: Mapping[str, RowChoices] = field(default_factory=dict)
    """Of those with a row: what it says of their points."""

    def wanted(self, options: Options) -> Wanted:
        """Say which variants are built: the forced, the recorded, all where they race here or later, else the first.

        A kernel of dynamic sizes needs all of its dispatch table.
        """
        unmeasured = options.tune == "off" or options.deterministic

        def want(kernel: str) -> Want:
            forced = options.force.get(kernel)
            if kernel in self.fields:
                own = self.table(kernel, forced, unmeasured=unmeasured)
                return EVERY if own is None else Want(tuple(variant.label for variant in own.variants), spare=True)
            if forced is not None:
                return Want((forced,))
            if kernel in self.rows:
                return Want((self.rows[kernel].points[0].winner,))
            return FIRST if unmeasured else EVERY

        return want

    def table(self, kernel: str, forced: str | None, *, unmeasured: bool) -> Table | None:
        """Return the dispatch table of a kernel of dynamic sizes as far as it is known before the build."""
        own = self.fields[kernel]
        if forced is not None:
            variant = next((variant for variant in own.guards if variant.label == forced), None)
            return None if variant is None else own.table(own.defaults("", variant))
        row = self.choices.get(kernel)
        if row is not None and not row.missing:
            return own.table(row.choices)
        return own.table(own.defaults("")) if unmeasured else None

    @property
    def images(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Kernel → label → the digests that the images of what its row elects must have."""
        winners = {kernel: row.points[0] for kernel, row in self.rows.items() if kernel not in self.fields}
        found: dict[str, Mapping[str, tuple[str, ...]]] = {k: {p.winner: p.images} for k, p in winners.items()}
        for kernel, row in self.choices.items():
            if not row.missing:
                labels = [variant.label for variant in self.fields[kernel].table(row.choices).variants]
                found[kernel] = {label: row.tuned.images.get(label, ()) for label in labels}
        return found


@dataclass(frozen=True)
class Decision:
    """The winner of one kernel, why it won, and the evidence; `tuned` where it is, or may become, a row."""

    winner: Variant
    reason: str
    timings: tuple[Timing, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    tuned: Tuned | None = None
    provenance: Provenance = Provenance.NONE


@dataclass(frozen=True)
class PointsDecision:
    """The winners at the points of one kernel of dynamic sizes and the evidence; `tuned` as in `Decision`.

    Variants that could not be built are among the rejected of the first point.
    """

    choices: tuple[PointChoice, ...]
    tuned: Tuned | None = None
    provenance: Provenance = Provenance.NONE

    @property
    def reason(self) -> str:
        """Say why the winners won."""
        return summary(self.choices)


def versions_of(target: Target) -> Versions:
    """Return the versions that rows of a target made here carry. Torch's without its build: +cpu and +cu130 lower alike."""
    torch = metadata.version("torch").partition("+")[0]
    return Versions(f"{package_version()}+{headers_digest()[:12]}", target.toolchain, torch)


def key_of(kernel: Kernel, written: Sequence[Source | Rejected]) -> Key:
    """Return the key of a kernel's choice between rendered variants; names of kernels and lines of users do not enter."""
    nest = digest(repr((kernel.nest.axes, kernel.nest.reduction_axes, kernel.nest.body, kernel.parameters)))
    parts = []
    for item in written:
        parts += [item.variant.label, source_digest(item) if isinstance(item, Source) else ""]
    return Key(digest("mkwrap tuning key 1", nest, *parts), nest)


def devices_of(rows: Sequence[Row]) -> tuple[Device, ...]:
    """Return the devices a record knows, the one measured last first."""
    latest = sorted(rows, key=lambda row: row.measured_at, reverse=True)
    return tuple(dict.fromkeys(row.device for row in latest))


def recall(
    candidates: Candidates,
    sources: Mapping[str, Sequence[Source | Rejected]],
    target: Target,
    options: Options,
    record: Sequence[Row] = (),
    cache: Cache | None = None,
) -> Recalled:
    """Find the rows that answer the choices of a schedule.

    Raises `MissingTuningError` where `options.require_tuning` is set and a kernel with a choice has no row in `record`.
    """
    kernels = candidates.schedule.kernels
    # In which order the variants of a kernel with points come depends on the points, which are no part of the question.
    ordered = {
        name: sorted(written, key=lambda item: item.variant.label) if name in candidates.points else written
        for name, written in sources.items()
    }
    keys = {name: key_of(kernels[name], written) for name, written in ordered.items()}
    known = _Known(candidates, {name: field_of(candidates, name, sources[name]) for name in candidates.points})
    open_names = [name for name, written in sources.items() if _is_open(name, written, options)]
    versions = versions_of(target)
    missing: dict[str, str] = {}
    by_key: dict[str, list[Row]] = {}
    for row in record:
        by_key.setdefault(row.key, []).append(row)
    for name in open_names:
        rivals = by_key.get(keys[name].choice, [])
        answers = [row for row in rivals if (row.device, row.versions) == (target.device, versions)]
        if answers:
            lack = known.add(name, max(answers, key=lambda row: row.rank))
        else:
            lack = _difference(rivals[-1], target.device, versions) if rivals else "no row has its key"
        if lack:
            missing[name] = lack
    recorded = frozenset(known.rows)
    if options.require_tuning and missing:
        raise missing_tuning(candidates, missing)
    if cache is not None and options.tune in MODES and target.device.name:
        for name in missing:
            kept = cached_row(cache, keys[name].choice, target.device, versions, options.tune)
            if kept is not None:
                known.add(name, kept)
    return Recalled(keys, known.rows, recorded, known.fields, known.choices)


@dataclass
class _Known:
    """Collects the rows that answer: all points of a kernel, or some of them."""

    candidates: Candidates
    fields: Mapping[str, Field]
    rows: dict[str, Row] = field(default_factory=dict)
    choices: dict[str, RowChoices] = field(default_factory=dict)

    def add(self, name: str, row: Row) -> str:
        """Take a row; says why it is no answer, "" where it is one. What it has of a dynamic kernel's points is kept."""
        if name not in self.fields:
            self.rows[name] = row
            return ""
        found = choices_of(row, self.fields[name], self.candidates.variants[name])
        if found is None:
            return "its row is of other sizes"
        if not found.missing:
            self.rows[name], self.choices[name] = row, found
            return ""
        self.choices.setdefault(name, found)
        return "its row lacks " + ", ".join(spell_point(at) for at in found.missing)


def _is_open(name: str, written: Sequence[Source | Rejected], options: Options) -> bool:
    several = sum(isinstance(item, Source) for item in written) > 1
    return several and name not in options.force and not options.deterministic


def cached_row(cache: Cache, key: str, device: Device, versions: Versions, mode: str) -> Row | None:
    """Return the row the cache keeps for a question, measured in `mode` or a stronger one; whatever is wrong is a miss."""
    for stronger in reversed(MODES[MODES.index(mode) :]):
        payload = cache.get(KIND, _place(key, device, versions, stronger))
        if payload is None:
            continue
        try:
            row = decode(payload)
        except ValueError:
            continue
        if row.question == (key, device, versions) and row.mode == stronger:
            return row
    return None


def keep_row(cache: Cache, row: Row) -> None:
    """Keep a row in the cache, in an entry of its own: nothing is read, changed and written back."""
    cache.put(KIND, _place(*row.question, row.mode), encode(row).encode())


def _place(key: str, device: Device, versions: Versions, mode: str) -> str:
    return digest(key, repr(device), repr(versions), mode)


def decision_of(
    row: Row, variants: Sequence[Variant], binaries: Sequence[Binary], provenance: Provenance
) -> Decision | None:
    """Return the decision a row stands for; None where the winner here has other bytes than the one that was timed.

    `binaries` holds the winner at least; of others that are built, the bytes must be the recorded ones, too.
    """
    point = row.points[0]
    recorded = {entry.variant: entry for entry in point.candidates}
    built = images_of(binaries)
    if point.winner not in built or any(label not in recorded for label in built):
        return None
    if any(recorded[label].images != images for label, images in built.items()):
        return None
    # In the order of the variants, which a row read from a library's manifest no longer has.
    entries = [(variant, recorded[variant.label]) for variant in variants if variant.label in recorded]
    if len(entries) < len(recorded):
        return None
    return Decision(
        winner=next(variant for variant, entry in entries if entry.variant == point.winner),
        reason=point.reason,
        timings=tuple(
            Timing(variant, entry.median_us, entry.spread_us or 0.0, entry.runs)
            for variant, entry in entries
            if entry.median_us is not None
        ),
        rejected=tuple(Rejected(variant, entry.rejected) for variant, entry in entries if entry.rejected),
        tuned=Tuned(row.mode, row.measured_at, {e.variant: e.images for _, e in entries if e.images}),
        provenance=provenance,
    )


def images_of(binaries: Sequence[Binary]) -> dict[str, tuple[str, ...]]:
    """Return the digests of each binary's images, by its variant's label."""
    return {b.source.variant.label: tuple(image.digest for image in b.images) for b in binaries}


def row_of(kernel: Kernel, key: Key, target: Target, decision: Decision | PointsDecision) -> Row:
    """Return a decision as a row; it must say when it was measured (`tuned`)."""
    tuned = decision.tuned
    assert tuned is not None
    if isinstance(decision, PointsDecision):
        points = row_points(decision.choices, tuned.images)
    else:
        entries = entries_of(tuned.images, decision.timings, decision.rejected)
        points = (Point({}, entries, decision.winner.label, decision.reason),)
    origins = tuple(f"{origin.op} {origin.location}".strip() for origin in kernel.nest.origins)
    return Row(
        key=key.choice,
        kernel=kernel.name,
        nest=key.nest,
        origins=tuple(dict.fromkeys(origins)),
        device=target.device,
        versions=versions_of(target),
        mode=tuned.mode,
        measured_at=tuned.measured_at,
        points=points,
    )


def missing_tuning(candidates: Candidates, missing: Mapping[str, str]) -> MissingTuningError:
    """Make the error for kernels that a required record does not answer, kernel → why."""
    lines = [f"Options.require_tuning: the record has no row for {len(missing)} of the kernels:"]
    for name, reason in missing.items():
        origins = candidates.schedule.kernels[name].nest.origins
        ops = ", ".join(dict.fromkeys(origin.op for origin in origins)) or "no known operation"
        lines.append(f"  {name} ({ops}): {reason}")
    lines.append("Compile once without require_tuning on the device and save its record (Model.save_tuning).")
    return MissingTuningError("\n".join(lines))


def _difference(row: Row, device: Device, versions: Versions) -> str:
    """Say how the circumstances of a row differ from those here."""
    found = []
    for there, here in ((row.device, device), (row.versions, versions)):
        for entry in fields(there):
            was, now = getattr(there, entry.name), getattr(here, entry.name)
            if was != now:
                found.append(f"{entry.name} {was!r}, here {now!r}")
    return "its row was measured with " + "; ".join(found)
