"""Matrix products as fusion makes them: heads split and merged, masks, gathers, activations, residuals, in every float."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.python.cpp.matmul_run import check
from tests.python.cpp.running import fill, target
from tests.python.fuse.scheduled import schedule_of

from mkwrap.codegen.cpp.matmul import TEMPLATE as MATMUL
from mkwrap.codegen.cpp.matmul_dot import TEMPLATE as DOT
from mkwrap.codegen.cpp.matmul_variants import Layout
from mkwrap.ir.analysis import reduces
from mkwrap.stages import BufferArgument, Device, Kernel, Variant

pytestmark = pytest.mark.toolchain


def products(fn: Callable[..., object], *args: object) -> list[Kernel]:
    """Kernels of a function that hold a matrix product."""
    schedule, _ = schedule_of(fn, args)
    return [k for k in schedule.kernels.values() if any(r.op == "dot" for r in reduces(k.nest))]


class Block(torch.nn.Module):
    """An encoder block: 4 heads of 8, feed-forward of 96."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(32, 32) for _ in range(4))
        self.norm = torch.nn.LayerNorm(32)
        self.up, self.down = torch.nn.Linear(32, 96), torch.nn.Linear(96, 32)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, 4, 8).transpose(1, 2)

        q, k, v = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        p = torch.softmax(q @ k.transpose(-1, -2) * 8**-0.5 + mask, -1)
        x = self.norm(x + self.out((p @ v).transpose(1, 2).reshape(batch, length, 32)))
        return self.norm(x + self.down(F.gelu(self.up(x))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_encoder_block(dtype: torch.dtype) -> None:
    block = Block().to(dtype).eval()
    found = products(block, torch.randn(2, 19, 32, dtype=dtype), torch.zeros(2, 1, 1, 19, dtype=dtype))
    assert len(found) >= 5
    for kernel in found:
        for template in (MATMUL, DOT):
            assert check(template, kernel, 3e-6 if dtype is torch.float32 else 1e-2)


def test_weights_are_packed_at_compile_time() -> None:
    (kernel,) = products(torch.nn.Linear(40, 70), torch.randn(2, 9, 40))
    (source,) = check(MATMUL, kernel, 3e-6)[:1]
    packings = [a.packing for a in source.launches[0].args if isinstance(a, BufferArgument) and a.packing is not None]
    assert len(packings) == 1
    assert packings[0].shape[1] == 40
    assert ("b", Layout.CONSTANT.value) in source.variant.params
    assert source.workspace_bytes == 0


def test_prologues_and_masks() -> None:
    w, x = torch.randn(24, 33), torch.randn(5, 17, 24)
    functions = [
        lambda x, w: torch.tanh(x) @ (w * 2 + 1),
        lambda x, w: F.pad(x, (0, 0, 2, 3)) @ w,
        lambda x, w: x.tril() @ w,
        lambda x, w: x.flip(1) @ w.flip(0),
        lambda x, w: (x.double() @ w.double()).float(),
        lambda x, w: x.to(torch.bfloat16).float() @ w,
    ]
    for fn in functions:
        for kernel in products(fn, x, w):
            assert check(MATMUL, kernel, 3e-6)
            assert check(DOT, kernel, 3e-6)


def test_gathered_rows_are_checked() -> None:
    table, index, w = torch.randn(11, 16), torch.tensor([3, 10, 0, -1]), torch.randn(16, 20)
    for kernel in products(lambda t, i, w: t[i] @ w, table, index, w):
        rng = np.random.default_rng(0)
        memory = {p.buffer.name: fill(p.buffer, rng, -11, 11) for p in kernel.parameters}
        assert check(DOT, kernel, 3e-6, memory=memory)


def test_every_product_has_a_safe_default() -> None:
    functions: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (lambda a, b: a @ b, (torch.randn(3), torch.randn(3))),
        (lambda a, b: a @ b, (torch.ones(4, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64))),
        (lambda a: a @ a, (torch.randn(6, 6),)),
        (lambda a: a @ a.T, (torch.randn(6, 6),)),
        (lambda a, b: torch.einsum("bij,bkj->ik", a, b), (torch.randn(2, 3, 4), torch.randn(2, 5, 4))),
    ]
    for fn, args in functions:
        for kernel in products(fn, *args):
            assert DOT.space(kernel, target().device)


def test_c24_squares_and_transposes_are_right() -> None:
    for fn in (lambda a: a @ a, lambda a: a @ a.T, lambda a: a.T @ a):
        for kernel in products(fn, torch.randn(37, 37)):
            assert check(MATMUL, kernel, 3e-6)


def test_text_is_the_golden_one(golden: Callable[[str, str], None]) -> None:
    (kernel,) = products(
        lambda x, w, b: F.relu(F.linear(x, w, b)), torch.randn(50, 40), torch.randn(70, 40), torch.randn(70)
    )
    kernel = replace(kernel, nest=replace(kernel.nest, origins=()))
    device = Device("cpu", "x86-64-v3", vector_bytes=32, units=4)
    params = MATMUL.space(kernel, device)[0]
    golden("cpp/matmul_relu.cpp.txt", MATMUL.render(kernel, Variant(kernel.name, "matmul", params), device).text)
    params = DOT.space(kernel, device)[0]
    golden("cpp/dot_relu.cpp.txt", DOT.render(kernel, Variant(kernel.name, "dot", params), device).text)
