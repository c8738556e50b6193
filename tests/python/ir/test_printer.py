"""Nests and programs as text: every instruction has one spelling, and the text does not depend on the run."""

from __future__ import annotations

import sympy

from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod, axis_symbol, contiguous_strides
from mkwrap.ir.nodes import Axis, Buffer, Nest, Origin, Role
from mkwrap.ir.printer import print_buffer, print_nest, print_program
from mkwrap.stages import OutputKind, OutputSpec, Program

I0, J, R = axis_symbol("i0"), axis_symbol("i1"), axis_symbol("r0")
F32, I64 = DType.FLOAT32, DType.INT64


def example() -> Nest:
    b = BodyBuilder()
    inside = b.compute("lt", b.index_value(I0 + J), b.constant(3, I64))
    at = b.bounds_check(b.load("j", I64, (I0,), inside), sympy.Integer(9), inside)
    x = b.load("x", F32, (at, FloorDiv(R, sympy.Integer(2)), Mod(R, sympy.Integer(2))))
    value, place = b.reduce("argmax", x)
    b.store("t0", (I0, J), b.compute("mul", value, b.constant(0.5, F32)))
    b.store("t1", (I0, J), b.cast(place, DType.INT32))
    axes = (Axis(I0, sympy.Integer(8)), Axis(J, sympy.Integer(4)))
    origins = (Origin("aten.argmax.default", "model.py:3: y = x.argmax()"), Origin("output", ""))
    return Nest("n0", axes, (Axis(R, sympy.Integer(16)),), b.body(), origins)


EXPECTED = """\
nest n0 [i0: 8, i1: 4 | r0: 16]
  from aten.argmax.default at model.py:3: y = x.argmax()
  from output
  v0: int64 = index i0 + i1
  v1: int64 = 3
  v2: bool = lt v0, v1
  v3: int64 = load j[i0] if v2
  v4: int64 = check v3 < 9 if v2
  v5: float32 = load x[v4, FloorDiv(r0, 2), Mod(r0, 2)]
  v6: float32, v7: int64 = reduce argmax v5
  v8: float32 = 0.5
  v9: float32 = mul v6, v8
  store t0[i0, i1] = v9
  v10: int32 = cast v7
  store t1[i0, i1] = v10"""


def test_every_instruction_is_spelled() -> None:
    assert print_nest(example()) == EXPECTED


def test_text_is_the_same_every_time() -> None:
    assert print_nest(example()) == print_nest(example())


def test_an_empty_nest_and_a_buffer() -> None:
    assert print_nest(Nest("n1", (), (), ())) == "nest n1 []"
    shape = (sympy.Integer(2), sympy.Integer(3))
    buffer = Buffer("x", DType.BFLOAT16, shape, contiguous_strides(shape), Role.INPUT, alignment=16)
    assert print_buffer(buffer) == "input x: bfloat16[2, 3] strides [3, 1] align 16"


def test_a_program_lists_buffers_nests_and_results() -> None:
    shape = (sympy.Integer(4),)
    x = Buffer("x", F32, shape, contiguous_strides(shape), Role.INPUT, 16)
    out = Buffer("out0", F32, shape, contiguous_strides(shape), Role.OUTPUT)
    b = BodyBuilder()
    b.store("out0", (I0,), b.compute("neg", b.load("x", F32, (I0,))))
    program = Program(
        buffers={"x": x, "out0": out},
        nests=(Nest("n0", (Axis(I0, sympy.Integer(4)),), (), b.body()),),
        inputs=(),
        outputs=(
            OutputSpec(OutputKind.BUFFER, "out0", F32, shape, (sympy.Integer(1),)),
            OutputSpec(OutputKind.INPUT_VIEW, "x", F32, (sympy.Integer(2),), (sympy.Integer(2),), 1),
            OutputSpec(OutputKind.SAME, same_as=0),
            OutputSpec(OutputKind.VALUE, value="label"),
        ),
        constants={},
    )
    assert (
        print_program(program)
        == """\
input x: float32[4] strides [1] align 16
output out0: float32[4] strides [1] align 64

nest n0 [i0: 4]
  v0: float32 = load x[i0]
  v1: float32 = neg v0
  store out0[i0] = v1

return 0: out0
return 1: view of x: float32[2] strides [2] offset 1
return 2: same as 0
return 3: 'label'
"""
    )
