"""A dynamic kernel's choices as the points of a record's row, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mkwrap.stages import Point, PointChoice, Rejected, Timing, Tuned, Variant
from mkwrap.tune import record
from mkwrap.tune.field import Field
from mkwrap.tune.record import Row, entries_of


@dataclass(frozen=True)
class RowChoices:
    """What a row says of a kernel's points, its own and perhaps more than are asked for."""

    choices: tuple[PointChoice, ...]
    tuned: Tuned
    missing: tuple[Mapping[str, int], ...]
    """The points asked for that it lacks."""

    def agrees(self, built: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether binaries, digests of their images by label, are those that were timed."""
        return all(self.tuned.images.get(label) == images for label, images in built.items())


def row_points(choices: Sequence[PointChoice], images: Mapping[str, tuple[str, ...]]) -> tuple[record.Point, ...]:
    """Return the points of a row. The first lists every binary; the others those that were timed there, and the winner."""
    points = []
    for number, choice in enumerate(choices):
        timed = {timing.variant.label for timing in choice.timings} | {choice.winner.label}
        listed = images if number == 0 else {label: images[label] for label in images if label in timed}
        entries = entries_of(listed, choice.timings, choice.rejected)
        points.append(record.Point(choice.at, entries, choice.winner.label, choice.reason))
    return tuple(points)


def choices_of(row: Row, field: Field, variants: Sequence[Variant]) -> RowChoices | None:
    """Return what a row says of a kernel's points; None where it is of other symbols or other variants."""
    names = {str(symbol.name) for symbol in field.symbols}
    by_label = {variant.label: variant for variant in variants}
    place = {variant: number for number, variant in enumerate(variants)}
    choices = []
    for point in row.points:
        if set(point.at) != names or any(entry.variant not in by_label for entry in point.candidates):
            return None
        entries = sorted(((by_label[e.variant], e) for e in point.candidates), key=lambda pair: place[pair[0]])
        timings = tuple(
            Timing(variant, entry.median_us, entry.spread_us or 0.0, entry.runs)
            for variant, entry in entries
            if entry.median_us is not None
        )
        rejected = tuple(Rejected(variant, entry.rejected) for variant, entry in entries if entry.rejected)
        choices.append(PointChoice(point.at, by_label[point.winner], point.reason, timings, rejected))
    there = [choice.at for choice in choices]
    missing = tuple(at for at in map(field.at, sorted(field.worth)) if at not in there)
    images = {e.variant: e.images for e in row.points[0].candidates if e.images}
    ordered = {variant.label: images[variant.label] for variant in variants if variant.label in images}
    return RowChoices(tuple(choices), Tuned(row.mode, row.measured_at, ordered), missing)


def point_of(field: Field, at: Mapping[str, int]) -> Point:
    """Return the coordinates of a named point."""
    return tuple(at[str(symbol.name)] for symbol in field.symbols)


def spell_point(at: Mapping[str, int]) -> str:
    """Spell a point: `batch=3 seq=700`."""
    return " ".join(f"{name}={size}" for name, size in at.items())


def summary(choices: Sequence[PointChoice]) -> str:
    """Say why the winners of a kernel's points won, in one line."""
    reasons = dict.fromkeys(choice.reason for choice in choices)
    if len(reasons) == 1:
        return next(iter(reasons))
    timed = sum(bool(choice.timings) for choice in choices)
    return f"measured at {timed} of {len(choices)} points" if timed else next(iter(reasons))
