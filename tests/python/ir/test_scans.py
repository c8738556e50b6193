"""Scans and sorts in the IR: the oracle against torch, the text, the rules, and replays under other names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import sympy
import torch

from mkwrap.errors import VerifyError
from mkwrap.ir.analysis import element_level, phases
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_ranges, axis_symbol, contiguous_strides
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.nodes import Axis, Buffer, Combine, Compute, Constant, Instruction, Nest, Role, Scan, Sort, Store
from mkwrap.ir.ops import ASSOCIATIVE, SCANS, SORT_LIMIT
from mkwrap.ir.printer import print_nest
from mkwrap.ir.rewrite import Replay
from mkwrap.ir.verify import verify

I0, R0, R1 = axis_symbol("i0"), axis_symbol("r0"), axis_symbol("r1")
F32, F64, I32, I64, BOOL = DType.FLOAT32, DType.FLOAT64, DType.INT32, DType.INT64, DType.BOOL
NAN, INF = float("nan"), float("inf")

Result = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
TORCH: Mapping[str, Result] = {
    "sum": lambda x: (torch.cumsum(x, 1, dtype=x.dtype),),
    "prod": lambda x: (torch.cumprod(x, 1, dtype=x.dtype),),
    "cummax": lambda x: tuple(torch.cummax(x, 1)),
    "cummin": lambda x: tuple(torch.cummin(x, 1)),
    "logaddexp": lambda x: (torch.logcumsumexp(x, 1),),
}
ROWS = {
    "mixed": [[1.5, -2.0, 0.25, 3.0, 3.0, -1.0], [0.0, -0.0, 0.0, -0.0, 0.0, -0.0]],
    "nan": [[1.0, NAN, 2.0, NAN, 3.0, 4.0], [NAN, 1.0, 5.0, 2.0, 7.0, 5.0]],
    "inf": [[-INF, -INF, 1.0, INF, 2.0, INF], [INF, -INF, 3.0, -INF, 1.0, 0.0]],
    "ties": [[2.0, 2.0, 1.0, 2.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0, 3.0]],
}
LINEAR = Combine(
    left=("a0", "b0"),
    right=("a1", "b1"),
    body=(
        Compute("a", F32, "mul", ("a0", "a1")),
        Compute("scaled", F32, "mul", ("b0", "a1")),
        Compute("b", F32, "add", ("scaled", "b1")),
    ),
    results=("a", "b"),
)
"""Of x → a·x + b, one after the other."""


def row_nest(*body: Instruction, length: int = 6) -> Nest:
    return Nest("n0", (Axis(I0, sympy.Integer(2)),), (Axis(R0, sympy.Integer(length)),), body)


def run(body: BodyBuilder, x: torch.Tensor, results: Mapping[str, torch.dtype]) -> list[torch.Tensor]:
    memory = {"x": x.numpy(), **{name: torch.zeros(x.shape, dtype=dtype).numpy() for name, dtype in results.items()}}
    interpret_nest(row_nest(*body.body(), length=x.shape[1]), memory)
    return [torch.from_numpy(memory[name]) for name in results]


def scanned(op: str, x: torch.Tensor) -> list[torch.Tensor]:
    b = BodyBuilder()
    dtype = DType(str(x.dtype).removeprefix("torch."))
    dests = b.scan(op, b.load("x", dtype, (I0, R0)))
    for k, dest in enumerate(dests):
        b.store(f"y{k}", (I0, R0), dest)
    return run(b, x, {f"y{k}": (x.dtype, torch.int64)[k] for k in range(len(dests))})


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("op", SCANS)
def test_scans_of_floats_are_those_of_eager(op: str, rows: str) -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor(ROWS[rows], dtype=dtype)
        for got, expected in zip(scanned(op, x), TORCH[op](x), strict=True):
            torch.testing.assert_close(got, expected, equal_nan=True)
            assert torch.equal(torch.signbit(got.nan_to_num()), torch.signbit(expected.nan_to_num()))


@pytest.mark.parametrize("op", [name for name, row in SCANS.items() if not row.floats_only])
def test_scans_of_integers_wrap(op: str) -> None:
    for dtype in (torch.int64, torch.int32, torch.int8, torch.uint8):
        x = torch.randint(-100, 100, (2, 40), generator=torch.Generator().manual_seed(0)).to(dtype)
        for got, expected in zip(scanned(op, x), TORCH[op](x), strict=True):
            assert torch.equal(got, expected)


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("op", SCANS)
def test_the_shortest_rows(op: str, length: int) -> None:
    x = torch.full((2, length), 3.0)
    for got, expected in zip(scanned(op, x), TORCH[op](x), strict=True):
        assert torch.equal(got, expected)


def test_two_reduction_axes_are_scanned_in_row_major_order() -> None:
    x = torch.arange(1.0, 13.0).reshape(2, 2, 3)
    b = BodyBuilder()
    (total,) = b.scan("sum", b.load("x", F32, (I0, R0, R1)))
    b.store("y", (I0, R0, R1), total)
    axes = (Axis(R0, sympy.Integer(2)), Axis(R1, sympy.Integer(3)))
    memory = {"x": x.numpy(), "y": np.zeros(x.shape, np.float32)}
    interpret_nest(replace(row_nest(*b.body()), reduction_axes=axes), memory)
    assert torch.equal(torch.from_numpy(memory["y"]), x.reshape(2, 6).cumsum(1).reshape(x.shape))


def test_what_does_not_vary_along_the_row_counts_once_per_element() -> None:
    b = BodyBuilder()
    (count,) = b.scan("sum", b.constant(1, I64))
    b.store("y", (I0, R0), count)
    assert run(b, torch.zeros(2, 6), {"y": torch.int64})[0].tolist() == [[1, 2, 3, 4, 5, 6]] * 2
    assert element_level(row_nest(*b.body())) == {count}


def test_an_associative_scan_combines_in_order() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, -1.0, 0.5, 2.0], [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]])
    b = BodyBuilder()
    value = b.load("x", F32, (I0, R0))
    slopes, offsets = b.scan(ASSOCIATIVE, value, b.compute("add", value, value), combine=LINEAR)
    b.store("a", (I0, R0), slopes)
    b.store("b", (I0, R0), offsets)
    a, shift = run(b, x, {"a": torch.float32, "b": torch.float32})
    expected = [2 * x[:, 0]]
    for k in range(1, 6):
        expected.append(expected[-1] * x[:, k] + 2 * x[:, k])
    torch.testing.assert_close(a, x.cumprod(1))
    torch.testing.assert_close(shift, torch.stack(expected, 1))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_a_sort_is_the_stable_one_of_eager(rows: str, descending: bool) -> None:
    for dtype in (torch.float32, torch.float64, torch.int64, torch.uint8):
        x = torch.tensor(ROWS[rows]).nan_to_num(3.0) if not dtype.is_floating_point else torch.tensor(ROWS[rows])
        x = x.clamp(-50, 50).to(dtype) if not dtype.is_floating_point else x.to(dtype)
        b = BodyBuilder()
        values, places = b.sort(b.load("x", DType(str(dtype).removeprefix("torch.")), (I0, R0)), descending)
        b.store("v", (I0, R0), values)
        b.store("p", (I0, R0), places)
        got = run(b, x, {"v": dtype, "p": torch.int64})
        for result, expected in zip(got, torch.sort(x, stable=True, dim=1, descending=descending), strict=True):
            torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)


def softmax_then_cumsum() -> BodyBuilder:
    b = BodyBuilder()
    e = b.compute("exp", b.load("x", F32, (I0, R0)))
    (total,) = b.reduce("sum", e)
    (share,) = b.scan("sum", b.compute("div", e, total))
    (last,) = b.reduce("maximum", share)
    b.store("y", (I0, R0), b.compute("sub", share, last))
    return b


def test_a_scan_belongs_to_the_walk_of_its_argument() -> None:
    nest = row_nest(*softmax_then_cumsum().body())
    phase = phases(nest)
    total, last = (i.dests[0] for i in nest.body if type(i).__name__ == "Reduce")
    (scan,) = (i for i in nest.body if isinstance(i, Scan))
    assert (phase[total], phase[scan.args[0]], phase[scan.dests[0]], phase[last]) == (1, 1, 1, 2)
    (got,) = run(softmax_then_cumsum(), torch.randn(2, 6), {"y": torch.float32})
    torch.testing.assert_close(got[:, -1], torch.zeros(2))


def test_text() -> None:
    b = BodyBuilder()
    x = b.load("x", F32, (I0, R0))
    value, place = b.scan("cummax", x)
    a, c = b.scan(ASSOCIATIVE, x, value, combine=LINEAR)
    b.store("y", (I0, R0), a)
    b.store("p", (I0, R0), b.sort(c, descending=True)[1])
    assert (
        print_nest(row_nest(*b.body()))
        == """\
nest n0 [i0: 2 | r0: 6]
  v0: float32 = load x[i0, r0]
  v1: float32, v2: int64 = scan cummax v0
  v3: float32, v4: float32 = scan associative v0, v1 by (a0, b0 | a1, b1) { a: float32 = mul a0, a1; \
scaled: float32 = mul b0, a1; b: float32 = add scaled, b1; a, b }
  store y[i0, r0] = v3
  v5: float32, v6: int64 = sort v4 descending
  store p[i0, r0] = v6"""
    )
    assert place == "v2"


def test_equal_scans_are_made_once_and_replay_under_other_names() -> None:
    b = BodyBuilder()
    x = b.load("x", F32, (I0, R0))
    assert b.scan("sum", x) == b.scan("sum", x)
    assert b.scan("sum", x) != b.scan("prod", x)
    assert b.sort(x) == b.sort(x) != b.sort(x, descending=True)
    other = BodyBuilder()
    other.constant(0.0, F32)
    nest = row_nest(*b.body())
    names = Replay(other, {I0: I0, R0: R0}, axis_ranges((*nest.axes, *nest.reduction_axes))).run(nest)
    assert [type(i) for i in other.body()[1:]] == [type(i) for i in b.body()]
    assert all(names[name] != name for name in names)


def buffers() -> dict[str, Buffer]:
    shape = (sympy.Integer(2), sympy.Integer(6))
    made = {}
    for name, dtype in {"x": F32, "h": DType.FLOAT16, "k": I32, "y": F32, "p": I64}.items():
        made[name] = Buffer(name, dtype, shape, contiguous_strides(shape), Role.TEMPORARY)
    return made


def loaded(*rest: Instruction) -> Nest:
    b = BodyBuilder()
    for name in ("x", "h", "k"):
        b.load(name, buffers()[name].dtype, (I0, R0))
    b.constant(True, BOOL)
    return row_nest(*b.body(), *rest)


X, H, K, T = "v0", "v1", "v2", "v3"
COMBINE = Combine(("a",), ("b",), (Compute("c", F32, "add", ("a", "b")),), ("c",))
LEGAL = [
    Scan(("s",), (F32,), "sum", (X,)),
    Scan(("s", "at"), (I32, I64), "cummin", (K,)),
    Scan(("s",), (F32,), "logaddexp", (X,)),
    Scan(("s",), (F32,), ASSOCIATIVE, (X,), COMBINE),
    Scan(
        ("s",), (BOOL,), ASSOCIATIVE, (T,), Combine(("a",), ("b",), (Compute("c", BOOL, "bitor", ("a", "b")),), ("c",))
    ),
    Sort(("s", "at"), (F32, I64), X),
]
ILLEGAL = {
    "unknown op": (Scan(("s",), (F32,), "median", (X,)), "dtypes"),
    "half": (Scan(("s",), (DType.FLOAT16,), "sum", (H,)), "dtypes"),
    "bool": (Scan(("s",), (BOOL,), "sum", (T,)), "dtypes"),
    "integers have no exponentials": (Scan(("s",), (I32,), "logaddexp", (K,)), "dtypes"),
    "result": (Scan(("s",), (I64,), "sum", (K,)), "dtypes"),
    "no position": (Scan(("s",), (F32,), "cummax", (X,)), "dtypes"),
    "combine without need": (Scan(("s",), (F32,), "sum", (X,), COMBINE), "scans"),
    "no combine": (Scan(("s",), (F32,), ASSOCIATIVE, (X,)), "scans"),
    "combine of other width": (Scan(("s", "t"), (F32, F32), ASSOCIATIVE, (X, X), COMBINE), "scans"),
    "combine sees the nest": (
        Scan(("s",), (F32,), ASSOCIATIVE, (X,), replace(COMBINE, body=(Compute("c", F32, "add", ("a", X)),))),
        "ssa",
    ),
    "combine of other dtype": (
        Scan(("s",), (F32,), ASSOCIATIVE, (X,), replace(COMBINE, body=(Constant("c", F64, 1.0),))),
        "dtypes",
    ),
    "undefined": (Scan(("s",), (F32,), "sum", ("nothing",)), "ssa"),
    "sorted half": (Sort(("s", "at"), (DType.FLOAT16, I64), H), "dtypes"),
    "sorted truth": (Sort(("s", "at"), (BOOL, I64), T), "dtypes"),
    "narrow position": (Sort(("s", "at"), (F32, I32), X), "dtypes"),
}


@pytest.mark.parametrize("instruction", LEGAL, ids=lambda i: f"{type(i).__name__}-{getattr(i, 'op', '')}")
def test_legal_instructions(instruction: Instruction) -> None:
    verify(loaded(instruction), buffers())


@pytest.mark.parametrize("case", ILLEGAL)
def test_illegal_instructions(case: str) -> None:
    instruction, rule = ILLEGAL[case]
    with pytest.raises(VerifyError, match=f"'{rule}'"):
        verify(loaded(instruction), buffers())


def test_a_scan_is_stored_per_element_and_needs_a_row() -> None:
    scan = Scan(("s",), (F32,), "sum", (X,))
    verify(loaded(scan, Store("y", (I0, R0), "s")), buffers())
    with pytest.raises(VerifyError, match="'levels'"):
        verify(loaded(scan, Store("y", (I0, sympy.Integer(0)), "s")), buffers())
    b = BodyBuilder()
    b.scan("sum", b.load("x", F32, (I0, sympy.Integer(0))))
    b.sort(b.load("x", F32, (I0, sympy.Integer(0))))
    for body in (b.body()[:2], b.body()[::2]):
        with pytest.raises(VerifyError, match="'scans'"):
            verify(replace(row_nest(*body), reduction_axes=()), buffers())


def test_a_long_row_is_not_sorted() -> None:
    for length, legal in ((SORT_LIMIT, True), (SORT_LIMIT + 1, False)):
        b = BodyBuilder()
        b.sort(b.constant(1.0, F32))
        if legal:
            verify(row_nest(*b.body(), length=length), buffers())
        else:
            with pytest.raises(VerifyError, match=f"at most {SORT_LIMIT}"):
                verify(row_nest(*b.body(), length=length), buffers())
