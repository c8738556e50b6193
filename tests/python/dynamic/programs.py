"""Small programs with dynamic sizes: what each op makes of a size it does not know.

An input is written as its dims: a letter is a dynamic size, a digit a static one, `i` in front makes it integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from tests.python.lower.differential import Function

_GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(6, 6, generator=_GENERATOR)
TABLE = torch.randn(11, 6, generator=_GENERATOR)
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """A function, its inputs, and the sizes that are refused though eager takes them."""

    fn: Function
    inputs: tuple[str, ...]
    refused: Callable[[Sizes], bool] = lambda _sizes: False
    example: int = 8
    """Size of `a` in the example."""

    @property
    def letters(self) -> tuple[str, ...]:
        """The dynamic sizes."""
        return tuple(sorted({c for spec in self.inputs for c in _dims(spec) if not c.isdigit()}))

    def make(self, sizes: Sizes) -> list[torch.Tensor]:
        """Make inputs of some sizes."""
        generator = torch.Generator().manual_seed(1)
        made: list[torch.Tensor] = []
        for spec in self.inputs:
            shape = [int(c) if c.isdigit() else sizes[c] for c in _dims(spec)]
            if spec.startswith("i"):
                made.append(torch.randint(0, 100, shape, generator=generator))
            else:
                made.append(torch.randn(shape, generator=generator))
        return made

    def dynamic_shapes(self, dim: Callable[[str], object]) -> tuple[dict[int, object], ...]:
        """Declare every letter by what `dim` makes of it."""
        return tuple({k: dim(c) for k, c in enumerate(_dims(spec)) if not c.isdigit()} for spec in self.inputs)


def _dims(spec: str) -> str:
    return spec.removeprefix("i")


def _layers(x: torch.Tensor) -> Sequence[torch.Tensor]:
    return F.layer_norm(x, (x.shape[-1],)), F.rms_norm(x, (x.shape[-1],))


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _empty(*letters: str) -> Callable[[Sizes], bool]:
    return lambda sizes: any(sizes[letter] == 0 for letter in letters)


CASES: Mapping[str, Case] = {
    "add": Case(lambda x: x + 1, ("ab",)),
    "broadcast": Case(lambda x, y: x * y, ("ab", "b")),
    "sums": Case(lambda x: (x.sum(0), x.sum(-1), x.sum()), ("ab",)),
    "means": Case(lambda x: (x.mean(0), x.mean(-1), x.mean()), ("ab",)),
    "variances": Case(lambda x: (x.var(0), x.std(-1, correction=0), torch.var_mean(x, -1)), ("ab",)),
    "extrema": Case(lambda x: (x.amax(0), x.argmax(-1), x.max(-1)[0], x.argmax()), ("ab",)),
    "truth": Case(lambda x: ((x > 0).any(-1), (x > 0).all()), ("ab",)),
    "prod": Case(lambda x: x.prod(0), ("ab",)),
    "softmax": Case(lambda x: (x.softmax(-1), x.log_softmax(0), x.logsumexp(-1)), ("ab",)),
    "norms": Case(_layers, ("ab",)),
    "layer_norm": Case(lambda x: F.layer_norm(x, (6,)), ("ab6",)),
    "group_norm": Case(lambda x: F.group_norm(x, 2), ("a6b",)),
    "batch_norm": Case(lambda x: F.batch_norm(x, torch.zeros(2), torch.ones(2)), ("a2bc",)),
    "normalize": Case(lambda x: F.normalize(x, dim=-1), ("ab",)),
    "mm": Case(lambda x, y: x @ y, ("ab", "bc")),
    "gram": Case(lambda x: x @ x.t(), ("ab",)),
    "linear": Case(lambda x: F.linear(x, WEIGHT, WEIGHT[0]).relu(), ("ab6",)),
    "bmm": Case(lambda x, y: torch.bmm(x, y.mT), ("abc", "adc")),
    "addmm": Case(torch.addmm, ("c", "ab", "bc")),
    "matmul": Case(lambda x, y: x @ y, ("a2bc", "a2cd")),
    "einsum": Case(lambda x, y: torch.einsum("bij,bjk->bik", x, y), ("abc", "acd")),
    "outer": Case(torch.outer, ("a", "b")),
    "embedding": Case(lambda i: F.embedding(i % 11, TABLE), ("iab",)),
    "gather": Case(lambda x, i: torch.gather(x, 1, i % x.shape[1]), ("ab", "iab")),
    "index_select": Case(lambda x: x.index_select(0, torch.arange(x.shape[0] // 2)), ("ab",)),
    "cat": Case(lambda x, y: (torch.cat([x, y]), torch.cat([x, y]) * 2), ("ab", "cb")),
    "cat_columns": Case(lambda x, y: torch.cat([x, y * 2, x], 1), ("ab", "ac")),
    "stack": Case(lambda x, y: torch.stack([x, y], 1), ("ab", "ab")),
    "split": Case(lambda x: x.split([x.shape[0] - 1, 1]), ("ab",)),
    "chunk": Case(lambda x: [part * 2 for part in x.chunk(3, 1)], ("a6b",)),
    "chunk_dynamic": Case(lambda x: x.chunk(2), ("ab",), lambda sizes: sizes["a"] < 2),
    "unbind": Case(lambda x: x.unbind(1)[0], ("a6",)),
    "pad": Case(lambda x: (F.pad(x, (1, 2, 0, 1)), F.pad(x, (0, x.shape[0]))), ("ab",)),
    "pad_reflect": Case(lambda x: F.pad(x[None], (1, 1), mode="reflect"), ("ab",)),
    "arange": Case(lambda x: (x + torch.arange(x.shape[1]), torch.arange(2, 2 * x.shape[0] + 3, 2)), ("ab",)),
    "positions": Case(lambda x: torch.arange(x.shape[0], dtype=torch.float32) / x.shape[0], ("ab",)),
    "sizes_as_data": Case(lambda x: (torch.full((x.shape[0], 2), x.shape[1]), x.mean(0) + x.shape[0]), ("ab",)),
    "scale": Case(lambda x: x * x.shape[-1] ** -0.5 + x / x.shape[0], ("ab",)),
    "root": Case(lambda x: x / x.shape[-1] ** 0.5, ("ab",)),
    "triangles": Case(lambda x: (x.triu(), x.tril(1)), ("ab",)),
    "causal": Case(lambda x: x.masked_fill(torch.ones(x.shape[0], x.shape[0]).tril() == 0, -1e9), ("aa",)),
    "scans": Case(lambda x: (x.cumsum(0), x.cumsum(-1), x.cummax(0)), ("ab",)),
    "sort": Case(lambda x: x.sort(-1), ("ab",)),
    "topk": Case(lambda x: x.topk(2, -1), ("ab",)),
    "expand": Case(lambda x: x[:, None].expand(-1, 3, -1).reshape(-1, x.shape[1]), ("ab",)),
    "flatten": Case(lambda x: x.flatten(0, 1) * 2, ("abc",)),
    "view": Case(lambda x: x.view(x.shape[0] * x.shape[1], -1).sum(-1), ("ab6",)),
    "unflatten": Case(lambda x: x.unflatten(-1, (2, 3)).transpose(1, 2), ("a6",)),
    "pairs": Case(lambda x: x.reshape(-1, 2, x.shape[1]).sum(1), ("ab",)),
    "quarters": Case(lambda x: x.reshape(x.shape[0] // 4, -1).sum(-1), ("ab",)),
    "transpose": Case(lambda x: x.t().contiguous() + 1, ("ab",)),
    "permute": Case(lambda x: x.permute(2, 0, 1).reshape(x.shape[2], -1), ("abc",)),
    "slices": Case(lambda x: (x[:, :3], x[1:], x[:-1], x[:, ::2], x[-2:]), ("ab",), _empty("a")),
    "half": Case(lambda x: x[: x.shape[0] // 2] + 1, ("ab",)),
    "differences": Case(lambda x: x[1:] - x[:-1], ("ab",), _empty("a")),
    "smaller": Case(lambda x: x[: min(x.shape[0], 3)].sum(0) * max(x.shape[0], 2), ("ab",)),
    "table": Case(lambda x: x + WEIGHT[: x.shape[0]], ("a6",), example=4),
    "select": Case(lambda x: (x[0], x[-1], x[:, 0]), ("ab",)),
    "narrow": Case(lambda x: x.narrow(0, 1, x.shape[0] - 1), ("ab",)),
    "flip": Case(lambda x: (x.flip(0), x.roll(1, 1)), ("ab",)),
    "repeat": Case(lambda x: (x.repeat(2, 1), x.repeat_interleave(2, 1), x.repeat(x.shape[1], 1)), ("ab",)),
    "diagonal": Case(lambda x: (x.diagonal(), x.diagonal(1)), ("ab",), _empty("b")),
    "windows": Case(lambda x: x.unfold(0, 3, 2) + 0, ("ab",)),
    "eye": Case(lambda x: torch.eye(x.shape[0]) @ x, ("ab",)),
    "attention": Case(_sdpa, ("a2b4", "a2c4", "a2c4")),
    "attention_causal": Case(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), ("a2b4",)),
    "attention_masked": Case(lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m > 0), ("a2b4", "bb")),
    "scores_padded": Case(lambda q, m: q @ q.transpose(-1, -2) + m, ("a2b4", "a11b")),
    "attention_padded": Case(lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m), ("a2b4", "a11b")),
    "attention_hidden": Case(lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m > 0), ("a2b4", "a11b")),
    "attention_padded_keys": Case(
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m), ("a2b4", "a2c4", "a11c")
    ),
    "attention_padded_queries": Case(
        lambda q, k, m: F.scaled_dot_product_attention(q, k, k, attn_mask=m), ("a2b4", "a2c4", "a1b1")
    ),
    "upsampled": Case(lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), ("a2bc",)),
    "cross_entropy": Case(lambda x: F.cross_entropy(x, torch.zeros(x.shape[0], dtype=torch.int64)), ("a6",)),
    "mutated": Case(lambda x: x.add_(1), ("ab",)),
    "written": Case(lambda x: x.select(0, 0).fill_(1), ("ab",)),
    "squeeze": Case(lambda x: x.squeeze(0), ("ab",), lambda sizes: sizes["a"] == 1),
    "three": Case(lambda x: x + 1 if x.shape[0] >= 3 else x - 1, ("ab",), lambda sizes: sizes["a"] < 3),
    "not_one": Case(lambda x: x + 1 if x.shape[0] != 1 else x - 1, ("ab",), lambda sizes: sizes["a"] == 1),
    "fourth": Case(lambda x: x + 1 if x.shape[0] % 4 == 0 else x, ("ab",), lambda sizes: sizes["a"] % 4 != 0),
}
