"""The cache: damaged entries are misses, concurrent writers lose nothing, drafts are never trusted."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from mkwrap.errors import CacheError
from mkwrap.stages import Binary, Image, Launch, Source, Variant
from mkwrap.toolchain.cache import Cache, digest
from mkwrap.toolchain.records import get_binary, put_binary, source_key

FAST, SLOW = Variant("k", "fast"), Variant("k", "slow", (("tile", 8),))


def _image(entry: str, blob: bytes, **numbers: int) -> Image:
    return Image(entry, blob, hashlib.sha256(blob).hexdigest(), **numbers)


def _source(text: str = "int x;", variant: Variant = FAST) -> Source:
    return Source(variant, "cpp", text, (Launch("entry", ()),))


def _files(root: Path, kind: str) -> list[Path]:
    return [path for path in (root / kind).rglob("*") if path.is_file()]


def _start(code: str, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *args])


def test_an_entry_comes_back_whole(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("kind", digest("a"), b"\x00payload")
    assert Cache(tmp_path).get("kind", digest("a")) == b"\x00payload"
    assert cache.get("kind", digest("b")) is None
    assert cache.get("other", digest("a")) is None


def test_digest_keeps_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: os.urandom(len(data)),
    ],
    ids=["empty", "half", "short", "long", "magic", "bitflip", "garbage"],
)
def test_c6_a_damaged_entry_is_a_miss(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = Cache(tmp_path)
    cache.put("kind", digest("key"), b"payload" * 10)
    (path,) = _files(tmp_path, "kind")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get("kind", digest("key")) is None
    cache.put("kind", digest("key"), b"again")
    assert cache.get("kind", digest("key")) == b"again"


def test_c6_an_entry_under_anothers_name_is_a_miss(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("kind", digest("key"), b"payload")
    (path,) = _files(tmp_path, "kind")
    other = digest("other")
    (tmp_path / "kind" / other[:2]).mkdir(exist_ok=True)
    path.rename(tmp_path / "kind" / other[:2] / other[2:])
    assert cache.get("kind", other) is None


def test_c6_a_directory_in_an_entrys_place_is_a_miss(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = digest("key")
    (tmp_path / "kind" / key[:2] / key[2:]).mkdir(parents=True)
    assert cache.get("kind", key) is None
    with pytest.warns(RuntimeWarning, match="not cached"):
        cache.put("kind", key, b"payload")


@pytest.mark.parametrize("record", [b"", b"[]\n", b'[{"entry": "e"}]\n', b"{}\n", b"[3]\n"])
def test_c6_a_binary_record_that_makes_no_sense_is_a_miss(tmp_path: Path, record: bytes) -> None:
    cache = Cache(tmp_path)
    cache.put("binary", digest("key"), record)
    assert get_binary(cache, digest("key"), _source()) is None


def test_c7_images_of_a_binary_come_from_one_build(tmp_path: Path) -> None:
    cache, source = Cache(tmp_path), _source()
    images = (_image("first", b"\n\x00one", threads=128, shared_bytes=64), _image("second", b"", registers=9))
    put_binary(cache, digest("key"), Binary(source, images))
    assert get_binary(cache, digest("key"), source) == Binary(source, images)
    assert len(_files(tmp_path, "binary")) == 1


def test_the_key_of_a_source_holds_text_toolchain_and_launch_options() -> None:
    source = _source()
    options = Source(FAST, "cpp", source.text, (Launch("entry", (), options={"num_warps": 4}),))
    keys = {source_key(source, "g++ 12"), source_key(source, "g++ 13"), source_key(_source("int y;"), "g++ 12")}
    assert len(keys | {source_key(options, "g++ 12")}) == 4
    assert source_key(_source(variant=SLOW), "g++ 12") in keys


_WRITER = """
import sys
from pathlib import Path
from mkwrap.toolchain.cache import Cache, digest
cache = Cache(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    cache.put("kind", digest(f"{sys.argv[2]} {i}"), sys.argv[2].encode() * (i + 1))
    cache.put("kind", digest("shared"), sys.argv[2].encode() * 5000)
    assert len(cache.get("kind", digest("shared"))) == 5000
"""


def test_c9_processes_writing_side_by_side_lose_nothing(tmp_path: Path) -> None:
    writers = [_start(_WRITER, str(tmp_path), name, "30") for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    cache = Cache(tmp_path)
    for name in "abc":
        assert all(cache.get("kind", digest(f"{name} {i}")) == name.encode() * (i + 1) for i in range(30))
    assert not list((tmp_path / "incoming").iterdir())


def test_c8_drafts_have_names_that_no_other_container_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        names.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    caches = Cache(tmp_path), Cache(tmp_path)
    for cache in caches:
        cache.put("kind", digest("key"), b"payload")
    assert len(set(names)) == 2
    assert all(len(name) == 32 for name in names)


_KILLED = """
import os, sys
from pathlib import Path
from mkwrap.toolchain.cache import Cache, digest
def stop(handle):
    os.kill(os.getpid(), 9)
os.fsync = stop
Cache(Path(sys.argv[1])).put("kind", digest("key"), b"payload" * 1000)
"""


def test_c10_a_writer_killed_in_the_middle_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    writer = _start(_KILLED, str(tmp_path))
    assert writer.wait(60) == -signal.SIGKILL
    (draft,) = (tmp_path / "incoming").iterdir()
    cache = Cache(tmp_path)
    assert cache.get("kind", digest("key")) is None
    assert draft.exists(), "a young draft may belong to a living writer"
    day_before = time.time() - 2 * 24 * 3600
    os.utime(draft, (day_before, day_before))
    Cache(tmp_path)
    assert not draft.exists()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match="cache_dir"):
        Cache(tmp_path / "file" / "cache")


def test_a_failing_write_warns_once_and_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        cache.put("kind", digest("a"), b"payload")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("kind", digest("b"), b"payload")
    assert cache.get("kind", digest("a")) is None
    assert not list((tmp_path / "incoming").iterdir())
