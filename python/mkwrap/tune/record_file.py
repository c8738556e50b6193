"""Tuning records as files: JSON lines, read whole or refused with the line, written at once."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from pathlib import Path

from mkwrap.errors import TuningRecordError
from mkwrap.toolchain.destination import expect_place
from mkwrap.tune.record import Row, decode, encode


def read_record(path: Path) -> tuple[Row, ...]:
    """Return the rows of a record in order; empty lines count as none, so that concatenated records are a record.

    Raises `TuningRecordError` naming the file and the line of what is no row.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TuningRecordError(f"the tuning record {path} cannot be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(decode(line))
            except ValueError as error:
                raise TuningRecordError(f"{path}, line {number}, is no row of a tuning record: {error}") from error
    return tuple(rows)


def write_record(path: Path, rows: Iterable[Row]) -> int:
    """Write rows to a file, whole or not at all, and return how many; raises `TuningRecordError` where it cannot."""
    expect_place(path, "the tuning record", TuningRecordError)
    lines = [encode(row) + "\n" for row in rows]
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise TuningRecordError(f"cannot write the tuning record to {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return len(lines)
