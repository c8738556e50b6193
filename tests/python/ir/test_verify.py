"""The verifier accepts legal nests and programs, and names the rule an illegal one breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sympy

from mkwrap.errors import VerifyError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol, contiguous_strides
from mkwrap.ir.nodes import (
    Axis,
    BoundsCheck,
    Buffer,
    Compute,
    Constant,
    IndexValue,
    Instruction,
    Load,
    Nest,
    Reduce,
    Role,
    Store,
)
from mkwrap.ir.verify import verify
from mkwrap.ir.verify_program import verify_program
from mkwrap.stages import ConstantData, InputSpec, OutputKind, OutputSpec, Program

F32, F16, I64, BOOL = DType.FLOAT32, DType.FLOAT16, DType.INT64, DType.BOOL
I0, R = axis_symbol("i0"), axis_symbol("r0")
N, M = sympy.Integer(4), sympy.Integer(8)


def buffer(name: str, dtype: DType, *shape: sympy.Expr, role: Role = Role.TEMPORARY) -> Buffer:
    return Buffer(name, dtype, shape, contiguous_strides(shape), role)


BUFFERS = {
    b.name: b
    for b in (
        buffer("x", F32, N, M, role=Role.INPUT),
        buffer("j", I64, N, role=Role.INPUT),
        buffer("h", F16, N, role=Role.INPUT),
        buffer("w", F32, M, role=Role.CONSTANT),
        buffer("t", F32, N),
        buffer("u", F32, N, M),
        buffer("out", F32, N, role=Role.OUTPUT),
    )
}


def nest(*body: Instruction, name: str = "n0") -> Nest:
    return Nest(name, (Axis(I0, N),), (Axis(R, M),), body)


X, V = Load("x", F32, "x", (I0, R)), Load("v", F32, "w", (R,))
SUM = Reduce(("s",), (F32,), "sum", ("x",))
STORE = Store("t", (I0,), "s")


def softmax_like() -> Nest:
    b = BodyBuilder()
    x = b.load("x", F32, (I0, R))
    (top,) = b.reduce("maximum", x)
    e = b.compute("exp", b.compute("sub", x, top))
    (total,) = b.reduce("sum", e)
    b.store("u", (I0, R), b.compute("div", e, total))
    b.store("t", (I0,), total)
    return nest(*b.body())


def gather() -> Nest:
    b = BodyBuilder()
    at = b.bounds_check(b.load("j", I64, (I0,)), M)
    b.store("u", (I0, R), b.load("w", F32, (at,)))
    return nest(*b.body())


@pytest.mark.parametrize("legal", [nest(X, SUM, STORE), softmax_like(), gather(), nest()])
def test_legal_nests_pass(legal: Nest) -> None:
    verify(legal, BUFFERS)


def test_a_masked_load_may_leave_its_buffer_where_the_mask_is_false() -> None:
    place, limit = IndexValue("p", I64, R), Constant("c", I64, 4)
    mask = Compute("m", BOOL, "lt", ("p", "c"))
    load = Load("a", F32, "w", (R * 2,), "m")
    verify(nest(place, limit, mask, load, Store("u", (I0, R), "a")), BUFFERS)


ILLEGAL: list[tuple[str, Nest, str]] = [
    ("ssa", nest(X, X), "x is defined twice"),
    ("ssa", nest(SUM, X), "x is used before it is defined"),
    ("ssa", nest(Load("i0", F32, "w", (R,))), "i0 is the name of an axis"),
    ("axes", Nest("n0", (Axis(I0, N), Axis(I0, N)), (), ()), "same symbol"),
    ("axes", Nest("n0", (Axis(I0, N), Axis(R, I0)), (), ()), "not made of sizes"),
    ("symbols", nest(Load("a", F32, "w", (axis_symbol("q"),))), "q is no axis"),
    ("symbols", nest(V, Load("a", F32, "w", (axis_symbol("v"),))), "float32, not int64"),
    (
        "symbols",
        nest(X, Load("p", I64, "j", (I0,)), BoundsCheck("k", "p", N), Store("u", (axis_symbol("k"), R), "x")),
        "depends on k",
    ),
    ("buffers", nest(Load("a", F32, "nowhere", (R,))), "nowhere is unknown"),
    ("buffers", nest(V, Store("w", (R,), "v")), "constant w is written"),
    ("ranks", nest(Load("a", F32, "x", (I0,))), "1 indices into x of rank 2"),
    ("dtypes", nest(Load("a", I64, "w", (R,))), "loads w as int64"),
    ("dtypes", nest(Load("a", I64, "j", (I0,)), Store("t", (I0,), "a")), "is stored into t"),
    ("dtypes", nest(Constant("c", F32, 1)), "no float32"),
    ("dtypes", nest(Constant("c", DType.UINT8, -1)), "no uint8"),
    ("dtypes", nest(Constant("c", I64, True)), "no int64"),
    ("dtypes", nest(X, Compute("y", F32, "add", ("x",))), "1 arguments instead of 2"),
    ("dtypes", nest(X, Compute("y", F32, "frobnicate", ("x",))), "no op frobnicate"),
    ("dtypes", nest(X, Compute("y", F32, "lt", ("x", "x"))), "the result is bool"),
    ("dtypes", nest(X, Compute("y", F32, "bitnot", ("x",))), "bool or integer"),
    ("dtypes", nest(Load("p", I64, "j", (I0,)), Compute("y", I64, "exp", ("p",))), "float32 or float64"),
    ("dtypes", nest(Load("p", F16, "h", (I0,)), Compute("y", F16, "add", ("p", "p"))), "one dtype"),
    ("dtypes", nest(X, Load("p", I64, "j", (I0,)), Compute("y", F32, "add", ("x", "p"))), "one dtype"),
    ("dtypes", nest(X, Compute("y", F32, "where", ("x", "x", "x"))), "bool, then two"),
    ("dtypes", nest(X, Load("a", F32, "w", (R,), "x")), "mask x is not bool"),
    ("dtypes", nest(X, BoundsCheck("k", "x", N)), "checks x of float32"),
    ("dtypes", nest(X, Reduce(("s",), (F32,), "argmax", ("x",))), "argmax gives"),
    ("dtypes", nest(X, Reduce(("s",), (F32,), "median", ("x",))), "no reduction median"),
    ("bounds", nest(Load("a", F32, "w", (R + 1,))), "leaves 0 … 7 of w"),
    ("bounds", nest(Load("a", F32, "w", (R - 1,))), "leaves"),
    ("bounds", nest(Load("a", F32, "t", (R,))), "leaves"),
    ("bounds", nest(Load("a", F32, "w", (sympy.Integer(8),))), "leaves"),
    ("bounds", nest(X, Store("t", (I0 + 1,), "x")), "leaves"),
    (
        "bounds",
        nest(Load("p", I64, "j", (I0,)), BoundsCheck("k", "p", M), Load("a", F32, "t", (axis_symbol("k"),))),
        "k",
    ),
    ("levels", nest(X, Store("t", (I0,), "x")), "x varies along a reduction axis"),
    ("levels", nest(X, SUM, Compute("y", F32, "add", ("x", "s")), Store("t", (I0,), "y")), "y varies"),
]


@pytest.mark.parametrize(("rule", "illegal", "message"), ILLEGAL, ids=[f"{r}: {m}" for r, _, m in ILLEGAL])
def test_illegal_nests_are_refused_by_rule(rule: str, illegal: Nest, message: str) -> None:
    with pytest.raises(VerifyError, match=f"nest n0 breaks the rule '{rule}'") as caught:
        verify(illegal, BUFFERS)
    assert message in str(caught.value)


def test_nothing_is_out_of_bounds_in_a_nest_that_never_runs() -> None:
    never = Nest("n0", (Axis(I0, sympy.Integer(0)),), (), (Load("a", F32, "t", (sympy.Integer(9),)),))
    verify(never, BUFFERS)


def pointwise(name: str, source: str, target: str, index: sympy.Expr = I0) -> Nest:
    body = (Load("v0", F32, source, (index,)), Store(target, (I0,), "v0"))
    return Nest(name, (Axis(I0, N),), (), body)


def program() -> Program:
    a = buffer("a", F32, N, role=Role.INPUT)
    buffers = {b.name: b for b in (a, buffer("c", F32, N, role=Role.CONSTANT), BUFFERS["t"], BUFFERS["out"])}
    spec = InputSpec("a", "args[0]", F32, a.shape, a.strides, 16, mutated=True)
    return Program(
        buffers=buffers,
        nests=(pointwise("n0", "a", "t"), pointwise("n1", "t", "out"), pointwise("n2", "c", "a")),
        inputs=(spec,),
        outputs=(OutputSpec(OutputKind.BUFFER, "out", F32, (N,), (sympy.Integer(1),)),),
        constants={"c": ConstantData("c", None)},  # type: ignore[arg-type]
    )


def without_mutation(p: Program) -> Program:
    return replace(p, inputs=(replace(p.inputs[0], mutated=False),))


BROKEN: list[tuple[str, Callable[[Program], Program], str]] = [
    ("names", lambda p: replace(p, nests=(p.nests[0], replace(p.nests[1], name="n0"))), "same name"),
    ("names", lambda p: replace(p, constants={}), "constant buffers"),
    ("names", lambda p: replace(p, inputs=()), "input buffers"),
    ("names", lambda p: replace(p, outputs=()), "output buffers"),
    ("names", lambda p: replace(p, buffers={**p.buffers, "z": p.buffers["t"]}), "listed as z"),
    (
        "names",
        lambda p: replace(p, outputs=(*p.outputs, OutputSpec(OutputKind.INPUT_VIEW, "t"))),
        "view of t, which is no input",
    ),
    ("writers", lambda p: replace(p, nests=(*p.nests, pointwise("n3", "c", "out"))), "written by n1, n3"),
    ("writers", lambda p: replace(p, nests=p.nests[:1]), "output out is written by no nest"),
    ("writers", lambda p: replace(p, nests=p.nests[1:]), "temporary t is written by no nest"),
    ("writers", without_mutation, "not a mutated one"),
    ("order", lambda p: replace(p, nests=(p.nests[1], p.nests[0], p.nests[2])), "reads t before it is written"),
    ("order", lambda p: replace(p, nests=(p.nests[2], *p.nests[:2])), "after its new value was written"),
    ("order", lambda p: replace(p, nests=(*p.nests[:2], pointwise("n2", "a", "a", 3 - I0))), "at another index"),
]


def test_a_legal_program_passes() -> None:
    verify_program(program())


@pytest.mark.parametrize(("rule", "change", "message"), BROKEN, ids=[f"{r}: {m}" for r, _, m in BROKEN])
def test_illegal_programs_are_refused_by_rule(rule: str, change: Callable[[Program], Program], message: str) -> None:
    with pytest.raises(VerifyError, match=f"the program breaks the rule '{rule}'") as caught:
        verify_program(change(program()))
    assert message in str(caught.value)
