"""ATen to loop nests: one rule per op, one file per family of ops.

*Requires* a functional graph of ATen ops. *Ensures* nests in topological order, one writer per temporary and output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mkwrap.lower import (
    attention,
    indexing,
    matmul,
    normalization,
    pointwise,
    reduction,
    scan,
    softmax,
    sort,
    view,
)
from mkwrap.lower.lowering import Rule

FAMILIES = (pointwise, view, indexing, reduction, scan, sort, softmax, normalization, matmul, attention)

RULES: Mapping[torch._ops.OperatorBase, Rule] = {op: rule for family in FAMILIES for op, rule in family.RULES.items()}
