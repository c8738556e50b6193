"""A library's directory and parts, and its image cut: what is written is what is read, and damage is refused."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.python.wrapper.selections import add_one, cpu_description

from mkwrap.artifact import Row
from mkwrap.codegen.wrapper import wrap
from mkwrap.codegen.wrapper.host import manifest_offset
from mkwrap.errors import LibraryFormatError
from mkwrap.toolchain.elf import Elf
from mkwrap.toolchain.library_file import read_library
from mkwrap.toolchain.link import PARTS_SECTION, link
from mkwrap.toolchain.parts import read_parts, write_parts
from mkwrap.toolchain.seal import TRAILER_BYTES, publish

BLOBS = (b"{manifest}", b"x" * 100, b"", b"y", b"x" * 100)
ROWS = (Row(256, (0, 2, 1)), Row(0, (3, 0, 0)), Row(None, (1, 1, 1)))


def written(blobs: tuple[bytes, ...] = BLOBS, rows: tuple[Row, ...] = ROWS, most: int = 1 << 20) -> bytes:
    file = io.BytesIO()
    write_parts(file, [lambda blob=blob: blob for blob in blobs], rows, most)  # type: ignore[misc]
    return file.getvalue()


def test_what_is_written_is_read() -> None:
    data = written()
    parts = read_parts(memoryview(data), "m.so")
    assert tuple(map(bytes, parts.blobs)) == BLOBS
    assert parts.rows == ROWS
    assert data == written()


def test_parts_are_aligned_equal_ones_are_stored_once_and_the_manifest_is_a_string_at_its_place() -> None:
    data = written()
    assert data.count(b"x" * 100) == 1
    assert data.index(b"{manifest}") == manifest_offset(len(BLOBS), len(ROWS), 3)
    assert data[data.index(b"{manifest}") + len(b"{manifest}")] == 0
    assert all(data.index(blob) % 64 == 0 for blob in (b"{manifest}", b"x" * 100))
    assert len(data) % 64 == 0


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 200 bytes"):
        written(most=200)


@pytest.mark.parametrize("size", [0, 8, 23, 40, 100, 150])
def test_r6_a_directory_that_is_cut_short_is_refused(size: int) -> None:
    with pytest.raises(LibraryFormatError, match=r"m\.so"):
        read_parts(memoryview(written())[:size], "m.so")


def test_r6_a_directory_of_another_version_says_what_to_do() -> None:
    data = bytearray(written())
    data[8] += 1
    with pytest.raises(LibraryFormatError, match=r"another version of mkwrap wrote it .* compile it again"):
        read_parts(memoryview(bytes(data)), "m.so")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    selection = add_one(8).selection()
    path = tmp_path_factory.mktemp("library") / "model.so"
    return link(wrap(selection, cpu_description()), selection.schedule.program, "g++", path).path


@pytest.mark.toolchain
@pytest.mark.parametrize("change", [-1000, -64, 0, 1, 5000])
def test_a_section_may_grow_and_shrink(change: int, library: Path, tmp_path: Path) -> None:
    """All else stays where it is mapped, and tools still read the file."""
    image = memoryview(library.read_bytes())[:-TRAILER_BYTES]
    elf = Elf(image, "model.so")
    section = elf.section(PARTS_SECTION)
    contents = bytes(elf.bytes_of(section))
    contents = contents[: len(contents) + change] if change < 0 else contents + bytes(change)
    edited = elf.edited(section, contents, (), {})
    again = Elf(memoryview(edited), "model.so")
    assert bytes(again.bytes_of(again.section(PARTS_SECTION))).startswith(contents)
    assert [s.address for s in again.sections] == [s.address for s in elf.sections]
    assert again.symbol("mkw_get_api") == elf.symbol("mkw_get_api")
    for name in (".symtab", ".strtab", ".comment", ".text", ".dynsym"):
        assert bytes(again.bytes_of(again.section(name))) == bytes(elf.bytes_of(elf.section(name)))
    publish(edited, tmp_path / "m.so")
    for command in (["readelf", "-W", "-a"], ["nm", "-D"]):
        done = subprocess.run([*command, str(tmp_path / "m.so")], capture_output=True, text=True, check=True)
        assert "mkw_get_api" in done.stdout
        assert "arning" not in done.stderr + done.stdout
    if change >= 0:
        assert read_library(tmp_path / "m.so").manifest == read_library(library).manifest


@pytest.mark.toolchain
def test_only_the_last_segment_is_edited(library: Path) -> None:
    elf = Elf(memoryview(library.read_bytes())[:-TRAILER_BYTES], "model.so")
    with pytest.raises(LibraryFormatError, match=r"\.text is not the last segment"):
        elf.edited(elf.section(".text"), b"", (), {})
    with pytest.raises(LibraryFormatError, match="has no section"):
        elf.section(".nothing")
    with pytest.raises(LibraryFormatError, match="does not export"):
        elf.symbol("nothing")
