"""The text of one kernel of each kind, as a witness of changes; `--update-golden` rewrites them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.python.cpp.test_pointwise import gather, plus_one
from tests.python.cpp.test_reduction import layer_norm, reduced, softmax
from tests.python.cpp.test_scan import cumsum, linear_recurrence

from mkwrap.codegen.cpp import pointwise, reduction, scan
from mkwrap.codegen.template import Template
from mkwrap.ir.nodes import Origin
from mkwrap.stages import Device, Kernel, Params, Variant

V4 = Device("cpu", "x86-64-v4", vector_bytes=64, units=2)
V3 = Device("cpu", "x86-64-v3", vector_bytes=32, units=2)

CASES: tuple[tuple[str, Template, Kernel, Device, Params], ...] = (
    ("plus_one", pointwise.TEMPLATE, plus_one(1000), V4, (("axis", "p0"), ("unroll", 4), ("threads", 2))),
    ("gather", pointwise.TEMPLATE, gather(12, 40, 9), V3, (("axis", "p1"), ("unroll", 1), ("threads", 1))),
    ("softmax_kept", reduction.TEMPLATE, softmax(64, 200), V4,
     (("axis", "r0"), ("width", 2), ("threads", 2), ("keep", "stack"))),
    ("layer_norm_two_pass", reduction.TEMPLATE, layer_norm(8, 96), V4,
     (("axis", "r0"), ("width", 2), ("threads", 1), ("passes", 2))),
    ("layer_norm_from_memory", reduction.TEMPLATE, layer_norm(4096, 1024), V4,
     (("axis", "r0"), ("width", 2), ("threads", 2), ("keep", "stack"), ("passes", 2), ("stream", True), ("ahead", 4))),
    ("column_sum", reduction.TEMPLATE, reduced("sum", 100, 2000, dim=0), V4,
     (("axis", "p0"), ("width", 4), ("threads", 2))),
    ("cumsum_cut", scan.TEMPLATE, cumsum(1, 1 << 20), V4,
     (("axis", "r0"), ("width", 2), ("threads", 2), ("parts", 8), ("stream", True))),
    ("linear_recurrence_columns", scan.TEMPLATE, linear_recurrence(64, 100), V3,
     (("axis", "p0"), ("width", 2), ("threads", 1))),
    ("argmax_split", reduction.TEMPLATE, reduced("argmax", 1, 5000), V3,
     (("axis", "r0"), ("width", 4), ("threads", 2), ("split", True))),
)  # fmt: skip


@pytest.mark.parametrize(("name", "template", "k", "device", "params"), CASES, ids=[case[0] for case in CASES])
def test_golden_text(
    name: str, template: Template, k: Kernel, device: Device, params: Params, golden: Callable[[str, str], None]
) -> None:
    nest = replace(k.nest, origins=(Origin(f"aten.{name}.default", "model.py:7: return f(x)"),))
    source = template.render(replace(k, nest=nest), Variant(k.name, template.name, params), device)
    golden(f"cpp/{name}.cpp.txt", source.text)


@pytest.mark.parametrize(("name", "template", "k", "device", "params"), CASES, ids=[case[0] for case in CASES])
def test_space_is_small_distinct_and_renders(
    name: str, template: Template, k: Kernel, device: Device, params: Params
) -> None:
    assert name
    assert params
    space = template.space(k, device)
    assert 1 <= len(space) <= 9
    assert len(set(space)) == len(space)
    texts = {template.render(k, Variant(k.name, template.name, p), device).text for p in space}
    assert len(texts) == len(space)
