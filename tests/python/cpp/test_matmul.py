"""Matrix products of every kind equal the interpreter: layouts, dtypes, edges, prologues, epilogues."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.python.cpp.matmul_run import Product, check
from tests.python.cpp.running import BF16, F16, F32, F64, I32, I64, build, call, entry_of, fill, target, variants_of

from mkwrap.codegen.cpp.matmul import TEMPLATE as MATMUL
from mkwrap.codegen.cpp.matmul_dot import TEMPLATE as DOT
from mkwrap.codegen.template import Template
from mkwrap.ir.dtypes import DType

pytestmark = pytest.mark.toolchain

SHAPES = [
    Product(1, 128, 96, 64),
    Product(1, 37, 53, 29),
    Product(1, 1, 100, 33),
    Product(1, 100, 1, 33),
    Product(1, 1, 1, 1),
    Product(1, 5, 17, 1),
    Product(7, 12, 40, 16),
    Product(5, 31, 18, 7, constant=True),
    Product(1, 50, 70, 40, constant=True),
    Product(1, 64, 48, 3000),
]


@pytest.mark.parametrize("product", SHAPES, ids=str)
@pytest.mark.parametrize("template", [MATMUL, DOT], ids=lambda t: t.name)
def test_shapes(template: Template, product: Product) -> None:
    assert check(template, product.kernel, 2e-6)


TRANSPOSED_A = {"a": (40 * 33, 1, 40)}
TRANSPOSED_B = {"b": (33 * 48, 1, 33)}
LAYOUTS = [
    Product(2, 40, 48, 33, **TRANSPOSED_A),
    Product(2, 40, 48, 33, **TRANSPOSED_B),
    Product(2, 40, 48, 33, **TRANSPOSED_A, **TRANSPOSED_B),
    Product(2, 40, 48, 33, a=(0, 33, 1), b=(0, 1, 33)),
    Product(2, 40, 48, 33, a=(5000, 100, 2), b=(9000, 200, 3)),
    Product(2, 40, 48, 33, a=(40, 1, 80), b=(48, 96, 1), c=(48, 96, 1)),
    Product(2, 40, 48, 33, c=(40 * 48, 1, 40)),
    Product(2, 40, 48, 33, a=(1320, 0, 1)),
    Product(1, 40, 48, 33, **TRANSPOSED_B, constant=True),
]


@pytest.mark.parametrize("product", LAYOUTS, ids=str)
@pytest.mark.parametrize("template", [MATMUL, DOT], ids=lambda t: t.name)
def test_layouts(template: Template, product: Product) -> None:
    assert check(template, product.kernel, 2e-6)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", [F64, F16, BF16], ids=lambda d: d.value)
def test_floats(dtype: DType, constant: bool, cast: bool, transposed: bool) -> None:
    product = Product(2, 19, 35, 20, dtype, constant=constant, cast=cast, b=(700, 1, 20) if transposed else None)
    tolerance = {F64: 1e-13, F16: 1e-3, BF16: 8e-3}[dtype]
    for template in (MATMUL, DOT):
        assert check(template, product.kernel, tolerance)


@pytest.mark.parametrize("dtype", [I32, I64, DType.INT8, DType.UINT8, DType.INT16], ids=lambda d: d.value)
def test_integers_wrap(dtype: DType) -> None:
    product = Product(2, 9, 70, 65, dtype)
    memory = {p.buffer.name: fill(p.buffer, np.random.default_rng(1), -100, 100) for p in product.kernel.parameters}
    assert not MATMUL.space(product.kernel, target().device)
    assert check(DOT, product.kernel, 0, memory=memory)


@pytest.mark.parametrize("sizes", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5), (2, 3, 4, 0)], ids=str)
def test_c19_zero_sizes(sizes: tuple[int, int, int, int]) -> None:
    product = Product(*sizes)
    assert not MATMUL.space(product.kernel, target().device)
    assert check(DOT, product.kernel, 0)


@pytest.mark.parametrize("template", [MATMUL, DOT], ids=lambda t: t.name)
def test_c30_nan_and_infinity_spread_as_in_eager(template: Template) -> None:
    product = Product(1, 21, 37, 19, epilogue=False)
    rng = np.random.default_rng(2)
    memory = {p.buffer.name: fill(p.buffer, rng) for p in product.kernel.parameters}
    memory["a"][0, 3, 5] = np.nan
    memory["a"][0, 20, 18] = np.inf
    memory["a"][0, 7, :] = 0
    memory["b"][0, 2, 36] = np.inf
    assert check(template, product.kernel, 2e-6, memory=memory)


@pytest.mark.parametrize("level", ["cpu:x86-64-v3", "cpu:x86-64-v2"])
@pytest.mark.parametrize("template", [MATMUL, DOT], ids=lambda t: t.name)
def test_other_vector_widths(template: Template, level: str) -> None:
    on = target(level)
    if not on.present:
        pytest.skip(f"this machine does not run {level}")
    for dtype, tolerance in ((F32, 2e-6), (F64, 1e-13), (BF16, 8e-3)):
        assert check(template, Product(2, 19, 35, 20, dtype, b=(700, 1, 20)).kernel, tolerance, on)


def test_one_thread() -> None:
    on = target(threads=1)
    assert check(MATMUL, Product(3, 40, 50, 60).kernel, 2e-6, on)


def test_serial_kernels_do_not_ask_which_thread_calls_them() -> None:
    """Called from thread 3 of the caller's own OpenMP team, a kernel without a team still has but one workspace."""
    serial = target(threads=1)
    for product in (Product(1, 64, 48, 3000), Product(2, 40, 48, 33, **TRANSPOSED_A, **TRANSPOSED_B)):
        sources = [MATMUL.render(product.kernel, v, serial.device) for v in variants_of(MATMUL, product.kernel, serial)]
        assert any(source.workspace_bytes > 0 for source in sources)
        assert not any("thread_index" in source.text for source in sources)


def test_error_is_comparable_with_eager() -> None:
    kernel = Product(1, 24, 40, 4096, epilogue=False).kernel
    rng = np.random.default_rng(3)
    memory = {p.buffer.name: fill(p.buffer, rng) for p in kernel.parameters}
    exact = memory["a"].astype(np.float64) @ memory["b"].astype(np.float64)
    eager = (torch.from_numpy(memory["a"]) @ torch.from_numpy(memory["b"])).numpy()
    for template in (MATMUL, DOT):
        for variant in variants_of(template, kernel, target()):
            binary = build(template, kernel, variant, target())
            assert call(entry_of(binary), binary.source, kernel, memory) == 0
            assert np.abs(memory["c"] - exact).max() <= 1.5 * np.abs(eager - exact).max()
