"""Which ATen ops are decomposed before lowering, and which are kept because a rule lowers them directly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch._decomp import get_decompositions
from torch.export.decomp_utils import CustomDecompTable
from torch.export.exported_program import default_decompositions

aten = torch.ops.aten

Table: TypeAlias = dict[torch._ops.OperatorBase, Callable[..., object]] | CustomDecompTable

KEEP: tuple[torch._ops.OpOverload, ...] = (
    aten._softmax.default,
    aten._log_softmax.default,
    aten.native_layer_norm.default,
    aten.native_group_norm.default,
    aten.gelu.default,
    aten.addmm.default,
    aten.baddbmm.default,
    aten.silu.default,
    aten._safe_softmax.default,
    aten.logsumexp.default,
    aten.rms_norm.default,
    aten.std_mean.correction,
    aten.aminmax.default,
    aten.all.default,
    aten.all.dim,
    aten.all.dims,
    aten.linear.default,
    aten.mv.default,
    aten.dot.default,
    aten.vdot.default,
    aten.scaled_dot_product_attention.default,
)
"""Ops with a rule of their own, though torch could decompose them."""

EXTRA: tuple[torch._ops.OpOverload, ...] = (
    aten._native_batch_norm_legit.no_stats,
    aten.dist.default,
)
"""Ops outside core ATen's table that torch knows how to decompose."""


def decompositions() -> Table:
    """Return the table handed to `ExportedProgram.run_decompositions`."""
    table: Table = default_decompositions()
    for op in KEEP:
        table.pop(op, None)
    table.update(get_decompositions(EXTRA))
    return table
