"""Size expressions as the manifest writes them: read from text, evaluated for values of the symbols."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TypeAlias

from mkwrap.errors import LibraryFormatError

Size: TypeAlias = Callable[[Mapping[str, int]], int]
"""Gives the size for values of the symbols."""


def read_size(size: object) -> Size:
    """Read a size of the manifest: an integer, or the text of an expression over symbols.

    A division by 0 gives 0, as in host code. Raises `LibraryFormatError` for what is no size.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        return lambda _values: size
    try:
        return _read(ast.parse(str(size), mode="eval").body)
    except (SyntaxError, ValueError) as error:
        raise LibraryFormatError(f"the manifest has a size {size!r}, which cannot be read: {error}") from error


def _floor_div(a: int, b: int) -> int:
    return a // b if b else 0


def _mod(a: int, b: int) -> int:
    return a % b if b else 0


_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: pow,
}
_FUNCTIONS: Mapping[str, Callable[[int, int], int]] = {"FloorDiv": _floor_div, "Mod": _mod, "Min": min, "Max": max}


def _read(node: ast.expr) -> Size:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return lambda _values: value
        case ast.Name(id=name):
            return lambda values: values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _read(operand)
            return lambda values: -inner(values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _applied(_OPERATORS[type(op)], [_read(left), _read(right)])
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS and args:
            return _applied(_FUNCTIONS[name], [_read(arg) for arg in args])
    raise ValueError(f"{ast.unparse(node)} is no size")


def _applied(function: Callable[[int, int], int], parts: list[Size]) -> Size:
    return lambda values: reduce(function, (part(values) for part in parts))
