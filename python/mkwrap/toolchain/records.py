"""What the cache keeps, as typed records: the images of a source, and the choice made for a kernel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from mkwrap.stages import Binary, Image, Rejected, Source, Timing, Variant
from mkwrap.toolchain.cache import Cache, digest, package_version

_COMMENT = {"cpp": "//", "triton": "# "}


def source_key(source: Source, toolchain: str) -> str:
    """Key of a source's images: its text, launches and everything of the toolchain that decides the bytes.

    Lines of comment count as empty ones: they name lines of the user's file, which move.
    """
    lines = source.text.split("\n")
    code = "\n".join("" if line.startswith(_COMMENT[source.language]) else line for line in lines)
    launches = "\n".join(
        repr((launch.entry, sorted(launch.options.items()), launch.signature, launch.divisible_by_16))
        for launch in source.launches
    )
    return digest(package_version(), toolchain, source.language, launches, code)


_IMAGE_NUMBERS = (
    "threads",
    "shared_bytes",
    "registers",
    "spilled_bytes",
    "global_scratch_bytes",
    "global_scratch_alignment",
)


def get_binary(cache: Cache, key: str, source: Source) -> Binary | None:
    """Return the cached images of a source (all from one build), or None."""
    payload = cache.get("binary", key)
    if payload is None:
        return None
    try:
        head, _, blobs = payload.partition(b"\n")
        images = []
        for row in json.loads(head):
            blob, blobs = blobs[: row["size"]], blobs[row["size"] :]
            numbers = {name: int(row[name]) for name in _IMAGE_NUMBERS}
            images.append(Image(entry=str(row["entry"]), blob=blob, digest=str(row["digest"]), **numbers))
        intact = not blobs and all(hashlib.sha256(image.blob).hexdigest() == image.digest for image in images)
    except (ValueError, KeyError, TypeError):
        return None
    return Binary(source, tuple(images)) if intact and images else None


def put_binary(cache: Cache, key: str, binary: Binary) -> None:
    """Keep the images of a source, in one entry so that they always come from one build."""
    rows = [
        {"entry": image.entry, "size": len(image.blob), "digest": image.digest}
        | {name: getattr(image, name) for name in _IMAGE_NUMBERS}
        for image in binary.images
    ]
    cache.put("binary", key, b"\n".join([json.dumps(rows).encode(), b"".join(image.blob for image in binary.images)]))


@dataclass(frozen=True)
class Choice:
    """What was decided for one kernel, and on what evidence."""

    winner: Variant
    timings: tuple[Timing, ...]
    rejected: tuple[Rejected, ...]


def get_choice(cache: Cache, key: str, variants: Sequence[Variant]) -> Choice | None:
    """Return the choice kept under key, or None; a record naming a variant that is not among `variants` is a miss."""
    payload = cache.get("choice", key)
    if payload is None:
        return None
    by_label = {variant.label: variant for variant in variants}
    try:
        record = json.loads(payload)
        timings = tuple(
            Timing(by_label[row["label"]], float(row["median_us"]), float(row["spread_us"]), int(row["runs"]))
            for row in record["timings"]
        )
        rejected = tuple(Rejected(by_label[row["label"]], str(row["reason"])) for row in record["rejected"])
        winner = by_label[record["winner"]]
    except (ValueError, KeyError, TypeError):
        return None
    if any(entry.variant == winner for entry in rejected):
        return None
    return Choice(winner, timings, rejected)


def put_choice(cache: Cache, key: str, choice: Choice) -> None:
    """Keep a choice: the winner's label, every timing, every rejection."""
    record = {
        "winner": choice.winner.label,
        "timings": [
            {"label": t.variant.label, "median_us": t.median_us, "spread_us": t.spread_us, "runs": t.runs}
            for t in choice.timings
        ],
        "rejected": [{"label": entry.variant.label, "reason": entry.reason} for entry in choice.rejected],
    }
    cache.put("choice", key, json.dumps(record, sort_keys=True).encode())
