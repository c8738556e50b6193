"""Tunes a library that was compiled without its device: `mkwrap.tune_library` and `mkwrap.load(tune=True)`."""

from __future__ import annotations

from pathlib import Path

from mkwrap.errors import CacheError, OptionError
from mkwrap.options import Options
from mkwrap.progress import shown
from mkwrap.toolchain.cache import Cache, digest, package_version
from mkwrap.toolchain.libraries import is_whole
from mkwrap.toolchain.relink import LinkedLibrary
from mkwrap.toolchain.seal import TRAILER_BYTES, publish
from mkwrap.tune.closing import close, open_kernels
from mkwrap.tune.here import Here, here
from mkwrap.tune.lock import device_to_itself


def tuned(path: Path, output: Path | None, options: Options) -> Path:
    """Return the file of a library whose open choices are made for this machine.

    A library with none open is itself the answer. Else it is written to `output`, or kept in the cache where that is None:
    measured once per library, device and mode; again where a variant was rejected for lack of memory, disk or time. Raises
    `ArchitectureError` and `DriverError` where this machine cannot run the library, `LibraryFormatError` for a damaged file,
    `CacheError` where the result cannot be written.
    """
    if options.tune not in ("full", "quick"):
        raise OptionError(f"Options.tune is {options.tune!r}; tuning a library takes 'full' or 'quick'")
    library = LinkedLibrary(path)
    place = here(library.manifest["targets"], str(path), options.threads)
    found = path
    if open_kernels(library.manifest, place.number):
        cache = Cache(options.cache_dir)
        found = cache.library(_key(library, place, options))
        with device_to_itself(place.kind, place.device.name), shown(options.progress) as advance:
            if is_whole(found):
                cache.touch(found)
            else:
                closed = close(library, place, options, advance)
                # What is not to be kept gets a name that no later call asks for.
                found = found if closed.lasting else cache.library(digest(found.name, closed.image))
                _publish(closed.image, found)
    if output is None:
        return found
    _publish(found.read_bytes()[:-TRAILER_BYTES], output)
    return output


def _publish(image: bytes, output: Path) -> None:
    try:
        publish(image, output)
    except OSError as error:
        raise CacheError(f"cannot write the library to {output}: {error.strerror or error}") from error


def _key(library: LinkedLibrary, place: Here, options: Options) -> str:
    """Name a tuned library by all that its choice depends on."""
    return digest(package_version(), library.seal, repr(place.device), options.tune)
