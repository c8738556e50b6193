"""Random programs equal eager. Deterministic: the same examples in every run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch
import torch.utils._pytree as pytree
from hypothesis import HealthCheck, Phase, assume, given, settings
from tests.python.compiler.forced import drawn_model
from tests.python.fuse.scheduled import leaves_of, schedule_of
from tests.python.fuzz.programs import RandomProgram, programs
from tests.python.lower.differential import TOLERANCE, Backend, Function, interpreted, same
from tests.python.triton.oracle import view
from tests.python.triton.test_programs import execute

from mkwrap import Options

STEPS = 10
EXAMPLES = 100


def compare(program: RandomProgram, backend: Backend) -> None:
    """Compare every result and argument; the tolerance grows with the program's length and the size of its values."""
    theirs, ours = ([i.make() for i in program.inputs] for _ in range(2))
    expected = [*program.run(*theirs), *theirs]
    actual = [*backend(program.run, ours), *ours]
    worst = max((TOLERANCE[i][0] for i in _float_types(program)), default=0.0)
    for k, (a, e) in enumerate(zip(actual, expected, strict=True)):
        tolerance = worst * len(program.steps) if e.dtype.is_floating_point else 0.0
        same(a, e, f"leaf {k} of {program!r}", rtol=tolerance, atol=tolerance * program.scale)


def _float_types(program: RandomProgram) -> set[torch.dtype]:
    """Float dtypes that any value of the program has: an error made in a narrow one stays when it is widened."""
    everything = RandomProgram(program.inputs, program.steps, list(range(len(program.inputs) + len(program.steps))))
    values = everything.run(*[i.make() for i in program.inputs])
    return {value.dtype for value in values if value.dtype in TOLERANCE}


def compiled(options: Options, seed: str) -> Backend:
    """Return the backend that compiles for the CPU, with a variant of each kernel drawn at random."""

    def run(fn: Function, args: Sequence[object]) -> list[object]:
        forced = drawn_model(fn, args, options, Random(seed))
        return pytree.tree_leaves(forced.model(*args))

    return run


same_every_time = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # Shrinking takes minutes, as every attempt is captured anew; to shrink a failure, add Phase.shrink and wait.
    phases=(Phase.generate,),
    print_blob=False,
)


def emulated(folder: Path, seed: str) -> Backend:
    """Return the backend that runs every kernel as Triton, by a template drawn at random, under Triton's interpreter."""

    def run(fn: Function, args: Sequence[object]) -> list[object]:
        random = Random(seed)
        schedule, names = schedule_of(fn, args)
        inputs = {name: tensor for name, tensor in zip(names, args, strict=True) if isinstance(tensor, torch.Tensor)}
        flat = {name: _flat(tensor) for name, tensor in inputs.items()}
        memory = execute(schedule, flat, folder, random.choice)
        return leaves_of(schedule.program, inputs, lambda buffer: view(memory[buffer.name], buffer))

    return run


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return the memory of a tensor, from its first element on."""
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    return tensor.as_strided((last + 1,), (1,)) if tensor.numel() else tensor.new_empty(1)


@same_every_time
@given(programs(STEPS))
def test_random_programs_on_the_interpreter(program: RandomProgram) -> None:
    assume(program.results)
    compare(program, interpreted)


@pytest.mark.toolchain
@same_every_time
@given(program=programs(STEPS))
def test_random_programs_on_the_cpu(program: RandomProgram, two_threads: Options) -> None:
    assume(program.results)
    compare(program, compiled(two_threads, repr(program)))


@settings(same_every_time, max_examples=30)
@given(program=programs(6))
def test_random_programs_as_triton_under_its_interpreter(
    program: RandomProgram, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(program.results)
    compare(program, emulated(tmp_path_factory.mktemp("triton"), repr(program)))
