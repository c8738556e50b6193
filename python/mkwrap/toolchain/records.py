"""The images of a source, as the cache keeps them."""

from __future__ import annotations

import hashlib
import json

from mkwrap.stages import Binary, Image, Source
from mkwrap.toolchain.cache import Cache, digest, package_version

_COMMENT = {"cpp": "//", "triton": "# "}


def source_key(source: Source, toolchain: str) -> str:
    """Key of a source's images: its digest and everything of the toolchain that decides the bytes."""
    return digest(package_version(), toolchain, source_digest(source))


def source_digest(source: Source) -> str:
    """Digest of a source's text and launches.

    Lines of comment count as empty ones: they name lines of the user's file, which move.
    """
    lines = source.text.split("\n")
    code = "\n".join("" if line.startswith(_COMMENT[source.language]) else line for line in lines)
    launches = "\n".join(
        repr((launch.entry, sorted(launch.options.items()), launch.signature, launch.divisible_by_16))
        for launch in source.launches
    )
    return digest(source.language, launches, code)


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
