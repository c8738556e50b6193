"""Sizes that are symbols become run-time arguments: one compiled kernel serves several of them."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from tests.python.cpp.running import F32, I, R, build, call, compare, copies, entry_of, target, variants_of
from tests.python.nests import kernel

from mkwrap.codegen.cpp import pointwise, reduction
from mkwrap.codegen.template import Template
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import contiguous_strides, size_symbol
from mkwrap.ir.interpret import allocate, interpret_nest
from mkwrap.ir.nodes import Axis, Buffer, Nest, Role
from mkwrap.stages import Kernel, SizeArgument

pytestmark = pytest.mark.toolchain
ROWS, COLUMNS = size_symbol("s0"), size_symbol("s1")


def matrix(name: str) -> Buffer:
    shape = (ROWS, COLUMNS)
    return Buffer(name, F32, shape, contiguous_strides(shape), Role.INPUT)


def doubled() -> Kernel:
    body = BodyBuilder()
    body.store("arg1", (I, R), body.compute("mul", body.load("arg0", F32, (I, R)), body.constant(2, F32)))
    nest = Nest("doubled", (Axis(I, ROWS), Axis(R, COLUMNS)), (), body.body())
    return kernel(nest, [matrix("arg0")], [matrix("arg1")])


def softmax(dim: int) -> Kernel:
    body = BodyBuilder()
    x = body.load("arg0", F32, (I, R) if dim else (R, I))
    (largest,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, largest))
    (total,) = body.reduce("sum", e)
    body.store("arg1", (I, R) if dim else (R, I), body.compute("div", e, total))
    outer, inner = (ROWS, COLUMNS) if dim else (COLUMNS, ROWS)
    nest = Nest("softmax", (Axis(I, outer),), (Axis(R, inner),), body.body())
    return kernel(nest, [matrix("arg0")], [matrix("arg1")])


@pytest.mark.parametrize(
    ("template", "k"),
    [(pointwise.TEMPLATE, doubled()), (reduction.TEMPLATE, softmax(1)), (reduction.TEMPLATE, softmax(0))],
    ids=["pointwise", "rows", "columns"],
)
def test_one_kernel_serves_all_sizes(template: Template, k: Kernel) -> None:
    on = target()
    for variant in variants_of(template, k, on):
        binary = build(template, k, variant, on)
        function = entry_of(binary)
        symbols = [a.expr for a in binary.source.launches[0].args if isinstance(a, SizeArgument)]
        assert set(symbols) == {ROWS, COLUMNS}
        for rows, columns in ((1, 1), (5, 37), (70, 16)):
            sizes = {ROWS: rows, COLUMNS: columns}
            memory = {p.buffer.name: allocate(p.buffer, sizes) for p in k.parameters}
            memory["arg0"][...] = np.random.default_rng(0).standard_normal((rows, columns))
            expected = copies(memory)
            interpret_nest(k.nest, expected, sizes)
            values = [int(symbol.xreplace({s: sympy.Integer(n) for s, n in sizes.items()})) for symbol in symbols]
            assert call(function, binary.source, k, memory, values) == 0
            compare(memory["arg1"], expected["arg1"], 2e-6, f"{variant.label} {rows}×{columns}")
