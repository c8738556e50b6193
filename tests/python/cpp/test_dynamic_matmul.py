"""Matrix products whose rows, columns, depth or batch are size symbols."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import sympy
from tests.python.cpp.dynamic import check_sizes, made, proposed
from tests.python.cpp.running import F32, I, J, K, R, target
from tests.python.nests import kernel

from mkwrap.codegen.cpp import matmul, matmul_dot
from mkwrap.codegen.template import Template
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import FloorDiv, Mod, size_symbol
from mkwrap.ir.nodes import Axis, Expr, Nest
from mkwrap.stages import Kernel

pytestmark = pytest.mark.toolchain
B, S = size_symbol("batch"), size_symbol("seq")
TEMPLATES = pytest.mark.parametrize("template", [matmul.TEMPLATE, matmul_dot.TEMPLATE], ids=lambda t: t.name)


@dataclass(frozen=True)
class Shape:
    """C[z, i, j] = Σ A[z, i, r] · B[z, r, j] + bias[j] in float32; operands transposed where it says so."""

    batch: Expr | int
    m: Expr | int
    n: Expr | int
    k: Expr | int
    a_across: bool = False
    b_across: bool = False
    constant: bool = False

    @property
    def kernel(self) -> Kernel:
        batch, m, n, k = (sympy.sympify(size) for size in (self.batch, self.m, self.n, self.k))
        body = BodyBuilder()
        a = body.load("a", F32, (K, R, I) if self.a_across else (K, I, R))
        b = body.load("b", F32, (R, J) if self.constant else (K, J, R) if self.b_across else (K, R, J))
        (value,) = body.reduce("dot", a, b)
        body.store("c", (K, I, J), body.compute("add", value, body.load("bias", F32, (J,))))
        nest = Nest("product", (Axis(K, batch), Axis(I, m), Axis(J, n)), (Axis(R, k),), body.body())
        lines = made("a", batch, k, m) if self.a_across else made("a", batch, m, k)
        columns = made("b", k, n) if self.constant else made("b", *((batch, n, k) if self.b_across else (batch, k, n)))
        result = kernel(nest, [lines, columns, made("bias", n)], [made("c", batch, m, n)])
        if not self.constant:
            return result
        return replace(result, parameters=tuple(replace(p, constant=p.buffer.name == "b") for p in result.parameters))


POINTS = ({B: 2, S: 64}, {B: 16, S: 200})
SIZES = tuple(
    {B: batch, S: seq} for batch, seq in ((1, 1), (1, 0), (0, 5), (2, 8), (3, 31), (1, 64), (5, 77), (2, 130))
)
SHAPES = {
    "linear": Shape(1, B * S, 96, 40, constant=True),
    "rows": Shape(B, S, 64, 33, constant=True),
    "scores": Shape(B, S, S, 16, b_across=True),
    "context": Shape(B, S, 16, S),
    "columns": Shape(1, 24, S, 40),
    "columns of rows": Shape(B, S, 2 * S, 8),
    "gradient": Shape(1, 24, 40, B * S, a_across=True),
    "a across": Shape(B, S, 40, S, a_across=True, b_across=True),
}


@TEMPLATES
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_one_text_is_right_at_all_sizes(template: Template, shape: Shape) -> None:
    for source in check_sizes(template, shape.kernel, POINTS, SIZES, tiles=False):
        assert not source.guards


def heads() -> Kernel:
    """Rows are positions of a batch of sequences, the result lies by heads of 32 columns."""
    body = BodyBuilder()
    (value,) = body.reduce("dot", body.load("a", F32, (I, R)), body.load("b", F32, (R, J)))
    body.store("c", (FloorDiv(I, S), FloorDiv(J, 32), Mod(I, S), Mod(J, 32)), value)
    nest = Nest("heads", (Axis(I, B * S), Axis(J, sympy.Integer(96))), (Axis(R, sympy.Integer(40)),), body.body())
    return kernel(nest, [made("a", B * S, 40), made("b", 40, 96)], [made("c", B, 3, S, 32)])


@TEMPLATES
def test_rows_split_by_a_size_are_two_axes(template: Template) -> None:
    for source in check_sizes(template, heads(), POINTS, SIZES, tiles=False):
        assert "scatter" not in source.text


@TEMPLATES
def test_params_do_not_tell_the_point(template: Template) -> None:
    """A choice made at one point is one at every other: nothing of it is the point's own size."""
    k = SHAPES["linear"].kernel
    params = proposed(template, k, ({B: 2, S: 97},), target())
    assert not any(value in (97, 194, 40, 96) for choice in params for _, value in choice)
