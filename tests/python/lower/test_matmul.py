"""Matrix products equal eager on the interpreter, and lower to a `dot` nest with the epilogue apart."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.python.lower.differential import check, lowered

from mkwrap.ir.analysis import reduces
from mkwrap.ir.nodes import Load, Reduce

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def sample(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.randint(-4, 5, shape).to(dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 4, 5), (1, 4, 5), (3, 1, 2), (3, 4, 1), (1, 1, 1), (2, 0, 3), (0, 4, 2)])
def test_products(dtype: torch.dtype, m: int, k: int, n: int) -> None:
    a, b = sample(m, k, dtype=dtype), sample(k, n, dtype=dtype)
    c, d, bias = sample(2, m, k, dtype=dtype), sample(2, k, n, dtype=dtype), sample(n, dtype=dtype)

    def fn(*v: torch.Tensor) -> list[object]:
        a, b, c, d, bias = v
        return [
            a @ b,
            c @ d,
            c @ b,
            a @ b[:, 0],
            a[0] @ b[:, 0] if m else None,
            torch.addmm(bias, a, b),
            torch.addmm(a @ b, a, b, beta=3, alpha=2),
            torch.baddbmm(bias, c, d, beta=2),
            torch.addmv(a[:, 0], a, b[:, 0], alpha=3) if k else None,
            torch.addbmm(bias, c, d, alpha=2),
            F.linear(c, b.t(), bias),
            F.linear(a, b.t()),
        ]

    check(fn, a, b, c, d, bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_einsum_and_its_kin(dtype: torch.dtype) -> None:
    x, y = sample(2, 3, 4, dtype=dtype), sample(5, 3, 4, dtype=dtype)

    def fn(*v: torch.Tensor) -> list[object]:
        x, y = v
        return [
            torch.einsum("bij,cij->bc", x, y),
            torch.einsum("bij,cij->bic", x, y),
            torch.einsum("bij,bkj->bik", x, x),
            torch.einsum("bij,cij,c->b", x, y, y[:, 0, 0]),
            torch.einsum("bii->b", x[:, :, :3]),
            torch.inner(x, y),
            torch.tensordot(x, y, ([1, 2], [1, 2])),
            torch.outer(x[0, 0], y[0, 0]),
            x[:, None] @ y.mT[None],
            x.flatten(1) @ y.flatten(1).T,
            torch.dot(x[0, 0], y[0, 0]),
            torch.vdot(x[0, 0], y[0, 0]),
        ]

    check(fn, x, y)


def test_transposed_strided_and_expanded_operands() -> None:
    x = torch.randn(6, 8)
    check(lambda x: x.t() @ x, x)
    check(lambda x: x[::2, 1::3] @ x[::2, 1::3].t(), x)
    check(lambda x, y: x.expand(4, 6, 8) @ y, x, torch.randn(8, 1).expand(8, 3))
    check(lambda x, y: F.linear(x.transpose(0, 1), y), torch.randn(3, 2, 4), torch.randn(5, 4))


def test_beta_zero_does_not_read_the_bias() -> None:
    check(
        lambda a, b, c: torch.addmm(c, a, b, beta=0), torch.randn(2, 3), torch.randn(3, 2), torch.full((2,), math.nan)
    )


def test_infinities_and_nan_spread_as_in_eager() -> None:
    a = torch.tensor([[math.inf, 1.0], [0.0, math.nan], [1.0, 2.0]])
    check(lambda a, b: a @ b, a, torch.tensor([[0.0, 1.0], [1.0, -math.inf]]))


def test_mlp_block() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 8), torch.nn.LayerNorm(8))
    check(lambda x: x + module(x), torch.randn(2, 5, 8))


def test_epilogue_is_a_nest_of_its_own() -> None:
    args = [torch.randn(4, 3), torch.randn(5, 3), torch.randn(5)]
    program, _ = lowered(F.linear, args)
    product, *rest = program.nests
    (dot,) = reduces(product)
    assert dot.op == "dot"
    assert [axis.extent for axis in (*product.axes, *product.reduction_axes)] == [4, 5, 3]
    assert all(isinstance(i, Load | Reduce) for i in product.body[:3])
    assert rest
    assert not any(reduces(nest) for nest in rest)


def test_sixteen_bit_products_accumulate_in_float32() -> None:
    x = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    check(lambda x: x @ x.T, x, rtol=0, atol=0)
