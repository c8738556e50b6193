"""The on-disk cache: content-addressed entries, published atomically, trusted only after their digest was checked.

One file per entry, named by the sha256 of everything the entry depends on; no file is ever read, changed and written
back, so processes sharing a directory lose nothing of each other's. Every fault on reading is a miss.

    incoming/<random>        drafts: entries while they are written
    <kind>/<2>/<62 digits>   entries
    libraries/<digest>.so    linked libraries, which carry a seal of their own

An entry's modification time is when it was last used. What is used longest ago goes first where the cache grows too large;
a reader that loses an entry to that sees a miss, and a library that is loaded lives on without its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from mkwrap.errors import CacheError, LibraryFormatError
from mkwrap.toolchain import seal

_MAGIC = b"mkwrap cache 1\n"
_DIGEST_BYTES = 32
_STALE_SECONDS = 24 * 3600
_LIBRARIES = "libraries"
_ENTRY = re.compile(r"(?P<kind>[a-z]+)/(?P<head>[0-9a-f]{2})/(?P<rest>[0-9a-f]{62})")
_LIBRARY = re.compile(rf"(?P<kind>{_LIBRARIES})/(?P<head>[0-9a-f]{{64}})\.so(?P<rest>)")
# A library that was published just now is about to be opened by whoever asked for it.
_GRACE_SECONDS = 60
# Evict a little more than needed, so that not every compile has to.
_LOW_WATER = 0.9
_ELSEWHERE = "set Options.cache_dir (--cache-dir) to another"


@dataclass(frozen=True)
class Entry:
    """One entry's file: what it is, how large (bytes), and when it was last used (seconds since 1970)."""

    kind: str
    key: str
    path: Path
    size: int
    used: float


def package_version() -> str:
    """Return mkwrap's installed version, or "source" where it runs from a tree that was never installed."""
    try:
        return metadata.version("mkwrap")
    except metadata.PackageNotFoundError:
        return "source"


def digest(*parts: str | bytes) -> str:
    """Return the sha256 (hexadecimal) of the parts, each with its length so that no two lists run together."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


class Cache:
    """Bytes by (kind, key) under a directory; safe under concurrent use by threads, processes and containers.

    Raises `CacheError` where the directory cannot be made. A write that fails later (disk full, permissions taken away)
    warns once and the work goes on without being kept.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._lock = threading.Lock()
        self._warned = False
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = error.strerror or error
            raise CacheError(f"cannot make the cache directory {root}: {said}; {_ELSEWHERE}") from error
        self._sweep()

    @property
    def root(self) -> Path:
        """The directory."""
        return self._root

    def get(self, kind: str, key: str) -> bytes | None:
        """Return the entry's bytes, or None where it is absent, truncated, damaged or another's."""
        try:
            data = self._path(kind, key).read_bytes()
        except OSError:
            return None
        payload = _opened(kind, key, data)
        if payload is not None:
            self.touch(self._path(kind, key))
        return payload

    def put(self, kind: str, key: str, payload: bytes) -> None:
        """Publish an entry: it appears whole or not at all; the last of several writers wins."""
        # A random name, not pid or thread id: containers that share the directory may agree on both.
        draft = self._incoming / uuid.uuid4().hex
        try:
            with draft.open("xb") as file:
                file.write(_MAGIC + _seal(kind, key, payload) + payload)
                file.flush()
                os.fsync(file.fileno())
            path = self._path(kind, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            self.warn_unwritten(error)

    def library(self, name: str) -> Path:
        """Return where the library of that digest is, or will be."""
        return self._root / _LIBRARIES / f"{name}.so"

    def touch(self, path: Path) -> None:
        """Note that an entry was used."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, whole or damaged; files that no cache makes are left alone, and what vanishes meanwhile."""
        kinds = [folder for folder in _listed(self._root) if folder != self._incoming]
        paths = [path for kind in kinds for folder in _listed(kind) for path in (_listed(folder) or [folder])]
        for path in paths:
            place = path.relative_to(self._root).as_posix()
            match = _ENTRY.fullmatch(place) or _LIBRARY.fullmatch(place)
            if match is not None:
                with contextlib.suppress(OSError):
                    status = path.stat()
                    yield Entry(match["kind"], match["head"] + match["rest"], path, status.st_size, status.st_mtime)

    def verify(self) -> tuple[Entry, ...]:
        """Return the entries that are damaged: a read of them is a miss, and they are written anew when needed."""
        return tuple(entry for entry in self.entries() if not _is_whole(entry))

    def remove(self, entry: Entry) -> bool:
        """Remove an entry; whoever has it open keeps it. Return whether it is gone."""
        try:
            entry.path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def trim(self, limit: int) -> int:
        """Remove what was used longest ago until at most `limit` bytes are left, and return how many entries went.

        One process at a time trims, others pass by. Drafts are not touched, so no entry goes while it is written.
        """
        try:
            with FileLock(self._root / "trim.lock", timeout=0):
                return self._evict(limit)
        except (Timeout, OSError):
            return 0

    def _evict(self, limit: int) -> int:
        entries = list(self.entries())
        total = sum(entry.size for entry in entries)
        if total <= limit:
            return 0
        removed, now = 0, time.time()
        for entry in entries:
            if entry.used > now:
                # The clock was ahead when it was used; left so, the entry would outlive all others.
                self.touch(entry.path)
        for entry in sorted(entries, key=lambda entry: (min(entry.used, now), entry.path)):
            if total <= limit * _LOW_WATER:
                break
            young = entry.kind == _LIBRARIES and now - _GRACE_SECONDS < entry.used <= now
            if not young and self.remove(entry):
                total -= entry.size
                removed += 1
        return removed

    def _path(self, kind: str, key: str) -> Path:
        return self._root / kind / key[:2] / key[2:]

    def unwritten(self, error: OSError) -> CacheError:
        """Return a write that failed as what is said of it: which directory it is, and what to do."""
        return CacheError(
            f"the cache directory {self._root} cannot be written: {error.strerror or error}; {_ELSEWHERE}"
        )

    def warn_unwritten(self, error: OSError) -> None:
        """Say that results are not cached, the first time."""
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            warnings.warn(f"results are not cached: {self.unwritten(error)}", RuntimeWarning, stacklevel=3)

    def _sweep(self) -> None:
        """Remove the drafts of processes that died while writing; a living writer's is never that old."""
        horizon = time.time() - _STALE_SECONDS
        drafts = [*_listed(self._incoming), *(p for p in _listed(self._root / _LIBRARIES) if p.name.startswith("."))]
        for draft in drafts:
            with contextlib.suppress(OSError):
                if draft.stat().st_mtime < horizon:
                    draft.unlink()


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder, in order; nothing where it is gone, or no folder."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _opened(kind: str, key: str, data: bytes) -> bytes | None:
    head = len(_MAGIC) + _DIGEST_BYTES
    if not data.startswith(_MAGIC) or data[len(_MAGIC) : head] != _seal(kind, key, data[head:]):
        return None
    return data[head:]


def _is_whole(entry: Entry) -> bool:
    try:
        if entry.kind != _LIBRARIES:
            return _opened(entry.kind, entry.key, entry.path.read_bytes()) is not None
        with entry.path.open("rb") as file:
            seal.verify(file, str(entry.path))
    except FileNotFoundError:
        return True  # evicted meanwhile
    except (OSError, LibraryFormatError):
        return False
    return True


def _seal(kind: str, key: str, payload: bytes) -> bytes:
    return bytes.fromhex(digest(kind, key, payload))
