"""Scaled dot-product attention: two products with a softmax between them, over any leading dims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import sympy
import torch

from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv
from mkwrap.ir.nodes import Expr
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, Unsupported
from mkwrap.lower.matmul import matmul
from mkwrap.lower.softmax import softmax
from mkwrap.lower.tensor import TensorValue

aten = torch.ops.aten


def _shared_heads(x: TensorValue, heads: Expr) -> TensorValue:
    """Repeat each head of x for a group of neighbouring query heads (dim −3), as a view."""
    own = x.shape[-3]
    if own == heads:
        return x
    shape = (*x.shape[:-3], heads, *x.shape[-2:])
    return x.through(shape, lambda index: (*index[:-3], FloorDiv(index[-3], FloorDiv(heads, own)), *index[-2:]))


def _lead(*shapes: Sequence[Expr]) -> tuple[Expr, ...]:
    """Broadcast leading dims."""
    rank = max(len(shape) for shape in shapes)
    padded = [(*([sympy.Integer(1)] * (rank - len(shape))), *shape) for shape in shapes]
    return tuple(next((n for n in sizes if n != 1), sympy.Integer(1)) for sizes in zip(*padded, strict=True))


def _masked_scores(
    low: Lowering, scores: TensorValue, mask: TensorValue | None, is_causal: bool, scale: float | Expr
) -> TensorValue:
    """Scale · scores, plus the mask or −inf where it is False or in the future."""
    dtype = scores.dtype
    wide_mask = None if mask is None else mask.broadcast(scores.shape)

    def write(writer: NestWriter, index: Index) -> Sequence[str]:
        value = writer.compute("mul", writer.read(scores, index), writer.read(scale, (), dtype=dtype))
        lowest = writer.constant(-math.inf, dtype)
        if is_causal:
            past = writer.compute("ge", writer.index_value(index[-2]), writer.index_value(index[-1]))
            value = writer.compute("where", past, value, lowest)
        if wide_mask is not None and wide_mask.dtype is DType.BOOL:
            value = writer.compute("where", writer.read(wide_mask, index), value, lowest)
        elif wide_mask is not None:
            value = writer.compute("add", value, writer.read(wide_mask, index, dtype=dtype))
        return [value]

    return low.pointwise(scores.shape, (dtype,), write)[0]


def _attention(  # noqa: PLR0913 - torch's signature
    low: Lowering,
    query: TensorValue,
    key: TensorValue,
    value: TensorValue,
    attn_mask: TensorValue | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | Expr | None = None,
    enable_gqa: bool = False,
) -> TensorValue:
    if dropout_p:
        raise Unsupported("dropout in attention (dropout_p is not 0)")
    if not query.dtype.is_float:
        raise Unsupported(f"attention over {query.dtype.value}")
    if enable_gqa:
        key, value = _shared_heads(key, query.shape[-3]), _shared_heads(value, query.shape[-3])
    if scale is None:
        width = query.shape[-1]
        scale = 1 / sympy.sqrt(width) if not width.is_Integer else 1 / math.sqrt(int(width)) if width else math.inf
    lead = _lead(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    query, key, value = (x.broadcast((*lead, *x.shape[-2:])) for x in (query, key, value))
    key_t = key.through((*lead, key.shape[-1], key.shape[-2]), lambda index: (*index[:-2], index[-1], index[-2]))
    scores = matmul(low, query, key_t, query.dtype.compute)
    masked = _masked_scores(low, scores, attn_mask, is_causal, scale)
    weights = softmax(low, masked, masked.rank - 1, query.dtype, safe=attn_mask is not None)
    return matmul(low, weights, value, query.dtype)


RULES: Mapping[torch._ops.OpOverload, Rule] = {aten.scaled_dot_product_attention.default: _attention}
