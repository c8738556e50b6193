"""Every scalar op has a spelling in Triton, compiles for a GPU, and means what torch means."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mkwrap.codegen.triton.spelling import cast, constant, spell, unspelled
from mkwrap.errors import UnsupportedOpError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Nest
from mkwrap.ir.ops import OPS, Kind
from mkwrap.stages import Binary, Kernel
from mkwrap.toolchain.cubin import compile_source
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.emulate import run
from tests.python.triton.nests import F32, F64, H100, I0, scalar_op
from tests.python.triton.oracle import answer, compare, copy, fill, sources

INTEGERS = (DType.INT64, DType.INT32, DType.INT16, DType.INT8, DType.UINT8)
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
    40.0,
    1e-30,
    3e38,
    math.inf,
    -math.inf,
    math.nan,
]
INTS = [0, 1, -1, 2, 3, -3, 7, 31, 32, 63, 64, -64, 100, -100]

KINDS = {
    Kind.SAME: (F32, F64, *INTEGERS),
    Kind.COMPARE: (F32, F64, *INTEGERS, DType.BOOL),
    Kind.SHIFT: INTEGERS,
    Kind.FLOAT: (F32, F64),
    Kind.TEST: (F32, F64),
    Kind.WHERE: (F32, F64, *INTEGERS, DType.BOOL),
    Kind.BITS: (*INTEGERS, DType.BOOL),
}


def _special(dtype: DType, number: int, of: int) -> torch.Tensor:
    """All pairs (triples) of special values: the number-th component."""
    if dtype is DType.BOOL:
        values = torch.tensor([False, True])
    else:
        values = torch.tensor(FLOATS if dtype.is_float else INTS, dtype=torch.float64).to(getattr(torch, dtype.value))
    grids = torch.meshgrid(*[values] * min(of, 2), indexing="ij")
    return grids[min(number, len(grids) - 1)].reshape(-1).contiguous()


def test_every_op_is_spelled_for_every_dtype_it_allows() -> None:
    assert unspelled() == ()


def test_an_op_without_a_spelling_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOpError, match=r"erf.*int32"):
        spell("erf", ("x",), DType.INT32, DType.INT32)


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (math.nan, F32, 'tl.full([], float("nan"), tl.float32)'),
        (-math.inf, F64, 'tl.full([], float("-inf"), tl.float64)'),
        (0.1, F64, "tl.full([], 0.1, tl.float64)"),
        (True, DType.BOOL, "tl.full([], True, tl.int1)"),
        (-5, DType.INT64, "tl.full([], -5, tl.int64)"),
    ],
)
def test_constants_are_typed(value: float, dtype: DType, text: str) -> None:
    assert constant(value, dtype) == text


@pytest.mark.parametrize("dtype", [F32, F64, DType.FLOAT16, DType.BFLOAT16])
def test_constants_arrive_as_they_are(dtype: DType, tmp_path: Path) -> None:
    body = BodyBuilder()
    for place, value in enumerate((-0.0, 0.0, -1.5)):
        body.store(f"arg{place}", (I0,), body.constant(value, dtype))
    writes = [buffer(f"arg{place}", dtype, [5]) for place in range(3)]
    case = kernel(Nest("constants", axes((I0, 5)), (), body.body()), [], writes)
    memory = fill(case)
    for source in sources(case, H100, most=1):
        run(source, memory, tmp_path)
        assert [(float(memory[k][0]), bool(torch.signbit(memory[k]).all())) for k in range(3)] == [
            (0.0, True),
            (0.0, False),
            (-1.5, True),
        ]
        assert isinstance(compile_source(source, H100), Binary)


def test_casts_truncate_and_test_against_zero() -> None:
    assert cast("x", F32, DType.BOOL) == "(x != 0)"
    assert cast("x", F32, DType.INT8) == "x.to(tl.int64).to(tl.int8)"
    assert cast("x", DType.INT64, F32) == "x.to(tl.float32)"


@pytest.mark.parametrize("name", [op.name for op in OPS.values() if op.kind is not Kind.CAST])
def test_op_means_what_torch_means(name: str, tmp_path: Path) -> None:
    for dtype in KINDS[OPS[name].kind]:
        arity = OPS[name].arity
        columns = [_special(dtype, k, arity) for k in range(arity)]
        if OPS[name].kind is Kind.WHERE:
            columns = [torch.arange(len(columns[1])) % 2 == 0, columns[1], columns[2]]
        elif not dtype.is_float and name in ("floordiv", "truncdiv", "mod", "fmod"):
            columns[1] = torch.where(columns[1] == 0, torch.ones_like(columns[1]), columns[1])
        case = scalar_op(name, dtype, len(columns[0]))
        memory = fill(case)
        memory.update(enumerate(columns))
        want = answer(case, memory)
        (source,) = sources(case, H100, most=1)
        run(source, memory, tmp_path)
        accuracy = {F32: (2e-5, 1e-6), F64: (1e-10, 1e-12)}.get(dtype, (0.0, 0.0))
        compare(case, memory, want, *accuracy, label=dtype.value)


def _all_ops(dtype: DType) -> Kernel:
    """One kernel that uses every op a dtype allows."""
    body = BodyBuilder()
    x, y = body.load("arg0", dtype, (I0,)), body.load("arg1", dtype, (I0,))
    flag = body.compute("lt", x, y)
    outputs = []
    for op in OPS.values():
        if op.kind is Kind.CAST or dtype not in KINDS[op.kind]:
            continue
        args = (flag, x, y) if op.kind is Kind.WHERE else (x, y)[: op.arity]
        outputs.append(body.compute(op.name, *args))
    outputs += [body.cast(x, target) for target in DType]
    for k, value in enumerate(outputs):
        body.store(f"arg{k + 2}", (I0,), value)
    writes = [buffer(f"arg{k + 2}", body.dtype(value), [64]) for k, value in enumerate(outputs)]
    nest = Nest("all_ops", axes((I0, 64)), (), body.body())
    return kernel(nest, [buffer("arg0", dtype, [64]), buffer("arg1", dtype, [64])], writes)


@pytest.mark.parametrize("dtype", [F32, F64, DType.INT64, DType.INT32, DType.INT8, DType.UINT8, DType.BOOL])
def test_every_op_compiles_without_a_gpu(dtype: DType) -> None:
    (source,) = sources(_all_ops(dtype), H100, most=1)
    binary = compile_source(source, H100)
    assert isinstance(binary, Binary), binary


def test_approximations_are_only_taken_where_results_end_in_16_bits() -> None:
    exact = next(sources(scalar_op("exp", F32, 64), H100)).text
    assert "libdevice.exp(" in exact
    body = BodyBuilder()
    x = body.cast(body.load("arg0", DType.BFLOAT16, (I0,)), F32)
    body.store("arg1", (I0,), body.cast(body.compute("exp", x), DType.BFLOAT16))
    nest = Nest("narrow", axes((I0, 64)), (), body.body())
    narrow = kernel(nest, [buffer("arg0", DType.BFLOAT16, [64])], [buffer("arg1", DType.BFLOAT16, [64])])
    assert "tl.exp(" in next(sources(narrow, H100)).text


def test_the_fast_erf_is_that_of_torch_but_for_rounding(tmp_path: Path) -> None:
    body = BodyBuilder()
    value = body.cast(body.compute("erf", body.load("arg0", F32, (I0,))), DType.FLOAT16)
    body.store("arg1", (I0,), value)
    nest = Nest("erf", axes((I0, 4096)), (), body.body())
    case = kernel(nest, [buffer("arg0", F32, [4096])], [buffer("arg1", DType.FLOAT16, [4096])])
    memory = fill(case)
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-30, 3e38])
    memory[0] = torch.cat([torch.linspace(-5, 5, 4089), special])
    (source,) = sources(case, H100, most=1)
    assert "erf_fast(" in source.text
    run(source, memory, tmp_path)
    want = torch.erf(memory[0].double()).half()
    different = memory[1].view(torch.int16) != want.view(torch.int16)
    assert int(different.logical_and(~want.isnan()).sum()) <= 4
    torch.testing.assert_close(memory[1], want, rtol=2**-10, atol=0, equal_nan=True)


def test_a_value_that_a_comparison_sees_stays_exact(tmp_path: Path) -> None:
    body = BodyBuilder()
    x = body.cast(body.load("arg0", DType.BFLOAT16, (I0,)), F32)
    quotient = body.compute("div", x, body.constant(49, F32))
    whole = body.compute("floor", quotient)
    body.store("arg1", (I0,), body.cast(whole, DType.BFLOAT16))
    nest = Nest("floor", axes((I0, 64)), (), body.body())
    case = kernel(nest, [buffer("arg0", DType.BFLOAT16, [64])], [buffer("arg1", DType.BFLOAT16, [64])])
    source = next(sources(case, H100))
    assert "tl.div_rn(" in source.text
    memory = fill(case)
    memory[0] = (torch.arange(64) * 49).to(torch.bfloat16)
    want = answer(case, memory)
    got = copy(memory)
    run(source, got, tmp_path)
    compare(case, got, want, 0, 0, "floor")
