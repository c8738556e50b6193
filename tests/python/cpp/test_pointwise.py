"""The pointwise template: every variant of hand-built nests against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
from tests.python.cpp.running import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I32,
    I64,
    I,
    J,
    K,
    build,
    call,
    check,
    copies,
    entry_of,
    fill,
    target,
    variants_of,
    whole,
)
from tests.python.nests import buffer, kernel

from mkwrap.codegen.cpp import pointwise
from mkwrap.codegen.cpp.narrow import narrowed
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import IndexValue, Nest
from mkwrap.stages import Kernel, Variant

pytestmark = pytest.mark.toolchain
TEMPLATE = pointwise.TEMPLATE


def run(k: Kernel, low: int = -50, high: int = 50, tolerance: float = 2e-6) -> None:
    rng = np.random.default_rng(1)
    memory = {p.buffer.name: fill(p.buffer, rng, low, high) for p in k.parameters}
    check(TEMPLATE, k, memory, tolerance)


def plus_one(n: int, dtype: DType = F32) -> Kernel:
    body = BodyBuilder()
    body.store("arg1", (I,), body.compute("add", body.load("arg0", dtype, (I,)), body.constant(1, dtype)))
    return kernel(whole("plus_one", (I, n), body=body), [buffer("arg0", dtype, [n])], [buffer("arg1", dtype, [n])])


@pytest.mark.parametrize("n", [0, 1, 8, 16, 129, 40_000])
def test_plus_one(n: int) -> None:
    run(plus_one(n))


@pytest.mark.parametrize("dtype", [F64, F16, BF16, I64, I32, DType.UINT8])
def test_plus_one_of_other_dtypes(dtype: DType) -> None:
    run(plus_one(37, dtype), tolerance=1e-2)


@pytest.mark.parametrize(("n", "m"), [(37, 130), (64, 3), (3, 64), (1, 5)])
def test_transposed_and_broadcast(n: int, m: int) -> None:
    body = BodyBuilder()
    x, y = body.load("arg0", F32, (J, I)), body.load("arg1", F32, (J,))
    body.store("arg2", (I, J), body.compute("mul", body.compute("tanh", x), y))
    nest = whole("transpose", (I, n), (J, m), body=body)
    run(kernel(nest, [buffer("arg0", F32, [m, n]), buffer("arg1", F32, [m])], [buffer("arg2", F32, [n, m])]))


def test_c33_strides_flips_and_broadcasts() -> None:
    body = BodyBuilder()
    x = body.load("arg0", F32, (I, 20 - J))  # flipped
    y = body.load("arg1", F32, (I, J))  # stride 0 along j, 3 along i
    body.store("arg2", (I, J), body.compute("sub", x, y))
    nest = whole("strides", (I, 9), (J, 21), body=body)
    reads = [buffer("arg0", F32, [9, 21], [50, 2]), buffer("arg1", F32, [9, 21], [3, 0])]
    run(kernel(nest, reads, [buffer("arg2", F32, [9, 21], [1, 9])]))


def test_division_in_an_index() -> None:
    body = BodyBuilder()
    x = body.load("arg0", F32, (FloorDiv(I, 32), Mod(I, 32)))
    y = body.load("arg1", F32, (FloorDiv(I, 7), Mod(I, 7)))
    body.store("arg2", (I,), body.compute("add", x, y))
    nest = whole("digits", (I, 96), body=body)
    reads = [buffer("arg0", F32, [3, 32], [40, 1]), buffer("arg1", F32, [14, 7], [9, 1])]
    run(kernel(nest, reads, [buffer("arg2", F32, [96])]))


def test_causal_mask_narrows_its_indices() -> None:
    body = BodyBuilder()
    x = body.cast(body.load("arg0", BF16, (I, J)), F32)
    visible = body.compute("le", body.index_value(J), body.index_value(I))
    body.store("arg1", (I, J), body.compute("where", visible, x, body.constant(float("-inf"), F32)))
    nest = whole("causal", (I, 20), (J, 50), body=body)
    assert {i.dtype for i in narrowed(nest).body if isinstance(i, IndexValue)} == {I32}
    run(kernel(nest, [buffer("arg0", BF16, [20, 50])], [buffer("arg1", F32, [20, 50])]))


def test_index_values_as_data() -> None:
    body = BodyBuilder()
    body.store("arg0", (I, J), body.index_value(3 * I + 2 * J - 7))
    body.store("arg1", (I, J), body.cast(body.index_value(FloorDiv(J, 3)), F32))
    nest = whole("arange", (I, 4), (J, 33), body=body)
    run(kernel(nest, [], [buffer("arg0", I64, [4, 33]), buffer("arg1", F32, [4, 33])]))


@pytest.mark.parametrize("varying", [True, False])
def test_masked_load_never_touches_memory_where_the_mask_is_false(varying: bool) -> None:
    """A padding: what lies outside is filled with 0, not with the neighbours in memory."""
    body = BodyBuilder()
    axis = J if varying else I
    at = body.index_value(axis)
    inside = body.compute("bitand", body.compute("ge", at, body.constant(2, I64)),
                          body.compute("lt", at, body.constant(30, I64)))  # fmt: skip
    index = (I, J - 2) if varying else (I - 2, J)
    x = body.load("arg0", F32, index, inside)
    body.store("arg1", (I, J), x)
    nest = whole("pad", (I, 34), (J, 40), body=body)
    source = buffer("arg0", F32, [34, 28]) if varying else buffer("arg0", F32, [28, 40])
    run(kernel(nest, [source], [buffer("arg1", F32, [34, 40])]))


def gather(n: int, m: int, rows: int) -> Kernel:
    body = BodyBuilder()
    row = body.bounds_check(body.load("arg0", I64, (I,)), sympy.Integer(rows))
    body.store("arg2", (I, J), body.load("arg1", F32, (row, J)))
    nest = whole("embedding", (I, n), (J, m), body=body)
    reads = [buffer("arg0", I64, [n]), buffer("arg1", F32, [rows, m])]
    return kernel(nest, reads, [buffer("arg2", F32, [n, m])])


def test_c34_gather_by_row() -> None:
    run(gather(12, 40, 9), low=0, high=9)


def test_gather_by_element() -> None:
    body = BodyBuilder()
    at = body.bounds_check(body.load("arg0", I64, (I,)), sympy.Integer(9))
    body.store("arg2", (I,), body.load("arg1", BF16, (at,)))
    nest = whole("take", (I, 77), body=body)
    run(kernel(nest, [buffer("arg0", I64, [77]), buffer("arg1", BF16, [9])], [buffer("arg2", BF16, [77])]), 0, 9)


@pytest.mark.parametrize("wrong", [-1, 9, 2**40])
def test_index_out_of_range_is_reported_and_reads_nothing(wrong: int) -> None:
    k = gather(12, 40, 9)
    rng = np.random.default_rng(1)
    memory = {p.buffer.name: fill(p.buffer, rng, 0, 9) for p in k.parameters}
    memory["arg0"][7] = wrong
    for variant in variants_of(TEMPLATE, k, target()):
        binary = build(TEMPLATE, k, variant, target())
        assert call(entry_of(binary), binary.source, k, copies(memory)) == 1


def test_in_place() -> None:
    body = BodyBuilder()
    body.store("arg0", (I,), body.compute("exp", body.load("arg0", F32, (I,))))
    run(kernel(whole("in_place", (I, 100), body=body), [], [], [buffer("arg0", F32, [100])]))


def test_streaming_stores_are_ordered_before_the_kernel_s_end() -> None:
    body = BodyBuilder()
    body.store("arg1", (I,), body.compute("neg", body.load("arg0", F32, (I,))))
    k = kernel(
        whole("large", (I, 1 << 21), body=body), [buffer("arg0", F32, [1 << 21])], [buffer("arg1", F32, [1 << 21])]
    )
    texts = [TEMPLATE.render(k, v, target().device).text for v in variants_of(TEMPLATE, k, target())]
    assert any("store_streaming" in text for text in texts)
    for text in texts:
        assert ("store_streaming" in text) == ("mkw::end_streaming();\n  return failed;" in text)
    run(k)


def test_no_axes() -> None:
    body = BodyBuilder()
    body.store("arg1", (), body.compute("sqrt", body.compute("abs", body.load("arg0", F64, ()))))
    run(kernel(Nest("scalar", (), (), body.body()), [buffer("arg0", F64, [])], [buffer("arg1", F64, [])]))


def test_bool_results() -> None:
    body = BodyBuilder()
    x, y, z = (body.load(f"arg{k}", t, (I,)) for k, t in enumerate((F32, F32, BOOL)))
    body.store("arg3", (I,), body.compute("bitxor", body.compute("lt", x, y), z))
    nest = whole("flags", (I, 133), body=body)
    reads = [buffer("arg0", F32, [133]), buffer("arg1", F32, [133]), buffer("arg2", BOOL, [133])]
    run(kernel(nest, reads, [buffer("arg3", BOOL, [133])]))


def test_three_axes() -> None:
    body = BodyBuilder()
    body.store("arg1", (K, I, J), body.compute("neg", body.load("arg0", F32, (I, J, K))))
    nest = whole("permute", (I, 5), (J, 34), (K, 18), body=body)
    run(kernel(nest, [buffer("arg0", F32, [5, 34, 18])], [buffer("arg1", F32, [18, 5, 34])]))


def test_portable_target_has_narrower_vectors() -> None:
    k = plus_one(100)
    for name in ("cpu:x86-64-v2", "cpu:x86-64-v3"):
        on = target(name)
        rng = np.random.default_rng(1)
        memory = {p.buffer.name: fill(p.buffer, rng) for p in k.parameters}
        sources = check(TEMPLATE, k, memory, on=on)
        assert f"#define MKW_VECTOR_BYTES {on.device.vector_bytes}" in sources[0].text


def test_equal_text_gives_equal_bytes() -> None:
    k, on = plus_one(1000), target()
    variant = Variant(k.name, TEMPLATE.name, TEMPLATE.space(k, on.device)[0])
    first, second = build(TEMPLATE, k, variant, on), build(TEMPLATE, k, variant, on)
    assert first.source == second.source
    assert first.images[0].digest == second.images[0].digest
    assert b"/tmp" not in first.images[0].blob


@pytest.mark.parametrize("level", ["cpu:x86-64-v2", "cpu:x86-64-v3", "cpu"])
@pytest.mark.parametrize("dtype", [F32, DType.FLOAT64, BF16, I64, DType.INT8, BOOL], ids=lambda d: d.value)
def test_lanes_left_over_are_moved_and_no_more(dtype: DType, level: str) -> None:
    """The first 19 of 23 elements of a row: a lane too many would change what is behind."""
    body = BodyBuilder()
    body.store("y", (I, J), body.load("x", dtype, (I, J)))
    x, y = buffer("x", dtype, (5, 23)), buffer("y", dtype, (5, 23))
    k = kernel(whole("copy", (I, 5), (J, 19), body=body), [x], [y])
    params = (("axis", "p1"), ("unroll", 1), ("threads", 1))
    check(
        TEMPLATE,
        k,
        {b.name: fill(b, np.random.default_rng(1)) for b in (x, y)},
        tolerance=0,
        only=[params],
        on=target(level),
    )
