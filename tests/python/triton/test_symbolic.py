"""Dynamic sizes: every template's texts, for the params it offers at points and in every form, against the oracle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sympy

from mkwrap.codegen.triton import LANGUAGE
from mkwrap.codegen.triton.pointwise import PLANE
from mkwrap.errors import DynamicShapeError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import size_symbol
from mkwrap.ir.nodes import Nest
from mkwrap.points import kernel_at
from mkwrap.stages import Binary, Kernel, Source, Variant
from mkwrap.toolchain.cubin import compile_source
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.emulate import run
from tests.python.triton.nests import F32, H100, I0, I1, softmax
from tests.python.triton.oracle import Memory, answer, compare, copy, fill
from tests.python.triton.symbolic import CASES, SYMBOLS, Case, Sizes, offered, values

# Few multiprocessors ask for few chunks, which the interpreter runs one after the other.
DEVICE = replace(H100, units=4)


class Oracle:
    """The answers of a case's static kernels, each computed once."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._answers: dict[Sizes, tuple[Kernel, Memory, Memory]] = {}

    def check(self, source: Source, sizes: Sizes, folder: Path) -> None:
        if sizes not in self._answers:
            static = self._case.build(*sizes)
            start = self._case.fill(static)
            self._answers[sizes] = static, start, answer(static, start)
        static, start, want = self._answers[sizes]
        got = copy(start)
        run(source, got, folder, values(sizes))
        tolerance = self._case.tolerance
        compare(static, got, want, tolerance, tolerance, f"{source.variant.label} at {sizes}")


def run_some(case: Case, folder: Path, most: int, count: int) -> set[str]:
    """Run each text at so many of the sizes its guards let through, every text at others; returns the templates' names."""
    oracle, seen = Oracle(case), set[str]()
    for number, source in enumerate(offered(case, DEVICE, most)):
        legal = [sizes for sizes in case.sizes if all(guard.holds(values(sizes)) for guard in source.guards)]
        for k in range(min(count, len(legal))):
            oracle.check(source, legal[(number + k) % len(legal)], folder)
            seen.add(source.variant.template)
    return seen


@pytest.mark.parametrize("name", CASES)
def test_every_template_and_form_is_right_at_sizes_that_no_point_named(name: str, tmp_path: Path) -> None:
    assert run_some(CASES[name], tmp_path, most=1, count=2) == CASES[name].templates


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_variant_and_form_is_right_at_a_size_that_no_point_named(name: str, tmp_path: Path) -> None:
    assert run_some(CASES[name], tmp_path, most=99, count=1) == CASES[name].templates


@pytest.mark.parametrize("name", CASES)
def test_every_guard_lets_sizes_through_and_holds_others_back(name: str) -> None:
    few, huge = CASES[name].points[0], tuple(2**31 + 1 for _ in CASES[name].points[0])
    rounded = tuple(-(-size // 64) * 64 for size in few)
    for source in offered(CASES[name], DEVICE):
        for guard in source.guards:
            assert guard.holds(values(rounded)) or guard.most is not None, (source.variant.label, guard)
            assert not guard.holds(values(huge)), (source.variant.label, guard)


def test_c28_a_row_longer_than_its_block_is_held_back() -> None:
    (source,) = [s for s in offered(CASES["softmax"], DEVICE, most=1) if s.variant.label.endswith("r=64,num_warps=4]")]
    assert [all(g.holds(values((4, length))) for g in source.guards) for length in (0, 1, 63, 64, 65)] == [True] * 4 + [
        False
    ]


@pytest.mark.parametrize("name", CASES)
def test_c29_grids_have_one_axis(name: str) -> None:
    for source in offered(CASES[name], DEVICE):
        assert all(launch.grid[1:] == (1, 1) for launch in source.launches)


@pytest.mark.parametrize("names", [("x", "r"), ("r0", "i0"), ("v1", "v0"), ("program", "start"), ("arg0", "tl")])
def test_sizes_may_have_any_name(names: tuple[str, str], tmp_path: Path) -> None:
    symbols = [size_symbol(name) for name in names]
    case, static = softmax(*symbols), softmax(3, 33)
    start = fill(static)
    for name, params in (("persistent", (("r", 64),)), ("looped", (("r", 16),)), ("split", (("r", 16), ("chunks", 2)))):
        template = next(t for t in LANGUAGE.templates if t.name == name)
        variant = Variant("softmax", name, (("x", 2), *params, ("num_warps", 1)))
        got = copy(start)
        run(template.render(case, variant, H100), got, tmp_path, dict(zip(symbols, (3, 33), strict=True)))
        compare(static, got, answer(static, start), 1e-5, 1e-5, f"{variant.label} of {names}")


def test_what_is_a_transpose_at_one_size_alone_is_refused() -> None:
    """At s0 = 2 the load is contiguous along i1."""
    body = BodyBuilder()
    body.store("arg1", (I1, I0), body.load("arg0", F32, (I0, I1)))
    (s0,) = SYMBOLS[:1]
    shape = (sympy.Integer(64), sympy.Integer(64))
    nest = Nest("near", axes((I0, 64), (I1, 64)), (), body.body())
    case = kernel(nest, [buffer("arg0", F32, shape, (100, s0 - 1))], [buffer("arg1", F32, shape)])
    params = PLANE.space(kernel_at(case, {s0: 2}), H100)[0]
    with pytest.raises(DynamicShapeError, match="at some of its sizes"):
        PLANE.render(case, Variant("near", "plane", params), H100)


@pytest.mark.parametrize("name", CASES)
def test_texts_name_sizes_by_argument_and_compile_without_a_gpu(name: str) -> None:
    """One text of every template; what is a size in the text comes as an argument."""
    for source in one_each(CASES[name]):
        assert isinstance(compile_source(source, H100), Binary)


def one_each(case: Case) -> Iterator[Source]:
    seen = set[str]()
    for source in offered(case, DEVICE, most=1):
        if source.variant.template not in seen:
            seen.add(source.variant.template)
            yield source
