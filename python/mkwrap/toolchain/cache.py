"""The on-disk cache: content-addressed entries, published atomically, trusted only after their digest was checked.

One file per entry, named by the sha256 of everything the entry depends on; no file is ever read, changed and written
back, so processes sharing a directory lose nothing of each other's. Every fault on reading is a miss.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import uuid
import warnings
from importlib import metadata
from pathlib import Path

from mkwrap.errors import CacheError

_MAGIC = b"mkwrap cache 1\n"
_DIGEST_BYTES = 32
_STALE_SECONDS = 24 * 3600


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
            raise CacheError(f"cannot make the cache directory {root}: {error}; set Options.cache_dir") from error
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
        head = len(_MAGIC) + _DIGEST_BYTES
        if not data.startswith(_MAGIC) or data[len(_MAGIC) : head] != _seal(kind, key, data[head:]):
            return None
        return data[head:]

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
            self._warn(error)

    def _path(self, kind: str, key: str) -> Path:
        return self._root / kind / key[:2] / key[2:]

    def _warn(self, error: OSError) -> None:
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            warnings.warn(f"results are not cached: {error}", RuntimeWarning, stacklevel=3)

    def _sweep(self) -> None:
        """Remove the drafts of processes that died while writing; a living writer's is never that old."""
        horizon = time.time() - _STALE_SECONDS
        try:
            for draft in self._incoming.iterdir():
                if draft.stat().st_mtime < horizon:
                    draft.unlink(missing_ok=True)
        except OSError:
            return


def _seal(kind: str, key: str, payload: bytes) -> bytes:
    return bytes.fromhex(digest(kind, key, payload))
