"""The sort template: every variant equals the interpreter, whatever the dtype, the order and what is fused around the sort."""

from __future__ import annotations

import numpy as np
import pytest
from tests.python.cpp.running import BF16, F32, F64, I32, I64, I, Q, R, check, fill, target, variants_of, whole
from tests.python.nests import buffer, kernel

from mkwrap.codegen.cpp.sort import TEMPLATE
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.ir.numeric import Array, encode
from mkwrap.ir.ops import SORT_LIMIT
from mkwrap.stages import Kernel

RNG = np.random.default_rng(0)


def both_orders(dtype: DType, shape: tuple[int, ...], index: tuple[Expr, ...], reduce: int) -> Kernel:
    """Rows in ascending and in descending order."""
    body = BodyBuilder()
    x = body.cast(body.load("x", dtype, index), dtype.compute)
    targets = []
    for descending in (False, True):
        values, places = body.sort(x, descending)
        for value in (body.cast(values, dtype), places):
            targets.append(buffer(f"y{len(targets)}", body.dtype(value), shape))
            body.store(targets[-1].name, index, value)
    dims = tuple(zip(index, shape, strict=True))
    return kernel(whole("sort", *dims, body=body, reduce=reduce), [buffer("x", dtype, shape)], targets)


def memory_of(k: Kernel, low: int = -50, high: int = 50) -> dict[str, Array]:
    return {p.buffer.name: fill(p.buffer, RNG, low, high) for p in k.parameters}


@pytest.mark.parametrize("length", [1, 2, 17, 300])
@pytest.mark.parametrize(
    "dtype", [F32, F64, BF16, I64, I32, DType.INT8, DType.UINT8, DType.UINT16], ids=lambda d: d.value
)
def test_every_dtype_in_both_orders(dtype: DType, length: int) -> None:
    k = both_orders(dtype, (5, length), (I, R), 1)
    check(TEMPLATE, k, memory_of(k), tolerance=0)


def test_all_of_the_key_counts() -> None:
    k = both_orders(I64, (3, 200), (I, R), 1)
    check(TEMPLATE, k, memory_of(k, -(1 << 62), 1 << 62))


@pytest.mark.parametrize("dtype", [F32, F64, BF16], ids=lambda d: d.value)
def test_nan_infinities_zeros_of_both_signs_and_ties(dtype: DType) -> None:
    k = both_orders(dtype, (4, 200), (I, R), 1)
    memory = memory_of(k)
    special = np.array([0.0, -0.0, 1.0, np.nan, -np.nan, np.inf, -np.inf, 1e-42, -1e-42], np.float32)
    memory["x"][...] = encode(RNG.choice(special, (4, 200)).astype(np.float64 if dtype is F64 else np.float32), dtype)
    check(TEMPLATE, k, memory, tolerance=0)


def test_the_longest_row_and_rows_of_two_axes() -> None:
    k = both_orders(F32, (2, SORT_LIMIT), (I, R), 1)
    check(TEMPLATE, k, memory_of(k))
    k = both_orders(I32, (3, 5, 21), (I, R, Q), 2)
    check(TEMPLATE, k, memory_of(k))


def test_nucleus() -> None:
    """Softmax, its largest values first, their running sum, and where that passes a half: one kernel."""
    body = BodyBuilder()
    x = body.load("x", F32, (I, R))
    (top,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, top))
    (total,) = body.reduce("sum", e)
    values, places = body.sort(body.compute("div", e, total), descending=True)
    (running,) = body.scan("sum", values)
    inside = body.compute("lt", body.compute("sub", running, values), body.constant(0.5, F32))
    (count,) = body.reduce("sum", body.cast(inside, I64))
    body.store("values", (I, R), body.compute("where", inside, values, body.constant(0.0, F32)))
    body.store("places", (I, R), places)
    body.store("count", (I,), count)
    nest = whole("nucleus", (I, 7), (R, 90), body=body, reduce=1)
    outputs = [buffer("values", F32, (7, 90)), buffer("places", I64, (7, 90)), buffer("count", I64, (7,))]
    k = kernel(nest, [buffer("x", F32, (7, 90))], outputs)
    check(TEMPLATE, k, memory_of(k))


def test_a_sort_of_what_a_sort_gave() -> None:
    """The order of an order is where each element went."""
    body = BodyBuilder()
    _, places = body.sort(body.load("x", F32, (I, R)))
    body.store("y", (I, R), body.sort(places)[1])
    nest = whole("ranks", (I, 4), (R, 50), body=body, reduce=1)
    k = kernel(nest, [buffer("x", F32, (4, 50))], [buffer("y", I64, (4, 50))])
    check(TEMPLATE, k, memory_of(k))


def test_both_ways_are_offered_and_rows_are_shared() -> None:
    k = both_orders(F32, (1000, 300), (I, R), 1)
    params = [dict(v.params) for v in variants_of(TEMPLATE, k, target())]
    assert {(p["by"], p["threads"]) for p in params} == {(by, t) for by in ("radix", "merge") for t in (1, 2)}
