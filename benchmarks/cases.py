"""What is measured: functions with their inputs, and the bytes each must move at least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Case:
    """One workload: `make(device)` returns the callee and its inputs; `bytes` is its least memory traffic (0: compute)."""

    name: str
    make: Callable[[str], tuple[Callable[..., object], tuple[torch.Tensor, ...]]]
    bytes: int = 0


def _pointwise(device: str) -> tuple[Callable[..., object], tuple[torch.Tensor, ...]]:
    return lambda x: x + 1, (torch.randn(8, device=device),)


def _softmax(rows: int, columns: int, dtype: torch.dtype) -> Case:
    def make(device: str) -> tuple[Callable[..., object], tuple[torch.Tensor, ...]]:
        return lambda x: torch.softmax(x, -1), (torch.randn(rows, columns, device=device).to(dtype),)

    return Case(f"softmax {rows}×{columns} {_short(dtype)}", make, 2 * rows * columns * dtype.itemsize)


def _norm_gelu(rows: int, columns: int, dtype: torch.dtype) -> Case:
    def make(device: str) -> tuple[Callable[..., object], tuple[torch.Tensor, ...]]:
        x, r = (torch.randn(rows, columns, device=device).to(dtype) for _ in range(2))
        w, b = (torch.randn(columns, device=device).to(dtype) for _ in range(2))
        return lambda x, r, w, b: F.gelu(F.layer_norm(x + r, (columns,), w, b)) + r, (x, r, w, b)

    return Case(f"gelu(layernorm(x+r))+r {rows}×{columns} {_short(dtype)}", make, 3 * rows * columns * dtype.itemsize)


def _column_sum(rows: int, columns: int) -> Case:
    def make(device: str) -> tuple[Callable[..., object], tuple[torch.Tensor, ...]]:
        return lambda x: (x * x).sum(0), (torch.randn(rows, columns, device=device),)

    return Case(f"column sum of squares {rows}×{columns} float32", make, rows * columns * 4)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _minilm(batch: int, length: int) -> Case:
    def make(device: str) -> tuple[Callable[..., object], tuple[torch.Tensor, ...]]:
        # Imported here: the models are optional, the other cases run without them.
        from transformers import BertConfig, BertModel  # noqa: PLC0415

        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
        )
        bert = BertModel(config, add_pooling_layer=False).eval().to(device)

        def embed(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden = bert(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask[..., None].to(hidden.dtype)
            return F.normalize((hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9), dim=1)

        class Encoder(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bert = bert

            def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                return embed(ids, mask)

        ids = torch.randint(1000, 30000, (batch, length), device=device)
        return Encoder().eval(), (ids, torch.ones_like(ids))

    return Case(f"MiniLM-L6 {batch}×{length} float32", make)


OVERHEAD = Case("x+1, 8 float32", _pointwise)

CPU_CASES = (
    OVERHEAD,
    _softmax(8192, 1024, torch.float32),
    _norm_gelu(8192, 1024, torch.float32),
    _column_sum(16384, 1024),
    _minilm(1, 128),
    _minilm(8, 128),
)

CUDA_CASES = (
    Case("relu(x+1), 1024 float32", lambda device: (lambda x: torch.relu(x + 1), (torch.randn(1024, device=device),))),
    _softmax(8192, 4096, torch.bfloat16),
    _norm_gelu(8192, 4096, torch.bfloat16),
    _column_sum(1 << 17, 1024),
    _minilm(1, 128),
    _minilm(8, 128),
)
