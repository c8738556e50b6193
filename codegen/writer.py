"""Collects lines of generated text with indentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Writer:
    """An append-only text; what is written is never searched or replaced."""

    def __init__(self, indent: str = "    ") -> None:
        self._unit = indent
        self._depth = 0
        self._lines: list[str] = []

    def line(self, text: str = "") -> None:
        """Append one line at the current depth."""
        self._lines.append(self._unit * self._depth + text if text else "")

    def lines(self, texts: Iterable[str]) -> None:
        """Append several lines at the current depth."""
        for text in texts:
            self.line(text)

    @contextmanager
    def indented(self) -> Iterator[None]:
        """Indent what is written inside."""
        self._depth += 1
        yield
        self._depth -= 1

    @contextmanager
    def block(self, head: str, close: str = "}") -> Iterator[None]:
        """Write `head {`, the indented inside, and the closing line."""
        self.line(f"{head} {{" if head else "{")
        with self.indented():
            yield
        self.line(close)

    def text(self) -> str:
        """Return everything written, ending in a newline."""
        return "\n".join(self._lines) + "\n"
