"""Notes, while torch traces, which line of the user's source asked what of a size, and what only concerns layouts of memory."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import sympy
import torch

from mkwrap.origins import UNKNOWN, users_line

_LOGGER = "torch.fx.experimental.symbolic_shapes"
_FAILURES = "torch._subclasses.fake_tensor"
"""Logs the stack of what is raised anyway."""
_MARK = "[guard added]"
_SIZE = re.compile(r"\b[suz][a-z]*\d+\b")
"""How torch names sizes."""
_PYTHON_SIDE = str(Path(torch.__file__))
"""Where a symbolic truth value becomes a bool in Python; what torch's C++ asks for does not pass there."""

# fmt: off
LAYOUT_FUNCTIONS = frozenset(
    [
        "contiguous", "reshape", "reshape_as", "view", "view_as", "flatten", "unflatten", "ravel", "clone", "to", "type",
        "float", "half", "double", "bfloat16", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm",
        "einsum", "linear", "bilinear", "tensordot", "scaled_dot_product_attention", "layer_norm", "permute", "transpose", "t",
        "movedim", "expand", "repeat", "repeat_interleave", "tile", "cat", "stack", "multi_head_attention_forward",
    ]
)
# fmt: on
"""Functions that ask whether a size is 1 to tell whether memory is contiguous: their values are the same either way."""


@dataclass
class GuardLines:
    """The conditions torch noted, as it spells them, each with the first line that asked for it."""

    noted: dict[str, str] = field(default_factory=dict)
    layout: set[str] = field(default_factory=set)
    """Those that C++ code of a function of `LAYOUT_FUNCTIONS` asked for first."""
    decisions: list[tuple[sympy.Basic, bool]] = field(default_factory=list)
    """What Python code was told of sizes: the condition, and whether it was taken to hold."""
    not_empty: dict[sympy.Symbol, str] = field(default_factory=dict)
    """Sizes of which the user's code was told something that is certain from 1 on alone, each with the first such line."""

    def of(self, condition: str) -> str:
        """Return the line behind a condition, or, as torch may turn it over, behind one of the same sizes; empty if unknown."""
        if condition in self.noted:
            return self.noted[condition]
        sizes = set(_SIZE.findall(condition))
        return next((line for text, line in self.noted.items() if set(_SIZE.findall(text)) == sizes), "")

    def of_symbol(self, symbol: sympy.Symbol) -> str:
        """Return the first line that asked something of one symbol alone."""
        return next((line for text, line in self.noted.items() if set(_SIZE.findall(text)) == {symbol.name}), "")

    def place(self, expr: sympy.Basic, value: sympy.Basic | None = None) -> str:
        """Return ` (at …)` with the line that fixed an expression's value, or nothing."""
        line = self.noted.get(f"Eq({expr}, {value})", "")
        for symbol in sorted(expr.free_symbols, key=str):
            line = line or self.of_symbol(symbol)
            line = line or next((where for text, where in self.noted.items() if symbol.name in _SIZE.findall(text)), "")
        return f" (at {line})" if line else ""

    def of_layout(
        self, asked: Iterable[sympy.Basic], replaced: Callable[[sympy.Basic], sympy.Basic]
    ) -> frozenset[sympy.Basic]:
        """Return those of the conditions asked for that decided nothing but how memory is laid out.

        They are x ≠ 1, asked for by `LAYOUT_FUNCTIONS` alone, whose opposite contradicts nothing that Python code was told.
        Where torch finds a size to be another one, it asks for the condition under that name once more: `replaced` gives a
        condition in the names that torch goes on with.
        """
        named = {condition: _one_last(replaced(condition)) for condition in asked}
        own = self.noted.keys() - self.layout
        layout = {name for condition, name in named.items() if str(condition) in self.layout}
        layout -= {name for condition, name in named.items() if str(condition) in own}
        told: list[tuple[sympy.Basic, bool]] = []
        for condition, holds in dict.fromkeys(self.decisions):
            name = _one_last(replaced(condition))
            # What else the user's code asked for is a condition of its own.
            if {name, sympy.Not(name)} & layout or not {str(condition), str(sympy.Not(condition))} & own:
                told.append((name, holds))
        free = {
            name
            for name in layout
            if isinstance(name, sympy.Ne)
            and name.rhs == 1
            and not any(_follows(condition, holds, name.lhs) for condition, holds in told)
        }
        return frozenset(condition for condition, name in named.items() if name in free)


def _one_last(condition: sympy.Basic) -> sympy.Basic:
    """Write 1 ≠ x as x ≠ 1."""
    if isinstance(condition, sympy.Eq | sympy.Ne) and condition.lhs == 1:
        return condition.reversed
    return condition


def _follows(told: sympy.Basic, holds: bool, size: sympy.Expr) -> bool:
    """Whether what was told may depend on a size not being 1."""
    if not told.free_symbols & size.free_symbols:
        return False
    return bool(told.xreplace({size: sympy.Integer(1)}) != (sympy.true if holds else sympy.false))


class _Listener(logging.Handler):
    def __init__(self, lines: GuardLines) -> None:
        super().__init__(logging.INFO)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Look up the stack at the moment of the note: torch clears what it stores of stacks itself."""
        if _MARK not in str(record.msg) or not isinstance(record.args, tuple) or len(record.args) < 2:
            return
        if "suppressed" in str(record.args[0]):
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename == logging.__file__:
            frame = frame.f_back
        line, condition = users_line(frame), str(record.args[1])
        if line != UNKNOWN and condition not in self.lines.noted:
            self.lines.noted[condition] = line
            if _lays_out(frame):
                self.lines.layout.add(condition)


def _lays_out(frame: FrameType | None) -> bool:
    """Whether C++ asks, on behalf of a function that only needs to know how memory is laid out."""
    while frame is not None and frame.f_code.co_name != "guard_bool":
        frame = frame.f_back
    if frame is None or frame.f_back is None or frame.f_back.f_code.co_filename == _PYTHON_SIDE:
        return False
    called = ""
    while frame is not None and (frame.f_code.co_filename.startswith(_OWN) or "torch" in frame.f_code.co_filename):
        if frame.f_code.co_name == "__torch_function__":
            called = getattr(frame.f_locals.get("func"), "__name__", "")
            if frame.f_code.co_filename.startswith(_OWN):
                break
        frame = frame.f_back
    return called in LAYOUT_FUNCTIONS


_OWN = str(Path(__file__).parent)


@contextmanager
def guard_lines() -> Iterator[GuardLines]:
    """Listen to torch's log of guards, which is otherwise silent in the meantime, and to what Python code is told."""
    lines = GuardLines()
    logger = logging.getLogger(_LOGGER)
    level, handlers, propagate = logger.level, logger.handlers, logger.propagate
    wanted = handlers if logger.isEnabledFor(logging.INFO) else []
    told = torch.SymBool.__bool__

    def noting(condition: torch.SymBool) -> bool:
        holds = bool(told(condition))  # type: ignore[no-untyped-call]
        lines.decisions.append((condition.node.expr, holds))
        return holds

    logger.handlers, logger.propagate = [*wanted, _Listener(lines)], False
    logger.setLevel(logging.INFO)
    failures = logging.getLogger(_FAILURES)
    muted, failures.disabled = failures.disabled, True
    torch.SymBool.__bool__ = noting  # type: ignore[method-assign]
    try:
        yield lines
    finally:
        torch.SymBool.__bool__ = told  # type: ignore[method-assign]
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
        failures.disabled = muted
