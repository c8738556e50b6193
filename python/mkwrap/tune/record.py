"""The tuning record: one row per measured choice, one line of JSON per row; docs/record.md is its schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TypeAlias

from mkwrap.stages import Device, Rejected, Timing, Versions

SCHEMA = 1
MODES = ("quick", "full")
"""Tuning modes that make rows, the weaker first."""

Json: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Entry:
    """One candidate: its times, or why it was rejected; neither where nobody measured it. Times in microseconds."""

    variant: str
    images: tuple[str, ...] = ()
    """sha256 of each image, if it was built."""
    median_us: float | None = None
    spread_us: float | None = None
    runs: int = 0
    rejected: str = ""


@dataclass(frozen=True)
class Point:
    """The choice at one point over the kernel's symbols (a static kernel has one, at {})."""

    at: Mapping[str, int]
    candidates: tuple[Entry, ...]
    winner: str
    reason: str

    @property
    def images(self) -> tuple[str, ...]:
        """The digests of the winner's images."""
        return next(entry.images for entry in self.candidates if entry.variant == self.winner)


@dataclass(frozen=True)
class Row:
    """One choice: for which kernel, where, with what, when, and on what evidence."""

    key: str
    kernel: str
    nest: str
    origins: tuple[str, ...]
    device: Device
    versions: Versions
    mode: str
    measured_at: str
    points: tuple[Point, ...]

    @property
    def question(self) -> tuple[str, Device, Versions]:
        """What the row answers: two rows of one question are rivals, of which a merge keeps one."""
        return self.key, self.device, self.versions

    @property
    def rank(self) -> tuple[int, str, str]:
        """Order among rivals: full before quick, then the later; text decides the rest, so that file order does not."""
        return MODES.index(self.mode), self.measured_at, encode(self)


def entries_of(
    images: Mapping[str, tuple[str, ...]], timings: Sequence[Timing], rejected: Sequence[Rejected]
) -> tuple[Entry, ...]:
    """Return the candidates of a point: those that were built, with their images, then others that were rejected."""
    times = {timing.variant.label: timing for timing in timings}
    reasons = {entry.variant.label: entry.reason for entry in rejected}
    entries = []
    for label in dict.fromkeys((*images, *reasons)):
        entry = Entry(label, images.get(label, ()), rejected=reasons.get(label, ""))
        if label in times:
            timing = times[label]
            entry = replace(entry, median_us=timing.median_us, spread_us=timing.spread_us, runs=timing.runs)
        entries.append(entry)
    return tuple(entries)


def encode(row: Row) -> str:
    """Return a row as one line of JSON, without the line's end; equal rows give equal text."""
    value = {
        "schema": SCHEMA,
        "key": row.key,
        "kernel": {"name": row.kernel, "nest": row.nest, "origins": row.origins},
        "device": asdict(row.device),
        "versions": asdict(row.versions),
        "mode": row.mode,
        "measured_at": row.measured_at,
        "points": [
            {
                "at": dict(point.at),
                "candidates": [_entry(entry) for entry in point.candidates],
                "winner": point.winner,
                "reason": point.reason,
            }
            for point in row.points
        ],
    }
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _entry(entry: Entry) -> Json:
    value: dict[str, object] = {"variant": entry.variant, "images": entry.images}
    if entry.median_us is not None:
        value |= {"median_us": entry.median_us, "spread_us": entry.spread_us, "runs": entry.runs}
    if entry.rejected:
        value["rejected"] = entry.rejected
    return value


def decode(line: str | bytes) -> Row:
    """Read one line; raises ValueError saying what is wrong with it. Keys that are not known are ignored."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    row = _object(value, "the line")
    schema = row.get("schema")
    if schema != SCHEMA:
        raise ValueError(f"it has schema {schema!r}; this mkwrap reads schema {SCHEMA}")
    kernel = _object(row.get("kernel"), "kernel")
    mode = _text(row, "mode")
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    points = tuple(_point(_object(point, "a point")) for point in _list(row, "points"))
    if not points:
        raise ValueError("points is empty")
    if any(point.at == points[place].at for number, point in enumerate(points) for place in range(number)):
        raise ValueError("a point is listed twice")
    return Row(
        key=_digest(row, "key"),
        kernel=_text(kernel, "name"),
        nest=_digest(kernel, "nest"),
        origins=tuple(str(origin) for origin in _list(kernel, "origins")),
        device=decode_device(row.get("device")),
        versions=decode_versions(row.get("versions")),
        mode=mode,
        measured_at=_text(row, "measured_at"),
        points=points,
    )


def decode_device(value: object) -> Device:
    """Read a row's device; raises ValueError."""
    source = _object(value, "device")
    numbers = {field.name: _integer(source, field.name) for field in fields(Device) if field.type == "int"}
    texts = {field.name: _text(source, field.name) for field in fields(Device) if field.type == "str"}
    return Device(**texts, **numbers)  # type: ignore[arg-type]


def decode_versions(value: object) -> Versions:
    """Read a row's versions; raises ValueError."""
    source = _object(value, "versions")
    return Versions(**{field.name: _text(source, field.name) for field in fields(Versions)})


def _point(value: Json) -> Point:
    at = _object(value.get("at"), "at")
    candidates = tuple(_candidate(_object(entry, "a candidate")) for entry in _list(value, "candidates"))
    labels = [entry.variant for entry in candidates]
    winner = _text(value, "winner")
    if len(set(labels)) != len(labels):
        raise ValueError("a variant is listed twice")
    if not any(entry.variant == winner and entry.images and not entry.rejected for entry in candidates):
        raise ValueError(f"the winner {winner!r} is not among the candidates that were built and not rejected")
    return Point({name: _integer(at, name) for name in at}, candidates, winner, _text(value, "reason"))


def _candidate(value: Json) -> Entry:
    images = tuple(str(image) for image in _list(value, "images"))
    rejected = _text(value, "rejected") if "rejected" in value else ""
    if "median_us" not in value:
        return Entry(_text(value, "variant"), images, rejected=rejected)
    times = _number(value, "median_us"), _number(value, "spread_us")
    return Entry(_text(value, "variant"), images, *times, _integer(value, "runs"), rejected)


def _object(value: object, name: str) -> Json:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def _list(source: Json, name: str) -> Sequence[object]:
    value = source.get(name)
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return value


def _text(source: Json, name: str) -> str:
    value = source.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a string")
    return value


def _digest(source: Json, name: str) -> str:
    value = _text(source, name)
    if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError(f"{name} is not a sha256 in hexadecimal")
    return value


def _integer(source: Json, name: str) -> int:
    value = source.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is not a whole number of at least 0")
    return value


def _number(source: Json, name: str) -> float:
    value = source.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} is not a finite number of at least 0")
    return float(value)


def merge(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return one row per question, the best of its rivals (`Row.rank`), in order of first appearance."""
    best: dict[tuple[str, Device, Versions], Row] = {}
    for row in rows:
        rival = best.get(row.question)
        if rival is None or row.rank > rival.rank:
            best[row.question] = row
    return tuple(best.values())


def rows_of(manifest: Json) -> Iterator[Row]:
    """Yield the rows of a library's kernels; raises ValueError for a manifest that makes no sense."""
    targets = [_object(target, "a target") for target in _list(manifest, "targets")]
    for kernel in (_object(kernel, "a kernel") for kernel in _list(manifest, "kernels")):
        if kernel.get("tuned") is None:
            continue
        tuned = _object(kernel["tuned"], "tuned")
        number = _integer(kernel, "target")
        if number >= len(targets):
            raise ValueError(f"a kernel is of target {number}; there are {len(targets)}")
        tuning = _object(targets[number].get("tuning"), "tuning")
        yield Row(
            key=_digest(kernel, "key"),
            kernel=_text(kernel, "name"),
            nest=_digest(kernel, "nest"),
            origins=tuple(str(origin) for origin in _list(kernel, "origins")),
            device=decode_device(tuning.get("device")),
            versions=decode_versions(tuning.get("versions")),
            mode=_text(tuned, "mode"),
            measured_at=_text(tuned, "measured_at"),
            points=_kernel_points(kernel, _list(tuned, "images")),
        )


def _kernel_points(kernel: Json, built: Sequence[object]) -> tuple[Point, ...]:
    """Return the points of a row: of dynamic sizes those listed, the first of which has all that was built."""
    images = {_text(b, "variant"): _list(b, "images") for b in (_object(b, "a built variant") for b in built)}
    if not kernel.get("points"):
        return (_kernel_point({}, kernel, images),)
    points = []
    for number, point in enumerate(_object(point, "a point") for point in _list(kernel, "points")):
        timed = {_text(_object(t, "a timing"), "variant") for t in _list(point, "timings")} | {_text(point, "winner")}
        listed = {label: found for label, found in images.items() if number == 0 or label in timed}
        points.append(_kernel_point(_object(point.get("at"), "at"), point, listed))
    return tuple(points)


def _kernel_point(at: Json, choice: Json, images: Mapping[str, Sequence[object]]) -> Point:
    timings = {_text(t, "variant"): t for t in (_object(t, "a timing") for t in _list(choice, "timings"))}
    rejected = {_text(r, "variant"): r for r in (_object(r, "a rejection") for r in _list(choice, "rejected"))}
    candidates = [
        {
            "variant": label,
            "images": images.get(label, []),
            **timings.get(label, {}),
            **({"rejected": rejected[label]["reason"]} if label in rejected else {}),
        }
        for label in dict.fromkeys((*images, *timings, *rejected))
    ]
    return _point({"at": at, "candidates": candidates, "winner": choice["winner"], "reason": choice["reason"]})
