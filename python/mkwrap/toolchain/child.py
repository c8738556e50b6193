"""The parent's side: a child Python process that runs one module, exchanges messages, and may die without harm.

Not multiprocessing: its spawned children import the user's main module again, its forked ones inherit locks.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from types import TracebackType

from mkwrap.errors import ProcessError
from mkwrap.toolchain.channel import HEADER_BYTES, frame

# The child sees the modules its parent sees, wherever they come from.
_BOOT = "import runpy, sys; sys.path[:] = sys.argv[2:]; runpy.run_module(sys.argv[1], run_name='__main__')"
_TAIL_BYTES = 2000
_GRACE_S = 5.0
_SEND_S = 60.0
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@dataclass(frozen=True)
class Death:
    """Why a child answers no more: its signal, exit status or silence, and the end of its standard error."""

    reason: str
    timeout: bool = False
    """It was silent for too long."""
    outside: bool = False
    """It was ended by a signal that others send, such as a system short of memory, not by what it did."""


class Child:
    """A process running `module` as its main module; use as a context manager, or `close` it.

    Not thread-safe: one thread talks to it at a time. Raises `ProcessError` where the system refuses a process or a
    temporary file.
    """

    def __init__(self, module: str) -> None:
        with contextlib.ExitStack() as stack:
            try:
                self._errors = stack.enter_context(tempfile.TemporaryFile())
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, module, *sys.path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    bufsize=0,
                )
            except OSError as error:
                raise ProcessError(f"cannot start a Python process for {module}: {error.strerror}") from error
            # It lives as long as the child.
            stack.pop_all()
        self._busy = False
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def busy(self) -> bool:
        """Whether it was sent a message since its last answer."""
        return self._busy

    @property
    def ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def send(self, message: object) -> None:
        """Send a message; if the child is dead, or takes nothing for a minute, the next `receive` says so."""
        assert self._process.stdin is not None
        self._busy = True
        rest = memoryview(frame(message))
        poll = select.poll()
        poll.register(self._process.stdin.fileno(), select.POLLOUT)
        with contextlib.suppress(BrokenPipeError):
            while rest:
                if not poll.poll(_SEND_S * 1000):
                    self.kill()
                    return
                written = self._process.stdin.write(rest)
                rest = rest[written or 0 :]

    def receive(self, timeout: float) -> object:
        """Return the child's next message, or a `Death`; a child silent for `timeout` seconds is killed."""
        deadline = time.monotonic() + timeout
        header = self._read(HEADER_BYTES, deadline)
        if isinstance(header, Death):
            return header
        data = self._read(int.from_bytes(header, "little"), deadline)
        if isinstance(data, Death):
            return data
        self._busy = False
        return pickle.loads(data)

    def close(self) -> None:
        """End the child: it stops when its input closes, and is killed if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process.stdout.close()
        self._errors.close()

    def kill(self) -> None:
        """End the child at once."""
        self._process.kill()
        self._process.wait()

    def _read(self, size: int, deadline: float) -> bytes | Death:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        parts = bytearray()
        while len(parts) < size:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.kill()
                return Death("gave no answer in time", timeout=True)
            part = os.read(handle, min(size - len(parts), 1 << 20))
            if not part:
                return self._died()
            parts += part
        return bytes(parts)

    def _died(self) -> Death:
        try:
            status = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return Death("closed its output without ending")
        if status == -signal.SIGALRM:
            return Death("gave no answer in time", timeout=True)
        end = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TAIL_BYTES))
        tail = self._errors.read().decode(errors="replace").strip()
        return Death(f"{end}: {tail}" if tail else end, outside=-status in _OUTSIDE)
