"""The arena: who shares memory with whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import sympy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mkwrap.fuse.memory import plan_memory
from mkwrap.fuse.offsets import ALIGNMENT, Life, aligned, packed
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol, size_symbol
from mkwrap.ir.interpret import evaluate_all
from mkwrap.ir.nodes import Nest, Role
from mkwrap.stages import Step, SymbolSpec
from tests.python.nests import axes, buffer, kernel

F32 = DType.FLOAT32
I = axis_symbol("i0")  # noqa: E741  the usual name of an index


def copy(first: BodyBuilder) -> BodyBuilder:
    first.store("arg1", (I,), first.load("arg0", F32, (I,)))
    return first


def masked_after(body: BodyBuilder) -> BodyBuilder:
    """Read the source again, behind a mask, after the result was stored: the load is another than the first."""
    copy(body)
    half = body.compute("lt", body.index_value(I), body.constant(50, DType.INT64))
    body.store("arg2", (I,), body.load("arg0", F32, (I,), half))
    return body


def placed(body: BodyBuilder, results: int) -> Mapping[str, int]:
    """Offsets of t0 … where one step computes `results` temporaries from t0, which a step before it wrote."""
    nest = Nest("nest", axes((I, 100)), (), body.body())
    make = BodyBuilder()
    make.store("arg0", (I,), make.constant(1.0, F32))
    kernels = {
        "make": kernel(Nest("make", axes((I, 100)), (), make.body()), [], [buffer("arg0", F32, [100])]),
        "work": kernel(
            nest, [buffer("arg0", F32, [100])], [buffer(f"arg{k}", F32, [100]) for k in range(1, 1 + results)]
        ),
    }
    names = tuple(f"t{k}" for k in range(1 + results))
    buffers = {name: replace(buffer(name, F32, [100]), role=Role.TEMPORARY) for name in names}
    arena = plan_memory([Step("make", ("t0",)), Step("work", names)], kernels, buffers)
    return {name: int(offset) for name, offset in arena.placements.items()}


def test_a_pointwise_step_writes_over_what_dies_in_it() -> None:
    offsets = placed(copy(BodyBuilder()), 1)
    assert offsets["t1"] == offsets["t0"]


def test_nothing_is_overwritten_that_the_step_reads_again() -> None:
    offsets = placed(masked_after(BodyBuilder()), 2)
    assert offsets["t1"] != offsets["t0"] == offsets["t2"]


N, M = size_symbol("n"), size_symbol("m")
SYMBOLS = (SymbolSpec(N, 0, 512, "x", 0), SymbolSpec(M, 1, 2**63 - 1, "x", 1))
BYTES = [
    aligned(e) for e in (64 * N, 4 * N * M, 1536 * N, 4 * N**2 * M, sympy.Integer(100), 4 * N + 4 * M, 128 * N * M)
]
lives = st.builds(
    lambda first, length, size: (first, first + length, size),
    st.integers(0, 9),
    st.integers(0, 4),
    st.sampled_from(BYTES),
)


@settings(max_examples=60, deadline=None)
@example([(0, 0, BYTES[2]), (1, 1, sympy.Integer(128))], 0, 0)  # A maximum took n for at least 1, and dropped the 128.
@given(st.lists(lives, min_size=1, max_size=9), st.integers(0, 600), st.integers(0, 600))
def test_c23_buffers_of_dynamic_sizes_never_overlap(spans: list[tuple[int, int, sympy.Expr]], n: int, m: int) -> None:
    """At any sizes, also outside the range: what is alive at once shares no bytes, and all lies in the arena, aligned."""
    buffers = [Life(f"t{k}", size, first, last) for k, (first, last, size) in enumerate(spans)]
    packing = packed(buffers, SYMBOLS)
    at = {N: n, M: m}
    (end,) = evaluate_all((packing.size,), at)
    starts = dict(zip(packing.offsets, evaluate_all(tuple(packing.offsets.values()), at), strict=True))
    sizes = dict(zip([b.name for b in buffers], evaluate_all([b.size for b in buffers], at), strict=True))
    assert all(start % ALIGNMENT == 0 and start + sizes[name] <= end for name, start in starts.items())
    for one in buffers:
        for other in buffers:
            if one.name < other.name and one.meets(other):
                a, b = starts[one.name], starts[other.name]
                assert a + sizes[one.name] <= b or b + sizes[other.name] <= a
