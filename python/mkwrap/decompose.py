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
    aten._prelu_kernel.default,
    aten.addcdiv.default,
    aten.addcmul.default,
    aten.celu.default,
    aten.clamp_max.Tensor,
    aten.clamp_max.default,
    aten.clamp_min.Tensor,
    aten.clamp_min.default,
    aten.deg2rad.default,
    aten.eye.default,
    aten.eye.m,
    aten.floor_divide.Scalar,
    aten.floor_divide.default,
    aten.frac.default,
    aten.hardshrink.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.lerp.Scalar,
    aten.lerp.Tensor,
    aten.linspace.default,
    aten.log_sigmoid_forward.default,
    aten.logaddexp.default,
    aten.logaddexp2.default,
    aten.logit.default,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    aten.mish.default,
    aten.one_hot.default,
    aten.rad2deg.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
    aten.roll.default,
    aten.rsub.Scalar,
    aten.rsub.Tensor,
    aten.select_scatter.default,
    aten.selu.default,
    aten.sgn.default,
    aten.softplus.default,
    aten.softshrink.default,
    aten.split.Tensor,
    aten.stack.default,
    aten.take.default,
    aten.threshold.default,
    aten.tril.default,
    aten.triu.default,
    aten.unbind.int,
    aten.cumsum.default,
    aten.cumprod.default,
    aten.cummax.default,
    aten.cummin.default,
    aten.logcumsumexp.default,
    aten.sort.default,
    aten.sort.stable,
    aten.topk.default,
    aten.kthvalue.default,
    aten.xlogy.Scalar_Other,
    aten.xlogy.Scalar_Self,
    aten.xlogy.Tensor,
)
"""Ops with a rule of their own, though torch could decompose them."""

EXTRA: tuple[torch._ops.OpOverload, ...] = (
    aten._native_batch_norm_legit.no_stats,
    aten.dist.default,
    aten.tril_indices.default,
    aten.triu_indices.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
)
"""Ops outside core ATen's table that torch knows how to decompose."""


def decompositions() -> Table:
    """Return the table handed to `ExportedProgram.run_decompositions`."""
    table: Table = default_decompositions()
    for op in KEEP:
        table.pop(op, None)
    table.update(get_decompositions(EXTRA))
    return table
