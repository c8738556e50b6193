"""What is proposed for kernels of dynamic sizes, and where each text is right: over a hand-made language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import sympy

from mkwrap import spaces
from mkwrap.codegen.template import Language, Template
from mkwrap.errors import NoVariantError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, axis_symbol, size_symbol
from mkwrap.ir.nodes import Nest, Origin
from mkwrap.points import kernel_symbols
from mkwrap.spaces import completed, fitting, kernel_points, open_guards
from mkwrap.stages import (
    Candidates,
    Device,
    Guard,
    Hints,
    Kernel,
    Params,
    Program,
    Rejected,
    Relation,
    Schedule,
    Source,
    Step,
    SymbolSpec,
    Variant,
)
from mkwrap.targets.target import Target
from mkwrap.variants import render, variants
from tests.python.nests import axes, buffer, kernel
from tests.python.tune.kernels import target_of

N, M = size_symbol("n"), size_symbol("m")


def copy() -> Kernel:
    i, j, body = axis_symbol("i"), axis_symbol("j"), BodyBuilder()
    body.store("y", (i, j), body.load("x", DType.FLOAT32, (i, j)))
    nest = Nest("kernel0", axes((i, N), (j, M)), (), body.body(), (Origin("aten.clone", "model.py:3"),))
    return kernel(nest, [buffer("x", DType.FLOAT32, (N, M))], [buffer("y", DType.FLOAT32, (N, M))])


def schedule(low: int = 1, high: int = 4096) -> Schedule:
    own = copy()
    symbols = (SymbolSpec(M, low, high, "x", 1), SymbolSpec(N, low, high, "x", 0))
    return Schedule(
        Program({}, (), (), (), {}, symbols), {"kernel0": own}, (Step("kernel0", ("x", "y")),), {}, sympy.Integer(0)
    )


def hints(*points: tuple[int, int]) -> Hints:
    made = [{M: m, N: n} for m, n in points]
    return Hints(made[0], tuple(made))


def template(name: str, space: Callable[[int], list[int]], guard: Callable[[int], tuple[Guard, ...]]) -> Template:
    """Make a template whose blocks depend on the length of rows."""

    def propose(own: Kernel, _device: Device) -> tuple[Params, ...]:
        assert not kernel_symbols(own), "templates are asked for static kernels"
        return tuple((("block", size),) for size in space(int(own.nest.axes[1].extent)))

    def write(own: Kernel, variant: Variant, _device: Device) -> Source:
        assert kernel_symbols(own) == (M, N), "texts are written for all sizes"
        options = dict(variant.params)
        guards = guard(int(options["block"]))
        if options.get("divisible"):
            guards = (*guards, Guard(M, multiple=16))
        return Source(variant, "cpp", f"{name} {variant.params}", (), guards=guards)

    return Template(name, propose, write)


def forms(_kernel: Kernel, _limits: Mapping[sympy.Symbol, int]) -> tuple[Params, ...]:
    return ((("divisible", True),), ())


BLOCK = template("block", lambda row: [1 << (row - 1).bit_length()], lambda size: (Guard(M, most=size),))
LOOP = template("loop", lambda row: [256, 64] if row > 256 else [64], lambda _size: ())


def target(*templates: Template) -> Target:
    return replace(target_of(), language=Language("cpp", templates, forms))


def offered(
    own: Hints, low: int = 1, high: int = 4096, on: Target | None = None
) -> tuple[Candidates, dict[str, Source]]:
    on = on or target(BLOCK, LOOP)
    proposed = variants(schedule(low, high), on, hints=own)
    candidates, written = fitting(proposed, render(proposed, on))
    return candidates, {s.variant.label: s for s in written["kernel0"] if isinstance(s, Source)}


def test_a_kernel_s_points_are_the_program_s_seen_by_its_own_symbols() -> None:
    own, other = copy(), size_symbol("z")
    program = Hints({M: 3, N: 5, other: 7}, tuple({M: m, N: 0, other: z} for m, z in ((3, 7), (3, 9), (4, 7))))
    assert kernel_points(own, program) == ((3, 1), (4, 1))
    assert completed(own, (4, 1), program) == {M: 4, N: 1, other: 7}
    assert completed(own, (9, 9), program) == {M: 9, N: 9, other: 7}


def test_each_point_keeps_its_first_guess_in_every_form() -> None:
    candidates, _ = offered(hints((512, 4), (32, 4), (2000, 4)))
    labels = {variant.label for variant in candidates.variants["kernel0"]}
    for size in (512, 32, 2048):
        assert {f"block[block={size},divisible=True]", f"block[block={size}]"} <= labels
    assert any(label.startswith("loop") for label in labels)


def test_only_variants_that_are_right_there_are_worth_trying_at_a_point() -> None:
    candidates, sources = offered(hints((512, 4), (30, 4), (2000, 4)))
    for point, worth in candidates.points["kernel0"].items():
        values = {M: point[0], N: point[1]}
        assert worth
        assert all(guard.holds(values) for variant in worth for guard in sources[variant.label].guards)
        assert any(not sources[variant.label].guards for variant in worth)
    at_30 = [variant.label for variant in candidates.points["kernel0"][30, 4]]
    assert at_30[0] == "block[block=32]"
    assert "block[block=2048]" in at_30


def test_a_wide_gap_between_points_gets_texts_for_the_sizes_between() -> None:
    candidates, _ = offered(hints((16, 4), (4096, 4)))
    labels = [variant.label for variant in candidates.variants["kernel0"]]
    between = [label for label in labels if label in {f"block[block={1 << k}]" for k in range(5, 12)}]
    assert len(between) >= 3
    near = {variant.label for variant in candidates.points["kernel0"][16, 4]}
    assert set(between) <= near


def test_no_template_is_asked_between_points_where_the_program_has_no_shapes() -> None:
    def asked(*relations: Relation) -> list[int]:
        rows: list[int] = []

        def proposed(own: Kernel) -> tuple[Variant, ...]:
            rows.append(int(own.nest.axes[1].extent))
            return (Variant(own.name, f"block of {rows[-1]}"),)

        spaces.propose(copy(), ((16, 4), (4096, 64)), [()], proposed, relations=relations)
        return rows[2:]

    # Between the points every other size is the example's, here 4 of n.
    assert asked() == [49, 147, 446, 1351, 16, 16, 16]
    assert asked(Relation(M, "<=", 64 * N)) == [49, 147, 16, 16, 16]


def test_the_cap_holds_but_for_first_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "MOST", 1)
    candidates, _ = offered(hints((512, 4), (30, 4)))
    labels = {variant.label.partition(",")[0].rstrip("]") for variant in candidates.variants["kernel0"]}
    assert labels == {"block[block=512", "block[block=32", "loop[block=64"}


def test_points_share_a_guess_where_the_best_are_alike() -> None:
    best = {16: (1, 2, 3), 32: (4, 2, 1), 64: (2, 5), 128: (5, 3, 2), 256: (6, 1)}

    def space(own: Kernel, _device: Device) -> tuple[Params, ...]:
        return tuple((("block", block),) for block in best[int(own.nest.axes[1].extent)])

    def orders(alike: int) -> dict[int, list[object]]:
        on = replace(target(), language=Language("cpp", (replace(LOOP, space=space),), forms, alike))
        candidates, _ = offered(hints(*((size, 4) for size in best)), on=on)
        every = {dict(variant.params)["block"] for variant in candidates.variants["kernel0"]}
        assert every >= {blocks[0] for blocks in best.values()}, "what is not shared is worth trying, too"
        worth = candidates.points["kernel0"]
        return {size: list(dict.fromkeys(dict(v.params)["block"] for v in worth[size, 4])) for size in best}

    apart, shared = orders(1), orders(2)
    assert [order[0] for order in apart.values()] == [1, 4, 2, 5, 6]
    # 2 is among the two best of three points; what is nobody's best (3) is shared by nobody.
    assert [order[0] for order in shared.values()] == [2, 2, 2, 5, 6]
    assert shared[16][:3] == [2, 1, 3]


def test_templates_are_asked_for_no_trivial_axis_and_else_for_the_point_itself() -> None:
    asked: list[tuple[int, ...]] = []

    def space(own: Kernel, _device: Device) -> tuple[Params, ...]:
        asked.append(tuple(int(axis.extent) for axis in own.nest.axes))
        return ((("block", 64),),)

    on = target(replace(LOOP, space=space))
    offered(hints((1, 3)), on=on)
    assert asked == [(3, 2)]
    i, body = axis_symbol("i"), BodyBuilder()
    body.store("y", (i,), body.load("x", DType.FLOAT32, (i,)))
    nest = Nest("kernel0", axes((i, M * N)), (), body.body())
    flat = kernel(nest, [buffer("x", DType.FLOAT32, (M * N,))], [buffer("y", DType.FLOAT32, (M * N,))])
    asked.clear()
    variants(replace(schedule(), kernels={"kernel0": flat}), on, hints=hints((1, 512), (1, 1)))
    assert [extent for (extent,) in asked if extent in (512, 1024, 4)] == [512, 4]


def test_what_is_right_at_none_of_its_points_is_no_candidate_unless_it_is_forced() -> None:
    on = target(BLOCK, LOOP)
    proposed = variants(schedule(), on, hints=hints((30, 4), (100, 4)))
    never = "block[block=32,divisible=True]"
    assert never in [variant.label for variant in proposed.variants["kernel0"]]
    candidates, written = fitting(proposed, render(proposed, on))
    labels = [variant.label for variant in candidates.variants["kernel0"]]
    assert never not in labels
    assert labels == [item.variant.label for item in written["kernel0"]]
    assert set(labels) == {v.label for worth in candidates.points["kernel0"].values() for v in worth}
    forced, _ = fitting(proposed, render(proposed, on), {"kernel0": never})
    assert never in [variant.label for variant in forced.variants["kernel0"]]


def test_equal_texts_are_one_candidate() -> None:
    def write(_kernel: Kernel, variant: Variant, _device: Device) -> Source:
        return Source(variant, "cpp", "the same", ())

    on = target(replace(LOOP, render=write))
    candidates, sources = offered(hints((512, 4), (30, 4)), on=on)
    assert len(candidates.variants["kernel0"]) == len(sources) == 1
    forced = {"kernel0": "loop[block=64]"}
    proposed = variants(schedule(), on, forced, hints((512, 4), (30, 4)))
    kept, _ = fitting(proposed, render(proposed, on), forced)
    assert [variant.label for variant in kept.variants["kernel0"]] == ["loop[block=64]"]


def test_a_limit_that_no_size_in_range_exceeds_is_no_guard() -> None:
    _, sources = offered(hints((32, 4)), high=32)
    ranges = {M: (1, 32), N: (1, 32)}
    assert open_guards(sources["block[block=32]"], ranges) == frozenset()
    assert open_guards(sources["block[block=32,divisible=True]"], ranges) == {Guard(M, multiple=16)}
    assert open_guards(sources["block[block=32]"], {M: (1, 33), N: (1, 32)}) == {Guard(M, most=32)}
    whole = Source(Variant("k", "t"), "cpp", "", (), guards=(Guard(32 * M, multiple=16), Guard(M * N, most=1024)))
    assert open_guards(whole, ranges) == frozenset()
    # Nothing but a size bounds it.
    quotient = Guard(FloorDiv(M, FloorDiv(N, 4)), most=32)
    assert open_guards(Source(Variant("k", "t"), "cpp", "", (), guards=(quotient,)), ranges) == {quotient}


def test_a_kernel_that_nothing_writes_for_all_sizes_is_refused_with_what_each_needs() -> None:
    with pytest.raises(NoVariantError, match=r"(?s)kernel0 \(aten.clone\).*block\[block=32\]: only m ≤ 32"):
        offered(hints((30, 4)), on=target(BLOCK))


def test_static_kernels_of_a_dynamic_program_have_no_points() -> None:
    static = Kernel("kernel1", Nest("kernel1", (), (), (), ()), ())
    assert kernel_points(static, hints((30, 4))) == ()
    rejected = Rejected(Variant("k", "t"), "no")
    assert fitting(Candidates(schedule(), {}), {"kernel0": (rejected,)})[1] == {"kernel0": (rejected,)}
