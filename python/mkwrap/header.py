"""Writes the typed C++ header of a library."""

from __future__ import annotations

import os
from pathlib import Path

from mkwrap.codegen.wrapper.header import render_header
from mkwrap.errors import CacheError
from mkwrap.model import Model
from mkwrap.toolchain.destination import expect_place


def write_header(model: Model, path: str | os.PathLike[str]) -> None:
    """Write a C++17 header with the library's arguments by name (`bert.hpp`: namespace `bert`), for mkwrap/mkwrap.hpp.

    A name that C or C++ has taken gets an underscore at its end (`time.hpp`: namespace `time_`), the second of equal ones a
    number.
    The header fits every library of the same signature: compile anew, for other devices or choices, without a new header. Raises
    `CacheError` where the file cannot be written.
    """
    target = Path(path)
    expect_place(target, "the header")
    try:
        target.write_text(render_header(model.manifest, target.stem))
    except OSError as error:
        raise CacheError(f"cannot write the header to {target}: {error.strerror or error}") from error
