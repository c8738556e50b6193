"""The reduction template: every variant of hand-built nests against the interpreter or numpy in float64."""

from __future__ import annotations

from collections.abc import Callable

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
    Q,
    R,
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

from mkwrap.codegen.cpp import reduction
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.numeric import Array
from mkwrap.stages import Kernel, Params, Source, WorkspaceArgument

pytestmark = pytest.mark.toolchain
TEMPLATE = reduction.TEMPLATE

# Beside the template's own space: both vector axes, split or not, kept or not, whatever the sizes.
ROWS: tuple[Params, ...] = (
    (("axis", "r0"), ("width", 2), ("threads", 1)),
    (("axis", "r0"), ("width", 4), ("threads", 2), ("split", True)),
    (("axis", "r0"), ("width", 1), ("threads", 1), ("keep", "stack")),
    (("axis", "r0"), ("width", 1), ("threads", 2), ("keep", "workspace")),
)
COLUMNS: tuple[Params, ...] = (
    (("axis", "p0"), ("width", 2), ("threads", 1)),
    (("axis", "p0"), ("width", 9), ("threads", 2)),
    (("axis", "p0"), ("width", 1), ("threads", 2), ("split", True)),
)


ONE_REDUCTION: tuple[Params, ...] = (*ROWS[:2], *COLUMNS[:3:2])
"""Those that differ where there is one loop, hence nothing to keep."""


def run(k: Kernel, memory: dict[str, Array], tolerance: float = 2e-5) -> None:
    """Compare the template's own variants and all the others with the interpreter."""
    check(TEMPLATE, k, memory, tolerance)
    check(TEMPLATE, k, memory, tolerance, only=(*ROWS, *COLUMNS) if k.nest.axes else ROWS)


def filled(k: Kernel, low: int = -50, high: int = 50) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {p.buffer.name: fill(p.buffer, rng, low, high) for p in k.parameters}


def reduced(op: str, n: int, m: int, dim: int = 1, dtype: DType = F32) -> Kernel:
    """One reduction of an n × m matrix (dim 1), or of an m × n one along its columns (dim 0)."""
    body = BodyBuilder()
    results = body.reduce(op, body.load("arg0", dtype, (I, R) if dim else (R, I)))
    outputs = []
    for position, result in enumerate(results):
        body.store(f"arg{position + 1}", (I,), result)
        outputs.append(buffer(f"arg{position + 1}", body.dtype(result), [n]))
    source = buffer("arg0", dtype, [n, m] if dim else [m, n])
    return kernel(whole(op, (I, n), (R, m), body=body, reduce=1), [source], outputs)


def softmax(n: int, m: int, dtype: DType = F32) -> Kernel:
    body = BodyBuilder()
    x = body.cast(body.load("arg0", dtype, (I, R)), F32)
    (largest,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, largest))
    (total,) = body.reduce("sum", e)
    body.store("arg1", (I, R), body.cast(body.compute("div", e, total), dtype))
    nest = whole("softmax", (I, n), (R, m), body=body, reduce=1)
    return kernel(nest, [buffer("arg0", dtype, [n, m])], [buffer("arg1", dtype, [n, m])])


def layer_norm(n: int, m: int, dtype: DType = F32) -> Kernel:
    """Layer norm of a sum, then gelu: one kernel; the mean is a result, too."""
    body = BodyBuilder()
    x, y, w, b = (body.cast(body.load(f"arg{k}", dtype, (I, R) if k < 2 else (R,)), F32) for k in range(4))
    x = body.compute("add", x, y)
    mean, squares = body.reduce("welford", x)
    variance = body.compute("div", squares, body.constant(m, F32))
    scale = body.compute("rsqrt", body.compute("add", variance, body.constant(1e-5, F32)))
    z = body.compute("mul", body.compute("sub", x, mean), scale)
    z = body.compute("add", body.compute("mul", z, w), b)
    half = body.compute("mul", z, body.constant(0.5, F32))
    erf = body.compute("erf", body.compute("mul", z, body.constant(0.5**0.5, F32)))
    body.store(
        "arg4", (I, R), body.cast(body.compute("mul", half, body.compute("add", erf, body.constant(1, F32))), dtype)
    )
    body.store("arg5", (I,), mean)
    nest = whole("layer_norm", (I, n), (R, m), body=body, reduce=1)
    reads = [buffer(f"arg{k}", dtype, [n, m] if k < 2 else [m]) for k in range(4)]
    return kernel(nest, reads, [buffer("arg4", dtype, [n, m]), buffer("arg5", F32, [n])])


@pytest.mark.parametrize("op", ["sum", "prod", "maximum", "minimum", "argmax", "argmin", "welford"])
@pytest.mark.parametrize(("n", "m", "dim"), [(5, 37, 1), (37, 5, 0)])
def test_reduction(op: str, n: int, m: int, dim: int) -> None:
    k = reduced(op, n, m, dim)
    check(TEMPLATE, k, filled(k), 2e-5, only=ONE_REDUCTION)


@pytest.mark.parametrize(
    ("op", "dtype"),
    [("sum", F64), ("sum", I64), ("sum", I32), ("prod", I32), ("maximum", DType.INT8), ("argmax", DType.UINT8),
     ("argmin", F64), ("maximum", BOOL), ("minimum", BOOL), ("maximum", F16), ("welford", F64)],
)  # fmt: skip
def test_reduction_of_other_dtypes(op: str, dtype: DType) -> None:
    k = reduced(op, 6, 41, 1, dtype)
    check(TEMPLATE, k, filled(k), 1e-12 if dtype is F64 else 1e-3, only=ONE_REDUCTION)


@pytest.mark.parametrize("op", ["sum", "prod", "maximum", "welford"])
@pytest.mark.parametrize(("n", "m"), [(4, 0), (0, 4)])
def test_c19_c20_empty_rows_give_identities_and_no_rows_nothing(op: str, n: int, m: int) -> None:
    k = reduced(op, n, m)
    check(TEMPLATE, k, filled(k), only=ONE_REDUCTION)


@pytest.mark.parametrize("n", [1, 3])
def test_long_rows_are_summed_in_stretches(n: int) -> None:
    k = reduced("sum", n, 70_003)
    memory = filled(k)
    memory["arg0"][...] += 1
    check(TEMPLATE, k, memory, tolerance=3e-7)


def test_tall_columns_are_summed_in_stretches() -> None:
    k = reduced("sum", 5, 30_000, dim=0)
    memory = filled(k)
    memory["arg0"][...] += 1
    check(TEMPLATE, k, memory, tolerance=3e-7)
    check(TEMPLATE, k, memory, tolerance=3e-7, only=COLUMNS)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_c1_softmax_has_variants_and_each_is_right(dtype: DType) -> None:
    k = softmax(9, 130, dtype)
    assert len(variants_of(TEMPLATE, k, target())) >= 2
    run(k, filled(k), tolerance=2e-6 if dtype is F32 else 8e-3)


def test_c31_softmax_of_infinite_rows() -> None:
    k = softmax(4, 40)
    memory = filled(k)
    memory["arg0"][0, :] = -np.inf
    memory["arg0"][1, 39] = np.inf
    memory["arg0"][2, :5] = -np.inf
    run(k, memory)


def _nan_first(row: Array) -> None:
    row[0] = np.nan


def _nan_last(row: Array) -> None:
    row[-1] = np.nan


def _two_nans(row: Array) -> None:
    row[[17, 30]] = np.nan


def _ties(row: Array) -> None:
    row[...] = 1


def _zeros(row: Array) -> None:
    row[...] = np.where(np.arange(row.size) % 3, 0.0, -0.0)


def _infinities(row: Array) -> None:
    row[...] = -np.inf


@pytest.mark.parametrize("op", ["maximum", "minimum", "argmax", "argmin"])
@pytest.mark.parametrize("change", [_nan_first, _nan_last, _two_nans, _ties, _zeros, _infinities])
def test_c30_nan_ties_and_zeros(op: str, change: Callable[[Array], None]) -> None:
    k = reduced(op, 3, 37)
    memory = filled(k)
    for row in memory["arg0"]:
        change(row)
    check(TEMPLATE, k, memory, only=ONE_REDUCTION)


def test_c30_argmax_of_a_tie_across_lanes_and_threads_is_the_first() -> None:
    k = reduced("argmax", 1, 300)
    memory = filled(k)
    memory["arg0"][0, [290, 150, 33, 34]] = 99
    check(TEMPLATE, k, memory, only=ROWS)


@pytest.mark.parametrize(("mean", "deviation", "bound"), [(1e4, 1.0, 3e-3), (8.0, 0.5, 2e-5)])
def test_c32_variance_far_from_zero(mean: float, deviation: float, bound: float) -> None:
    for dim in (1, 0):
        k = reduced("welford", 4, 3000, dim)
        memory = filled(k)
        memory["arg0"][...] = mean + deviation * memory["arg0"]
        exact = memory["arg0"].astype(np.float64).var(axis=dim) * 3000
        on = target()
        for variant in variants_of(TEMPLATE, k, on):
            binary, actual = build(TEMPLATE, k, variant, on), copies(memory)
            call(entry_of(binary), binary.source, k, actual)
            np.testing.assert_allclose(actual["arg2"], exact, rtol=bound, err_msg=variant.label)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_layer_norm_gelu_residual_is_one_kernel(dtype: DType) -> None:
    k = layer_norm(7, 150, dtype)
    run(k, filled(k), tolerance=1e-5 if dtype is F32 else 3e-2)
    passes = (("axis", "r0"), ("width", 2), ("threads", 1), ("keep", "stack"), ("passes", 2))
    check(TEMPLATE, k, filled(k), tolerance=1e-5 if dtype is F32 else 3e-2, only=[passes, (*passes, ("ahead", 3))])


def test_rows_are_fetched_ahead_where_memory_would_be_waited_for() -> None:
    large, small = layer_norm(4096, 1024), layer_norm(64, 1024)
    (source,) = (TEMPLATE.render(large, v, target().device) for v in variants_of(TEMPLATE, large, target())[:1])
    rows = dict(source.variant.params)["ahead"]
    assert f"mkw::prefetch(arg0, 1024 * p0 + r0 + {1024 * rows});" in source.text
    assert "prefetch(arg2" not in source.text, "the weights are the same for every row"
    assert not any("ahead" in dict(v.params) for v in variants_of(TEMPLATE, small, target()))
    assert not any("ahead" in dict(v.params) for v in variants_of(TEMPLATE, reduced("sum", 4096, 1024), target())), (
        "one loop"
    )


def test_c17_persistent_variant_takes_no_workspace_and_stores_no_intermediate() -> None:
    k = softmax(4, 200)
    by_stack = check(TEMPLATE, k, filled(k), only=[ROWS[2]])[0]
    by_workspace = check(TEMPLATE, k, filled(k), only=[ROWS[3]])[0]
    assert by_stack.workspace_bytes == 0
    assert not _takes_workspace(by_stack)
    assert by_workspace.workspace_bytes > 0
    assert _takes_workspace(by_workspace)
    assert _takes_workspace(check(TEMPLATE, k, filled(k), only=[ROWS[1]])[0])
    looped = check(TEMPLATE, k, filled(k), only=[ROWS[0]])[0]
    assert "_kept" not in looped.text


def test_streaming_stores_are_ordered_before_the_kernel_s_end() -> None:
    k = softmax(4, 200)
    (source,) = check(TEMPLATE, k, filled(k), only=[(("axis", "r0"), ("width", 2), ("threads", 2), ("stream", True))])
    assert "store_streaming" in source.text
    assert "mkw::end_streaming();\n  return failed;" in source.text


def test_serial_kernels_do_not_ask_which_thread_calls_them() -> None:
    k = softmax(4, 200)
    params = (("axis", "r0"), ("width", 1), ("threads", 1), ("keep", "workspace"))
    (source,) = check(TEMPLATE, k, filled(k), only=[params])
    assert _takes_workspace(source)
    assert "thread_index" not in source.text


def _takes_workspace(source: Source) -> bool:
    return any(isinstance(a, WorkspaceArgument) for a in source.launches[0].args)


def test_two_reduction_axes() -> None:
    """Sums over the first and the last axis, with a value that varies along one of them alone, and positions over both."""
    body = BodyBuilder()
    x = body.compute("mul", body.load("arg0", F32, (R, I, Q)), body.load("arg1", F32, (R,)))
    (total,) = body.reduce("sum", x)
    _, place = body.reduce("argmax", x)
    body.store("arg2", (I,), total)
    body.store("arg3", (I,), place)
    body.store("arg4", (R, I, Q), body.compute("sub", x, total))
    nest = whole("planes", (I, 6), (R, 3), (Q, 21), body=body, reduce=2)
    k = kernel(
        nest,
        [buffer("arg0", F32, [3, 6, 21]), buffer("arg1", F32, [3])],
        [buffer("arg2", F32, [6]), buffer("arg3", I64, [6]), buffer("arg4", F32, [3, 6, 21])],
    )
    run(k, filled(k))
    inner = tuple((("axis", "r1"), *params[1:]) for params in ROWS)
    check(TEMPLATE, k, filled(k), 2e-5, only=inner)


def test_whole_tensor() -> None:
    body = BodyBuilder()
    (total,) = body.reduce("sum", body.load("arg0", F32, (R,)))
    body.store("arg1", (), total)
    nest = whole("total", (R, 5000), body=body, reduce=1)
    k = kernel(nest, [buffer("arg0", F32, [5000])], [buffer("arg1", F32, [])])
    run(k, filled(k))


def test_in_place_with_several_loops() -> None:
    """Elements are overwritten only in the last loop, row results after it."""
    body = BodyBuilder()
    x = body.load("arg0", F32, (I, R))
    old = body.load("arg1", F32, (I,))
    (largest,) = body.reduce("maximum", x)
    body.store("arg0", (I, R), body.compute("sub", body.compute("exp", x), largest))
    body.store("arg1", (I,), body.compute("add", old, largest))
    nest = whole("in_place", (I, 6), (R, 70), body=body, reduce=1)
    k = kernel(nest, [], [], [buffer("arg0", F32, [6, 70]), buffer("arg1", F32, [6])])
    run(k, filled(k))


def test_row_values_from_gathered_rows() -> None:
    body = BodyBuilder()
    row = body.bounds_check(body.load("arg0", I64, (I,)), sympy.Integer(9))
    (total,) = body.reduce("sum", body.load("arg1", F32, (row, R)))
    body.store("arg2", (I,), total)
    nest = whole("bag", (I, 20), (R, 33), body=body, reduce=1)
    reads = [buffer("arg0", I64, [20]), buffer("arg1", F32, [9, 33])]
    k = kernel(nest, reads, [buffer("arg2", F32, [20])])
    run(k, filled(k, 0, 9))


def test_two_parallel_axes_by_columns() -> None:
    body = BodyBuilder()
    (total,) = body.reduce("sum", body.load("arg0", F32, (I, R, J)))
    body.store("arg1", (I, J), total)
    nest = whole("middle", (I, 3), (J, 40), (R, 11), body=body, reduce=1)
    k = kernel(nest, [buffer("arg0", F32, [3, 11, 40])], [buffer("arg1", F32, [3, 40])])
    check(TEMPLATE, k, filled(k), 2e-5)
    split = (("axis", "p1"), ("width", 2), ("threads", 2), ("split", True))
    check(TEMPLATE, k, filled(k), 2e-5, only=[split])


def test_matrix_products_are_left_to_their_own_template() -> None:
    body = BodyBuilder()
    (total,) = body.reduce("dot", body.load("arg0", F32, (I, R)), body.load("arg1", F32, (R,)))
    body.store("arg2", (I,), total)
    nest = whole("mv", (I, 3), (R, 4), body=body, reduce=1)
    k = kernel(nest, [buffer("arg0", F32, [3, 4]), buffer("arg1", F32, [4])], [buffer("arg2", F32, [3])])
    assert TEMPLATE.space(k, target().device) == ()
