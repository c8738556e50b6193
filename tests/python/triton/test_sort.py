"""Sorts of short rows in Triton under Triton's interpreter against the numpy oracle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Nest
from mkwrap.ir.ops import SORT_LIMIT
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.emulate import run
from tests.python.triton.nests import F32, F64, H100, I0, R0, matrix, sort
from tests.python.triton.oracle import check, copy, fill, sources

DTYPES = [F32, F64, *(d for d in DType if d.is_integer and d is not DType.BOOL)]


@pytest.mark.parametrize("descending", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.value)
def test_every_dtype_is_sorted_stably(dtype: DType, descending: bool, tmp_path: Path) -> None:
    """Small integers repeat, so that order among equals shows; the extremes are those of the dtype."""
    case = sort(3, 37, dtype, descending)
    memory = fill(case)
    if dtype.is_integer:
        values = memory[0].numpy()
        limits = np.iinfo(values.dtype)
        values[[5, 20, 36]] = limits.max, limits.min, limits.max
    assert check(case, tmp_path, memory, rtol=0, atol=0, most=1) == {"persistent"}


@pytest.mark.parametrize("descending", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=lambda d: d.value)
def test_c30_nan_is_the_largest_and_zeros_keep_their_order_and_sign(
    dtype: DType, descending: bool, tmp_path: Path
) -> None:
    case = sort(2, 21, dtype, descending)
    memory = fill(case)
    special = torch.tensor([math.nan, 0.0, -0.0, math.inf, -0.0, -math.inf, math.nan, 0.0, 5e-324, -1.0, math.inf])
    memory[0][3:14] = special
    memory[0][21:32] = special
    assert check(case, tmp_path, memory, rtol=0, atol=0, most=1) == {"persistent"}
    got = copy(memory)
    run(next(sources(case, H100)), got, tmp_path)
    zeros = got[1][:21]
    want = torch.sort(memory[0][:21], stable=True, descending=descending).values
    assert torch.equal(torch.signbit(zeros[zeros == 0]), torch.signbit(want[want == 0]))


@pytest.mark.parametrize(("rows", "length"), [(0, 5), (4, 0), (1, 1), (5, 1), (3, 2), (2, 64), (1, 300)])
def test_sizes(rows: int, length: int, tmp_path: Path) -> None:
    assert check(sort(rows, length), tmp_path, rtol=0, atol=0) == {"persistent"}


def test_columns(tmp_path: Path) -> None:
    assert check(sort(9, 20, outer=True), tmp_path, rtol=0, atol=0, most=2) == {"persistent"}


def test_work_before_between_and_after(tmp_path: Path) -> None:
    """The sum of the three largest of |x|, as a running total over the row in order."""
    body = BodyBuilder()
    values, places = body.sort(body.compute("abs", body.load("arg0", F32, (I0, R0))), descending=True)
    (total,) = body.scan("sum", values)
    first = body.compute("lt", body.index_value(R0), body.constant(3, DType.INT64))
    kept = body.compute("where", first, values, body.constant(0.0, F32))
    body.store("arg1", (I0, R0), total)
    body.store("arg2", (I0, R0), places)
    body.store("arg3", (I0,), body.reduce("sum", kept)[0])
    nest = Nest("largest", axes((I0, 5)), axes((R0, 40)), body.body())
    writes = [matrix("arg1", F32, 5, 40), matrix("arg2", DType.INT64, 5, 40), buffer("arg3", F32, [5])]
    case = kernel(nest, [matrix("arg0", F32, 5, 40)], writes)
    assert check(case, tmp_path, most=1) == {"persistent"}


def test_the_longest_row_that_the_grammar_allows_has_a_template() -> None:
    for outer in (False, True):
        found = list(sources(sort(100, SORT_LIMIT, outer=outer), H100))
        assert {source.variant.template for source in found} == {"persistent"}
