"""Sizes that are symbols become run-time arguments: one text serves all of them, 0 and 1 included."""

from __future__ import annotations

import pytest
import sympy
from tests.python.cpp.dynamic import check_sizes, made
from tests.python.cpp.running import F32, I64, I, J, K, R, target
from tests.python.nests import kernel

from mkwrap.codegen.cpp import LANGUAGE, pointwise, reduction, scan, sort
from mkwrap.codegen.template import Template
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import FloorDiv, Mod, size_symbol
from mkwrap.ir.nodes import Axis, Expr, Nest
from mkwrap.points import kernel_at
from mkwrap.stages import Kernel, Variant

pytestmark = pytest.mark.toolchain
B, S = size_symbol("unit"), size_symbol("first")  # names that the text has variables of
POINTS = ({B: 2, S: 64}, {B: 16, S: 1000}, {B: 40, S: 5})
SIZES = tuple({B: b, S: s} for b, s in ((1, 1), (1, 0), (0, 5), (2, 8), (3, 31), (1, 64), (5, 77), (33, 16), (2, 2500)))


def nest(name: str, body: BodyBuilder, *axes: tuple[sympy.Symbol, Expr | int], reduce: int = 0) -> Nest:
    made_axes = tuple(Axis(symbol, sympy.sympify(extent)) for symbol, extent in axes)
    cut = len(axes) - reduce
    return Nest(name, made_axes[:cut], made_axes[cut:], body.body())


def doubled() -> Kernel:
    body = BodyBuilder()
    body.store("arg1", (I, R), body.compute("mul", body.load("arg0", F32, (I, R)), body.constant(2, F32)))
    return kernel(nest("doubled", body, (I, B), (R, S)), [made("arg0", B, S)], [made("arg1", B, S)])


def biased() -> Kernel:
    """Adds along the last of three axes what a flat index would take a remainder for."""
    body = BodyBuilder()
    total = body.compute("add", body.load("x", F32, (I, J, K)), body.load("bias", F32, (I, K)))
    body.store("out", (I, J, K), total)
    there = nest("biased", body, (I, B), (J, 3), (K, S))
    return kernel(there, [made("x", B, 3, S), made("bias", B, S)], [made("out", B, 3, S)])


def transposed() -> Kernel:
    body = BodyBuilder()
    body.store("out", (I, J), body.load("x", F32, (J, I)))
    return kernel(nest("transposed", body, (I, S), (J, B)), [made("x", B, S)], [made("out", S, B)])


def split() -> Kernel:
    """Reads by quotient and remainder of a size, as a reshaped view does."""
    body = BodyBuilder()
    x = body.load("x", F32, (FloorDiv(I, S), J, Mod(I, S)))
    body.store("out", (I, J), body.compute("exp", x))
    return kernel(nest("split", body, (I, B * S), (J, 3)), [made("x", B, 3, S)], [made("out", B * S, 3)])


def causal() -> Kernel:
    """Compares positions, and has more of them in a batch than one int32 holds for certain."""
    body = BodyBuilder()
    here = body.index_value(J - 2 * K + I * S)
    mask = body.compute("ge", here, body.constant(0, I64))
    x = body.load("x", F32, (I, J, K))
    body.store("out", (I, J, K), body.compute("where", mask, x, body.constant(-1, F32)))
    return kernel(nest("causal", body, (I, B), (J, S), (K, S)), [made("x", B, S, S)], [made("out", B, S, S)])


POINTWISE = {"doubled": doubled(), "biased": biased(), "transposed": transposed(), "split": split(), "causal": causal()}


@pytest.mark.parametrize("k", POINTWISE.values(), ids=POINTWISE)
def test_pointwise_text_serves_all_sizes(k: Kernel) -> None:
    sizes = SIZES[:-1] if k.name == "causal" else SIZES
    points = POINTS[:1] if k.name == "causal" else POINTS
    assert not any(source.guards for source in check_sizes(pointwise.TEMPLATE, k, points, sizes))


def softmax(dim: int) -> Kernel:
    body = BodyBuilder()
    x = body.load("arg0", F32, (I, R) if dim else (R, I))
    (largest,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, largest))
    (total,) = body.reduce("sum", e)
    body.store("arg1", (I, R) if dim else (R, I), body.compute("div", e, total))
    outer, inner = (B, S) if dim else (S, B)
    there = nest("softmax", body, (I, outer), (R, inner), reduce=1)
    return kernel(there, [made("arg0", B, S)], [made("arg1", B, S)])


def moments() -> Kernel:
    """Mean and squares of rows of two dynamic axes, of which none may be there; the values, from their mean."""
    body = BodyBuilder()
    x = body.load("x", F32, (I, J, R))
    mean, m2 = body.reduce("welford", x)
    body.store("mean", (I,), mean)
    body.store("m2", (I,), m2)
    body.store("out", (I, J, R), body.compute("sub", x, mean))
    there = nest("moments", body, (I, 5), (J, B), (R, S), reduce=2)
    return kernel(there, [made("x", 5, B, S)], [made("mean", 5), made("m2", 5), made("out", 5, B, S)])


def largest(dim: int) -> Kernel:
    body = BodyBuilder()
    value, position = body.reduce("argmax", body.load("x", F32, (I, R) if dim else (R, I)))
    body.store("value", (I,), value)
    body.store("position", (I,), position)
    outer, inner = (B, S) if dim else (S, B)
    there = nest("largest", body, (I, outer), (R, inner), reduce=1)
    return kernel(there, [made("x", B, S)], [made("value", outer), made("position", outer, dtype=I64)])


REDUCTIONS = {
    "rows": softmax(1), "columns": softmax(0), "moments": moments(), "argmax": largest(1), "argmax columns": largest(0),
}  # fmt: skip


@pytest.mark.parametrize("k", REDUCTIONS.values(), ids=REDUCTIONS)
def test_reduction_text_serves_all_sizes(k: Kernel) -> None:
    sizes = [s for s in SIZES if k.name != "largest" or 0 not in s.values()]
    assert not any(source.guards for source in check_sizes(reduction.TEMPLATE, k, POINTS, sizes))


def running(op: str, dim: int) -> Kernel:
    body = BodyBuilder()
    (total,) = body.scan(op, body.load("x", F32, (I, R) if dim else (R, I)))
    body.store("out", (I, R) if dim else (R, I), total)
    outer, inner = (B, S) if dim else (S, B)
    return kernel(nest("running", body, (I, outer), (R, inner), reduce=1), [made("x", B, S)], [made("out", B, S)])


def ordered(row: Expr | int) -> Kernel:
    body = BodyBuilder()
    value, place = body.sort(body.load("x", F32, (I, R)))
    body.store("value", (I, R), value)
    body.store("place", (I, R), place)
    there = nest("ordered", body, (I, B), (R, row), reduce=1)
    return kernel(there, [made("x", B, row)], [made("value", B, row), made("place", B, row, dtype=I64)])


WHOLE_ROWS: dict[str, tuple[Template, Kernel]] = {
    "cumsum rows": (scan.TEMPLATE, running("sum", 1)),
    "cumsum columns": (scan.TEMPLATE, running("sum", 0)),
    "sort": (sort.TEMPLATE, ordered(90)),
    "sort of rows": (sort.TEMPLATE, ordered(S)),
    "sort of longer rows": (sort.TEMPLATE, ordered(2 * S + 1)),
}


@pytest.mark.parametrize(("template", "k"), WHOLE_ROWS.values(), ids=WHOLE_ROWS)
def test_texts_of_whole_rows_serve_all_sizes(template: Template, k: Kernel) -> None:
    assert not any(source.guards for source in check_sizes(template, k, POINTS, SIZES))


@pytest.mark.parametrize(
    ("template", "k", "witness"),
    [(pointwise.TEMPLATE, causal(), "ramp<16>((int32_t)"), (reduction.TEMPLATE, largest(1), "int32_t>")],
    ids=["mask", "argmax"],
)
def test_c28_index_arithmetic_is_narrow_only_where_sizes_allow(template: Template, k: Kernel, witness: str) -> None:
    (bounded,) = LANGUAGE.forms(k, {B: 64, S: 4096})
    sources = check_sizes(template, k, POINTS[:1], [s for s in SIZES[:-1] if 0 not in s.values()], form=bounded)
    assert any(witness in source.text for source in sources)
    assert all(guard.most == 4096 for source in sources for guard in source.guards)


def test_c28_positions_of_rows_without_a_limit_are_narrow_under_a_guard() -> None:
    template, k, device = reduction.TEMPLATE, largest(1), target().device
    narrow, wide = LANGUAGE.forms(k, {B: 64})
    params = template.space(kernel_at(k, POINTS[0]), device)[0]
    guarded, free = (template.render(k, Variant(k.name, template.name, (*params, *f)), device) for f in (narrow, wide))
    assert {guard.most for guard in guarded.guards} == {(1 << 31) - 1}
    assert "int32_t>" in guarded.text
    assert not free.guards
    assert "int32_t>" not in free.text
    assert LANGUAGE.forms(causal(), {}) == ((),)  # a product of two such sizes is beyond int32


def test_a_kernel_without_index_arithmetic_has_one_form() -> None:
    assert LANGUAGE.forms(softmax(1), {B: 64, S: 4096}) == ((),)
