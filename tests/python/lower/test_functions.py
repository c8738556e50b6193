"""What users write reaches the rules: whole functions through capture, decomposition and lowering, against eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from tests.python.lower.differential import check, lowered

from mkwrap.errors import CaptureError, UnsupportedDtypeError

Fn = Callable[..., Sequence[torch.Tensor]]


def activations(x: torch.Tensor) -> Sequence[torch.Tensor]:
    plain = F.relu6(x), F.gelu(x), F.mish(x), F.selu(x), F.celu(x), F.elu(x), F.softplus(x), F.softsign(x), F.silu(x)
    shrunk = F.tanhshrink(x), F.softshrink(x), F.hardshrink(x), F.hardswish(x), F.hardsigmoid(x), F.hardtanh(x)
    more = F.logsigmoid(x), F.glu(x), F.threshold(x, 0.1, 0.2), F.leaky_relu(x), F.dropout(x, 0.5, training=False)
    return *plain, *shrunk, *more, F.prelu(x, torch.tensor([0.2, 0.1, 0.3], dtype=x.dtype))


def arithmetic(x: torch.Tensor, y: torch.Tensor) -> Sequence[torch.Tensor]:
    mixed = x + 2 * y, 1 - x, x // 3, x % 3, x**2, x.abs() ** 0.5, 2**x, x / 3, torch.float_power(x, 2)
    joined = torch.lerp(x, y, 0.3), torch.addcmul(x, y, y), torch.addcdiv(x, y, y.abs() + 9), torch.hypot(x, y)
    steps = torch.copysign(x, y), torch.heaviside(x, y), torch.xlogy(x.abs(), y.abs()), torch.fmax(x, y)
    return *mixed, *joined, *steps, torch.logaddexp(x, y), torch.ldexp(x, torch.tensor(3)), torch.isclose(x, y)


def unary(x: torch.Tensor) -> Sequence[torch.Tensor]:
    rounded = x.frac(), x.trunc(), x.round(), x.sgn(), torch.round(x, decimals=1), x.square(), torch.deg2rad(x)
    tests = x.isfinite(), x.isnan(), x.isinf(), torch.isposinf(x), torch.isneginf(x), torch.nan_to_num(x / 0)
    odd = torch.sinc(x), torch.special.expit(x), torch.special.ndtr(x), torch.logit(x.sigmoid()), x.abs().lgamma()
    casts = x.to(torch.float16), x.int(), x.bool(), x.double(), x.clamp(-1, 1), x.clip(min=0), torch.angle(x)
    return *rounded, *tests, *odd, *casts


def logic(x: torch.Tensor, n: torch.Tensor) -> Sequence[torch.Tensor]:
    m, k = x > 0, x < 0.5
    bits = n & 3, n << 1, n >> 1, ~n, n ^ 5, n // 3, n % -3, n / 2, torch.floor_divide(n, -2.5)
    masks = m & k, m | k, ~m, m ^ k, torch.logical_and(m, n), torch.where(m, x, 0.0), x.masked_fill(m, -1e9)
    return *bits, *masks, torch.isin(n, torch.tensor([1, 2]))


def layout(x: torch.Tensor) -> Sequence[torch.Tensor]:
    shapes = x.reshape(6, 4), x.flatten(1), x.unflatten(-1, (2, 2)), x.movedim(0, -1), x.swapaxes(0, 1), x.mT
    parts = *x.chunk(3, -1), *x.split([1, 2], 1), *x.unbind(1), x.narrow(1, 1, 2), x[..., ::2], x[:, -1]
    copies = x.flip(0), x.fliplr(), x.roll(1, -1), x.rot90(1, [0, 1]), x.repeat(1, 2, 1), x.tile(2), x.roll(2)
    joins = torch.stack([x, x], 1), torch.hstack([x, x]), torch.dstack([x, x]), x.repeat_interleave(2, 1)
    diagonals = x.diagonal(0, 1, 2), torch.diag_embed(x), torch.diag(x[0, :, :3]), torch.diagflat(x[0, 0])
    return tuple(part + 1 for part in (*shapes, *parts, *copies, *joins, *diagonals, x.transpose(1, 2).reshape(2, 12)))


def padding(x: torch.Tensor) -> Sequence[torch.Tensor]:
    one = F.pad(x, (1, 2)), F.pad(x, (1, 1), "reflect"), F.pad(x, (1, 1), "replicate"), F.pad(x, (1, 1), "circular")
    image = x[:, None].repeat(1, 4, 1, 1)
    two = F.pad(image, (1, 2, 1, 1), "reflect"), F.pad(image, (1, 2, 1, 1), "replicate"), F.pixel_shuffle(image, 2)
    scaled = F.interpolate(image, scale_factor=2, mode="nearest"), F.interpolate(image, scale_factor=2, mode="bilinear")
    return *one, *two, *scaled, F.pad(x, (1, 2, 3, 4), value=2.0), x.unfold(-1, 2, 1) + 1


def made(x: torch.Tensor) -> Sequence[torch.Tensor]:
    counted = x + torch.arange(4), torch.arange(0, 1, 0.25) + x, torch.linspace(0, 1, 4) + x, torch.eye(4) * x[0, 0]
    filled = torch.zeros_like(x), x.new_ones(2), torch.full((2,), 3.0) + x[0, 0, :2], x.new_full((2, 2), 7)
    return *counted, *filled, x.triu(), x.tril(1), torch.tril_indices(3, 3) + x[0, 0, 0], torch.logspace(0, 1, 4) * x


FUNCTIONS: list[tuple[Fn, Sequence[torch.Tensor]]] = [
    (activations, [torch.randn(2, 3, 4)]),
    (activations, [torch.randn(2, 3, 4).bfloat16()]),
    (arithmetic, [torch.randn(2, 3), torch.randn(2, 3)]),
    (arithmetic, [torch.randn(2, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]),
    (unary, [torch.randn(2, 3)]),
    (logic, [torch.randn(2, 3), torch.randint(-5, 9, (2, 3))]),
    (layout, [torch.randn(2, 3, 4)]),
    (layout, [torch.randn(4, 3, 2).transpose(0, 2)]),
    (padding, [torch.randn(2, 3, 4)]),
    (made, [torch.randn(2, 3, 4)]),
]


@pytest.mark.parametrize(("fn", "args"), FUNCTIONS, ids=lambda case: getattr(case, "__name__", ""))
def test_function_equals_eager(fn: Fn, args: Sequence[torch.Tensor]) -> None:
    check(fn, *args)


def test_a_dtype_that_is_not_compiled_is_blamed_on_its_argument_or_line() -> None:
    with pytest.raises(UnsupportedDtypeError, match=r"^args\[1\]: dtype complex64 is not supported"):
        lowered(lambda x, y: x + y.real, (torch.randn(3), torch.randn(3, dtype=torch.complex64)))
    with pytest.raises(UnsupportedDtypeError, match=r"test_functions\.py:\d+: .*dtype float8_e4m3fn is not supported"):
        lowered(lambda x: x.to(torch.float8_e4m3fn).float(), (torch.randn(3),))


def test_a_module_that_changes_its_own_buffer_is_refused_by_the_buffer_s_name() -> None:
    with pytest.raises(CaptureError, match="own buffer 'running_mean'"):
        lowered(torch.nn.BatchNorm1d(3), (torch.randn(4, 3),))
