"""Pointwise Triton kernels under Triton's interpreter against the numpy oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sympy

from mkwrap.codegen.triton import LANGUAGE
from mkwrap.codegen.triton.indexing import expr_text, over_position
from mkwrap.errors import IndexRangeError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod, axis_symbol
from mkwrap.ir.nodes import Nest
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.emulate import run
from tests.python.triton.nests import BF16, F16, F32, H100, I0, I1, I2, padded_gather, reduction, transpose
from tests.python.triton.oracle import check, fill, sources


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_transposes_have_flat_and_plane_variants(dtype: DType, tmp_path: Path) -> None:
    assert check(transpose(33, 70, dtype), tmp_path, rtol=1e-2) == {"plane", "pointwise"}


def test_masked_loads_and_clamped_indices(tmp_path: Path) -> None:
    case = padded_gather(19, 11)
    memory = fill(case)
    memory[1] %= 7
    assert check(case, tmp_path, memory) == {"pointwise"}
    memory[1][:] = 10**6
    (source,) = sources(case, H100, most=1)
    # Out of range: the result is unspecified, but no memory outside the table may be read.
    with pytest.raises(IndexRangeError):
        run(source, memory, tmp_path)
    assert np.isfinite(memory[2].numpy()).all()


@pytest.mark.parametrize("count", [0, 1, 31, 4097])
def test_any_number_of_points_including_none(count: int, tmp_path: Path) -> None:
    body = BodyBuilder()
    body.store("arg1", (I0,), body.compute("ge", body.load("arg0", F32, (I0,)), body.constant(0, F32)))
    case = kernel(
        Nest("sign", axes((I0, count)), (), body.body()),
        [buffer("arg0", F32, [count])],
        [buffer("arg1", DType.BOOL, [count])],
    )
    assert check(case, tmp_path) == {"pointwise"}
    assert all(source.launches[0].grid[0] >= 1 for source in sources(case, H100))


def test_broadcasts_stride_zero_and_channels_last(tmp_path: Path) -> None:
    body = BodyBuilder()
    x, bias = body.load("arg0", F32, (I0, I1, I2)), body.load("arg1", F32, (I1,))
    scale = body.load("arg2", F32, (sympy.Integer(0), I1))
    body.store("arg3", (I0, I1, I2), body.compute("mul", body.compute("add", x, bias), scale))
    nest = Nest("affine", axes((I0, 3), (I1, 5), (I2, 28)), (), body.body())
    last = [5 * 28, 1, 5]
    reads = [buffer("arg0", F32, [3, 5, 28], last), buffer("arg1", F32, [5]), buffer("arg2", F32, [4, 5], [0, 1])]
    case = kernel(nest, reads, [buffer("arg3", F32, [3, 5, 28], last)])
    assert check(case, tmp_path) == {"pointwise"}
    # Walking the axes by their strides makes channels-last accesses consecutive.
    assert "tl.load(arg0 + (x)" in next(sources(case, H100)).text


def test_in_place_update_reads_before_it_writes(tmp_path: Path) -> None:
    body = BodyBuilder()
    body.store("arg0", (I0,), body.compute("mul", body.load("arg0", F32, (I0,)), body.constant(2, F32)))
    case = kernel(Nest("double", axes((I0, 100)), (), body.body()), [], [], [buffer("arg0", F32, [100])])
    assert check(case, tmp_path) == {"pointwise"}


def test_c29_rows_above_65535_stay_on_grid_x() -> None:
    body = BodyBuilder()
    body.store("arg1", (I0, I1), body.compute("neg", body.load("arg0", F32, (I0, I1))))
    shape = [2**20, 4096]
    nest = Nest("large", axes((I0, shape[0]), (I1, shape[1])), (), body.body())
    case = kernel(nest, [buffer("arg0", F32, shape)], [buffer("arg1", F32, shape)])
    for source in sources(case, H100):
        x, y, z = source.launches[0].grid
        assert (y, z) == (1, 1)
        assert 65535 < int(x) <= 2**31 - 1


def test_c28_more_than_2_to_31_elements_take_64_bit_indices() -> None:
    body = BodyBuilder()
    body.store("arg1", (I0,), body.compute("neg", body.load("arg0", F32, (I0,))))
    for count, wide in ((2**31 + 5, True), (2**30, False)):
        nest = Nest("large", axes((I0, count)), (), body.body())
        case = kernel(nest, [buffer("arg0", F32, [count])], [buffer("arg1", F32, [count])])
        assert ("tl.int64" in next(sources(case, H100)).text) is wide


@pytest.mark.parametrize("op", ["sum", "argmax"])
@pytest.mark.parametrize(("rows", "length"), [(1, 2**31 + 5), (2**24 + 1, 130), (130, 2**24 + 1)])
@pytest.mark.parametrize("outer", [False, True])
def test_c28_reductions_of_more_than_2_to_31_elements(op: str, rows: int, length: int, outer: bool) -> None:
    found = list(sources(reduction(op, rows, length, DType.INT8, outer), H100))
    assert found
    assert all("tl.program_id(0).to(tl.int64)" in source.text for source in found)


def test_equal_kernels_give_equal_text_and_entries() -> None:
    first, second = (list(sources(transpose(64, 70), H100)) for _ in range(2))
    assert [s.text for s in first] == [s.text for s in second]
    entries = [launch.entry for s in first for launch in s.launches]
    assert len(set(entries)) == len(entries)


def test_spaces_are_small_and_without_doubles() -> None:
    for case in (transpose(64, 70), transpose(4096, 4096, BF16), padded_gather(19, 11)):
        for template in LANGUAGE.templates:
            space = template.space(case, H100)
            assert len(space) == len(set(space)) <= 8


def test_neighbouring_axes_that_fit_become_one() -> None:
    x = axis_symbol("x")
    ranges = {x: (sympy.Integer(0), sympy.Integer(3 * 5 * 28 - 1))}
    dims = axes((I0, 3), (I1, 5), (I2, 28))
    assert over_position(I0 * 140 + I1 * 28 + I2, dims, x, ranges) == x
    assert over_position(I1, dims, x, ranges) == Mod(FloorDiv(x, 28), 5)
    assert over_position(I0 * 28 + I2, dims, x, ranges) == FloorDiv(x, 140) * 28 + Mod(x, 28)


@pytest.mark.parametrize("shift", [0, -7])
def test_division_of_negative_positions_rounds_down(shift: int) -> None:
    i = axis_symbol("i")
    expr = FloorDiv(i + shift, sympy.Integer(4)) * 100 + Mod(i + shift, sympy.Integer(4))
    text = expr_text(expr, {i: "i"}, {i: (sympy.Integer(0), sympy.Integer(20))})
    for value in range(21):
        # Python with C's truncation: what Triton computes.
        assert eval(text, {"i": _Truncating(value)}).value == (value + shift) // 4 * 100 + (value + shift) % 4


class _Truncating:
    """An integer whose `//` and `%` truncate."""

    def __init__(self, value: int) -> None:
        self.value = value

    def _of(self, other: object) -> int:
        return other.value if isinstance(other, _Truncating) else int(str(other))

    def __add__(self, other: object) -> _Truncating:
        return _Truncating(self.value + self._of(other))

    def __sub__(self, other: object) -> _Truncating:
        return _Truncating(self.value - self._of(other))

    def __mul__(self, other: object) -> _Truncating:
        return _Truncating(self.value * self._of(other))

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: object) -> _Truncating:
        quotient = abs(self.value) // abs(self._of(other))
        return _Truncating(quotient if (self.value < 0) == (self._of(other) < 0) else -quotient)

    def __mod__(self, other: object) -> _Truncating:
        return _Truncating(self.value - (self // other).value * self._of(other))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_c20_accesses_of_no_points_stay_masked(shape: tuple[int, int]) -> None:
    body = BodyBuilder()
    body.store("arg1", (I0, I1), body.compute("neg", body.load("arg0", F32, (I0, I1))))
    nest = Nest("none", axes((I0, shape[0]), (I1, shape[1])), (), body.body())
    for source in sources(kernel(nest, [buffer("arg0", F32, shape)], [buffer("arg1", F32, shape)]), H100):
        assert source.text.count("_mask, other=0)") == 1
        assert source.text.count("_mask)\n") == 1
