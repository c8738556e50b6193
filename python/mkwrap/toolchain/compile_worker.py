"""The main module of a compiling child: answers each (compile function, source) with a binary or why there is none."""

from __future__ import annotations

import contextlib
import importlib

from mkwrap.errors import ToolchainError
from mkwrap.toolchain.channel import Channel
from mkwrap.toolchain.pool import Preload, Request
from mkwrap.toolchain.rejection import rejection


def main() -> None:
    """Compile until the parent closes its end."""
    channel = Channel()
    for message in channel.messages():
        if isinstance(message, Preload):
            # What cannot be imported is said by the first request.
            with contextlib.suppress(Exception):
                importlib.import_module(message.module)
            continue
        assert isinstance(message, Request)
        try:
            channel.send(message.compile(message.source))
        except ToolchainError as error:
            channel.send(error)
        except Exception as error:
            channel.send(rejection(message.source.variant, f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
