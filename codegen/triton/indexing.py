"""Index expressions over the positions of a tile, and their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import sympy

from mkwrap.errors import InternalError
from mkwrap.ir.index import FloorDiv, Mod, Ranges, bounds, delinearize, simplify
from mkwrap.ir.nodes import Axis, Expr


def over_position(expr: Expr, axes: Sequence[Axis], position: sympy.Symbol, ranges: Ranges) -> Expr:
    """Rewrite an expression over axes as one over their row-major position.

    Axes whose strides in the expression fit together become one, so that a contiguous access reads as `position + …`.
    `ranges` bounds the position and every other symbol.
    """
    kept = [axis for axis in axes if axis.extent != 1]
    expr = expr.subs({axis.symbol: 0 for axis in axes if axis.extent == 1})
    if not expr.free_symbols.intersection(axis.symbol for axis in kept):
        return expr
    if any(axis.extent == 0 for axis in kept):
        # No point exists; naming the position keeps the access behind its mask, which lets nothing through.
        return expr.subs({axis.symbol: position for axis in kept})
    strides = [_stride(expr, axis.symbol) for axis in kept]
    runs = _runs(kept, strides)
    extents = [sympy.Mul(*[kept[k].extent for k in run]) for run in runs]
    places = delinearize(position, extents, ranges)
    rest = expr
    linear: Expr = sympy.Integer(0)
    for run, place in zip(runs, places, strict=True):
        stride = strides[run[-1]]
        if stride is None:
            rest = rest.subs(kept[run[0]].symbol, place)
            continue
        for k in run:
            factor = strides[k]
            assert factor is not None
            rest = rest - factor * kept[k].symbol
        linear = linear + stride * place
    return simplify(sympy.expand(rest) + linear, ranges)


def _stride(expr: Expr, symbol: sympy.Symbol) -> Expr | None:
    """The factor of a symbol that appears linearly and nowhere else (0 where it does not appear), else None."""
    expanded = sympy.expand(expr)
    factor = expanded.coeff(symbol, 1)
    if symbol in factor.free_symbols or symbol in sympy.expand(expanded - factor * symbol).free_symbols:
        return None
    return factor


def _runs(axes: Sequence[Axis], strides: Sequence[Expr | None]) -> list[list[int]]:
    """Group neighbouring axes whose strides are those of one longer axis."""
    runs: list[list[int]] = []
    for k, stride in enumerate(strides):
        outer = strides[k - 1] if k else None
        if outer is not None and stride is not None and sympy.expand(stride * axes[k].extent - outer) == 0:
            runs[-1].append(k)
        else:
            runs.append([k])
    return runs


def expr_text(expr: Expr, names: Mapping[sympy.Symbol, str], ranges: Ranges) -> str:
    """Spell an integer expression; `names` maps symbols to the text that holds their value.

    Triton's `//` and `%` truncate, so operands that may be negative get Python's rounding spelled out.
    """
    if expr.is_Integer:
        return str(int(expr))
    if expr.is_Symbol:
        return names[expr]
    if expr.is_Add:
        return _sum_text(expr, names, ranges)
    if expr.is_Mul:
        return " * ".join(_atom(arg, names, ranges) for arg in expr.args)
    if expr.is_Pow and expr.exp.is_Integer and int(expr.exp) > 0:
        return " * ".join([_atom(expr.base, names, ranges)] * int(expr.exp))
    if isinstance(expr, FloorDiv | Mod):
        return _division_text(expr, names, ranges)
    if isinstance(expr, sympy.Min | sympy.Max):
        function = "tl.minimum" if isinstance(expr, sympy.Min) else "tl.maximum"
        first, *others = (expr_text(arg, names, ranges) for arg in expr.args)
        return reduce(lambda text, other: f"{function}({text}, {other})", others, first)
    raise InternalError(f"index expression {expr} has a form that cannot be written")


def _atom(expr: Expr, names: Mapping[sympy.Symbol, str], ranges: Ranges) -> str:
    text = expr_text(expr, names, ranges)
    return text if expr.is_Symbol or (expr.is_Integer and int(expr) >= 0) else f"({text})"


def _sum_text(expr: Expr, names: Mapping[sympy.Symbol, str], ranges: Ranges) -> str:
    text = ""
    for term in expr.as_ordered_terms():
        negative = term.could_extract_minus_sign()
        part = -term if negative else term
        # A sum after a minus sign needs its brackets.
        spelled = _atom(part, names, ranges) if part.is_Add else expr_text(part, names, ranges)
        if not text:
            text = f"-{_atom(part, names, ranges)}" if negative else spelled
        else:
            text += f" {'-' if negative else '+'} {spelled}"
    return text


def _division_text(expr: Expr, names: Mapping[sympy.Symbol, str], ranges: Ranges) -> str:
    a, b = (_atom(arg, names, ranges) for arg in expr.args)
    limits = bounds(expr.args[0], ranges)
    if limits is not None and limits[0].is_nonnegative:
        return f"{a} // {b}" if isinstance(expr, FloorDiv) else f"{a} % {b}"
    positive = f"(({a} % {b}) + {b}) % {b}"
    return positive if isinstance(expr, Mod) else f"({a} - ({positive})) // {b}"
