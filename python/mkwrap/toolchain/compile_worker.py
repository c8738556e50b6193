"""The main module of a compiling child: answers each (compile function, source) with a binary or why there is none."""

from __future__ import annotations

import contextlib

from mkwrap.errors import ToolchainError
from mkwrap.toolchain.channel import Channel
from mkwrap.toolchain.pool import Request
from mkwrap.toolchain.rejection import rejection


def main() -> None:
    """Compile until the parent closes its end."""
    channel = Channel()
    for message in channel.messages():
        assert isinstance(message, Request)
        if message.warm_up:
            # What fails here is said by the first request that is waited for.
            with contextlib.suppress(Exception):
                message.compile(message.source)
            continue
        try:
            channel.send(message.compile(message.source))
        except ToolchainError as error:
            channel.send(error)
        except Exception as error:
            channel.send(rejection(message.source.variant, f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
