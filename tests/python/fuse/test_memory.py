"""The arena: who shares memory with whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mkwrap.fuse.memory import plan_memory
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol
from mkwrap.ir.nodes import Nest, Role
from mkwrap.stages import Step
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
