"""Notes, while torch traces, which line of the user's source asked what of a symbolic size."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import sympy

from mkwrap.origins import UNKNOWN, users_line

_LOGGER = "torch.fx.experimental.symbolic_shapes"
_MARK = "[guard added]"


@dataclass
class GuardLines:
    """The conditions torch noted, as it spells them, each with the first line that asked for it."""

    noted: dict[str, str] = field(default_factory=dict)

    def of(self, condition: str) -> str:
        """Return the line behind a condition; empty where none is known."""
        return self.noted.get(condition, "")

    def of_symbol(self, symbol: sympy.Symbol) -> str:
        """Return the first line that asked something of one symbol alone."""
        pattern = re.compile(rf"\b{re.escape(symbol.name)}\b")
        other = re.compile(r"\b[suz][a-z]*\d+\b")
        for condition, line in self.noted.items():
            if pattern.search(condition) and set(other.findall(condition)) == {symbol.name}:
                return line
        return ""

    def place(self, expr: sympy.Basic, value: sympy.Basic | None = None) -> str:
        """Return ` (at …)` with the line that fixed an expression's value, or nothing."""
        line = self.of(f"Eq({expr}, {value})") if value is not None else ""
        for symbol in sorted(expr.free_symbols, key=str):
            line = line or self.of_symbol(symbol)
            pattern = re.compile(rf"\b{re.escape(symbol.name)}\b")
            line = line or next((where for text, where in self.noted.items() if pattern.search(text)), "")
        return f" (at {line})" if line else ""


class _Listener(logging.Handler):
    def __init__(self, lines: GuardLines) -> None:
        super().__init__(logging.INFO)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Look up the stack at the moment of the note: torch clears what it stores of stacks itself."""
        if _MARK in str(record.msg) and isinstance(record.args, tuple) and len(record.args) > 1:
            frame: FrameType | None = sys._getframe(1)
            while frame is not None and frame.f_code.co_filename == logging.__file__:
                frame = frame.f_back
            line = users_line(frame)
            if line != UNKNOWN:
                self.lines.noted.setdefault(str(record.args[1]), line)


@contextmanager
def guard_lines() -> Iterator[GuardLines]:
    """Listen to torch's log of guards, which is otherwise silent in the meantime."""
    lines = GuardLines()
    logger = logging.getLogger(_LOGGER)
    level, handlers, propagate = logger.level, logger.handlers, logger.propagate
    wanted = handlers if logger.isEnabledFor(logging.INFO) else []
    logger.handlers, logger.propagate = [*wanted, _Listener(lines)], False
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
