"""A library read as a file: its manifest and parts, without loading its code, on a machine that may not run it."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mkwrap.errors import LibraryFormatError
from mkwrap.toolchain.elf import Elf, Section
from mkwrap.toolchain.link import PARTS_SECTION
from mkwrap.toolchain.parts import Parts, read_parts
from mkwrap.toolchain.seal import TRAILER_BYTES, verify

_DISTANCE = struct.Struct("<q")


@dataclass(frozen=True)
class LibraryFile:
    """What a library's file holds. The parts' bytes are views of the mapped file."""

    path: Path
    size: int
    seal: str
    """The trailer, hexadecimal: it names the file's contents."""
    elf: Elf
    section: Section
    """The section of the parts: distances for whoever rewrites the file, then the directory."""
    directory: int
    """Where in the section the directory starts."""
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
    elf = Elf(data[:-TRAILER_BYTES], str(path))
    section = elf.section(PARTS_SECTION)
    contents = elf.bytes_of(section)
    try:
        (directory,) = _DISTANCE.unpack_from(contents)
        parts = read_parts(contents[directory:], str(path))
        manifest = json.loads(bytes(parts.blobs[0]))
    except (struct.error, ValueError, IndexError) as error:
        raise LibraryFormatError(f"{path}: its manifest cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise LibraryFormatError(f"{path}: its manifest is not an object")
    seal = bytes(data[-TRAILER_BYTES:]).hex()
    return LibraryFile(path, len(data), seal, elf, section, directory, manifest, parts)
