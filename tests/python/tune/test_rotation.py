"""What a model finds out of the cache, and how often a contest copies it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import sympy
from tests.python.tune.kernels import plus_one, schedule_of, vector

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Role
from mkwrap.stages import Schedule, Step
from mkwrap.tune.contest import Fill, Memory
from mkwrap.tune.reuse import cold_parameters
from mkwrap.tune.rotation import copies

KIB = 1024


def _chain(*steps: tuple[str, ...], **kib: int) -> Schedule:
    """Return a schedule of one kernel per step, "k0", "k1", …, over buffers of so many KiB."""
    buffers = {name: vector(name, size * KIB // 4) for name, size in kib.items()}
    schedule = schedule_of(plus_one())
    return replace(
        schedule,
        program=replace(schedule.program, buffers=buffers),
        steps=tuple(Step(f"k{number}", names) for number, names in enumerate(steps)),
    )


def test_a_kernel_alone_finds_in_cache_what_fits() -> None:
    schedule = _chain(("x", "y"), x=40, y=40)
    assert cold_parameters(schedule, "k0", 100 * KIB) == frozenset()
    assert cold_parameters(schedule, "k0", 60 * KIB) == {0, 1}


def test_an_input_is_cold_at_its_first_use_in_a_call() -> None:
    schedule = _chain(("x", "a"), ("a", "x", "y"), x=4, a=4, y=4)
    buffers = dict(schedule.program.buffers)
    buffers["x"] = replace(buffers["x"], role=Role.INPUT)
    schedule = replace(schedule, program=replace(schedule.program, buffers=buffers))
    assert cold_parameters(schedule, "k0", 100 * KIB) == {0}
    assert cold_parameters(schedule, "k1", 100 * KIB) == frozenset()


def test_what_the_kernel_before_wrote_is_warm_and_weights_are_cold() -> None:
    steps = (("x", "w0", "a"), ("a", "w1", "b"), ("b", "w2", "y"))
    schedule = _chain(*steps, x=4, w0=60, a=4, w1=60, b=4, w2=60, y=4)
    # `b` was last touched in the call before.
    assert cold_parameters(schedule, "k1", 100 * KIB) == {1, 2}
    assert cold_parameters(schedule, "k1", 500 * KIB) == frozenset()


def test_temporaries_at_one_place_of_the_arena_are_one_memory() -> None:
    schedule = _chain(("x", "a"), ("a", "b"), ("b", "c"), x=60, a=20, b=20, c=20)
    assert cold_parameters(schedule, "k2", 70 * KIB) == {1}
    shared = replace(schedule, placements={"a": sympy.Integer(0), "c": sympy.Integer(0)})
    assert cold_parameters(shared, "k2", 70 * KIB) == frozenset()


def test_a_kernel_that_is_nowhere_used_finds_all_warm() -> None:
    assert cold_parameters(_chain(("x", "y"), x=4, y=4), "k7", 0) == frozenset()


def _memories(*kib: int, cold: bool = True) -> list[Memory]:
    return [Memory(DType.FLOAT32, size * KIB // 4, Fill.NORMAL, cold=cold) for size in kib]


def test_copies_hold_twice_the_cache() -> None:
    assert copies(_memories(20, 20), 1000 * KIB, 1000) == 50
    assert copies(_memories(20, 20), 1000 * KIB, 5) == 5
    assert copies([*_memories(1000), *_memories(4000, cold=False)], 1000 * KIB, 64) == 2
    assert copies(_memories(2000), 1000 * KIB, 64) == 1
    assert copies(_memories(20, 20, cold=False), 1000 * KIB, 64) == 1
    assert copies(_memories(30), 1000 * KIB, 64) == 1, "too small to matter"


def test_c37_copies_are_bounded_in_memory() -> None:
    assert copies(_memories(100 * KIB), 1000 * KIB * KIB, 64) == 2
    assert copies(_memories(300 * KIB), 1000 * KIB * KIB, 64) == 1


def test_the_measuring_process_imports_neither_torch_nor_sympy() -> None:
    code = "import sys, mkwrap.tune.worker; assert not {'torch', 'sympy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
