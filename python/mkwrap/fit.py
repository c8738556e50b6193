"""Sees to it that a program fits the example call it was traced with.

Torch takes a dynamic size for no other than 1 where tensors are broadcast, whatever it is in the example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy
import torch

from mkwrap.dims import TensorDims
from mkwrap.errors import CaptureError, DynamicShapeError
from mkwrap.guards import GuardLines
from mkwrap.ir.relations import holds, notes_of_narrowing, relation_text
from mkwrap.ir.signature import Relation
from mkwrap.ir.spelled import spelled
from mkwrap.stages import Program
from mkwrap.traced import Traced, conditions_of, environment_of, expression, values_of


@dataclass(frozen=True)
class Trace:
    """What torch.export made of a function, with some of its dimensions dynamic."""

    program: torch.export.ExportedProgram
    lines: GuardLines
    inputs: Sequence[Traced]


@dataclass(frozen=True)
class _One:
    """A dynamic dimension that has size 1 in the example, and torch took for another size."""

    tensor: int
    dim: int
    where: str
    required: bool
    why: str


def traced_to_fit(
    trace: Callable[[Sequence[TensorDims]], Trace],
    dims: Sequence[TensorDims],
    samples: Sequence[torch.Tensor],
    paths: Sequence[str],
) -> tuple[Trace, tuple[str, ...]]:
    """Trace, and once more with `Dim.AUTO` made static where a size of 1 is broadcast; returns a note for each of these.

    Raises `DynamicShapeError` for such a dimension that is declared to be dynamic, `CaptureError` as `trace` does.
    """
    try:
        found = trace(dims)
    except CaptureError as error:
        ones = list(_sizes_of_one(dims, samples, paths))
        if not ones:
            raise
        try:
            found, notes = traced_to_fit(trace, _without(dims, ones), samples, paths)
        except CaptureError:
            raise error from error.__cause__
        _refuse_required(ones)
    else:
        ones = list(_broadcast(found, samples))
        if not ones:
            return found, ()
        _refuse_required(ones)
        found, notes = traced_to_fit(trace, _without(dims, ones), samples, paths)
    return found, (*(f"{one.where} is always 1, as in the example: {one.why}" for one in ones), *notes)


def _sizes_of_one(dims: Sequence[TensorDims], samples: Sequence[torch.Tensor], paths: Sequence[str]) -> Iterator[_One]:
    for k, (own, sample, path) in enumerate(zip(dims, samples, paths, strict=True)):
        for dim, declared in own.items():
            if sample.shape[dim] == 1:
                yield _One(k, dim, f"{path}.shape[{dim}]", declared.required, "torch cannot trace it as another size")


def _broadcast(found: Trace, samples: Sequence[torch.Tensor]) -> Iterator[_One]:
    """Yield the sizes of 1 that torch took for the same as a size that is another in the example."""
    environment = environment_of(found.inputs)
    if environment is None:
        return
    values = values_of(environment)
    unfit: set[sympy.Symbol] = set()
    for traced, sample in zip(found.inputs, samples, strict=True):
        for dim in traced.dims:
            taken = expression(traced.fake.shape[dim])
            if taken.xreplace(values) != sample.shape[dim]:
                unfit |= taken.free_symbols
    conditions = conditions_of(environment)
    broken = [condition for condition in conditions if condition.xreplace(values) == sympy.false]
    of_layout = found.lines.of_layout(conditions, environment.replace) if broken else frozenset()
    for condition in broken:
        if condition not in of_layout:
            unfit |= condition.free_symbols
    dims = [traced.dims for traced in found.inputs]
    for one in _sizes_of_one(dims, samples, [traced.path for traced in found.inputs]):
        taken = expression(found.inputs[one.tensor].fake.shape[one.dim])
        if taken.free_symbols & unfit:
            yield replace(one, why=f"it is broadcast{found.lines.place(taken)}")


def _refuse_required(ones: Iterable[_One]) -> None:
    for one in ones:
        if one.required:
            raise DynamicShapeError(
                f"{one.where} is 1 in the example and declared to be dynamic, but {one.why}; make this dimension static (None in "
                "dynamic_shapes), or give an example in which it is no 1"
            )


def _without(dims: Sequence[TensorDims], ones: Iterable[_One]) -> list[TensorDims]:
    gone = {(one.tensor, one.dim) for one in ones}
    return [{dim: own[dim] for dim in own if (k, dim) not in gone} for k, own in enumerate(dims)]


def refuse_unfit(program: Program, samples: Mapping[str, torch.Tensor]) -> None:
    """Refuse a program that would refuse its own example: raises `DynamicShapeError` with what does not hold there."""
    sizes = {
        spec.symbol: (samples[spec.input_name].shape[spec.dim] - spec.offset) // spec.scale for spec in program.symbols
    }
    for relation, why in _asked(program, samples):
        if not holds(relation, sizes):
            told = ", ".join(f"{symbol} is {size}" for symbol, size in sizes.items())
            raise DynamicShapeError(
                f"the program, as it was traced, does not take its own example{', where ' if told else ''}{told}: it needs {why}"
                "; give an example with sizes that fit, or make these dimensions static"
            )


def _asked(program: Program, samples: Mapping[str, torch.Tensor]) -> Iterator[tuple[Relation, str]]:
    """Yield what every call is checked for, with the words for it."""
    for spec in program.symbols:
        notes = notes_of_narrowing(spec.symbol, program.notes)
        for relation in (
            Relation(sympy.Integer(spec.low), "<=", spec.symbol),
            Relation(spec.symbol, "<=", sympy.Integer(spec.high)),
        ):
            yield relation, "; ".join((relation_text(relation), *notes))
    for relation in program.relations:
        yield relation, relation_text(relation) + (f" (at {relation.origin})" if relation.origin else "")
    for each in program.inputs:
        for dim, (size, actual) in enumerate(zip(each.shape, samples[each.name].shape, strict=True)):
            yield (
                Relation(size, "==", sympy.Integer(actual)),
                f"{each.path}.shape[{dim}], which is {actual}, to be {spelled(size)}",
            )
