"""A progress bar on standard error for compiles that take long enough to wonder."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

# A compile from the cache is over before this; a bar that flashes by tells nobody anything.
_DELAY_S = 0.5


class Show(Protocol):
    """Takes a stage's name, its pieces done and in all, and a word on what is at hand."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Show them."""


def _hidden(stage: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


@contextmanager
def shown(wanted: bool | None, stream: TextIO | None = None, delay: float = _DELAY_S) -> Iterator[Show]:
    """Yield a function that shows how far each stage is; it may be called from any thread.

    `wanted` is `Options.progress`: None shows the bar only where `stream` (standard error) is a terminal. Nothing is
    written before `delay` seconds have passed; the bar is removed at the end.
    """
    stream = sys.stderr if stream is None else stream
    visible = stream.isatty() if wanted is None else wanted
    if not visible:
        yield _hidden
        return
    bars = _Bars(stream, delay, forced=bool(wanted))
    try:
        yield bars.advance
    finally:
        bars.stop()


class _Bars:
    """One bar per stage, in the order in which the stages begin."""

    def __init__(self, stream: TextIO, delay: float, *, forced: bool) -> None:
        self._progress = Progress(
            TextColumn("mkwrap {task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(file=stream, force_terminal=True if forced else None),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._from = time.monotonic() + delay
        self._lock = threading.Lock()
        self._running = False

    def advance(self, stage: str, done: int, total: int, note: str = "") -> None:
        with self._lock:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=total, note=note)
            self._progress.update(self._tasks[stage], completed=done, total=total, note=note)
            if not self._running and time.monotonic() >= self._from:
                self._running = True
                self._progress.start()

    def stop(self) -> None:
        with self._lock:
            if self._running:
                self._progress.stop()
