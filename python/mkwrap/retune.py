"""Tunes a library that was compiled without its device: `mkwrap.tune_library` and `mkwrap.load(tune=True)`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from mkwrap.errors import CacheError, OptionError
from mkwrap.options import Options
from mkwrap.progress import shown
from mkwrap.toolchain.cache import Cache, digest, package_version
from mkwrap.toolchain.destination import expect_place
from mkwrap.toolchain.libraries import is_whole
from mkwrap.toolchain.relink import LinkedLibrary
from mkwrap.toolchain.seal import TRAILER_BYTES, publish
from mkwrap.tune.closing import Closed, close, open_kernels
from mkwrap.tune.closing_held import Held
from mkwrap.tune.here import Here, here
from mkwrap.tune.lock import device_to_itself


def tuned(path: Path, output: Path | None, options: Options) -> Path:
    """Return the file of a library whose open choices are made for this machine.

    A library with none open is itself the answer. Else it is measured once per library, device and mode (again where a variant
    was rejected for lack of memory, disk or time) and kept in the cache; with an `output` it is written there first, and a
    cache that cannot be written only warns. What cannot be written to `output` is kept all the same: the next call finds it.
    So is each contest once it was held: a call that was broken off, even by a signal, leaves them to the next.
    Raises `ArchitectureError` and `DriverError` where this machine cannot run the library, `LibraryFormatError` for a damaged
    file, `CacheError` where the result cannot be written, before anything is measured where that shows.
    """
    if options.tune not in ("full", "quick"):
        raise OptionError(f"Options.tune is {options.tune!r}; tuning a library takes 'full' or 'quick'")
    if output is not None:
        expect_place(output, "the library")
    library = LinkedLibrary(path)
    place = here(library.manifest["targets"], str(path), options.threads)
    if not open_kernels(library.manifest, place.number):
        return path if output is None else _copied(path, output)
    with device_to_itself(place.kind, place.device.name), shown(options.progress) as advance:
        key = _key(library, place, options)

        def measure(cache: Cache | None) -> Closed:
            return close(library, place, options, advance, Held(cache, key))

        return _kept(measure, key, options) if output is None else _written(measure, key, options, output)


def _kept(measure: Callable[[Cache | None], Closed], key: str, options: Options) -> Path:
    """Return the tuned library in the cache, measured where it is not there yet."""
    cache = Cache(options.cache_dir)
    kept = cache.library(key)
    if not is_whole(kept):
        return _keep(measure(cache), kept, cache, options)
    cache.touch(kept)
    return kept


def _written(measure: Callable[[Cache | None], Closed], key: str, options: Options, output: Path) -> Path:
    """Write the tuned library to `output`, and into the cache where that can be."""
    try:
        cache = Cache(options.cache_dir)
    except CacheError as error:
        _warn(error)
        return _publish(measure(None).image, output)
    kept = cache.library(key)
    if is_whole(kept):
        cache.touch(kept)
        return _copied(kept, output)
    closed = measure(cache)
    try:
        return _publish(closed.image, output)
    finally:
        try:
            if closed.lasting:
                _keep(closed, kept, cache, options)
        except CacheError as error:
            _warn(error)


def _keep(closed: Closed, path: Path, cache: Cache, options: Options) -> Path:
    # What is not to be kept gets a name that no later call asks for.
    kept = path if closed.lasting else cache.library(digest(path.name, closed.image))
    try:
        publish(closed.image, kept)
    except OSError as error:
        raise cache.unwritten(error) from error
    cache.trim(options.cache_bytes)
    return kept


def _warn(error: CacheError) -> None:
    warnings.warn(f"the tuned library is not cached: {error}", RuntimeWarning, stacklevel=5)


def _copied(path: Path, output: Path) -> Path:
    return _publish(path.read_bytes()[:-TRAILER_BYTES], output)


def _publish(image: bytes, output: Path) -> Path:
    try:
        publish(image, output)
    except OSError as error:
        raise CacheError(f"cannot write the library to {output}: {error.strerror or error}") from error
    return output


def _key(library: LinkedLibrary, place: Here, options: Options) -> str:
    """Name a tuned library by all that its choice depends on."""
    return digest(package_version(), library.seal, repr(place.device), options.tune)
