"""The Triton language: templates in order of preference."""

from __future__ import annotations

from mkwrap.codegen.template import Language
from mkwrap.codegen.triton.look_back import SPLIT_SCAN
from mkwrap.codegen.triton.looped import LOOPED
from mkwrap.codegen.triton.matmul import DOT_LOOP, MATMUL
from mkwrap.codegen.triton.persistent import PERSISTENT
from mkwrap.codegen.triton.pointwise import PLANE, POINTWISE
from mkwrap.codegen.triton.scan_chunks import SCAN_CHUNKS
from mkwrap.codegen.triton.sizes import forms
from mkwrap.codegen.triton.split import SPLIT

LANGUAGE = Language(
    "triton",
    templates=(PLANE, POINTWISE, MATMUL, DOT_LOOP, SPLIT, PERSISTENT, SCAN_CHUNKS, LOOPED, SPLIT_SCAN),
    forms=forms,
    # Over 86 kernels on an H100 the second guess of a template takes 1.04 times what the first takes (geometric mean; 1.01 in the
    # median, for products 0.96), the third 1.11 (benchmarks/results/choice-gpu.json).
    alike=2,
)
"""`SPLIT_SCAN` comes last: in which order it adds floats depends on what runs when, so it must not be a default."""
