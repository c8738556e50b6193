"""Notes, while torch traces, what the user's code is told of sizes that holds from 1 on, but not for a size of 0.

Torch's symbols of sizes are positive, so that sympy decides n == 0 or max(n, 1) at once, and torch adds no guard. What torch's
own code asks so concerns tensors without elements, which have no values to be wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import sympy
import torch

from mkwrap.guards import GuardLines
from mkwrap.origins import users_line

_METHODS: Mapping[str, Callable[..., sympy.Basic]] = {
    "__eq__": sympy.Eq,
    "__ne__": sympy.Ne,
    "__lt__": sympy.Lt,
    "__le__": sympy.Le,
    "__gt__": sympy.Gt,
    "__ge__": sympy.Ge,
    "__sym_max__": sympy.Max,
    "__sym_min__": sympy.Min,
}
"""What is asked of a symbolic integer, as sympy calls it."""
_OPEN = (sympy.core.relational.Relational, sympy.Max, sympy.Min)
"""What sympy returns where it cannot decide."""
_TORCH = Path(torch.__file__).parent
_PASSED_THROUGH = frozenset(
    [
        str(_TORCH / "__init__.py"),
        str(_TORCH / "overrides.py"),
        str(_TORCH / "_export" / "non_strict_utils.py"),
        str(_TORCH / "fx" / "experimental" / "proxy_tensor.py"),
        str(_TORCH / "fx" / "experimental" / "sym_node.py"),
        str(Path(__file__).with_name("origins.py")),
    ]
)
"""Where Python operators and functions of sizes pass through on the way from the user's code."""
_INSIDE = (str(_TORCH), str(Path(__file__).parent))


@contextmanager
def notes_of_emptiness(lines: GuardLines) -> Iterator[None]:
    """While active, collect into `lines.not_empty` the sizes that the user's code takes not to be 0 without a guard."""
    originals = {name: getattr(torch.SymInt, name) for name in _METHODS}
    for name, original in originals.items():
        setattr(torch.SymInt, name, _noting(original, _METHODS[name], lines))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(torch.SymInt, name, original)


def _noting(
    original: Callable[..., object], asked: Callable[..., sympy.Basic], lines: GuardLines
) -> Callable[[torch.SymInt, object], object]:
    def method(size: torch.SymInt, other: object) -> object:
        frame = _asking(sys._getframe(1))
        if frame is not None and isinstance(other, int | torch.SymInt):
            for symbol in _taken_as_positive(asked, _expression(size), _expression(other)):
                lines.not_empty.setdefault(symbol, users_line(frame))
        return original(size, other)

    return method


def _asking(frame: FrameType | None) -> FrameType | None:
    """Return the frame that asks, if it is the user's; what comes to be dispatched came from C++, or was seen before."""
    while frame is not None and frame.f_code.co_filename in _PASSED_THROUGH:
        frame = None if frame.f_code.co_name == "__sym_dispatch__" else frame.f_back
    return None if frame is None or frame.f_code.co_filename.startswith(_INSIDE) else frame


def _expression(size: int | torch.SymInt) -> sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _taken_as_positive(asked: Callable[..., sympy.Basic], *sides: sympy.Expr) -> list[sympy.Symbol]:
    """Return the sizes of a question that is decided only because they are positive."""
    symbols = sorted({symbol for side in sides for symbol in side.free_symbols if symbol.is_positive}, key=str)
    from_zero = {symbol: sympy.Symbol(symbol.name, integer=True, nonnegative=True) for symbol in symbols}
    if isinstance(asked(*sides), _OPEN) or not isinstance(asked(*[side.xreplace(from_zero) for side in sides]), _OPEN):
        return []
    return symbols
