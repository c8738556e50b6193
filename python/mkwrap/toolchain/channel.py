"""The child's side of a conversation with its parent: whole messages over its standard input and output.

Imports the standard library alone, so that a child loads only what its work needs.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from typing import BinaryIO

HEADER_BYTES = 8


def frame(message: object) -> bytes:
    """Return a message as bytes: its length, then its pickle."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(data).to_bytes(HEADER_BYTES, "little") + data


class Channel:
    """Messages from and to the parent. Makes standard output an alias of standard error, so that prints do no harm."""

    def __init__(self) -> None:
        self._input: BinaryIO = sys.stdin.buffer
        self._output: BinaryIO = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, message: object) -> None:
        """Send one message to the parent."""
        self._output.write(frame(message))
        self._output.flush()

    def messages(self) -> Iterator[object]:
        """Yield the parent's messages until it closes its end."""
        while len(header := self._input.read(HEADER_BYTES)) == HEADER_BYTES:
            size = int.from_bytes(header, "little")
            data = self._input.read(size)
            if len(data) < size:
                return
            yield pickle.loads(data)
