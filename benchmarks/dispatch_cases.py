"""The cases of `benchmarks.dispatch`: programs with dynamic sizes, and shapes that nobody tuned for."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from benchmarks.models import minilm
from torch.export import Dim

Shape: TypeAlias = Mapping[str, int]
"""A value for each dynamic size."""
Hints: TypeAlias = Literal["auto"] | Mapping[str, Sequence[int]]
Make: TypeAlias = Callable[[Shape, str], tuple[torch.Tensor, ...]]

_SHAPES = 22
_MOST_ELEMENTS = 2**26


@dataclass(frozen=True)
class DynamicCase:
    """One program: its callee, inputs at a shape and on a device, dims as `torch.export` takes them, and unseen shapes.

    `build` makes the callee; it raises ImportError where it needs a package that is not installed.
    """

    name: str
    build: Callable[[], Callable[..., object]]
    make: Make
    dims: Mapping[str, Mapping[int, object]]
    ranges: Mapping[str, tuple[int, int]]
    shapes: tuple[Shape, ...]
    hints: Hints = "auto"
    limit: int = _MOST_ELEMENTS
    """Hints with more elements than that are left out, as shapes are."""

    @property
    def example(self) -> Shape:
        """The shape it is compiled with: the geometric middle of every range."""
        return {name: max(round(math.sqrt(max(low, 1) * high)), 2) for name, (low, high) in self.ranges.items()}


def _drawn(name: str, ranges: Mapping[str, tuple[int, int]]) -> tuple[Shape, ...]:
    """Draw shapes log-uniformly over the ranges: half of the sizes as they come, half multiples of 16 or 64, as in models."""
    generator = random.Random(name)
    found: list[Shape] = []
    while len(found) < _SHAPES:
        shape = {}
        for symbol, (low, high) in ranges.items():
            size = round(math.exp(generator.uniform(math.log(max(low, 1)), math.log(high))))
            step = generator.choice((1, 1, 16, 64))
            shape[symbol] = size // step * step if size >= step else size
        if math.prod(shape.values()) <= _MOST_ELEMENTS and shape not in found:
            found.append(shape)
    return tuple(found)


def _rows_and_columns(name: str, fn: Callable[..., object], most: int) -> DynamicCase:
    ranges = {"rows": (1, most), "columns": (1, most)}
    dims = {"x": {0: Dim("rows", min=1, max=most), 1: Dim("columns", min=1, max=most)}}

    def make(shape: Shape, device: str) -> tuple[torch.Tensor, ...]:
        return (torch.randn(shape["rows"], shape["columns"], device=device),)

    return DynamicCase(name, lambda: fn, make, dims, ranges, _drawn(name, ranges))


def _matmul(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


def _product(name: str, most: int, inner: int, dtype: torch.dtype, hints: Hints) -> DynamicCase:
    ranges = {"m": (1, most)}

    def make(shape: Shape, device: str) -> tuple[torch.Tensor, ...]:
        return (
            torch.randn(shape["m"], inner, device=device).to(dtype),
            (torch.randn(inner, inner, device=device) / math.sqrt(inner)).to(dtype),
        )

    dims: dict[str, dict[int, object]] = {"x": {0: Dim("m", min=1, max=most)}, "w": {}}
    return DynamicCase(name, lambda: _matmul, make, dims, ranges, _drawn("matmul", ranges), hints)


_MINILM_SHAPES = (
    (1, 11),
    (1, 37),
    (1, 200),
    (1, 450),
    (2, 77),
    (3, 300),
    (5, 20),
    (5, 129),
    (12, 50),
    (16, 24),
    (30, 100),
    (48, 16),
)


def _minilm() -> DynamicCase:
    """MiniLM-L6, compiled once for batches and lengths as a server of embeddings sees them."""

    def build() -> Callable[..., object]:
        torch.manual_seed(0)
        return minilm(1, 8).make("cpu")[0]

    def make(shape: Shape, device: str) -> tuple[torch.Tensor, ...]:
        ids = torch.randint(1000, 30000, (shape["batch"], shape["length"]), device=device)
        mask = torch.ones_like(ids)
        # Sentences end somewhere in the last quarter.
        mask[:, max(3 * shape["length"] // 4, 1) :].random_(0, 2)
        return ids, mask

    dims = {0: Dim("batch", min=1, max=64), 1: Dim("length", min=8, max=512)}
    shapes: tuple[Shape, ...] = tuple({"batch": batch, "length": length} for batch, length in _MINILM_SHAPES)
    ranges = {"batch": (1, 64), "length": (8, 512)}
    hints = {"batch": (1, 8, 64), "length": (16, 64, 256)}
    return DynamicCase("MiniLM-L6", build, make, {"ids": dims, "mask": dims}, ranges, shapes, hints, limit=64 * 128)


def cases(device: str) -> tuple[DynamicCase, ...]:
    """Return every case; `device` is "cpu" or "cuda"."""
    networks = (_minilm(),) if device == "cpu" else ()
    most, inner, dtype = (16384, 4096, torch.bfloat16) if device == "cuda" else (2048, 384, torch.float32)
    return (
        *networks,
        _product(f"matmul m×{inner}×{inner}", most, inner, dtype, "auto"),
        _rows_and_columns("softmax", lambda x: torch.softmax(x, -1), most),
        _rows_and_columns("layer norm", lambda x: F.layer_norm(x, x.shape[-1:]), most),
        _rows_and_columns("column sum", lambda x: x.sum(0), most),
        _rows_and_columns("cumsum", lambda x: x.cumsum(-1), most),
        # pytorch #163090: similarity against full benchmarking, with two hints only.
        _product(
            f"matmul m×{inner}×{inner}, hints 64 and {min(most, 4096)}",
            most,
            inner,
            dtype,
            {"m": (64, min(most, 4096))},
        ),
    )
