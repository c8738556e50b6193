"""Dynamic sizes are arguments of the kernel: one text for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import sympy
import torch

from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import contiguous_strides, size_symbol
from mkwrap.ir.nodes import Axis, Buffer, Nest, Role
from mkwrap.stages import Binary, Kernel, SizeArgument
from mkwrap.toolchain.cubin import compile_source
from tests.python.nests import kernel
from tests.python.triton.emulate import run
from tests.python.triton.nests import F32, H100, I0, R0
from tests.python.triton.oracle import sources

ROWS, LENGTH = size_symbol("s0"), size_symbol("s1")


def symbolic_softmax(length: sympy.Expr) -> Kernel:
    body = BodyBuilder()
    x = body.load("arg0", F32, (I0, R0))
    (top,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, top))
    body.store("arg1", (I0, R0), body.compute("div", e, body.reduce("sum", e)[0]))
    nest = Nest("softmax", (Axis(I0, ROWS),), (Axis(R0, length),), body.body())
    shape = (ROWS, length)
    geometry = [Buffer(name, F32, shape, contiguous_strides(shape), Role.INPUT) for name in ("arg0", "arg1")]
    return kernel(nest, geometry[:1], geometry[1:])


def symbolic_double() -> Kernel:
    body = BodyBuilder()
    x = body.load("arg0", F32, (I0, R0))
    body.store("arg1", (R0, I0), body.compute("add", x, x))
    nest = Nest("double", (Axis(I0, ROWS), Axis(R0, LENGTH)), (), body.body())
    there, back = (ROWS, LENGTH), (LENGTH, ROWS)
    reads = [Buffer("arg0", F32, there, contiguous_strides(there), Role.INPUT)]
    return kernel(nest, reads, [Buffer("arg1", F32, back, contiguous_strides(back), Role.OUTPUT)])


@pytest.mark.parametrize("rows", [1, 7])
def test_dynamic_rows_have_persistent_and_looped_variants(rows: int, tmp_path: Path) -> None:
    seen = set()
    for source in sources(symbolic_softmax(sympy.Integer(60)), H100, most=2):
        x = torch.randn(rows * 60)
        got = {0: x, 1: torch.empty(rows * 60)}
        run(source, got, tmp_path, {ROWS: rows})
        torch.testing.assert_close(got[1].view(rows, 60), torch.softmax(x.view(rows, 60), 1))
        assert SizeArgument(ROWS, DType.INT32) in source.launches[0].args
        seen.add(source.variant.template)
    assert seen == {"persistent", "looped"}


@pytest.mark.parametrize("length", [1, 100, 3000])
def test_dynamic_rows_of_dynamic_length_are_looped(length: int, tmp_path: Path) -> None:
    case = symbolic_softmax(LENGTH)
    assert {source.variant.template for source in sources(case, H100)} == {"looped"}
    for source in sources(case, H100, most=1):
        x = torch.randn(3 * length)
        got = {0: x, 1: torch.empty(3 * length)}
        run(source, got, tmp_path, {ROWS: 3, LENGTH: length})
        torch.testing.assert_close(got[1].view(3, length), torch.softmax(x.view(3, length), 1))


def test_dynamic_transposes(tmp_path: Path) -> None:
    seen = set()
    for source in sources(symbolic_double(), H100, most=1):
        x = torch.randn(33 * 20)
        got = {0: x, 1: torch.empty(33 * 20)}
        run(source, got, tmp_path, {ROWS: 33, LENGTH: 20})
        assert torch.equal(got[1].view(20, 33), 2 * x.view(33, 20).t())
        seen.add(source.variant.template)
    assert "pointwise" in seen


def test_dynamic_sizes_compile_without_a_gpu() -> None:
    for case in (symbolic_softmax(LENGTH), symbolic_double()):
        for source in sources(case, H100, most=1):
            assert isinstance(compile_source(source, H100), Binary)
