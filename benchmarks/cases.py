"""What is measured: functions with their inputs, and the bytes each must move at least."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.case import Case, Workload, short
from benchmarks.models import bert_base, gpt2_small, minilm, resnet50, vit_base


def _pointwise(device: str) -> Workload:
    return lambda x: x + 1, (torch.randn(8, device=device),)


def _relu(device: str) -> Workload:
    return lambda x: torch.relu(x + 1), (torch.randn(1024, device=device),)


def _softmax(rows: int, columns: int, dtype: torch.dtype) -> Case:
    def make(device: str) -> Workload:
        return lambda x: torch.softmax(x, -1), (torch.randn(rows, columns, device=device).to(dtype),)

    return Case(f"softmax {rows}×{columns} {short(dtype)}", make, 2 * rows * columns * dtype.itemsize)


def _norm_gelu(rows: int, columns: int, dtype: torch.dtype) -> Case:
    def make(device: str) -> Workload:
        x, r = (torch.randn(rows, columns, device=device).to(dtype) for _ in range(2))
        w, b = (torch.randn(columns, device=device).to(dtype) for _ in range(2))
        return lambda x, r, w, b: F.gelu(F.layer_norm(x + r, (columns,), w, b)) + r, (x, r, w, b)

    return Case(f"gelu(layernorm(x+r))+r {rows}×{columns} {short(dtype)}", make, 3 * rows * columns * dtype.itemsize)


def _column_squares(rows: int, columns: int, dtype: torch.dtype) -> Case:
    def make(device: str) -> Workload:
        return lambda x: (x * x).sum(0), (torch.randn(rows, columns, device=device).to(dtype),)

    return Case(f"column sum of squares {rows}×{columns} {short(dtype)}", make, rows * columns * dtype.itemsize)


def _sum_squares(count: int) -> Case:
    def make(device: str) -> Workload:
        return lambda x: (x * x).sum(), (torch.randn(count, device=device),)

    return Case(f"sum of squares {count} float32", make, 4 * count)


def _cumsum(count: int) -> Case:
    def make(device: str) -> Workload:
        return lambda x: torch.cumsum(x, 0), (torch.randn(count, device=device),)

    return Case(f"cumsum {count} float32", make, 8 * count)


def _var_mean(rows: int, columns: int) -> Case:
    def make(device: str) -> Workload:
        return lambda x: torch.var_mean(x, -1), (torch.randn(rows, columns, device=device),)

    return Case(f"var_mean {rows}×{columns} float32", make, 4 * rows * columns)


def _chain(length: int, rows: int, columns: int) -> Case:
    """Return many small kernels one after another, where launches cost more than the work."""

    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x
        for _ in range(length):
            y = x + torch.roll(torch.softmax(y, -1) * 0.5, 1, -1)
        return y

    def make(device: str) -> Workload:
        return fn, (torch.randn(rows, columns, device=device),)

    return Case(f"{length} × (softmax, scale, roll, add) {rows}×{columns} float32", make)


OVERHEAD = Case("x+1, 8 float32", _pointwise)

CPU_CASES = (
    OVERHEAD,
    _softmax(8192, 1024, torch.float32),
    _norm_gelu(8192, 1024, torch.float32),
    _column_squares(16384, 1024, torch.float32),
    minilm(1, 128),
    minilm(8, 128),
)

CUDA_CASES = (
    Case("relu(x+1), 1024 float32", _relu),
    _chain(32, 256, 512),
    _softmax(8192, 4096, torch.bfloat16),
    _norm_gelu(8192, 4096, torch.bfloat16),
    _sum_squares(1 << 28),
    _cumsum(1 << 26),
    _var_mean(64, 1 << 20),
    _column_squares(1 << 17, 1024, torch.bfloat16),
    minilm(1, 128),
    minilm(8, 128),
    bert_base(1, 128, torch.bfloat16),
    bert_base(16, 512, torch.bfloat16),
    gpt2_small(8, 1024, torch.bfloat16),
    vit_base(8, torch.bfloat16),
    resnet50(1, torch.bfloat16),
)
