"""Every pointwise rule against eager, over dtypes, special values, scalars and broadcasting."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.python.lower.single_op import check_op, lower_op

from mkwrap.ir.analysis import loads
from mkwrap.lower import pointwise
from mkwrap.lower.lowering import Unsupported

aten = torch.ops.aten
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
DTYPES = [*FLOATS, *INTEGERS, torch.bool]
SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1.0, -1.0, 0.5]

# Eager's vectorised kernels are off here: gelu(+inf) is NaN, logit of bfloat16 rounds its quotient.
FINITE_ONLY = {aten.gelu.default}
LOOSE = {aten.logit.default: 3e-2, aten.digamma.default: 1e-4, aten.lgamma.default: 1e-4}
APART = {
    *(aten.div.Tensor_mode, aten.div.Scalar_mode, aten.round.decimals, aten.native_dropout.default, aten.copy.default),
    *(torch.ops.prims.convert_element_type.default, aten.where.Scalar, aten.masked_fill.Tensor),
    *(aten.clamp.default, aten.clamp.Tensor),
}
SWEPT = [op for op in pointwise.RULES if op not in APART]


def values(dtype: torch.dtype, seed: int = 0, *, nonzero: bool = False) -> torch.Tensor:
    """24 values: the special ones of a dtype first, the rest around ±7."""
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.rand(24, generator=generator) > 0.5
    if dtype.is_floating_point:
        x = torch.randn(24, generator=generator, dtype=torch.float64) * 3
        x[:8] = torch.tensor(SPECIAL)
        return x.to(dtype)
    x = torch.randint(0 if dtype is torch.uint8 else -7, 8, (24,), generator=generator)
    if nonzero:
        x[x == 0] = 3
    return x.to(dtype)


def pool(kind: str, position: int, dtype: torch.dtype, *, leading: bool) -> list[object]:
    """Arguments to try for one parameter of an op."""
    if kind == "Tensor":
        same = values(dtype, position, nonzero=position > 0)
        if position == 0 or leading:
            return [same]
        other = [values(torch.float32, position + 5), values(torch.int32, position + 5, nonzero=True)]
        return [same, *other, torch.tensor(1.7, dtype=torch.float64), torch.tensor(3)]
    return {"number": [3, 0.1, -2, True], "float": [0.3], "bool": [False]}.get(kind, [2])


def swept_cases(op: torch._ops.OpOverload, dtype: torch.dtype) -> list[tuple[object, ...]]:
    required = [a for a in op._schema.arguments if not a.kwarg_only and not a.has_default_value()]
    kinds = [str(a.type).replace("Scalar", "number") for a in required]
    if op is aten.masked_fill.Scalar:
        return [(values(dtype), values(torch.bool, 4), value) for value in (3, True)]
    if op in (aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther):
        kinds[0] = "mask"
    pools: list[list[object]] = [
        [values(torch.bool, 3)] if k == "mask" else pool(k, n, dtype, leading=kinds[0] != "Tensor" and n == 1)
        for n, k in enumerate(kinds)
    ]
    return list(itertools.product(*pools))


def run_where_eager_does(op: torch._ops.OpOverload, *args: object, rtol: float | None = None, **kwargs: object) -> int:
    """Check one case; 0 where eager refuses it, which mkwrap's capture then does too."""
    try:
        op(*args, **kwargs)
    except (RuntimeError, TypeError, NotImplementedError):
        return 0
    check_op(op, *args, rtol=rtol, atol=None if rtol is None else rtol, **kwargs)
    return 1


def finite(args: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(a.nan_to_num(1.0, 2.0, -2.0) if isinstance(a, torch.Tensor) else a for a in args)


@pytest.mark.parametrize("op", SWEPT, ids=str)
def test_rule_equals_eager_for_every_dtype(op: torch._ops.OpOverload) -> None:
    ran = 0
    for dtype in DTYPES:
        if op is aten.nextafter.default and dtype.itemsize == 2:
            continue
        for args in swept_cases(op, dtype):
            if op is aten.pow.Tensor_Scalar and dtype is torch.float16 and args[1] == 0.5:
                continue
            ran += run_where_eager_does(op, *(finite(args) if op in FINITE_ONLY else args), rtol=LOOSE.get(op))
    assert ran > 0, "eager refused every case"


EXACT = ["add", "sub", "mul", "div", "eq", "lt", "ge", "remainder", "fmod"]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_arithmetic_is_bit_equal_to_eager(name: str, dtype: torch.dtype) -> None:
    packet = getattr(aten, name)
    for other in (values(dtype, 1), 0.1, -2, torch.tensor(1.7, dtype=torch.float64), torch.tensor(0.3)):
        op = packet.Tensor if isinstance(other, torch.Tensor) else packet.Scalar
        check_op(op, values(dtype), other, rtol=0, atol=0)


@pytest.mark.parametrize("op", [aten.mul.Tensor, aten.div.Tensor], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_integers_are_rounded_to_the_common_dtype_first(op: torch._ops.OpOverload, dtype: torch.dtype) -> None:
    integers = torch.tensor([257, 1001, 2049, 4099, 771], dtype=torch.int32)
    check_op(op, torch.tensor([3.0, 1.0, 3.0, 7.0, 5.0], dtype=dtype), integers, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [None, "trunc", "floor"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_div_rounding_modes(dtype: torch.dtype, mode: str | None) -> None:
    divisor = values(dtype, 1, nonzero=True)
    ran = run_where_eager_does(aten.div.Tensor_mode, values(dtype), divisor, rounding_mode=mode)
    ran += run_where_eager_does(aten.div.Scalar_mode, values(dtype), 3, rounding_mode=mode)
    ran += run_where_eager_does(aten.div.Scalar_mode, values(dtype), -2.5, rounding_mode=mode)
    assert ran


@pytest.mark.parametrize("exponent", [0.5, 2, 3, -1, -0.5, -2, 0, 1, 2.0, 4, 7, 0.3, -1.5])
def test_pow_by_a_number(exponent: float) -> None:
    for dtype in DTYPES:
        base = values(dtype) if dtype is not torch.float16 else values(dtype).nan_to_num(1.0, 2.0, -2.0)
        run_where_eager_does(aten.pow.Tensor_Scalar, base, exponent)


def test_integer_pow_wraps_and_handles_negative_exponents() -> None:
    base = torch.tensor([3, -3, 1, -1, 0, 2, 7, -1, 1, 5], dtype=torch.int64)
    exponent = torch.tensor([41, 40, -5, -5, -1, 63, 22, -4, -2, 27], dtype=torch.int64)
    check_op(aten.pow.Tensor_Tensor, base, exponent)
    check_op(aten.pow.Tensor_Tensor, base.to(torch.int8), exponent.clamp(0, 9).to(torch.int8))


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_casts(source: torch.dtype) -> None:
    for target in DTYPES:
        x = values(source)
        if source.is_floating_point and not target.is_floating_point and target is not torch.bool:
            x = x.nan_to_num(1.0, 2.0, 2.0).abs()
        check_op(aten._to_copy.default, x, dtype=target, rtol=0, atol=0)
        check_op(aten.copy.default, values(target), x, rtol=0, atol=0)
        check_op(torch.ops.prims.convert_element_type.default, x, target, rtol=0, atol=0)


PARAMETERS = [
    (aten.gelu.default, 1, (), {"approximate": "tanh"}),
    (aten.elu.default, 1, (0.5, 1.2, 0.7), {}),
    (aten.leaky_relu.default, 1, (0.3,), {}),
    (aten.softplus.default, 1, (2, 3), {}),
    (aten.hardtanh.default, 1, (-2, 1.5), {}),
    (aten.hardshrink.default, 1, (0.7,), {}),
    (aten.softshrink.default, 1, (0.7,), {}),
    (aten.round.decimals, 1, (), {"decimals": 2}),
    (aten.round.decimals, 1, (), {"decimals": -1}),
    (aten.add.Tensor, 2, (), {"alpha": 3}),
    (aten.sub.Tensor, 2, (), {"alpha": 2}),
    (aten.rsub.Tensor, 2, (), {"alpha": 2}),
    (aten.addcmul.default, 3, (), {"value": 2}),
    (aten.addcdiv.default, 3, (), {"value": 0.5}),
    (aten.clamp.default, 1, (None, 1), {}),
    (aten.clamp.default, 1, (-1,), {}),
    (aten.clamp.default, 1, (0.5, 2.5), {}),
    (aten.clamp.default, 1, (2, -2), {}),
    (aten.clamp.Tensor, 3, (), {}),
]


@pytest.mark.parametrize(("op", "tensors", "rest", "kwargs"), PARAMETERS, ids=str)
def test_parameters(
    op: torch._ops.OpOverload, tensors: int, rest: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    ran = 0
    for dtype in DTYPES:
        args: list[object] = [values(dtype, k, nonzero=True) for k in range(tensors)]
        if op is aten.gelu.default:
            args = list(finite(tuple(args)))
        # An alpha is one fused multiply-add in eager, two roundings here.
        loose = 3e-2 if dtype is torch.bfloat16 else 4e-3 if dtype is torch.float16 else None
        ran += run_where_eager_does(op, *args, *rest, rtol=loose, **kwargs)
    assert ran


SHAPES = [((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 2)), ((0, 3), (1, 3)), ((1,), (0,)), ((), ()), ((1, 1), (1,))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_broadcasting(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (torch.randn(shape) for shape in shapes)
    check_op(aten.sub.Tensor, a, b)
    check_op(aten.where.self, a > 0, a, b)
    check_op(aten.add.Tensor, a.to(torch.bfloat16), b.to(torch.float64))


def test_strided_inputs() -> None:
    x = torch.randn(4, 6).t()[1::2]
    check_op(aten.mul.Tensor, x, torch.randn(4).expand(3, 4))


def test_nan_propagates_through_maximum_and_clamp_but_not_fmax() -> None:
    x, y = torch.tensor([float("nan"), 1.0, float("nan")]), torch.tensor([1.0, float("nan"), float("nan")])
    for op in (aten.maximum.default, aten.minimum.default, aten.fmax.default, aten.fmin.default):
        check_op(op, x, y, rtol=0, atol=0)
    check_op(aten.clamp.default, x, 0, 1, rtol=0, atol=0)


def test_copies_are_free() -> None:
    for op in (aten.clone.default, aten.detach.default, aten.lift_fresh_copy.default, aten.alias.default):
        inputs, _ = lower_op(op, [torch.randn(3)], {})
        assert not inputs.low.nests


def test_a_formula_loads_each_operand_once() -> None:
    inputs, _ = lower_op(aten.gelu.default, [torch.randn(3)], {"approximate": "tanh"})
    assert len(loads(inputs.low.nests[0])) == 1


REFUSED = [
    (aten.nextafter.default, (torch.ones(2).bfloat16(), torch.ones(2).bfloat16()), "nextafter of bfloat16"),
    (aten.pow.Tensor_Scalar, (torch.ones(2, dtype=torch.int64), -1), "negative integer power"),
    (aten.native_dropout.default, (torch.ones(2), 0.5, True), "random"),
    (aten.clamp.default, (torch.ones(2, dtype=torch.int8), 300), "clamp of int8 at 300"),
    (aten.gelu.default, (torch.ones(2, dtype=torch.int64),), "int64"),
]


@pytest.mark.parametrize(("op", "args", "message"), REFUSED, ids=lambda case: str(case)[:40])
def test_refusals_say_why(op: torch._ops.OpOverload, args: tuple[object, ...], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        lower_op(op, args, {})
