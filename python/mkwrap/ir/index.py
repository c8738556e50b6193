"""Index expressions: sympy integers with floor division and modulo, simplified by the ranges of their symbols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sympy

from mkwrap.ir.nodes import Axis, Expr

Ranges = Mapping[sympy.Symbol, tuple[Expr, Expr]]
"""Inclusive bounds of symbols."""


def axis_symbol(name: str) -> sympy.Symbol:
    """Make the symbol of an axis or of an index value: an integer, not negative."""
    return sympy.Symbol(name, integer=True, nonnegative=True)


def size_symbol(name: str) -> sympy.Symbol:
    """Make the symbol of a dynamic size: a positive integer (zero-size dims are static or checked apart)."""
    return sympy.Symbol(name, integer=True, positive=True)


class FloorDiv(sympy.Function):  # type: ignore[misc]  # sympy is untyped
    """⌊a / b⌋ for integers, b > 0; 0 for b = 0, as in host code."""

    nargs = (2,)
    is_integer = True

    @classmethod
    def eval(cls, a: Expr, b: Expr) -> Expr | None:
        """Fold constants and exact multiples."""
        if b == 1:
            return a
        if a == 0 or b == 0:
            return sympy.Integer(0)
        if a.is_Integer and b.is_Integer:
            return sympy.Integer(int(a) // int(b))
        if isinstance(a, FloorDiv):
            return FloorDiv(a.args[0], a.args[1] * b)
        multiple, rest = split_multiple(a, b)
        if multiple != 0:
            return multiple + FloorDiv(rest, b)
        return None

    def _eval_is_nonnegative(self) -> bool | None:
        return True if self.args[0].is_nonnegative and self.args[1].is_positive else None


class Mod(sympy.Function):  # type: ignore[misc]  # sympy is untyped
    """a − b·⌊a / b⌋ for integers, b > 0; 0 for b = 0, as in host code."""

    nargs = (2,)
    is_integer = True

    @classmethod
    def eval(cls, a: Expr, b: Expr) -> Expr | None:
        """Fold constants and exact multiples."""
        if b == 1 or a == 0 or b == 0:
            return sympy.Integer(0)
        if a.is_Integer and b.is_Integer:
            return sympy.Integer(int(a) % int(b))
        if isinstance(a, Mod) and a.args[1] == b:
            return a
        multiple, rest = split_multiple(a, b)
        if multiple != 0:
            return Mod(rest, b)
        return None

    def _eval_is_nonnegative(self) -> bool | None:
        return True if self.args[1].is_positive else None


class Largest(sympy.Max):  # type: ignore[misc]  # sympy is untyped
    """The maximum of sizes that may be 0 in a call: `sympy.Max` takes them for positive, and drops 128 beside 1536·n."""

    @classmethod
    def _collapse_arguments(cls, args: frozenset[Expr], **_: object) -> frozenset[Expr]:
        return args

    @classmethod
    def _find_localzeros(cls, values: frozenset[Expr], **_: object) -> frozenset[Expr]:
        """Fold numbers; no size is below 0."""
        sizes = {value for value in values if not value.is_Integer}
        number = max((value for value in values if value.is_Integer), default=sympy.Integer(0))
        return frozenset(sizes if sizes and number <= 0 else sizes | {number})

    def _sympystr(self, printer: sympy.StrPrinter) -> str:
        return f"Max({', '.join(map(printer.doprint, self.args))})"


def split_multiple(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Split a into (q, r) with a = q·b + r, where q collects the terms that are visibly multiples of b."""
    quotient: list[Expr] = []
    rest: list[Expr] = []
    for term in sympy.Add.make_args(sympy.expand(a) if a.is_Mul else a):
        divided = _divide(term, b)
        if divided is None:
            rest.append(term)
        else:
            quotient.append(divided)
    return sympy.Add(*quotient), sympy.Add(*rest)


def _divide(term: Expr, b: Expr) -> Expr | None:
    if b.is_Integer:
        coefficient, factors = term.as_coeff_Mul()
        if coefficient.is_Integer and int(coefficient) % int(b) == 0:
            return sympy.Integer(int(coefficient) // int(b)) * factors
        return None
    ratio = sympy.cancel(term / b)
    return ratio if ratio.is_integer and not ratio.as_numer_denom()[1].free_symbols else None


def axis_ranges(axes: Iterable[Axis]) -> Ranges:
    """Bounds of each axis symbol: 0 … extent − 1."""
    return {axis.symbol: (sympy.Integer(0), axis.extent - 1) for axis in axes}


def bounds(expr: Expr, ranges: Ranges) -> tuple[Expr, Expr] | None:
    """Inclusive lower and upper bound of expr, or None where unknown. Symbols without a range are sizes: themselves."""
    if expr.is_Integer:
        return expr, expr
    if expr.is_Symbol:
        return ranges.get(expr, (expr, expr) if expr.is_positive else None)
    parts = [bounds(arg, ranges) for arg in expr.args]
    known = [part for part in parts if part is not None]
    if len(known) != len(parts):
        if isinstance(expr, Mod) and expr.args[1].is_Integer:
            return sympy.Integer(0), expr.args[1] - 1
        return None
    if expr.is_Add:
        return sympy.Add(*[low for low, _ in known]), sympy.Add(*[high for _, high in known])
    if expr.is_Mul:
        return _product_bounds(known)
    if expr.is_Pow and expr.exp.is_Integer and expr.exp.is_positive:
        return _product_bounds(known[:1] * int(expr.exp))
    if isinstance(expr, FloorDiv):
        divisor = expr.args[1]
        return FloorDiv(known[0][0], divisor), FloorDiv(known[0][1], divisor)
    if isinstance(expr, Mod):
        return sympy.Integer(0), expr.args[1] - 1
    return None


def _product_bounds(parts: Sequence[tuple[Expr, Expr]]) -> tuple[Expr, Expr] | None:
    low, high = parts[0]
    for other_low, other_high in parts[1:]:
        if low.is_Integer and high.is_Integer and other_low.is_Integer and other_high.is_Integer:
            corners = [low * other_low, low * other_high, high * other_low, high * other_high]
            low, high = sympy.Integer(min(corners)), sympy.Integer(max(corners))
        elif low.is_nonnegative and other_low.is_nonnegative:
            low, high = low * other_low, high * other_high
        else:
            return None
    return low, high


def simplify(expr: Expr, ranges: Ranges) -> Expr:
    """Rewrite FloorDiv and Mod whose operands' ranges make them trivial; the value is unchanged for all points in range."""
    if expr.is_Atom:
        return expr
    args = [simplify(arg, ranges) for arg in expr.args]
    if isinstance(expr, FloorDiv):
        return _simplify_division(args[0], args[1], ranges)[0]
    if isinstance(expr, Mod):
        return _simplify_division(args[0], args[1], ranges)[1]
    result = expr.func(*args)
    if result.is_Add:
        return recombine(result)
    return sympy.expand(result) if result.is_Mul and any(arg.is_Add for arg in args) else result


def _simplify_division(a: Expr, b: Expr, ranges: Ranges) -> tuple[Expr, Expr]:
    """Simplify (a // b, a mod b)."""
    multiple, rest = split_multiple(a, b)
    limits = bounds(rest, ranges)
    if limits is not None:
        low, high = limits
        if (low.is_nonnegative or low == 0) and (b - 1 - high).is_nonnegative:
            return multiple, rest
        if b.is_Integer:
            shared = _common_division(rest, b, ranges)
            if shared is not None:
                return multiple + shared[0], shared[1]
    return multiple + FloorDiv(rest, b), Mod(rest, b)


def _common_division(rest: Expr, b: Expr, ranges: Ranges) -> tuple[Expr, Expr] | None:
    """Use ⌊(g·x + y) / (g·c)⌋ = ⌊x / c⌋ where 0 ≤ y < g: divide out a factor shared by some terms and b."""
    terms = sympy.Add.make_args(rest)
    coefficients = [int(term.as_coeff_Mul()[0]) for term in terms if term.as_coeff_Mul()[0].is_Integer]
    if len(coefficients) != len(terms):
        return None
    for factor in sorted({sympy.igcd(c, int(b)) for c in coefficients} - {1}, reverse=True):
        large = [t for t, c in zip(terms, coefficients, strict=True) if c % factor == 0]
        small = sympy.Add(*[t for t, c in zip(terms, coefficients, strict=True) if c % factor])
        limits = bounds(small, ranges)
        if limits is None or not limits[0].is_nonnegative or not (factor - 1 - limits[1]).is_nonnegative:
            continue
        x = sympy.Add(*[t / factor for t in large])
        divisor = b / factor
        if divisor == 1:
            return x, small
        if x == rest:
            return None
        quotient, remainder = _simplify_division(x, divisor, ranges)
        return quotient, factor * remainder + small
    return None


def linearize(index: Sequence[Expr], shape: Sequence[Expr]) -> Expr:
    """Row-major position of a multi-index."""
    position: Expr = sympy.Integer(0)
    for i, n in zip(index, shape, strict=True):
        position = position * n + i
    return sympy.expand(position)


def delinearize(position: Expr, shape: Sequence[Expr], ranges: Ranges) -> tuple[Expr, ...]:
    """Multi-index of a row-major position, simplified; the position is in range, so the outermost needs no modulo.

    A shape with a dimension of size 0 has no position: its multi-index is all zeros.
    """
    if any(n == 0 for n in shape):
        return tuple(sympy.Integer(0) for _ in shape)
    result: list[Expr] = []
    rest = position
    for k in range(len(shape) - 1, -1, -1):
        if shape[k] == 1:
            result.append(sympy.Integer(0))
        elif k == 0 or all(n == 1 for n in shape[:k]):
            result.append(rest)
            rest = sympy.Integer(0)
        else:
            quotient, remainder = _simplify_division(rest, shape[k], ranges)
            result.append(remainder)
            rest = quotient
    return tuple(reversed(result))


def rounded_up(size: Expr | int, multiple: int) -> Expr:
    """Return the expression for the least multiple of `multiple` that is at least `size`."""
    return FloorDiv(sympy.sympify(size) + (multiple - 1), sympy.Integer(multiple)) * multiple


def contiguous_strides(shape: Sequence[Expr]) -> tuple[Expr, ...]:
    """Row-major strides in elements (dims of size 0 count as 1, as torch does)."""
    strides: list[Expr] = []
    step: Expr = sympy.Integer(1)
    for n in reversed(shape):
        strides.append(step)
        step = step * (sympy.Integer(1) if n == 0 else n)
    return tuple(reversed(strides))


def recombine(expr: Expr) -> Expr:
    """Undo a digit split: c·n·⌊x / n⌋ + c·(x mod n) = c·x, in any sum; repeats until nothing changes."""
    if not expr.is_Add:
        return expr
    terms = list(expr.args)
    for i, term in enumerate(terms):
        for factor in sympy.Mul.make_args(term):
            if not isinstance(factor, Mod):
                continue
            coefficient = term / factor
            x, n = factor.args
            quotient = sympy.expand(coefficient * n * FloorDiv(x, n))
            for j, other in enumerate(terms):
                if j != i and other == quotient:
                    rest = [t for k, t in enumerate(terms) if k not in (i, j)]
                    return recombine(sympy.expand(sympy.Add(coefficient * x, *rest)))
    return expr
