"""Index algebra: simplification, (de)linearisation and bounds keep the value at every point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from mkwrap.ir.index import (
    FloorDiv,
    Mod,
    axis_symbol,
    bounds,
    contiguous_strides,
    delinearize,
    linearize,
    simplify,
    size_symbol,
    split_multiple,
)

ZERO = sympy.Integer(0)
A, B, C = (axis_symbol(name) for name in "abc")


def value(expr: sympy.Expr, point: Mapping[sympy.Symbol, int]) -> int:
    """Evaluate with Python's integers."""
    if expr.is_Integer:
        return int(expr)
    if expr.is_Symbol:
        return point[expr]
    parts = [value(arg, point) for arg in expr.args]
    if isinstance(expr, FloorDiv):
        return parts[0] // parts[1]
    if isinstance(expr, Mod):
        return parts[0] % parts[1]
    if expr.is_Pow:
        return parts[0] ** parts[1]
    return sum(parts) if expr.is_Add else math.prod(parts)


Spec = tuple[object, ...]


def exprs(depth: int = 4) -> st.SearchStrategy[Spec]:
    """Trees of + − · // mod over three axes, not yet built, so that nothing is simplified before the reference."""
    leaf = st.one_of(
        st.sampled_from([A, B, C]).map(lambda s: ("symbol", s)), st.integers(-6, 12).map(lambda n: ("int", n))
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(st.just("add"), inner, inner),
            st.tuples(st.just("mul"), inner, st.integers(-4, 12)),
            st.tuples(st.just("div"), inner, st.integers(1, 12)),
            st.tuples(st.just("mod"), inner, st.integers(1, 12)),
        ),
        max_leaves=depth,
    )


def build(spec: Spec) -> sympy.Expr:
    match spec:
        case ("symbol", symbol):
            return symbol
        case ("int", n):
            return sympy.Integer(n)
        case ("add", x, y):
            return build(x) + build(y)
        case ("mul", x, n):
            return build(x) * n
        case ("div", x, n):
            return FloorDiv(build(x), sympy.Integer(n))
        case ("mod", x, n):
            return Mod(build(x), sympy.Integer(n))
    raise AssertionError(spec)


def reference(spec: Spec, point: Mapping[sympy.Symbol, int]) -> int:
    match spec:
        case ("symbol", symbol):
            return point[symbol]
        case ("int", n):
            return n
        case ("add", x, y):
            return reference(x, point) + reference(y, point)
        case ("mul", x, n):
            return reference(x, point) * n
        case ("div", x, n):
            return reference(x, point) // n
        case ("mod", x, n):
            return reference(x, point) % n
    raise AssertionError(spec)


extents = st.tuples(*[st.integers(1, 5)] * 3)


def points(sizes: tuple[int, ...]) -> list[dict[sympy.Symbol, int]]:
    return [dict(zip((A, B, C), place, strict=True)) for place in itertools.product(*map(range, sizes))]


def ranges_of(sizes: tuple[int, ...]) -> dict[sympy.Symbol, tuple[sympy.Expr, sympy.Expr]]:
    return {s: (ZERO, sympy.Integer(n - 1)) for s, n in zip((A, B, C), sizes, strict=True)}


@settings(max_examples=500, deadline=None)
@given(exprs(8), extents)
def test_simplify_and_bounds_hold_at_every_point(spec: Spec, sizes: tuple[int, ...]) -> None:
    expr = build(spec)
    simple = simplify(expr, ranges_of(sizes))
    limits = bounds(expr, ranges_of(sizes))
    for point in points(sizes):
        expected = reference(spec, point)
        assert value(expr, point) == expected
        assert value(simple, point) == expected
        assert limits is None or int(limits[0]) <= expected <= int(limits[1])


@pytest.mark.parametrize(("low", "high"), [(0, 3), (2, 5), (-3, 2)])
@pytest.mark.parametrize("exponent", [2, 3])
def test_powers_of_a_size_are_bounded(low: int, high: int, exponent: int) -> None:
    size = size_symbol("seq")
    limits = bounds(12 * size**exponent, {size: (sympy.Integer(low), sympy.Integer(high))})
    assert limits is not None
    values = [12 * n**exponent for n in range(low, high + 1)]
    assert int(limits[0]) <= min(values) <= max(values) <= int(limits[1])
    if low >= 0:
        assert [int(limit) for limit in limits] == [min(values), max(values)]


@st.composite
def regroupings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two shapes with the same number of elements."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3, 4, 5]), min_size=1, max_size=4))

    def shape(order: list[int]) -> list[int]:
        cuts = [draw(st.booleans()) for _ in order]
        dims = [1]
        for factor, cut in zip(order, cuts, strict=True):
            if cut:
                dims.append(factor)
            else:
                dims[-1] *= factor
        return dims

    return shape(factors), shape(draw(st.permutations(factors)))


@settings(max_examples=200, deadline=None)
@given(regroupings())
def test_delinearize_reads_a_reshape_in_row_major_order(shapes: tuple[list[int], list[int]]) -> None:
    target, source = shapes
    axes = [axis_symbol(f"d{k}") for k in range(len(target))]
    ranges = {s: (ZERO, sympy.Integer(n - 1)) for s, n in zip(axes, target, strict=True)}
    index = delinearize(linearize(axes, [sympy.Integer(n) for n in target]), [sympy.Integer(n) for n in source], ranges)
    for position, place in enumerate(itertools.product(*map(range, target))):
        point = dict(zip(axes, place, strict=True))
        actual = [value(expr, point) for expr in index]
        assert all(0 <= i < n for i, n in zip(actual, source, strict=True))
        flat = 0
        for i, n in zip(actual, source, strict=True):
            flat = flat * n + i
        assert flat == position


def test_a_shape_without_elements_has_no_positions_to_divide() -> None:
    shape = [sympy.Integer(n) for n in (4, 0, 5)]
    assert delinearize(A, shape, ranges_of((1, 1, 1))) == (ZERO, ZERO, ZERO)


def test_a_division_by_a_size_of_0_gives_0_as_in_host_code() -> None:
    a, b = size_symbol("a"), size_symbol("b")
    for quotient in (FloorDiv(a, b), Mod(a, b)):
        assert quotient.xreplace({a: sympy.Integer(7), b: ZERO}) == 0


@settings(max_examples=200, deadline=None)
@given(exprs(5), st.integers(1, 12))
def test_split_multiple_is_exact(spec: Spec, divisor: int) -> None:
    expr = build(spec)
    quotient, rest = split_multiple(expr, sympy.Integer(divisor))
    for point in points((3, 3, 3)):
        assert value(quotient, point) * divisor + value(rest, point) == reference(spec, point)


def test_merging_and_splitting_back_leaves_plain_axes() -> None:
    ranges = ranges_of((4, 6, 5))
    merged = linearize([A, B, C], [sympy.Integer(n) for n in (4, 6, 5)])
    assert delinearize(merged, [sympy.Integer(24), sympy.Integer(5)], ranges) == (6 * A + B, C)
    assert delinearize(merged, [sympy.Integer(n) for n in (4, 6, 5)], ranges) == (A, B, C)


def test_a_dim_split_by_a_dynamic_size_cancels() -> None:
    n = size_symbol("s0")
    ranges = {A: (ZERO, sympy.Integer(3)), B: (ZERO, n - 1)}
    assert simplify(FloorDiv(A * n + B, n), ranges) == A
    assert simplify(Mod(A * n + B, n), ranges) == B


@pytest.mark.parametrize(
    ("shape", "expected"), [((2, 3, 4), (12, 4, 1)), ((), ()), ((5,), (1,)), ((2, 0, 3), (3, 3, 1))]
)
def test_contiguous_strides(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert contiguous_strides([sympy.Integer(n) for n in shape]) == expected
