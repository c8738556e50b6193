"""Fusion keeps values, and makes the kernels it should."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.python.fuse.scheduled import schedule_of, scheduled
from tests.python.lower import differential


def check(fn: Callable[..., object], *args: object) -> None:
    """Compare the scheduled program with eager."""
    backends = {**differential.BACKENDS, "scheduled": scheduled}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differential, "BACKENDS", backends)
        differential.check(fn, *args, backend="scheduled")


def kernel_kinds(fn: Callable[..., object], *args: object) -> list[str]:
    """Kinds of the steps, in order."""
    schedule, _ = schedule_of(fn, args)
    return [step.kernel.rsplit("_", 1)[0] for step in schedule.steps]


def layer_norm_block(x: torch.Tensor, r: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    h = x + r
    return F.gelu(F.layer_norm(h, (h.shape[-1],), w, b)) + r


def test_layer_norm_with_residual_and_activation_is_one_kernel() -> None:
    args = (torch.randn(4, 6, 32), torch.randn(4, 6, 32), torch.randn(32), torch.randn(32))
    assert kernel_kinds(layer_norm_block, *args) == ["reduction"]
    check(layer_norm_block, *args)


@pytest.mark.parametrize(("rows", "length", "count"), [(4, 200, 1), (1, 20_000, 2), (200, 20_000, 1)])
def test_few_long_rows_of_a_scan_stay_free_of_reductions(rows: int, length: int, count: int) -> None:
    """They can be cut into parts; what is pointwise stays with them."""

    def share(x: torch.Tensor) -> torch.Tensor:
        return (x.sigmoid() + 1).cumsum(1) / x.sum(1, keepdim=True)

    schedule, _ = schedule_of(share, (torch.randn(rows, length),))
    assert len(schedule.steps) == count
    assert any(kernel.startswith("scan") for kernel in schedule.kernels)


def test_softmax_is_one_kernel() -> None:
    assert kernel_kinds(lambda x: torch.softmax(x * 2, -1), torch.randn(5, 33)) == ["reduction"]
    check(lambda x: torch.softmax(x * 2, -1), torch.randn(5, 33))
    check(lambda x: torch.softmax(x, 1), torch.randn(3, 7, 5))


def test_residual_with_two_readers_is_stored_once_and_taken_from_the_body() -> None:
    def fn(x: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = x.exp() + r
        return F.layer_norm(h, (16,)), h

    args = (torch.randn(6, 16), torch.randn(6, 16))
    assert kernel_kinds(fn, *args) == ["reduction"]
    check(fn, *args)


def test_epilogue_with_head_split_joins_the_product() -> None:
    def fn(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, w, b).view(2, 6, 4, 8).transpose(1, 2) * 0.5
        return y @ y.transpose(-1, -2)

    args = (torch.randn(2, 6, 16), torch.randn(32, 16), torch.randn(32))
    assert kernel_kinds(fn, *args) == ["matmul", "matmul"]
    check(fn, *args)


def attention(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    q, k, v = (F.linear(x, w, b).view(2, 5, 3, 2, 4).permute(3, 0, 2, 1, 4)[0] * s for s in (1.0, 0.5, 2.0))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).reshape(2, 5, 12)


PROGRAMS: dict[str, tuple[Callable[..., object], tuple[torch.Tensor, ...]]] = {
    "attention": (attention, (torch.randn(2, 5, 16), torch.randn(24, 16), torch.randn(24))),
    "column sums": (lambda x: (x * x).sum(0), (torch.randn(9, 13),)),
    "sums over both ends": (lambda x: x.sum((0, 2)) + 1, (torch.randn(4, 5, 6),)),
    "mean and variance": (lambda x: torch.var_mean(x, -1), (torch.randn(4, 9),)),
    "softmax of a transposed view": (lambda x: torch.softmax(x.t(), 1), (torch.randn(4, 9),)),
    "two reductions of one input": (lambda x: (x.sum(1), x.amax(1), x.mean(0)), (torch.randn(4, 9),)),
    "argmax with values": (lambda x: x.max(1), (torch.randn(4, 9),)),
    "reshape between reductions": (lambda x: torch.softmax(x.view(6, 4), 1).view(2, 12).sum(1), (torch.randn(24),)),
    "cat and pad": (lambda x, y: F.pad(torch.cat([x.exp(), y * 2], 1), (1, 2), value=3.0) + 1,
                    (torch.randn(3, 4), torch.randn(3, 2))),
    "flip and roll": (lambda x: (x + 1).flip(0).roll(2, 1) * x, (torch.randn(4, 5),)),
    "whole sum used everywhere": (lambda x: x / x.sum(), (torch.rand(5, 6) + 1,)),
    "scalar chain": (lambda x: (x.sum() + 1).sqrt() * x.mean(), (torch.rand(7),)),
    "empty rows": (lambda x: (torch.softmax(x, 1), x.sum(0)), (torch.randn(0, 5),)),
    "empty columns": (lambda x: (x.sum(1), x.prod(1)), (torch.randn(3, 0),)),
    "embedding and layer norm": (lambda i, w: F.layer_norm(F.embedding(i, w) * 2, (8,)),
                                 (torch.randint(0, 9, (3, 4)), torch.randn(9, 8))),
    "masked mean": (lambda x, m: (x * m[..., None]).sum(1) / m.sum(1, keepdim=True).clamp(min=1),
                    (torch.randn(2, 5, 4), torch.ones(2, 5))),
    "padded before exp": (lambda x: F.pad(x.exp(), (1, 1)).sum(1), (torch.randn(3, 4),)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_fused_program_equals_eager(name: str) -> None:
    fn, args = PROGRAMS[name]
    check(fn, *args)


def mutate(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    before = x.flip(0)
    x.add_(y)
    y.copy_(torch.softmax(x, 1))
    return before + x


def test_c11_in_place_changes_of_inputs() -> None:
    check(mutate, torch.randn(4, 6), torch.randn(4, 6))


def test_reversal_in_place_reads_before_it_writes() -> None:
    check(lambda x: x.copy_(x.flip(0) * 2), torch.randn(7))


def test_equal_layers_share_their_kernels() -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    model = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    schedule, _ = schedule_of(model, (torch.randn(2, 5, 16),))
    assert len(schedule.steps) > 2 * len(schedule.kernels)
    check(model, torch.randn(2, 5, 16))


def swap(x: torch.Tensor, y: torch.Tensor) -> None:
    old = x.clone()
    x.copy_(y)
    y.copy_(old)


def test_swapped_inputs_keep_their_old_values() -> None:
    check(swap, torch.randn(4), torch.randn(4))
