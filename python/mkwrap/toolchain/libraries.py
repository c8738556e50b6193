"""Linked libraries, kept by content: the same host code, kernels and constants are linked once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from mkwrap.artifact import HostCode, Library
from mkwrap.errors import CacheError, LibraryFormatError
from mkwrap.options import Options
from mkwrap.stages import Program
from mkwrap.toolchain.cache import Cache, digest
from mkwrap.toolchain.cxx import compiler_version
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.link import HOST_FLAGS, LAYOUT, LINK_FLAGS, linked
from mkwrap.toolchain.seal import publish, verify


def published(host: HostCode, program: Program, options: Options, *, anew: bool = False) -> Library:
    """Return the library of this host code from the cache, linking it there first where it is missing.

    Where the cache cannot be written that warns, and the library is written to a temporary folder of its own.
    A library that is there is not verified: who loads it does. If that fails, `anew` links it again.
    The manifest holds the digests of constants and kernels; the other parts (an open choice's races, with example indices and
    right results) go into the key themselves. Raises `CompilerError`, `LibrarySizeError`, or `CacheError` where there is no
    cache directory, or the temporary folder cannot be written.
    """
    parts = [
        host.text,
        host.manifest,
        compiler_version(options.cxx),
        headers_digest(),
        *HOST_FLAGS,
        *LINK_FLAGS,
        LAYOUT,
        *[image.digest for image in host.objects],
        *[blob if isinstance(blob, bytes) else repr(blob) for blob in host.parts],
    ]
    cache = Cache(options.cache_dir)
    path = cache.library(digest(*parts))
    if not anew and path.exists():
        cache.touch(path)
        return Library(path, host.manifest)
    try:
        image = linked(host, program, options.cxx)
        try:
            publish(image, path)
        except OSError as error:
            cache.warn_unwritten(error)
            return Library(_apart(image), host.manifest, kept=False)
    except OSError as error:
        raise CacheError(f"cannot link the library in a temporary folder: {error.strerror or error}") from error
    # A compile that kept anything new links a new library: this is when the cache grows.
    cache.trim(options.cache_bytes)
    return Library(path, host.manifest)


def _apart(image: bytes) -> Path:
    """Publish a library in a folder of its own, and return where."""
    folder = Path(tempfile.mkdtemp(prefix="mkwrap-"))
    try:
        publish(image, folder / "model.so")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder / "model.so"


def is_whole(path: Path) -> bool:
    """Whether there is an undamaged library at `path`."""
    try:
        with path.open("rb") as file:
            verify(file, str(path))
    except (OSError, LibraryFormatError):
        return False
    return True
