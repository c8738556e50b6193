"""The cache keeps to its size: what was used longest ago goes, nobody is hurt by it, clocks may jump."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mkwrap import Options
from mkwrap.errors import OptionError
from mkwrap.toolchain.cache import Cache, digest

KIB = 1024


def filled(root: Path, count: int = 10, size: int = KIB) -> tuple[Cache, list[str]]:
    """Return a cache of `count` entries, the first used longest ago."""
    cache, keys = Cache(root), [digest(str(k)) for k in range(count)]
    for k, key in enumerate(keys):
        cache.put("kind", key, b"x" * size)
        age(cache, key, 1000 - k)
    return cache, keys


def age(cache: Cache, key: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(cache.root / "kind" / key[:2] / key[2:], (then, then))


def kept(cache: Cache, keys: list[str]) -> list[int]:
    found = {entry.key for entry in cache.entries()}
    return [k for k, key in enumerate(keys) if key in found]


def test_entries_lists_what_the_cache_holds(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path, 3)
    cache.library("0" * 64).parent.mkdir()
    cache.library("0" * 64).write_bytes(b"library")
    (tmp_path / "kind" / "notes.txt").write_text("of the user")
    (tmp_path / "incoming" / ("0" * 32)).write_text("a draft")
    entries = list(cache.entries())
    assert {(e.kind, e.key) for e in entries} == {("libraries", "0" * 64), *(("kind", key) for key in keys)}
    assert all(entry.size == entry.path.stat().st_size > 0 for entry in entries)


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path)
    size = next(cache.entries()).size
    assert cache.trim(10 * size) == 0
    # A hit counts as use.
    assert cache.get("kind", keys[0]) is not None
    assert cache.trim(6 * size) == 5
    assert kept(cache, keys) == [0, 6, 7, 8, 9]
    assert cache.get("kind", keys[1]) is None
    assert cache.trim(0) == 5


def test_an_entry_from_the_future_ages_from_now_on(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path, 4)
    age(cache, keys[0], -1e6)
    size = next(cache.entries()).size
    cache.trim(4 * size - 1)
    assert kept(cache, keys) == [0, 2, 3]
    assert all(entry.used <= time.time() for entry in cache.entries())


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_loses_no_entry_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    cache, keys = filled(tmp_path, 4)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    assert cache.trim(10**9) == 0
    cache = Cache(tmp_path)
    assert all(cache.get("kind", key) == b"x" * KIB for key in keys)
    # An eviction under a wrong clock still ends, and removes no more than it must.
    size = next(cache.entries()).size
    assert cache.trim(3 * size) == 2


def test_a_draft_whose_writer_the_clock_overtook_is_lost_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    fsync = os.fsync

    def jump(handle: int) -> None:
        fsync(handle)
        with monkeypatch.context() as later:
            now = time.time
            later.setattr(time, "time", lambda: now() + 10 * 24 * 3600)
            Cache(tmp_path)

    monkeypatch.setattr(os, "fsync", jump)
    with pytest.warns(RuntimeWarning, match="not cached"):
        cache.put("kind", digest("a"), b"payload")
    assert cache.get("kind", digest("a")) is None
    assert list(cache.entries()) == []


def test_drafts_and_files_of_others_are_left_alone(tmp_path: Path) -> None:
    cache, _ = filled(tmp_path, 3)
    others = [tmp_path / "incoming" / ("0" * 32), tmp_path / "kind" / "notes.txt", tmp_path / "README"]
    libraries = cache.library("0" * 64).parent
    libraries.mkdir()
    others.append(libraries / f".{'0' * 64}.so.{'1' * 32}")
    for path in others:
        path.write_text("mine")
    assert cache.trim(0) == 3
    assert all(path.read_text() == "mine" for path in others)


def test_a_library_that_was_published_just_now_waits_for_its_reader(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = cache.library("0" * 64)
    path.parent.mkdir()
    path.write_bytes(b"library")
    assert cache.trim(0) == 0
    os.utime(path, (0, 0))
    assert cache.trim(0) == 1


def test_one_process_at_a_time_evicts(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path)
    with FileLock(tmp_path / "trim.lock"):
        assert cache.trim(0) == 0
    assert kept(cache, keys) == list(range(len(keys)))
    assert cache.trim(0) == len(keys)


def test_readers_and_writers_beside_an_eviction_see_whole_entries_or_misses(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path, 20)
    stop, wrong = threading.Event(), []

    def work() -> None:
        own = Cache(tmp_path)
        while not stop.is_set():
            for key in keys:
                found = own.get("kind", key)
                if found is None:
                    own.put("kind", key, b"x" * KIB)
                elif found != b"x" * KIB:
                    wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        cache.trim(5 * KIB)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.verify() == ()


def test_verify_finds_damage(tmp_path: Path) -> None:
    cache, keys = filled(tmp_path, 3)
    path = tmp_path / "kind" / keys[1][:2] / keys[1][2:]
    path.write_bytes(path.read_bytes()[:-1])
    library = cache.library("0" * 64)
    library.parent.mkdir()
    library.write_bytes(b"no library")
    damaged = cache.verify()
    assert {entry.key for entry in damaged} == {keys[1], "0" * 64}
    assert all(cache.remove(entry) for entry in damaged)
    assert cache.verify() == ()


def test_the_size_is_an_option_and_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKWRAP_CACHE_BYTES", raising=False)
    assert Options().cache_bytes == 10 * 2**30
    monkeypatch.setenv("MKWRAP_CACHE_BYTES", "1000")
    assert Options().cache_bytes == 1000
    monkeypatch.setenv("MKWRAP_CACHE_BYTES", "10G")
    with pytest.raises(OptionError, match="MKWRAP_CACHE_BYTES is '10G'"):
        Options()
    with pytest.raises(OptionError, match=r"Options\.cache_bytes is 0"):
        Options(cache_bytes=0)
