"""Files that are no whole library are refused before they are loaded (R6)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import mkwrap
from mkwrap import errors
from mkwrap.toolchain.seal import TRAILER_BYTES, publish, verify
from tests.python.binding.hand_library import ADD_ONE, build
from tests.python.load.libraries import buffer, sealed


def refused(path: Path) -> str:
    with pytest.raises(errors.LibraryFormatError) as caught:
        mkwrap.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def fake_library(tmp_path: Path) -> Path:
    path = tmp_path / "fake.so"
    path.write_bytes(b"\x7fELF" + bytes(range(256)) * 8)
    publish(path.read_bytes(), path)
    return path


def test_not_a_library(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "missing.so")
    assert "cannot be read" in refused(tmp_path)
    for name, content in {"empty": b"", "text": b"hello " * 100, "elf": b"\x7fELF" + bytes(1000)}.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert "is not a mkwrap library" in refused(path)


def test_r6_every_damage_is_found(fake_library: Path) -> None:
    content = fake_library.read_bytes()
    with fake_library.open("rb") as file:
        verify(file, "whole")
    random.seed(0)
    places = {*range(4), *range(len(content) - TRAILER_BYTES, len(content)), *random.sample(range(len(content)), 200)}
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.randrange(8)
        fake_library.write_bytes(damaged)
        with fake_library.open("rb") as file, pytest.raises(errors.LibraryFormatError):
            verify(file, "flipped")
    for length in {*range(0, len(content), 97), len(content) - 1}:
        fake_library.write_bytes(content[:length])
        with fake_library.open("rb") as file, pytest.raises(errors.LibraryFormatError):
            verify(file, "truncated")
    fake_library.write_bytes(content + b"\0")
    with fake_library.open("rb") as file, pytest.raises(errors.LibraryFormatError):
        verify(file, "extended")


@pytest.mark.toolchain
def test_unsealed_library(tmp_path: Path) -> None:
    assert "its end is missing" in refused(build(ADD_ONE, tmp_path / "unsealed.so"))


@pytest.mark.toolchain
def test_r6_damaged_library(tmp_path: Path) -> None:
    path = tmp_path / "m.so"
    sealed(path, ADD_ONE, [0], {}, 0, [buffer(0)])
    content = path.read_bytes()
    path.unlink()
    for place in (16, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
        assert "is damaged" in refused(path)
    path.write_bytes(content[: len(content) // 2])
    assert "its end is missing" in refused(path)


def test_sealed_but_not_loadable(fake_library: Path) -> None:
    assert "is not a library this mkwrap can load" in refused(fake_library)
