"""The parts of a library as bytes: a directory of offsets, the choice, and each part aligned to 64 bytes behind it.

The layout is that of `mkwrap/parts.h`, which reads it at run time; all numbers are little endian. Equal parts are stored once.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from mkwrap.artifact import Row
from mkwrap.errors import LibraryFormatError

ALIGNMENT = 64
_MAGIC = b"MKWPARTS"
_VERSION = 2
_HEAD = struct.Struct("<8sIIII")
_PART = struct.Struct("<QQ")
_WORKSPACE = struct.Struct("<q")
_UNBOUNDED = -1

Lazy: TypeAlias = Callable[[], bytes | memoryview]
"""A part's bytes, made when they are written: no two large ones are in memory at a time."""


@dataclass(frozen=True)
class Parts:
    """What a library's directory says: each part's bytes (empty where it was dropped), and a row per target."""

    blobs: tuple[memoryview, ...]
    rows: tuple[Row, ...]


def write_parts(file: BinaryIO, blobs: Sequence[Lazy], rows: Sequence[Row], most: int) -> None:
    """Write a directory and its parts to an empty seekable file; raises ValueError where they take more than `most` bytes."""
    kernels = {len(row.choices) for row in rows}
    if len(kernels) != 1:
        raise ValueError("rows of different lengths")
    (count,) = kernels
    head = _HEAD.size + _PART.size * len(blobs) + _row_bytes(count) * len(rows)
    entries: list[tuple[int, int]] = []
    seen: dict[bytes, tuple[int, int]] = {}
    end = head
    for make in blobs:
        blob = make()
        key = hashlib.sha256(blob).digest()
        if len(blob) > 0 and key not in seen:
            start = -(-end // ALIGNMENT) * ALIGNMENT
            end = start + len(blob)
            if end > most:
                raise ValueError(f"the parts take more than {most} bytes")
            file.seek(start)
            file.write(blob)
            # The byte behind a part is 0, so that the manifest is a C string.
            end += 1
            seen[key] = (start, len(blob))
        entries.append(seen.get(key, (0, 0)))
    file.seek(end)
    file.write(bytes(-end % ALIGNMENT))
    file.seek(0)
    file.write(_HEAD.pack(_MAGIC, _VERSION, len(blobs), len(rows), count))
    file.write(b"".join(_PART.pack(*entry) for entry in entries))
    for row in rows:
        choices = struct.pack(f"<{count}I", *row.choices)
        workspace = _UNBOUNDED if row.workspace_bytes is None else row.workspace_bytes
        file.write((_WORKSPACE.pack(workspace) + choices).ljust(_row_bytes(count), b"\0"))


def read_parts(data: memoryview, name: str) -> Parts:
    """Return the parts in a directory's bytes; raises `LibraryFormatError` that calls the library `name`."""
    try:
        magic, version, parts, rows, kernels = _HEAD.unpack_from(data)
        if magic == _MAGIC and version != _VERSION:
            raise LibraryFormatError(
                f"{name}: another version of mkwrap wrote it (its parts are of version {version}); compile it again"
            )
        entries = [_PART.unpack_from(data, _HEAD.size + k * _PART.size) for k in range(parts)]
        at = _HEAD.size + parts * _PART.size
        found = []
        for _ in range(rows):
            (workspace,) = _WORKSPACE.unpack_from(data, at)
            most = None if workspace == _UNBOUNDED else workspace
            found.append(Row(most, struct.unpack_from(f"<{kernels}I", data, at + _WORKSPACE.size)))
            at += _row_bytes(kernels)
    except struct.error as error:
        raise LibraryFormatError(f"{name}: its directory of parts cannot be read: {error}") from error
    if magic != _MAGIC or any(offset + size > len(data) for offset, size in entries):
        raise LibraryFormatError(f"{name}: its directory of parts cannot be read")
    return Parts(tuple(data[offset : offset + size] for offset, size in entries), tuple(found))


def _row_bytes(kernels: int) -> int:
    return _WORKSPACE.size + -(-4 * kernels // 8) * 8
