"""The CPU language: C++ with compiler vector types and OpenMP."""

from __future__ import annotations

from mkwrap.codegen.cpp import matmul, matmul_dot, pointwise, reduction, scan, sort
from mkwrap.codegen.cpp.narrow import forms
from mkwrap.codegen.template import Language

LANGUAGE = Language(
    "cpp",
    templates=(
        pointwise.TEMPLATE,
        reduction.TEMPLATE,
        scan.TEMPLATE,
        sort.TEMPLATE,
        matmul.TEMPLATE,
        matmul_dot.TEMPLATE,
    ),
    forms=forms,
    # A template's order tells much here: over 86 kernels the second guess takes 1.33 times what the first takes (geometric mean;
    # benchmarks/results/choice-cpu.json).
    alike=1,
)
