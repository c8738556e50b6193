"""Size expressions as the manifest writes them: read from text, evaluated for values of the symbols."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TypeAlias, TypeVar, cast

from mkwrap.errors import InputError, LibraryFormatError

Size: TypeAlias = Callable[[Mapping[str, int]], int]
"""Gives the size for values of the symbols."""
Holds: TypeAlias = Callable[[Mapping[str, int]], bool]
"""Whether values of the symbols fulfil a relation."""
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


def read_relation(relation: str) -> Holds:
    """Read a relation of the manifest: two sizes and what stands between them, as `rows != 1`.

    Raises `LibraryFormatError` for what is none.
    """
    try:
        parsed = ast.parse(relation, mode="eval").body
    except SyntaxError as error:
        raise LibraryFormatError(f"the manifest has a relation {relation!r}, which cannot be read: {error}") from error
    match parsed:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            compare = _COMPARISONS[type(op)]
            sizes = [read_size(ast.unparse(side)) for side in (left, right)]
            return lambda values: compare(*(size(values) for size in sizes))
    raise LibraryFormatError(f"the manifest has a relation {relation!r}, which compares no two sizes")


def expect_related(manifest: Mapping[str, object], values: Mapping[str, int]) -> None:
    """Refuse values of all symbols, in their ranges, that break a relation of a library: raises the `InputError` of a call."""
    for relation in cast("Sequence[Mapping[str, str]]", manifest.get("relations", ())):
        if read_relation(relation["holds"])(values):
            continue
        asked = f", which is asked for at {relation['origin']}" if relation["origin"] else ""
        inputs = cast("Sequence[Mapping[str, str]]", manifest["inputs"])
        symbols = cast("Sequence[Mapping[str, int]]", manifest["symbols"])
        got = (
            f"{symbol['name']} = {values[str(symbol['name'])]} ({inputs[symbol['input']]['path']} dimension {symbol['dim']})"
            for symbol in symbols
        )
        # As runtime::unfulfilled of mkwrap/shape.h has it.
        raise InputError(f"wrong shapes: expected {relation['holds']}{asked}, got {', '.join(got)}")


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
_DIVISIONS: Mapping[type[ast.operator], str] = {ast.FloorDiv: "FloorDiv", ast.Mod: "Mod"}
"""Operators that are the functions of these names, as which they may be written, too."""
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
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
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _DIVISIONS and _DIVISIONS[type(op)] in functions:
            return _applied(functions[_DIVISIONS[type(op)]], [_read(left, functions), _read(right, functions)])
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in functions and args:
            return _applied(functions[name], [_read(arg, functions) for arg in args])
    raise ValueError(f"{ast.unparse(node)} is no size")


def _applied(
    function: Callable[[Number, Number], Number], parts: list[Callable[[Mapping[str, Number]], Number]]
) -> Callable[[Mapping[str, Number]], Number]:
    return lambda values: reduce(function, (part(values) for part in parts))
