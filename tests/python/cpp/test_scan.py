"""The scan template: every variant equals the interpreter, whatever the axis, the cut and what is fused around the scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sympy
from tests.python.cpp.running import (
    BF16,
    F32,
    F64,
    I32,
    I64,
    I,
    J,
    K,
    Q,
    R,
    check,
    fill,
    target,
    variants_of,
    whole,
)
from tests.python.nests import buffer, kernel

from mkwrap.codegen.cpp.scan import TEMPLATE
from mkwrap.codegen.template import Template
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Buffer, Combine, Compute, Constant, Expr
from mkwrap.ir.numeric import Array
from mkwrap.stages import Kernel

RNG = np.random.default_rng(0)
OPS = ("sum", "prod", "cummax", "cummin", "logaddexp")
LINEAR = Combine(
    left=("a0", "b0"),
    right=("a1", "b1"),
    body=(
        Compute("a", F32, "mul", ("a0", "a1")),
        Compute("scaled", F32, "mul", ("b0", "a1")),
        Constant("zero", F32, 0.0),
        Compute("shift", F32, "add", ("b1", "zero")),
        Compute("b", F32, "add", ("scaled", "shift")),
    ),
    results=("a", "b"),
)
LAST_ONE = Combine(("a",), ("b",), (), ("b",))
"""Associative, and neither commutative nor with an identity."""


def everything(
    dtype: DType, shape: tuple[int, ...], index: tuple[Expr, ...], reduce: int, ops: tuple[str, ...] = OPS
) -> Kernel:
    """A kernel with a scan of every kind over the last axes."""
    body = BodyBuilder()
    x = body.load("x", dtype, index)
    source = buffer("x", dtype, shape)
    wide = body.cast(x, dtype.compute)
    targets: list[Buffer] = []

    def store(value: str) -> None:
        targets.append(buffer(f"y{len(targets)}", body.dtype(value), shape))
        body.store(targets[-1].name, index, value)

    for op in ops:
        if op != "logaddexp" or dtype.is_float:
            for result in body.scan(op, wide):
                store(result)
    store(body.cast(body.scan("associative", wide, combine=LAST_ONE)[0], dtype))
    if dtype is F32:
        for result in body.scan("associative", body.compute("sigmoid", wide), wide, combine=LINEAR):
            store(result)
    symbols = tuple(expr for expr in index if expr.is_Symbol)
    dims = tuple(zip(symbols, [n for n, e in zip(shape, index, strict=True) if e.is_Symbol], strict=True))
    return kernel(whole("scans", *dims, body=body, reduce=reduce), [source], targets)


def cumsum(rows: int, length: int) -> Kernel:
    """Running sums of rows."""
    body = BodyBuilder()
    (total,) = body.scan("sum", body.load("x", F32, (I, R)))
    body.store("y", (I, R), total)
    nest = whole("cumsum", (I, rows), (R, length), body=body, reduce=1)
    return kernel(nest, [buffer("x", F32, (rows, length))], [buffer("y", F32, (rows, length))])


def linear_recurrence(columns: int, length: int) -> Kernel:
    """Columns of y ← a·y + x, a function of a user's, along the outer axis of memory."""
    body = BodyBuilder()
    pair = [body.load(name, F32, (R, I)) for name in ("a", "x")]
    body.store("y", (R, I), body.scan("associative", *pair, combine=LINEAR)[1])
    shape = (length, columns)
    nest = whole("recurrence", (I, columns), (R, length), body=body, reduce=1)
    return kernel(nest, [buffer("a", F32, shape), buffer("x", F32, shape)], [buffer("y", F32, shape)])


def memory_of(k: Kernel, special: bool = False) -> dict[str, Array]:
    memory = {p.buffer.name: fill(p.buffer, RNG, -3, 4) for p in k.parameters}
    x = memory["x"]
    if special and x.dtype.kind == "f":
        flat = x.reshape(-1)
        flat[RNG.integers(0, flat.size, max(1, flat.size // 40))] = np.nan
        flat[RNG.integers(0, flat.size, max(1, flat.size // 40))] = np.inf
        flat[RNG.integers(0, flat.size, max(1, flat.size // 8))] = -np.inf
        flat[RNG.integers(0, flat.size, max(1, flat.size // 8))] = 0.5
    return memory


@pytest.mark.parametrize("dtype", [F32, F64, BF16, I64, I32, DType.INT8], ids=lambda d: d.value)
def test_every_scan_of_every_dtype(dtype: DType) -> None:
    k = everything(dtype, (5, 37), (I, R), 1)
    check(TEMPLATE, k, memory_of(k))
    check(TEMPLATE, k, memory_of(k, special=True))


def test_along_the_outer_axis() -> None:
    """Rows lie across memory: vectors along the parallel axis."""
    k = everything(F32, (37, 21), (R, I), 1)
    turned = replace(k, nest=replace(k.nest, axes=k.nest.reduction_axes, reduction_axes=k.nest.axes))
    memory = memory_of(turned)
    sources = check(TEMPLATE, turned, memory)
    assert next(dict(s.variant.params)["axis"] for s in sources) == "p0"


def test_two_reduction_axes_are_walked_in_row_major_order() -> None:
    k = everything(F32, (3, 5, 19), (I, R, Q), 2)
    check(TEMPLATE, k, memory_of(k))


@pytest.mark.parametrize(("dtype", "shape"), [(F32, (1, 8192)), (F32, (1, 9, 801)), (I64, (2, 16_001))], ids=str)
def test_a_long_row_is_cut(dtype: DType, shape: tuple[int, ...]) -> None:
    k = everything(dtype, shape, (I, R, Q)[: len(shape)], len(shape) - 1, ops=("sum", "cummax"))
    labels = check(TEMPLATE, k, memory_of(k, special=True), tolerance=2e-4)
    assert any(dict(source.variant.params).get("parts", 0) >= 2 for source in labels)


@pytest.mark.parametrize("dtype", [F32, F64, I32], ids=lambda d: d.value)
@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
def test_results_of_parts_are_added_to(columns: bool, dtype: DType) -> None:
    """Scan, then add: what comes before is put in front of stored results; sums of columns, and a product beside them."""
    body = BodyBuilder()
    index, shape = ((R, I), (6001, 5)) if columns else ((I, R), (2, 30_001))
    x = body.load("x", dtype, index)
    body.store("y", index, body.scan("sum", x)[0])
    body.store("z", index, body.scan("prod", x)[0])
    dims = dict(zip(index, shape, strict=True))
    nest = whole("sums", (I, dims[I]), (R, dims[R]), body=body, reduce=1)
    k = kernel(nest, [buffer("x", dtype, shape)], [buffer("y", dtype, shape), buffer("z", dtype, shape)])
    sources = check(TEMPLATE, k, memory_of(k, special=True), tolerance=1e-5)
    assert any(dict(source.variant.params).get("add", False) for source in sources)


def test_long_columns_are_cut() -> None:
    """Few columns: one vector across them, and the walk along them in parts."""
    body = BodyBuilder()
    x = body.load("x", F32, (R, I))
    (total,) = body.scan("sum", x)
    value, place = body.scan("cummax", x)
    body.store("y", (R, I), total)
    body.store("v", (R, I), value)
    body.store("p", (R, I), place)
    shape = (20_000, 11)
    nest = whole("columns", (I, 11), (R, 20_000), body=body, reduce=1)
    k = kernel(
        nest, [buffer("x", F32, shape)], [buffer("y", F32, shape), buffer("v", F32, shape), buffer("p", I64, shape)]
    )
    sources = check(TEMPLATE, k, memory_of(k), tolerance=2e-5)
    params = [dict(source.variant.params) for source in sources]
    assert any(p["axis"] == "p0" and p.get("parts", 0) > 0 for p in params)


def test_reductions_before_and_after_a_scan() -> None:
    """Softmax, its running sum, and the largest of that: three walks, and the scan is done again in the last."""
    body = BodyBuilder()
    x = body.load("x", F32, (I, R))
    (top,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, top))
    (total,) = body.reduce("sum", e)
    (running,) = body.scan("sum", body.compute("div", e, total))
    (again,) = body.scan("sum", running)
    (last,) = body.reduce("maximum", again)
    body.store("y", (I, R), body.compute("div", again, last))
    body.store("z", (I,), last)
    nest = whole("row", (I, 6), (R, 67), body=body, reduce=1)
    k = kernel(nest, [buffer("x", F32, (6, 67))], [buffer("y", F32, (6, 67)), buffer("z", F32, (6,))])
    check(TEMPLATE, k, memory_of(k))
    assert not any("parts" in dict(v.params) for v in variants_of(TEMPLATE, k, target()))


def test_an_index_made_by_a_scan() -> None:
    """A running count says which element is read: the load belongs to the walk of the scan."""
    body = BodyBuilder()
    inside = body.cast(body.compute("gt", body.load("x", F32, (I, R)), body.constant(0.0, F32)), I64)
    (count,) = body.scan("sum", inside)
    at = body.bounds_check(count, sympy.Integer(40))
    body.store("y", (I, R), body.load("w", F32, (at,)))
    nest = whole("gather", (I, 3), (R, 39), body=body, reduce=1)
    k = kernel(nest, [buffer("x", F32, (3, 39)), buffer("w", F32, (40,))], [buffer("y", F32, (3, 39))])
    check(TEMPLATE, k, memory_of(k))


def test_truth_values_are_scanned_with_a_function() -> None:
    body = BodyBuilder()
    flag = body.compute("gt", body.load("x", F32, (I, R)), body.constant(0.5, F32))
    either = Combine(("a",), ("b",), (Compute("c", DType.BOOL, "bitor", ("a", "b")),), ("c",))
    (seen,) = body.scan("associative", flag, combine=either)
    body.store("y", (I, R), seen)
    nest = whole("seen", (I, 9), (R, 33), body=body, reduce=1)
    k = kernel(nest, [buffer("x", F32, (9, 33))], [buffer("y", DType.BOOL, (9, 33))])
    check(TEMPLATE, k, memory_of(k))


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (3, 2)], ids=str)
def test_no_elements_and_few(shape: tuple[int, int]) -> None:
    k = everything(F32, shape, (I, R), 1)
    check(TEMPLATE, k, memory_of(k))


def test_running_sums_of_float32_are_those_of_float64() -> None:
    """Numbers whose running sum in float32 is off by far: the bound of docs/numerics.md."""
    body = BodyBuilder()
    (total,) = body.scan("sum", body.load("x", F32, (R,)))
    body.store("y", (R,), total)
    shape = (1 << 17,)
    k = kernel(whole("sum", (R, shape[0]), body=body, reduce=1), [buffer("x", F32, shape)], [buffer("y", F32, shape)])
    memory = {"x": (1e4 + RNG.standard_normal(shape)).astype(np.float32), "y": np.zeros(shape, np.float32)}
    check(TEMPLATE, k, memory, tolerance=1.5e-7)


def test_a_nest_without_scans_is_not_for_it() -> None:
    body = BodyBuilder()
    body.store("y", (I, J, K), body.load("x", F32, (I, J, K)))
    dims = ((I, 2), (J, 2), (K, 2))
    k = kernel(whole("copy", *dims, body=body), [buffer("x", F32, (2, 2, 2))], [buffer("y", F32, (2, 2, 2))])
    assert variants_of(TEMPLATE, k, target()) == ()
    assert isinstance(TEMPLATE, Template)
