"""One measurement at a time on a device, whoever measures."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from mkwrap.toolchain.cache import digest

_LOCK_S = 600.0


@contextlib.contextmanager
def device_to_itself(kind: str, name: str) -> Iterator[None]:
    """Keep others on this machine from measuring on the device at the same time, whatever their cache."""
    lock = FileLock(Path(tempfile.gettempdir()) / f"mkwrap-{os.getuid()}-{digest(kind, name)[:16]}.lock")
    try:
        lock.acquire(_LOCK_S)
    except (Timeout, OSError):
        # A disturbed measurement is better than none.
        yield
        return
    try:
        yield
    finally:
        lock.release()
