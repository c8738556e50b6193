"""Compile-time layouts against their definition, element by element."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from mkwrap.errors import InternalError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod, axis_symbol
from mkwrap.ir.nodes import Buffer, Expr, Role
from mkwrap.stages import ConstantData, Packing
from mkwrap.toolchain.packing import evaluate, pack

P = tuple(axis_symbol(f"p{k}") for k in range(4))


def _constant(values: np.ndarray, dtype: DType = DType.FLOAT32) -> tuple[ConstantData, Buffer]:
    strides = tuple(sympy.Integer(s // values.itemsize) for s in values.strides)
    shape = tuple(map(sympy.Integer, values.shape))
    storage = np.lib.stride_tricks.as_strided(values, (values.size,), (values.itemsize,)).copy()
    return ConstantData("w", storage.view(np.uint8)), Buffer("w", dtype, shape, strides, Role.CONSTANT)


def _reference(values: np.ndarray, shape: Sequence[int], index: Sequence[Expr]) -> np.ndarray:
    packed = np.zeros(shape, values.dtype)
    for point in itertools.product(*map(range, shape)):
        at = tuple(int(expr.subs(dict(zip(P, point, strict=False)))) for expr in index)
        if all(0 <= i < n for i, n in zip(at, values.shape, strict=True)):
            packed[point] = values[at]
    return packed


def test_no_packing_is_the_bytes_themselves() -> None:
    data, buffer = _constant(np.arange(6, dtype=np.float32))
    assert pack(data, buffer, None) is data.data


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), tile=st.integers(1, 4), transposed=st.booleans())
def test_tiles_of_a_matrix(rows: int, columns: int, tile: int, transposed: bool) -> None:
    values = np.arange(1, rows * columns + 1, dtype=np.float32).reshape(rows, columns)
    if transposed:
        values = np.asfortranarray(values)
    data, buffer = _constant(values)
    shape = (-(-columns // tile), rows, tile)
    index = (P[1], P[0] * tile + P[2])
    packed = pack(data, buffer, Packing(DType.FLOAT32, shape, P[:3], index))
    np.testing.assert_array_equal(packed.view(np.float32).reshape(shape), _reference(values, shape, index))


def test_split_and_reversed_axes() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    data, buffer = _constant(values)
    index = (FloorDiv(P[0], 6), 5 - Mod(P[0], 6))
    packed = pack(data, buffer, Packing(DType.FLOAT32, (30,), P[:1], index))
    np.testing.assert_array_equal(packed.view(np.float32), _reference(values, (30,), index))


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.BFLOAT16])
def test_every_dtype_keeps_its_bytes(dtype: DType) -> None:
    values = np.arange(8).astype(np.dtype(dtype.value))
    data, buffer = _constant(values, dtype)
    packed = pack(data, buffer, Packing(dtype, (8,), P[:1], (7 - P[0],)))
    assert packed.tobytes() == values[::-1].tobytes()


def test_a_constant_without_elements_packs_to_zeros() -> None:
    data, buffer = _constant(np.zeros((0, 3), np.float32))
    packed = pack(data, buffer, Packing(DType.FLOAT32, (2, 3), P[:2], (P[0], P[1])))
    assert packed.tobytes() == bytes(24)


def test_bfloat16_rounds_to_nearest_even_and_widens_exactly() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, np.inf, np.nan], np.float32)
    data, buffer = _constant(values)
    narrow = pack(data, buffer, Packing(DType.BFLOAT16, (5,), P[:1], (P[0],))).view(np.uint16)
    # 1 + 2⁻⁸ lies halfway and goes to the even 1, 1 + 3·2⁻⁸ to the even 1 + 2⁻⁶.
    assert narrow.tolist() == [0x3F80, 0x3F80, 0x3F82, 0x7F80, 0x7FC0]
    half = Buffer("w", DType.BFLOAT16, buffer.shape, buffer.strides, Role.CONSTANT)
    wide = pack(ConstantData("w", narrow.view(np.uint8)), half, Packing(DType.FLOAT32, (5,), P[:1], (P[0],)))
    np.testing.assert_array_equal(wide.view(np.uint32), narrow.astype(np.uint32) << 16)


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(InternalError, match="cannot be evaluated"):
        evaluate(sympy.Function("f")(P[0], P[1]), {P[0]: np.arange(2), P[1]: np.arange(2)})
