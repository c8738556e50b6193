"""Reads what ptxas wrote into a cubin about its kernel: registers and stack, from the ELF section `.nv.info`.

The attribute numbers are those `cuobjdump -elf` prints: EIATTR_FRAME_SIZE 0x11, EIATTR_REGCOUNT 0x2f. Each record is a
format byte (4: sized value), an attribute byte, a 16-bit size, and pairs (symbol index, value) of 32 bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mkwrap.errors import CompilerError

_FRAME_SIZE = 0x11
_REGISTERS = 0x2F
_SIZED = 4
_SECTION = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True)
class Resources:
    """Registers per thread, and bytes of stack per thread (spills and local arrays)."""

    registers: int
    stack_bytes: int


def read_resources(cubin: bytes) -> Resources:
    """Return the largest use of any kernel in the cubin; raises `CompilerError` where it is no 64-bit ELF file."""
    try:
        info = _sections(cubin).get(b".nv.info", b"")
        found: dict[int, int] = {}
        place = 0
        while place + 4 <= len(info):
            form, attribute, size = struct.unpack_from("<BBH", info, place)
            if form == _SIZED and size == 8 and attribute in (_FRAME_SIZE, _REGISTERS):
                value = struct.unpack_from("<II", info, place + 4)[1]
                found[attribute] = max(found.get(attribute, 0), value)
            place += 4 + (size if form == _SIZED else 0)
    except (struct.error, IndexError) as error:
        raise CompilerError(f"ptxas wrote a cubin that cannot be read: {error}") from error
    return Resources(found.get(_REGISTERS, 0), found.get(_FRAME_SIZE, 0))


def _sections(image: bytes) -> dict[bytes, bytes]:
    if image[:5] != b"\x7fELF\x02":
        raise CompilerError("ptxas wrote something that is not a 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", image, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", image, 0x3A)
    headers = [_SECTION.unpack_from(image, table + k * entry_size) for k in range(count)]
    names = headers[names_index]
    strings = image[names[4] : names[4] + names[5]]
    return {strings[h[0] : strings.index(b"\0", h[0])]: image[h[4] : h[4] + h[5]] for h in headers}
