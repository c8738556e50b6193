"""Scaled dot-product attention and the blocks around it equal eager on the interpreter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.python.lower.differential import check, interpreted

from mkwrap.errors import UnsupportedOpError

attention = F.scaled_dot_product_attention


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_masks_and_scales(dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, n, 8).to(dtype) for n in (5, 7, 7))
    allowed = torch.rand(5, 7) > 0.4
    allowed[2] = False
    bias = torch.randn(2, 1, 5, 7).to(dtype)

    def fn(*v: torch.Tensor) -> list[object]:
        q, k, v, allowed, bias = v
        return [
            attention(q, k, v),
            attention(q, k, v, is_causal=True),
            attention(q, k, v, scale=0.3),
            attention(q, k, v, attn_mask=allowed),
            attention(q, k, v, attn_mask=bias),
            attention(q[0], k[0], v[0, :, :, :6]),
        ]

    check(fn, q, k, v, allowed, bias)


def test_grouped_query_attention() -> None:
    q, kv = torch.randn(2, 6, 4, 8), torch.randn(2, 2, 5, 8)
    check(lambda q, kv: attention(q, kv, kv, enable_gqa=True), q, kv)


def test_c20_attention_without_queries_or_heads() -> None:
    check(lambda q, k: attention(q, k, k), torch.randn(1, 2, 0, 4), torch.randn(1, 2, 3, 4))
    check(lambda q, k: attention(q, k, k), torch.randn(0, 2, 3, 4), torch.randn(0, 2, 3, 4))


def test_transposed_heads_of_one_projection() -> None:
    def fn(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        q, k, v = F.linear(x, w).view(2, 5, 3, 4, 2).permute(2, 0, 3, 1, 4)
        return attention(q, k, v, is_causal=True).transpose(1, 2).reshape(2, 5, 8)

    check(fn, torch.randn(2, 5, 8), torch.randn(24, 8))


def test_encoder_layer_and_multihead_attention() -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    check(layer, torch.randn(2, 4, 8))
    heads = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[1, 3] = True
    check(lambda x, mask: heads(x, x, x, key_padding_mask=mask), torch.randn(2, 4, 8), mask)


def test_dropout_is_refused() -> None:
    x = torch.randn(1, 1, 2, 4)
    with pytest.raises(UnsupportedOpError, match="dropout"):
        interpreted(lambda x: attention(x, x, x, dropout_p=0.5), [x])
