"""Random programs equal eager. Deterministic: the same examples in every run."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from tests.python.fuzz.programs import RandomProgram, programs
from tests.python.lower.differential import BACKENDS, TOLERANCE, same

STEPS = 10
EXAMPLES = 100


def compare(program: RandomProgram, backend: str) -> None:
    """Compare every result; the tolerance grows with the program's length and the size of its values."""
    expected = program.run(*[i.make() for i in program.inputs])
    actual = BACKENDS[backend](program.run, [i.make() for i in program.inputs])
    worst = max((TOLERANCE[i][0] for i in _float_types(program)), default=0.0)
    for k, (a, e) in enumerate(zip(actual, expected, strict=True)):
        tolerance = worst * len(program.steps) if e.dtype.is_floating_point else 0.0
        same(a, e, f"result {k} of {program!r}", rtol=tolerance, atol=tolerance * program.scale)


def _float_types(program: RandomProgram) -> set[torch.dtype]:
    """Float dtypes that any value of the program has: an error made in a narrow one stays when it is widened."""
    everything = RandomProgram(program.inputs, program.steps, list(range(len(program.inputs) + len(program.steps))))
    values = everything.run(*[i.make() for i in program.inputs])
    return {value.dtype for value in values if value.dtype in TOLERANCE}


@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # Shrinking takes minutes, as every attempt is captured anew; to shrink a failure, add Phase.shrink and wait.
    phases=(Phase.generate,),
    print_blob=False,
)
@given(programs(STEPS))
def test_random_programs_on_the_interpreter(program: RandomProgram) -> None:
    assume(program.results)
    compare(program, "interpret")
