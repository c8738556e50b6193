"""A library read as a file: its manifest and parts, without loading its code, on a machine that may not run it."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mkwrap.errors import LibraryFormatError
from mkwrap.toolchain.link import PARTS_SECTION
from mkwrap.toolchain.parts import ALIGNMENT, Parts, read_parts
from mkwrap.toolchain.seal import verify

# The header of a section: System V ABI, chapter 4 (64 bit, little endian).
_SECTION = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True)
class LibraryFile:
    """What a library's file holds. The parts' bytes are views of the mapped file."""

    path: Path
    size: int
    manifest: Mapping[str, object]
    parts: Parts


def read_library(path: Path) -> LibraryFile:
    """Verify a library's seal and read what it says of itself; raises `LibraryFormatError`."""
    try:
        with path.open("rb") as file:
            verify(file, str(path))
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise LibraryFormatError(f"{path} cannot be read: {error.strerror}") from error
    try:
        parts = read_parts(_directory(data), str(path))
        manifest = json.loads(bytes(parts.blobs[0]))
    except (struct.error, ValueError, IndexError) as error:
        raise LibraryFormatError(f"{path}: its manifest cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise LibraryFormatError(f"{path}: its manifest is not an object")
    return LibraryFile(path, len(data), manifest, parts)


def _directory(data: memoryview) -> memoryview:
    """Return the section of the parts from its directory on; distances for whoever rewrites the file stand before it."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_bytes, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [_SECTION.unpack_from(data, table + k * entry_bytes) for k in range(count)]
    strings = bytes(data[headers[names][4] : headers[names][4] + headers[names][5]])
    for header in headers:
        if strings[header[0] : strings.index(b"\0", header[0])] == PARTS_SECTION.encode():
            section = data[header[4] : header[4] + header[5]]
            start = next(at for at in range(0, len(section), ALIGNMENT) if bytes(section[at : at + 8]) == b"MKWPARTS")
            return section[start:]
    raise ValueError(f"there is no section {PARTS_SECTION}")
