"""The seal of a library file: a trailer behind the ELF image by which damage is found before the file is loaded.

    ELF image · b"MKWSEAL1" · length of the image (8 bytes, little endian) · sha256 of the image and these 16 bytes

The dynamic loader ignores what follows the image. Any changed, missing or added byte is found.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import BinaryIO

from mkwrap.errors import LibraryFormatError

_ELF_MAGIC = b"\x7fELF"
_MAGIC = b"MKWSEAL1"
_DIGEST_BYTES = 32
_CHUNK_BYTES = 1 << 20
TRAILER_BYTES = len(_MAGIC) + 8 + _DIGEST_BYTES


def publish(image: bytes, output: Path) -> None:
    """Write a linked library and its trailer to `output` in one step: a reader sees the old file or the whole new one."""
    head = _MAGIC + len(image).to_bytes(8, "little")
    digest = hashlib.sha256(image)
    digest.update(head)
    # A name of its own beside the target, so that the rename stays on one file system.
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            file.write(image)
            file.write(head + digest.digest())
        partial.chmod(0o755)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def verify(file: BinaryIO, name: str) -> None:
    """Check an open library against its seal; raises `LibraryFormatError` that calls it `name`."""
    size = os.fstat(file.fileno()).st_size
    if size < len(_ELF_MAGIC) + TRAILER_BYTES:
        raise LibraryFormatError(f"{name} is not a mkwrap library: it has only {size} bytes")
    file.seek(0)
    if file.read(len(_ELF_MAGIC)) != _ELF_MAGIC:
        raise LibraryFormatError(f"{name} is not a mkwrap library: it is not a shared library")
    image = size - TRAILER_BYTES
    file.seek(image)
    trailer = file.read(TRAILER_BYTES)
    if not trailer.startswith(_MAGIC):
        raise LibraryFormatError(f"{name} is not a mkwrap library, or its end is missing")
    signed, digest = trailer[:-_DIGEST_BYTES], trailer[-_DIGEST_BYTES:]
    length = int.from_bytes(signed[len(_MAGIC) :], "little")
    if length != image or _image_digest(file, image, signed) != digest:
        raise LibraryFormatError(f"{name} is damaged: its checksum does not match its contents")


def _image_digest(file: BinaryIO, size: int, head: bytes) -> bytes:
    # Read, not mapped: a file that is cut short meanwhile must not end the process with SIGBUS.
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    digest.update(head)
    return digest.digest()
