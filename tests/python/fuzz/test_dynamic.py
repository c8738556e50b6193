"""Random programs with random dynamic sizes: compiled once, equal to eager at every size, or refused."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from tests.python.dynamic.everysize import Dynamic, OutOfRangeError, dynamic
from tests.python.fuzz.programs import LIMIT, Input, RandomProgram, programs
from tests.python.fuzz.test_fuzz import same_every_time
from tests.python.lower.differential import TOLERANCE, same
from torch.export import Dim

from mkwrap.errors import CaptureError, DynamicShapeError, UnsupportedOpError

STEPS = 6
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9)


def resized(inputs: list[Input], sizes: dict[int, int]) -> list[Input]:
    """Give every dimension of one of these sizes another.

    No infinities or NaN: eager's variances of them change with the number of elements that fit its vectors.
    """
    return [replace(i, shape=tuple(sizes.get(n, n) for n in i.shape), seed=4 * i.seed + 1) for i in inputs]


def at_sizes(program: RandomProgram, inputs: list[Input]) -> list[torch.Tensor] | None:
    """Run eagerly; None where eager refuses, or values grow too large to compare."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("error")
            made = [i.make() for i in inputs]
            everything = replace(program, results=list(range(len(inputs) + len(program.steps))))
            values = everything.run(*made)
    except (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError, NotImplementedError, UserWarning):
        return None
    finite = [v[torch.isfinite(v)].abs() for v in values if v.dtype.is_floating_point]
    if any(f.numel() and float(f.max()) > LIMIT for f in finite) or any(v.numel() > 3000 for v in values):
        return None
    return [*(values[k] for k in program.results), *made]


def compare(program: RandomProgram, compiled: Dynamic, inputs: list[Input]) -> bool:
    """Compare at one size; False where either side refuses it."""
    expected = at_sizes(program, inputs)
    if expected is None:
        return False
    ours = [i.make() for i in inputs]
    try:
        results = compiled.run(*ours)
    except OutOfRangeError:
        return False
    worst = max((TOLERANCE[v.dtype][0] for v in expected if v.dtype in TOLERANCE), default=0.0)
    for k, (a, e) in enumerate(zip([*results, *ours], expected, strict=True)):
        tolerance = max(worst, 2e-5) * len(program.steps) if e.dtype.is_floating_point else 0.0
        shapes = [i.shape for i in inputs]
        same(a, e, f"leaf {k} at {shapes} of {program!r}", rtol=tolerance, atol=tolerance * LIMIT)
    return True


@settings(same_every_time, max_examples=40)
@given(program=programs(STEPS))
@pytest.mark.filterwarnings("ignore")
def test_random_programs_with_dynamic_sizes(program: RandomProgram) -> None:
    assume(program.results and all(i.layout in ("dense", "transposed") for i in program.inputs))
    pick = random.Random(repr(program))
    sizes = sorted({n for i in program.inputs for n in i.shape})
    free = [n for n in sizes if pick.random() < 0.7]
    assume(free)
    dims = tuple({k: Dim.AUTO for k, n in enumerate(i.shape) if n in free} for i in program.inputs)
    try:
        compiled = dynamic(program.run, [i.make() for i in program.inputs], {"tensors": dims})
    except (UnsupportedOpError, DynamicShapeError, CaptureError):
        assume(False)
    compare(program, compiled, resized(program.inputs, {}))
    for _ in range(6):
        compare(program, compiled, resized(program.inputs, {n: pick.choice(SIZES) for n in free}))
