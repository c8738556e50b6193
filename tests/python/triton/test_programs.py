"""Captured, lowered and fused functions, every kernel as Triton under Triton's interpreter, against eager."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from torch import nn
from torch.nn import functional

from mkwrap.codegen.template import Template
from mkwrap.codegen.triton import LANGUAGE
from mkwrap.ir.nodes import Buffer, Role
from mkwrap.stages import OutputKind, Params, Schedule, Variant
from tests.python.fuse.scheduled import schedule_of
from tests.python.triton.emulate import run
from tests.python.triton.nests import H100
from tests.python.triton.oracle import torch_dtype, view


class Block(nn.Module):
    """A pre-norm transformer block with a causal mask."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        mixed = self.mix(self.first(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.second(x))))


def storage(buffer: Buffer) -> torch.Tensor:
    return torch.empty(max(int(buffer.storage_elements), 1), dtype=torch_dtype(buffer.dtype))


Offered: TypeAlias = tuple[Template, Params]


def execute(
    schedule: Schedule, inputs: Mapping[str, torch.Tensor], folder: Path, choose: Callable[[Sequence[Offered]], Offered]
) -> dict[str, torch.Tensor]:
    """Run every step with the variant chosen of its templates' best guesses; returns every buffer's flat memory."""
    memory = dict(inputs)
    for name, buffer in schedule.program.buffers.items():
        if buffer.role is Role.CONSTANT:
            data = torch.from_numpy(schedule.program.constants[name].data.copy())
            memory[name] = data.view(torch_dtype(buffer.dtype))
        elif name not in memory:
            memory[name] = storage(buffer)
    for step in schedule.steps:
        kernel = schedule.kernels[step.kernel]
        offered = [
            (t, params) for t in LANGUAGE.templates if t.takes(kernel.nest) for params in t.space(kernel, H100)[:1]
        ]
        template, params = choose(offered)
        source = template.render(kernel, Variant(kernel.name, template.name, params), H100)
        run(source, {k: memory[name] for k, name in enumerate(step.buffers)}, folder)
    return memory


def norms(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return functional.layer_norm(x + y, x.shape[-1:]), x.var(0), torch.softmax(x.t(), 0), x.argmax(1), (x > y).any(1)


def indexing(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    index = (y.abs() * 3).long().clamp(0, x.shape[0] - 1)
    padded = functional.pad(x, (2, 1), value=0.5)
    return x.gather(0, index), padded.flip(1), torch.cat([x, y.t().reshape(x.shape)], 1), torch.tril(x).roll(3, 1)


def empties(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x.any(0), (y > 0).all(0), x.sum(0), y.prod(0), (x > 0).any(1)


CASES: dict[str, Callable[[], tuple[Callable[..., object], tuple[torch.Tensor, ...]]]] = {
    "block": lambda: (Block().eval(), (torch.randn(2, 12, 32),)),
    "block_bf16": lambda: (Block().eval().bfloat16(), (torch.randn(2, 12, 32).bfloat16(),)),
    "norms": lambda: (norms, (torch.randn(9, 40), torch.randn(9, 40))),
    "empties": lambda: (empties, (torch.empty(0, 3), torch.empty(0, 5))),
    "indexing": lambda: (indexing, (torch.randn(9, 20), torch.randn(9, 20))),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_program_equals_eager(name: str, last: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fn, args = CASES[name]()
    with torch.no_grad():
        expected = fn(*args)
    schedule, names = schedule_of(fn, args)
    inputs = {k: arg.clone().reshape(-1) for k, arg in zip(names, args, strict=True)}
    memory = execute(schedule, inputs, tmp_path, lambda offered: offered[-1 if last else 0])
    outputs = schedule.program.outputs
    assert all(spec.kind is OutputKind.BUFFER for spec in outputs)
    results = [view(memory[spec.buffer], schedule.program.buffers[spec.buffer]) for spec in outputs]
    room = 5e-2 if args[0].dtype is torch.bfloat16 else 1e-4
    leaves = expected if isinstance(expected, tuple) else (expected,)
    for got, want in zip(results, leaves, strict=True):
        torch.testing.assert_close(got, want, rtol=room, atol=room)
