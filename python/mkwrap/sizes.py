"""Size expressions as the manifest writes them: read from text, evaluated for values of the symbols."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import TypeAlias, TypeVar, cast

from mkwrap.errors import LibraryFormatError

Size: TypeAlias = Callable[[Mapping[str, int]], int]
"""Gives the size for values of the symbols."""
Number = TypeVar("Number")
"""What is computed with: integers, or expressions that add and multiply with integers."""


def read_size(size: object) -> Size:
    """Read a size of the manifest: an integer, or the text of an expression over symbols.

    A division by 0 gives 0, as in host code. Raises `LibraryFormatError` for what is no size.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        return lambda _values: size
    return read_over(size, _FUNCTIONS)


def read_over(
    size: object, functions: Mapping[str, Callable[[Number, Number], Number]]
) -> Callable[[Mapping[str, Number]], Number]:
    """Read a size as what it is for other values than integers; `functions` are the meanings of those named in expressions."""
    try:
        return _read(ast.parse(str(size), mode="eval").body, functions)
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


def _read(
    node: ast.expr, functions: Mapping[str, Callable[[Number, Number], Number]]
) -> Callable[[Mapping[str, Number]], Number]:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return lambda _values: cast(Number, value)
        case ast.Name(id=name):
            return lambda values: values[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _read(operand, functions)
            negated = cast(Callable[[Number], Number], operator.neg)
            return lambda values: negated(inner(values))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            function = cast(Callable[[Number, Number], Number], _OPERATORS[type(op)])
            return _applied(function, [_read(left, functions), _read(right, functions)])
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in functions and args:
            return _applied(functions[name], [_read(arg, functions) for arg in args])
    raise ValueError(f"{ast.unparse(node)} is no size")


def _applied(
    function: Callable[[Number, Number], Number], parts: list[Callable[[Mapping[str, Number]], Number]]
) -> Callable[[Mapping[str, Number]], Number]:
    return lambda values: reduce(function, (part(values) for part in parts))
