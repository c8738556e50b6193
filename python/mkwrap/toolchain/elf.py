"""Reads and edits a shared library's ELF image: replaces the contents of its last section, cuts out whole segments.

Only what the linker placed for it (toolchain.link) is ever edited: a segment that starts on a page of the file, and a section
behind which there is nothing that is mapped. Addresses stay what they are; only places in the file move.
Structures: System V ABI, chapters 4 and 5 (64 bit, little endian).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mkwrap.errors import LibraryFormatError

_SEGMENT_OFFSET, _SECTION_OFFSET, _COUNTS = 0x20, 0x28, 0x36
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LOAD = 1
_SYMBOL_TABLE, _NO_BITS = 2, 8
_MAPPED, _THREAD_LOCAL = 0x2, 0x400
# What lies behind the replaced section moves by a multiple of this, so that every section stays aligned.
_GRAIN = 64


@dataclass(frozen=True)
class Segment:
    """A program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    file_bytes: int
    memory_bytes: int
    alignment: int


@dataclass(frozen=True)
class Section:
    """A section header and its name."""

    name: str
    fields: tuple[int, ...]

    @property
    def address(self) -> int:
        """Where it is mapped, from the library's start."""
        return self.fields[3]

    @property
    def is_mapped(self) -> bool:
        """Whether it takes memory when the library is loaded (SHF_ALLOC); thread-local zeros (.tbss) take none."""
        return bool(self.fields[2] & _MAPPED) and not (self.fields[1] == _NO_BITS and self.fields[2] & _THREAD_LOCAL)

    @property
    def offset(self) -> int:
        """Where it lies in the file."""
        return self.fields[4]

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.fields[5]


@dataclass(frozen=True)
class _Edit:
    """Bytes of the file from start to end become others."""

    start: int
    end: int
    data: bytes

    @property
    def growth(self) -> int:
        return len(self.data) - (self.end - self.start)


class Elf:
    """A shared library in memory; raises `LibraryFormatError` that calls it `name` where it cannot be read."""

    def __init__(self, data: memoryview, name: str) -> None:
        self.data = data
        self._name = name
        try:
            if bytes(data[:6]) != b"\x7fELF\x02\x01":
                raise ValueError("no 64-bit little endian file")
            (self._segments_at,) = struct.unpack_from("<Q", data, _SEGMENT_OFFSET)
            (self._sections_at,) = struct.unpack_from("<Q", data, _SECTION_OFFSET)
            segment_size, segments, section_size, sections, names = struct.unpack_from("<5H", data, _COUNTS)
            if (segment_size, section_size) != (_SEGMENT.size, _SECTION.size):
                raise ValueError("unknown sizes of headers")
            self.segments = [
                Segment(*_SEGMENT.unpack_from(data, self._segments_at + k * _SEGMENT.size)) for k in range(segments)
            ]
            headers = [_SECTION.unpack_from(data, self._sections_at + k * _SECTION.size) for k in range(sections)]
            strings = bytes(data[headers[names][4] : headers[names][4] + headers[names][5]])
            self.sections = [Section(_string(strings, header[0]), header) for header in headers]
        except (struct.error, ValueError, IndexError) as error:
            raise LibraryFormatError(f"{name} cannot be read as a shared library: {error}") from error

    def section(self, name: str) -> Section:
        """Return the section of that name."""
        for section in self.sections:
            if section.name == name:
                return section
        raise LibraryFormatError(f"{self._name} has no section {name}")

    def bytes_of(self, section: Section) -> memoryview:
        """Return a section's contents."""
        return self.data[section.offset : section.offset + section.size]

    def symbol(self, name: str) -> int:
        """Return the address of an exported symbol."""
        strings = bytes(self.bytes_of(self.section(".dynstr")))
        for symbol in _SYMBOL.iter_unpack(self.bytes_of(self.section(".dynsym"))):
            if _string(strings, symbol[0]) == name:
                return int(symbol[4])
        raise LibraryFormatError(f"{self._name} does not export {name}")

    def segment_at(self, address: int) -> Segment:
        """Return the loaded segment that holds an address."""
        for segment in self._loaded():
            if segment.address <= address < segment.address + segment.file_bytes:
                return segment
        raise LibraryFormatError(f"{self._name} has nothing at {address:#x}")

    def section_at(self, address: int) -> Section:
        """Return the mapped section that holds an address."""
        for section in self.sections:
            if section.is_mapped and section.address <= address < section.address + section.size:
                return section
        raise LibraryFormatError(f"{self._name} has no section at {address:#x}")

    def place(self, address: int) -> int:
        """Return where in the file the byte at an address lies."""
        segment = self.segment_at(address)
        return segment.offset + address - segment.address

    def edited(self, section: Section, contents: bytes, dropped: Sequence[Section], patches: dict[int, bytes]) -> bytes:
        """Return the image with a section's contents replaced, sections cut out, and bytes in the file overwritten.

        `section` must be all of the last loaded segment, and `dropped` all of loaded segments between it and the rest. Raises
        `LibraryFormatError` where the linker put them together with something else.
        """
        cut = self._segments_of(dropped)
        whole = self.segment_at(section.address)
        behind = [s.name for s in self.sections if s.is_mapped and s != section and s.address + s.size > whole.address]
        if (whole.offset, whole.file_bytes) != (section.offset, section.size) or behind:
            raise LibraryFormatError(
                f"{self._name}: {section.name} is not the last segment alone; with or behind it: {', '.join(behind)}"
            )
        data = bytearray(self.data)
        for place, patch in patches.items():
            data[place : place + len(patch)] = patch
        padding = -(len(contents) - section.size) % _GRAIN
        edits = [_Edit(section.offset, section.offset + section.size, contents + bytes(padding))]
        edits += [_Edit(s.offset, s.offset + -(-s.file_bytes // s.alignment) * s.alignment, b"") for s in cut]
        edits.sort(key=lambda edit: edit.start)
        if any(a.end > b.start for a, b in pairwise(edits)) or any(e.start % 64 for e in edits):
            raise LibraryFormatError(f"{self._name}: its segments overlap in the file")
        self._write_segments(data, edits, cut, whole)
        self._write_sections(data, edits, cut, section)
        return b"".join(_pieces(data, edits))

    def _loaded(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.type == _LOAD]

    def _segments_of(self, dropped: Sequence[Section]) -> list[Segment]:
        """Return the segments that hold these sections, each once; refuse those that hold others, too."""
        cut = list(dict.fromkeys(self.segment_at(section.address) for section in dropped))
        for segment in cut:
            end = segment.address + segment.memory_bytes
            for other in self.sections:
                inside = other.address < end and other.address + other.size > segment.address
                if other.is_mapped and inside and other not in dropped:
                    raise LibraryFormatError(
                        f"{self._name}: {other.name} lies in one segment with code that is to be dropped; the library must "
                        "be linked by GNU ld, which gives each section of the open choice a segment of its own"
                    )
        return cut

    def _write_segments(self, data: bytearray, edits: Sequence[_Edit], cut: Sequence[Segment], whole: Segment) -> None:
        for k, segment in enumerate(self.segments):
            if segment in cut:
                moved = Segment(0, 0, 0, 0, 0, 0, 0, 0)
            else:
                moved = replace(segment, offset=_moved(segment.offset, edits))
                if segment == whole:
                    size = next(len(e.data) for e in edits if e.start == whole.offset)
                    moved = replace(moved, file_bytes=size, memory_bytes=size)
            _SEGMENT.pack_into(data, self._segments_at + k * _SEGMENT.size, *vars(moved).values())

    def _write_sections(
        self, data: bytearray, edits: Sequence[_Edit], cut: Sequence[Segment], section: Section
    ) -> None:
        """Move the sections; those that are cut become empty headers, and their symbols go."""
        gone = {
            k
            for k, s in enumerate(self.sections)
            if any(segment.address <= s.address < segment.address + segment.memory_bytes for segment in cut)
        }
        for k, entry in enumerate(self.sections):
            fields = list(entry.fields)
            fields[4] = _moved(entry.offset, edits)
            if entry == section:
                fields[5] = next(len(e.data) for e in edits if e.start == section.offset)
            if k in gone:
                fields = [0] * len(fields)
            if entry.fields[1] == _SYMBOL_TABLE:
                fields[5], fields[7] = _without_symbols(data, entry, gone)
            _SECTION.pack_into(data, self._sections_at + k * _SECTION.size, *fields)
        struct.pack_into("<Q", data, _SECTION_OFFSET, _moved(self._sections_at, edits))


def _without_symbols(data: bytearray, table: Section, gone: Collection[int]) -> tuple[int, int]:
    """Close the gaps that the symbols of some sections leave; returns the table's bytes and its number of local symbols."""
    whole = data[table.offset : table.offset + table.size]
    symbols = [whole[at : at + _SYMBOL.size] for at in range(0, table.size, _SYMBOL.size)]
    kept = [k for k, symbol in enumerate(symbols) if _SYMBOL.unpack(symbol)[3] not in gone]
    data[table.offset : table.offset + table.size] = b"".join(symbols[k] for k in kept).ljust(table.size, b"\0")
    return len(kept) * _SYMBOL.size, sum(k < table.fields[7] for k in kept)


def _moved(offset: int, edits: Sequence[_Edit]) -> int:
    return offset + sum(edit.growth for edit in edits if edit.start < offset)


def _pieces(data: bytearray, edits: Sequence[_Edit]) -> Iterator[bytes]:
    place = 0
    for edit in edits:
        yield bytes(data[place : edit.start])
        yield edit.data
        place = edit.end
    yield bytes(data[place:])


def _string(strings: bytes, start: int) -> str:
    return strings[start : strings.index(b"\0", start)].decode()
