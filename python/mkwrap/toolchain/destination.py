"""The places that files are written to for the user: refused before the work where no file can be put there."""

from __future__ import annotations

import stat
from pathlib import Path

from mkwrap.errors import CacheError, MkwrapError

_KINDS = {
    stat.S_IFDIR: "it is a folder; name a file in it",
    stat.S_IFIFO: "it is a FIFO; name a regular file",
    stat.S_IFCHR: "it is a device; name a regular file",
    stat.S_IFBLK: "it is a device; name a regular file",
    stat.S_IFSOCK: "it is a socket; name a regular file",
}


def expect_place(path: Path, what: str, error: type[MkwrapError] = CacheError) -> None:
    """Refuse a path that no file can be written to whatever is in it; raises `error`, naming `what` and why.

    Files appear by a rename, which takes away what had the name: a device or a FIFO that others use. What is there must be a
    regular file, or a link to one.
    """
    said = _objection(path)
    if said:
        raise error(f"cannot write {what} to {path}: {said}")


def _objection(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "" if path.parent.is_dir() else f"there is no folder {path.parent}"
    except OSError:
        return ""  # The write finds it, too, and says what it is.
    return _KINDS.get(stat.S_IFMT(mode), "")
