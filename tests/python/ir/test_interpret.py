"""The numpy oracle against torch: every scalar op on special values, every reduction, indexing, masks, checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import sympy
import torch

from mkwrap.errors import IndexRangeError, VerifyError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod, axis_symbol
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.nodes import Axis, Expr, Nest
from mkwrap.ir.numeric import REDUCE, SCALAR, Array, decode, encode, storage_type
from mkwrap.ir.ops import OPS, REDUCTIONS

ROW, J, R = axis_symbol("i"), axis_symbol("j"), axis_symbol("r")

FLOATS = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.0,
    -1.0,
    1.5,
    2.5,
    -2.5,
    3.7,
    -10.25,
    100.0,
    1e-30,
    3e38,
    math.inf,
    -math.inf,
    math.nan,
]
INTS = [0, 1, -1, 2, 3, -3, 7, 63, 64, 65, -64, 127, -128]

UNARY: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": torch.log,
    "log2": torch.log2,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "sigmoid": torch.sigmoid,
    "erfinv": torch.erfinv,
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "signbit": torch.signbit,
}
BINARY: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "floordiv": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "truncdiv": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "mod": torch.remainder,
    "fmod": torch.fmod,
    "atan2": torch.atan2,
    "pow": torch.pow,
    "hypot": torch.hypot,
    "copysign": torch.copysign,
    "nextafter": torch.nextafter,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}
INTEGER_ONLY: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "bitand": torch.bitwise_and,
    "bitor": torch.bitwise_or,
    "bitxor": torch.bitwise_xor,
    "shl": torch.bitwise_left_shift,
    "shr": torch.bitwise_right_shift,
}
ON_INTEGERS = (
    [
        "add",
        "sub",
        "mul",
        "minimum",
        "maximum",
        "floordiv",
        "truncdiv",
        "mod",
        "fmod",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
    ],
    ["neg", "abs", "sign"],
)


def test_every_op_has_a_meaning() -> None:
    assert set(SCALAR) | {"cast"} == set(OPS)
    assert set(REDUCE) | {"dot"} == set(REDUCTIONS)
    assert set(UNARY) | set(BINARY) | set(INTEGER_ONLY) | {"where", "cast", "bitnot"} == set(OPS)


def run(op: str, dtype: DType, *columns: Array) -> Array:
    """Apply a scalar op to columns of values through a nest."""
    builder = BodyBuilder()
    args = [builder.load(f"x{k}", dtype, (ROW,)) for k in range(len(columns))]
    value = builder.compute(op, *args)
    builder.store("y", (ROW,), value)
    memory = {f"x{k}": column for k, column in enumerate(columns)}
    memory["y"] = np.zeros(len(columns[0]), storage_type(builder.dtype(value)))
    interpret_nest(Nest("n", (Axis(ROW, sympy.Integer(len(columns[0]))),), (), builder.body()), memory)
    return memory["y"]


def agrees(actual: Array, expected: torch.Tensor, what: str) -> None:
    # A few units in the last place of float32: torch's own float32 kernels are that far from the true value.
    tight = expected.dtype is torch.float64
    torch.testing.assert_close(
        torch.from_numpy(actual),
        expected,
        rtol=1e-12 if tight else 2e-6,
        atol=1e-12 if tight else 1e-7,
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )


@pytest.mark.parametrize("op", sorted(UNARY))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unary_ops_on_floats_equal_torch(op: str, dtype: torch.dtype) -> None:
    x = torch.tensor(FLOATS, dtype=torch.float64).to(dtype)
    if op in ("sin", "cos", "tan"):
        x = x[x.abs() != 3e38]
    agrees(run(op, DType(str(dtype)[6:]), x.numpy()), UNARY[op](x), op)


@pytest.mark.parametrize("op", sorted(BINARY))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binary_ops_on_floats_equal_torch(op: str, dtype: torch.dtype) -> None:
    values = torch.tensor(FLOATS, dtype=torch.float64).to(dtype)
    x, y = values.repeat_interleave(len(values)), values.repeat(len(values))
    if op in ("mod", "fmod", "floordiv"):
        # The remainder by an operand 1e30 times smaller is beyond the precision of either side's algorithm.
        keep = ~((x.abs() > 1e3) & torch.isfinite(x)) & ((y.abs() > 1e-20) | (y == 0))
        x, y = x[keep], y[keep]
    agrees(run(op, DType(str(dtype)[6:]), x.numpy(), y.numpy()), BINARY[op](x, y), op)


@pytest.mark.parametrize("op", [*ON_INTEGERS[0], *INTEGER_ONLY])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint8])
def test_binary_ops_on_integers_equal_torch(op: str, dtype: torch.dtype) -> None:
    values = torch.tensor(INTS).to(dtype)
    x, y = values.repeat_interleave(len(values)), values.repeat(len(values))
    if op in ("floordiv", "truncdiv", "mod", "fmod"):
        # Eager faults on a zero divisor, and on some machines on the quotient that does not fit.
        keep = (y != 0) & ~((x == torch.iinfo(dtype).min) & (y == -1) if dtype.is_signed else y == 0)
        x, y = x[keep], y[keep]
    expected = {**BINARY, **INTEGER_ONLY}[op](x, y)
    agrees(run(op, DType(str(dtype)[6:]), x.numpy(), y.numpy()), expected, op)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8])
def test_unary_ops_on_integers_equal_torch(dtype: torch.dtype) -> None:
    x = torch.tensor(INTS).to(dtype)
    for op in ON_INTEGERS[1]:
        agrees(run(op, DType(str(dtype)[6:]), x.numpy()), UNARY[op](x), op)
    agrees(run("bitnot", DType(str(dtype)[6:]), x.numpy()), torch.bitwise_not(x), "bitnot")
    truth = x % 2 == 0
    agrees(run("bitnot", DType.BOOL, truth.numpy()), ~truth, "bitnot")


def test_accuracy_of_special_functions_in_float64() -> None:
    x = torch.linspace(-0.999999, 0.999999, 301, dtype=torch.float64)
    agrees(run("erfinv", DType.FLOAT64, x.numpy()), torch.erfinv(x), "erfinv")
    y = torch.linspace(-9.95, 30, 301, dtype=torch.float64)
    agrees(run("digamma", DType.FLOAT64, y.numpy()), torch.digamma(y), "digamma")
    agrees(run("lgamma", DType.FLOAT64, y.numpy()), torch.lgamma(y), "lgamma")


@pytest.mark.parametrize("target", [d for d in DType if d not in (DType.UINT16, DType.UINT32, DType.UINT64)])
@pytest.mark.parametrize("source", [torch.float64, torch.float32, torch.int64, torch.int8, torch.uint8, torch.bool])
def test_casts_equal_torch(source: torch.dtype, target: DType) -> None:
    in_range = [0, 1, 2, 3, 100, 127, -1, -100, 0.5, -0.75, 3.999, 1 / 3]
    x = torch.tensor(in_range, dtype=torch.float64).to(source)
    if target is DType.UINT8 and source.is_signed and source is not torch.int8:
        x = x.abs()
    builder = BodyBuilder()
    builder.store("y", (ROW,), builder.cast(builder.load("x", DType(str(source)[6:]), (ROW,)), target))
    memory = {"x": x.numpy(), "y": np.zeros(len(x), storage_type(target))}
    interpret_nest(Nest("n", (Axis(ROW, sympy.Integer(len(x))),), (), builder.body()), memory)
    expected = x.to(getattr(torch, target.value))
    if target is DType.BFLOAT16:
        expected = expected.view(torch.uint16)
    assert torch.equal(torch.from_numpy(memory["y"]), expected)


def test_bfloat16_rounds_half_to_even_like_torch() -> None:
    generator = torch.Generator().manual_seed(1)
    bits = torch.randint(-(2**31), 2**31, (4096,), generator=generator, dtype=torch.int64).to(torch.int32)
    ties = (torch.arange(64, dtype=torch.int32) << 16) + 0x3F808000
    x = torch.cat([bits, ties]).view(torch.float32)
    expected = x.to(torch.bfloat16)
    ours = torch.from_numpy(decode(encode(x.numpy(), DType.BFLOAT16), DType.BFLOAT16))
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=0, equal_nan=True)


def reduce(op: str, dtype: DType, *args: Array) -> list[Array]:
    """Reduce the columns' last axis; returns the results."""
    builder = BodyBuilder()
    values = builder.reduce(op, *[builder.load(f"x{k}", dtype, (ROW, R)) for k in range(len(args))])
    memory = {f"x{k}": arg for k, arg in enumerate(args)}
    rows, depth = (sympy.Integer(n) for n in args[0].shape)
    for k, value in enumerate(values):
        builder.store(f"y{k}", (ROW,), value)
        memory[f"y{k}"] = np.zeros(int(rows), storage_type(builder.dtype(value)))
    interpret_nest(Nest("n", (Axis(ROW, rows),), (Axis(R, depth),), builder.body()), memory)
    return [memory[f"y{k}"] for k in range(len(values))]


def test_reductions_equal_torch() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 50)
    agrees(reduce("sum", DType.FLOAT32, x.numpy())[0], x.sum(1), "sum")
    agrees(reduce("prod", DType.FLOAT32, x.numpy())[0], x.prod(1), "prod")
    mean, squares = reduce("welford", DType.FLOAT32, x.numpy())
    agrees(mean, x.mean(1), "mean")
    agrees(squares / 49, x.var(1), "variance")
    y = torch.randn(3, 50)
    agrees(reduce("dot", DType.FLOAT32, x.numpy(), y.numpy())[0], (x.double() * y).sum(1).float(), "dot")


def test_c30_nan_wins_and_argmax_gives_the_first() -> None:
    nan = math.nan
    x = np.array([[nan, 1, 2], [1, nan, nan], [3, 3, 1], [-0.0, 0.0, -0.0]], np.float32)
    value, position = reduce("argmax", DType.FLOAT32, x)
    assert position.tolist() == [0, 1, 0, 0]
    assert np.isnan(value[:2]).all()
    assert np.isnan(reduce("maximum", DType.FLOAT32, x)[0][:2]).all()
    assert np.isnan(reduce("minimum", DType.FLOAT32, x)[0][:2]).all()
    assert reduce("argmin", DType.FLOAT32, x)[1].tolist() == [0, 1, 2, 0]


def test_c19_empty_reductions_give_the_identity() -> None:
    empty = np.zeros((2, 0), np.float32)
    assert reduce("sum", DType.FLOAT32, empty)[0].tolist() == [0, 0]
    assert reduce("prod", DType.FLOAT32, empty)[0].tolist() == [1, 1]
    assert reduce("dot", DType.FLOAT32, empty, empty)[0].tolist() == [0, 0]
    assert reduce("maximum", DType.BOOL, empty != 0)[0].tolist() == [False, False]
    assert reduce("minimum", DType.BOOL, empty != 0)[0].tolist() == [True, True]


def test_integer_reductions_wrap() -> None:
    x = np.full((1, 3), 100, np.int8)
    assert reduce("sum", DType.INT8, x)[0].tolist() == [44]
    assert reduce("dot", DType.INT8, x, x)[0].tolist() == [30000 % 256 - 256 * (30000 % 256 > 127)]


def test_what_does_not_vary_counts_once_per_element() -> None:
    builder = BodyBuilder()
    builder.store("y", (ROW,), builder.reduce("sum", builder.load("x", DType.FLOAT32, (ROW,)))[0])
    memory = {"x": np.array([1.0, 2.0], np.float32), "y": np.zeros(2, np.float32)}
    nest = Nest("n", (Axis(ROW, sympy.Integer(2)),), (Axis(R, sympy.Integer(5)),), builder.body())
    interpret_nest(nest, memory)
    assert memory["y"].tolist() == [5.0, 10.0]


@pytest.mark.parametrize("left", [(ROW, J, R), (ROW, R), (J, R), (R,)])
@pytest.mark.parametrize("right", [(ROW, J, R), (ROW, R), (J, R), (R,), (ROW, J)])
def test_dot_finds_batch_row_and_column_axes(left: tuple[Expr, ...], right: tuple[Expr, ...]) -> None:
    sizes = {ROW: 2, J: 3, R: 4}
    a = np.random.default_rng(1).standard_normal([sizes[s] for s in left])
    b = np.random.default_rng(2).standard_normal([sizes[s] for s in right])
    builder = BodyBuilder()
    (total,) = builder.reduce("dot", builder.load("a", DType.FLOAT64, left), builder.load("b", DType.FLOAT64, right))
    builder.store("y", (ROW, J), total)
    y = np.zeros((2, 3))
    axes = (Axis(ROW, sympy.Integer(2)), Axis(J, sympy.Integer(3)))
    interpret_nest(Nest("n", axes, (Axis(R, sympy.Integer(4)),), builder.body()), {"a": a, "b": b, "y": y})
    letters = ["".join(s.name for s in index) for index in (left, right)]
    wide = np.broadcast_to(np.einsum(f"{letters[0]},{letters[1]},ijr->ij", a, b, np.ones((2, 3, 4))), (2, 3))
    np.testing.assert_allclose(y, wide)


def test_masked_load_gives_zero_and_touches_nothing() -> None:
    builder = BodyBuilder()
    inside = builder.compute("lt", builder.index_value(ROW), builder.constant(2, DType.INT64))
    builder.store("y", (ROW,), builder.load("x", DType.INT32, (ROW,), inside))
    memory = {"x": np.array([5, 6], np.int32), "y": np.full(4, -1, np.int32)}
    interpret_nest(Nest("n", (Axis(ROW, sympy.Integer(4)),), (), builder.body()), memory)
    assert memory["y"].tolist() == [5, 6, 0, 0]


def test_an_index_out_of_bounds_is_a_defect() -> None:
    builder = BodyBuilder()
    builder.store("y", (ROW,), builder.load("x", DType.INT32, (ROW - 1,)))
    memory = {"x": np.zeros(4, np.int32), "y": np.zeros(4, np.int32)}
    with pytest.raises(VerifyError, match="leaves x"):
        interpret_nest(Nest("n", (Axis(ROW, sympy.Integer(4)),), (), builder.body()), memory)


def gather(indices: list[int], mask: list[bool] | None = None) -> list[int]:
    builder = BodyBuilder()
    held = None if mask is None else builder.load("mask", DType.BOOL, (ROW,))
    place = builder.bounds_check(builder.load("at", DType.INT64, (ROW,)), sympy.Integer(3), held)
    builder.store("y", (ROW,), builder.load("x", DType.INT32, (place,), held))
    memory = {"x": np.array([10, 11, 12], np.int32), "at": np.array(indices), "y": np.zeros(len(indices), np.int32)}
    memory["mask"] = np.array(mask if mask is not None else [])
    interpret_nest(Nest("n", (Axis(ROW, sympy.Integer(len(indices))),), (), builder.body()), memory)
    result: list[int] = memory["y"].tolist()
    return result


def test_bounds_check_guards_data_dependent_indices() -> None:
    assert gather([2, 0, 1]) == [12, 10, 11]
    assert gather([2, 99], [True, False]) == [12, 0]
    with pytest.raises(IndexRangeError, match="index 3 is out of range 0 … 2"):
        gather([0, 3])
    with pytest.raises(IndexRangeError, match="index -1"):
        gather([-1])


def test_index_arithmetic_follows_python() -> None:
    builder = BodyBuilder()
    position = 3 * ROW + J
    builder.store("y", (ROW, J), builder.load("x", DType.INT64, (FloorDiv(position, 2), Mod(position, 2))))
    memory = {"x": np.arange(6).reshape(3, 2), "y": np.zeros((2, 3), np.int64)}
    axes = (Axis(ROW, sympy.Integer(2)), Axis(J, sympy.Integer(3)))
    interpret_nest(Nest("n", axes, (), builder.body()), memory)
    assert memory["y"].tolist() == [[0, 1, 2], [3, 4, 5]]
