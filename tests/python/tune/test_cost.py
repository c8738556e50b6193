"""The cost model: bounds from below, and what they rule out before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import sympy
from tests.python.tune.kernels import plus_one, schedule_of

from mkwrap.ir.index import FloorDiv, size_symbol
from mkwrap.stages import (
    Binary,
    Candidates,
    Guard,
    Image,
    Kernel,
    Launch,
    Point,
    Pruned,
    Rejected,
    Source,
    Variant,
)
from mkwrap.targets.cuda import DEVICES
from mkwrap.toolchain.build import EVERY, FIRST, Want, build_all
from mkwrap.toolchain.pool import Compiler, silent
from mkwrap.tune.cost import CHIPS, Shape, estimate, hopeful, least_seconds, prune, resident_blocks

H100 = DEVICES["sm_90"]
LARGE = plus_one(1 << 26)


def _source(template: str, number: int, blocks: int | sympy.Expr, warps: int = 4) -> Source:
    launch = Launch("entry", (), (blocks, 1, 1), {"num_warps": warps})
    return Source(Variant("kernel0", template, (("n", number),)), "triton", "", (launch,))


def _binary(source: Source, registers: int = 32, shared: int = 0, spilled: int = 0) -> Binary:
    threads = 32 * int(source.launches[0].options["num_warps"])
    image = Image("entry", b"", "", threads, shared_bytes=shared, registers=registers, spilled_bytes=spilled)
    return Binary(source, (image,))


def _candidates(
    kernel: Kernel, sources: Sequence[Source], points: Mapping[Point, Sequence[Source]] | None = None
) -> Candidates:
    worth = {point: tuple(source.variant for source in tried) for point, tried in (points or {}).items()}
    variants = tuple(source.variant for source in sources)
    return Candidates(schedule_of(kernel), {"kernel0": variants}, {"kernel0": worth} if points else {})


def _labels(entries: Sequence[Binary | Source | Rejected]) -> list[str]:
    return [(e.source if isinstance(e, Binary) else e).variant.label for e in entries]


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks"),
    [
        # The CUDA Occupancy Calculator's answers.
        ("sm_80", 256, 32, 0, 8),
        ("sm_80", 256, 33, 0, 6),
        ("sm_80", 1024, 64, 0, 1),
        ("sm_80", 128, 32, 48 << 10, 3),
        ("sm_86", 256, 32, 0, 6),
        ("sm_86", 32, 16, 0, 16),
        ("sm_89", 32, 16, 0, 24),
        ("sm_90", 32, 16, 0, 32),
        ("sm_90", 128, 255, 0, 2),
        ("sm_90", 256, 32, 227 << 10, 1),
    ],
)
def test_occupancy(arch: str, threads: int, registers: int, shared: int, blocks: int) -> None:
    assert resident_blocks(CHIPS[arch], Shape(1, threads, registers, shared)) == blocks


def test_every_architecture_has_limits() -> None:
    assert set(CHIPS) == set(DEVICES)


def test_bounds_are_those_of_the_narrowest_part() -> None:
    chip = CHIPS["sm_90"]

    def seconds(blocks: int, threads: int = 256, registers: int = 64, flops: float = 0.0, spilled: int = 0) -> float:
        shape = Shape(blocks, threads, registers, 0, spilled)
        return least_seconds(chip, 132, shape, 1e9, flops, cached=False)

    assert seconds(10_000) == pytest.approx(1e9 / 4.8e12)
    assert seconds(16) == pytest.approx(1e9 / (16 * 64 * 1.98e9))
    assert seconds(16, 32, 32) == pytest.approx(1e9 * 300e-9 / (16 * 32 * 32 * 4))
    assert seconds(10_000, flops=1e12) == pytest.approx(1e12 / 990e12)
    assert seconds(66, flops=1e12) == pytest.approx(2e12 / 990e12)
    assert seconds(100_000, spilled=1000) == pytest.approx(2 * 1000 * 256 * 100_000 / (132 * 128 * 1.98e9))


def test_few_blocks_for_much_memory_are_pruned_before_and_after_the_build() -> None:
    sources = [_source("a", 0, 8192), _source("a", 1, 16), _source("a", 2, 1024), _source("b", 0, 1)]
    for entries in (sources, [_binary(source) for source in sources]):
        kept, rejected = prune(LARGE, entries, H100)
        # The only variant of its template stays, hopeless as it is.
        assert _labels(kept) == ["a[n=0]", "a[n=2]", "b[n=0]"]
        assert [(r.variant.label, r.reason[:8]) for r in rejected] == [("a[n=1]", "pruned: ")]


def test_the_default_is_never_pruned() -> None:
    kept, rejected = prune(LARGE, [_source("a", 0, 1), _source("a", 1, 8192), _source("a", 2, 1)], H100)
    assert _labels(kept) == ["a[n=0]", "a[n=1]"]
    assert _labels(rejected) == ["a[n=2]"]


def test_heavy_spills_are_pruned_where_another_variant_has_none() -> None:
    calm, wild = _binary(_source("a", 0, 1)), _binary(_source("a", 1, 1), 255, spilled=512)
    little = _binary(_source("a", 2, 1), 255, spilled=64)
    kept, (rejected,) = prune(plus_one(64), [calm, wild, little], H100)
    assert kept == (calm, little)
    assert rejected.reason == "pruned: spills 512 bytes per thread, another variant none"
    assert prune(plus_one(64), [wild, wild, little], H100)[1] == ()


def test_nothing_is_pruned_of_which_nothing_is_known() -> None:
    dynamic = [_source("a", n, size_symbol("s0")) for n in range(2)]
    assert prune(LARGE, dynamic, H100) == (tuple(dynamic), ())
    static = [_source("a", 0, 8192), _source("a", 1, 1)]
    assert prune(LARGE, static, DEVICES["sm_90"].__class__("cpu", "x86-64-v4")) == (tuple(static), ())


def test_small_kernels_keep_all_their_variants() -> None:
    kept, rejected = prune(plus_one(1024), [_source("a", n, 1 << n) for n in range(4)], H100)
    assert len(kept) == 4
    assert rejected == ()


def test_a_forced_kernel_keeps_all_its_variants() -> None:
    sources = {"kernel0": (_source("a", 0, 8192), _source("a", 1, 1))}
    candidates = _candidates(LARGE, sources["kernel0"])
    assert isinstance(hopeful(sources, candidates, H100, {})["kernel0"][1], Rejected)
    assert hopeful(sources, candidates, H100, {"kernel0": "a[n=1]"})["kernel0"] == sources["kernel0"]


@pytest.mark.parametrize(
    ("elements", "microseconds"),
    # Seen on an H100: relu(x + 1) over 1024 elements, softmax's 128 MiB.
    [(1024, 0.99), (1 << 24, 44.7)],
)
def test_estimates_are_below_what_was_measured(elements: int, microseconds: float) -> None:
    value = estimate(plus_one(elements), _source("a", 0, max(elements // 1024, 1)), H100)
    assert value is not None
    assert value < microseconds


def _compiled_but(*broken: str) -> tuple[Compiler, list[str]]:
    """Return a compiler that refuses some labels, and the list of the labels it is given."""
    seen: list[str] = []

    def compile_source(source: Source) -> Binary | Rejected:
        seen.append(source.variant.label)
        return Rejected(source.variant, "too large") if source.variant.label in broken else _binary(source)

    return Compiler(compile_source, "none", 1), seen


@pytest.mark.parametrize(
    ("broken", "results"),
    [
        # At the least entry 0 takes dozens of times what "a[n=1]" takes, "a[n=2]" and "a[n=3]" more than twice as much.
        ((), [Binary, Binary, Pruned, Pruned]),
        (("a[n=0]",), [Rejected, Binary, Pruned, Pruned]),
        (("a[n=1]",), [Binary, Rejected, Binary, Binary]),
        (("a[n=0]", "a[n=1]", "a[n=2]"), [Rejected, Rejected, Rejected, Binary]),
    ],
)
@pytest.mark.parametrize("wanted", [EVERY, FIRST])
def test_what_only_a_failed_variant_ruled_out_is_built_after_all(
    broken: tuple[str, ...], results: list[type], wanted: Want
) -> None:
    sources = [
        replace(_source("a", n, blocks), language="cpp", text=str(n)) for n, blocks in enumerate((1, 8192, 16, 4))
    ]
    hoped = hopeful({"kernel0": sources}, _candidates(LARGE, sources), H100, {})
    pruned = [entry for entry in hoped["kernel0"] if isinstance(entry, Pruned)]
    assert [[rival.label for rival in entry.rivals] for entry in pruned] == [["a[n=1]"]] * 2
    compiler, seen = _compiled_but(*broken)
    built = build_all(hoped, lambda _: wanted, compiler, silent)["kernel0"]
    assert len(seen) == len(set(seen)), "nothing is built twice"
    assert [type(entry) for entry in built] == results[: len(built)]
    assert any(isinstance(entry, Binary) for entry in built)
    assert len(built) == 4 or wanted == FIRST


def _form(source: Source, *guards: Guard) -> Source:
    """Return another text of the same choice."""
    variant = replace(source.variant, params=(*source.variant.params, ("divisible", True)))
    return replace(source, variant=variant, guards=guards)


N = size_symbol("n")
MANY = _source("a", 0, FloorDiv(N + 1023, sympy.Integer(1024)))
FEW = _source("a", 1, 16)
OTHER = _source("b", 0, 16, warps=8)
SMALL_POINT, LARGE_POINT = (1024,), (1 << 26,)


@pytest.mark.parametrize(
    ("sources", "points", "pruned"),
    [
        ((MANY, FEW), {LARGE_POINT: (MANY, FEW)}, ["a[n=1]"]),
        ((MANY, FEW), {LARGE_POINT: (MANY, FEW), (1 << 25,): (MANY, FEW)}, ["a[n=1]"]),
        # It may win at another point.
        ((MANY, FEW), {LARGE_POINT: (MANY, FEW), SMALL_POINT: (MANY, FEW)}, []),
        ((MANY, FEW), {LARGE_POINT: (MANY, FEW), SMALL_POINT: (MANY,)}, ["a[n=1]"]),
        # What goes first at a point is never pruned, nor is a template's first text, …
        ((MANY, FEW), {LARGE_POINT: (FEW, MANY)}, []),
        ((FEW, MANY), {LARGE_POINT: (MANY, FEW)}, []),
        ((MANY, OTHER), {LARGE_POINT: (MANY, OTHER)}, []),
        # … nor the only one that is right for all sizes.
        ((replace(MANY, guards=(Guard(N, multiple=4),)), FEW), {LARGE_POINT: (MANY, FEW)}, []),
        # The forms of a choice stay or go together.
        ((MANY, _form(FEW), FEW), {LARGE_POINT: (MANY, _form(FEW), FEW)}, ["a[n=1,divisible=True]", "a[n=1]"]),
        ((MANY, _form(FEW), FEW), {LARGE_POINT: (MANY, _form(FEW)), SMALL_POINT: (MANY, FEW)}, []),
        # What is not rivalled where it is right stays.
        ((MANY, FEW), {LARGE_POINT: (FEW,), SMALL_POINT: (MANY,)}, []),
    ],
)
def test_of_dynamic_sizes_a_text_is_pruned_that_promises_little_at_all_its_points(
    sources: Sequence[Source], points: Mapping[Point, Sequence[Source]], pruned: list[str]
) -> None:
    candidates = _candidates(plus_one(N), sources, points)
    hoped = hopeful({"kernel0": sources}, candidates, H100, {})["kernel0"]
    assert [entry.variant for entry in hoped] == [source.variant for source in sources]
    out = [entry for entry in hoped if isinstance(entry, Pruned)]
    assert _labels(out) == pruned
    assert all(entry.rivals == (MANY.variant,) and "at n=" in entry.reason for entry in out)
    for kept in ({"kernel0": "a[n=1]"}, {}):
        arch = H100 if kept else replace(H100, arch="sm_999")
        assert hopeful({"kernel0": sources}, candidates, arch, kept)["kernel0"] == tuple(sources)


@pytest.mark.parametrize(("broken", "built"), [((), Pruned), (("a[n=0]",), Binary)])
def test_of_dynamic_sizes_a_pruned_text_is_built_where_its_rivals_are_not(broken: tuple[str, ...], built: type) -> None:
    sources = [replace(source, language="cpp", text=source.variant.label) for source in (MANY, FEW)]
    candidates = _candidates(plus_one(N), sources, {LARGE_POINT: sources})
    hoped = hopeful({"kernel0": sources}, candidates, H100, {})
    compiler, _ = _compiled_but(*broken)
    assert isinstance(build_all(hoped, lambda _: EVERY, compiler, silent)["kernel0"][1], built)
