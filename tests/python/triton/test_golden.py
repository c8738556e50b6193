"""Generated Triton as text: what a change of a template changes is seen in review; `--update-golden` writes it anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mkwrap.codegen.triton import LANGUAGE
from mkwrap.ir.dtypes import DType
from mkwrap.points import kernel_at
from mkwrap.stages import Kernel, Params, Source, Variant
from tests.python.triton.nests import (
    BF16,
    F32,
    F64,
    H100,
    associative,
    layer_norm,
    padded_gather,
    product,
    reduction,
    scalar_op,
    scan,
    softmax,
    sort,
    transpose,
)
from tests.python.triton.oracle import sources
from tests.python.triton.symbolic import SYMBOLS, values

CASES: dict[str, tuple[str, Callable[[], Kernel]]] = {
    "plane_transpose": ("plane", lambda: transpose(512, 700, BF16)),
    "pointwise_gather": ("pointwise", lambda: padded_gather(100, 33)),
    "persistent_softmax": ("persistent", lambda: softmax(8192, 4096, BF16)),
    "persistent_columns_argmax": ("persistent", lambda: reduction("argmax", 4096, 60, outer=True)),
    "looped_layer_norm": ("looped", lambda: layer_norm(8192, 4000, BF16)),
    "split_welford": ("split", lambda: reduction("welford", 4, 2**20)),
    "split_softmax": ("split", lambda: softmax(2, 2**20)),
    "looped_cummax": ("looped", lambda: scan("cummax", 8192, 40_000)),
    "scan_chunks_columns": ("scan_chunks", lambda: scan("sum", 1000, 2**14, outer=True)),
    "split_scan_sum": ("split_scan", lambda: scan("sum", 1, 2**26)),
    "split_scan_columns_f64": ("split_scan", lambda: scan("sum", 1000, 2**14, F64, outer=True)),
    "split_scan_linear": ("split_scan", lambda: associative(2, 2**20)),
    "persistent_sort": ("persistent", lambda: sort(500, 1000, descending=True)),
    "matmul_gelu": ("matmul", lambda: product(500, 512, 200, BF16, activation="erf")),
    "dot_loop_int8": ("dot_loop", lambda: product(64, 64, 64, DType.INT8, batch=2)),
}


# Template, kernel, point, form.
DYNAMIC: dict[str, tuple[str, Kernel, tuple[int, ...], Params]] = {
    "dynamic_softmax": ("persistent", softmax(*SYMBOLS[:2], BF16), (8192, 4096), (("divisible", True),)),
    "dynamic_pointwise": (
        "pointwise",
        scalar_op("exp", F32, SYMBOLS[0] * SYMBOLS[1]),
        (4096, 4096),
        (("divisible", True),),
    ),
    "dynamic_column_sum": ("split", reduction("sum", *SYMBOLS[:2], outer=True), (1024, 2**17), ()),
    "dynamic_cumsum": ("split_scan", scan("sum", *SYMBOLS[:2]), (4, 2**20), (("wide", True),)),
    "dynamic_cumsum_chunks": ("scan_chunks", scan("sum", *SYMBOLS[:2]), (4, 2**20), ()),
    "dynamic_matmul": ("matmul", product(SYMBOLS[0], 3072, 768, BF16), (4096,), ()),
}


def symbolic(name: str) -> str:
    template, kernel, point, form = DYNAMIC[name]
    found = next(t for t in LANGUAGE.templates if t.name == template)
    params = (*found.space(kernel_at(kernel, values(point)), H100)[0], *form)
    source = found.render(kernel, Variant(kernel.name, template, params), H100)
    return text_of(source) + "".join(f"# guard: {g.expr} most={g.most} multiple={g.multiple}\n" for g in source.guards)


def rendered(name: str) -> str:
    template, make = CASES[name]
    return text_of(next(sources(make(), H100, [template], most=1)))


def text_of(source: Source) -> str:
    launches = "".join(
        f"# {launch.entry} grid={launch.grid} options={dict(launch.options)} aligned={launch.divisible_by_16}\n"
        for launch in source.launches
    )
    return f"{source.text}\n\n{launches}# workspace: {source.workspace_bytes} bytes\n"


@pytest.mark.parametrize("name", CASES)
def test_text_is_the_golden_one(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"triton/{name}.py.txt", rendered(name))


@pytest.mark.parametrize("name", DYNAMIC)
def test_text_of_dynamic_sizes_is_the_golden_one(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"triton/{name}.py.txt", symbolic(name))
