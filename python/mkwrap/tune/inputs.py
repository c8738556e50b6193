"""From a kernel's parameters to the memories of its contest: what a kernel is measured and checked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mkwrap.ir.analysis import used
from mkwrap.ir.nodes import BoundsCheck, Compute, Load, Nest
from mkwrap.stages import Access, ConstantData, Kernel, Parameter, Schedule
from mkwrap.tune.accuracy import accuracies
from mkwrap.tune.arrays import number, storage_elements
from mkwrap.tune.contest import Accuracy, Fill, Memory
from mkwrap.tune.reuse import cold_parameters
from mkwrap.tune.samples import Samples, in_range

# Integers that no bounds check sees are positive and small: they may be divisors or shifts.
_SMALL = (1, 8)
_MOST_FLOATS = 1 << 24


def memories(
    schedule: Schedule,
    kernel: Kernel,
    constants: Mapping[str, ConstantData],
    samples: Samples | None = None,
    cache_bytes: int = 0,
) -> tuple[Memory, ...]:
    """Return one memory per parameter: what the kernel's first use binds to it.

    Constants have their bytes, integers and bools their values in the example call where `samples` knows them, all else is
    random. `cache_bytes`: size of the device's last cache, which decides what is cold.

    Raises `DynamicShapeError` for sizes that are not numbers.
    """
    step = next((number for number, step in enumerate(schedule.steps) if step.kernel == kernel.name), None)
    bound = () if step is None else schedule.steps[step].buffers
    limits = index_limits(kernel.nest)
    accuracy = accuracies(kernel.nest)
    cold = cold_parameters(schedule, kernel.name, cache_bytes)
    result = []
    for place, parameter in enumerate(kernel.parameters):
        name = parameter.buffer.name
        source = constants.get(bound[place]) if parameter.constant and place < len(bound) else None
        if source is not None and _own_bytes_matter(source, parameter):
            elements = storage_elements(parameter.buffer)
            memory = Memory(parameter.buffer.dtype, elements, Fill.GIVEN, given=source.data.tobytes())
        else:
            memory = _memory(parameter, limits.get(name), accuracy.get(name))
            if memory.fill is Fill.UNIFORM and samples is not None and step is not None:
                memory = _sampled(memory, samples.value(bound[place], step), limits.get(name))
        result.append(replace(memory, cold=place in cold))
    return tuple(result)


def _own_bytes_matter(source: ConstantData, parameter: Parameter) -> bool:
    """Whether a constant is measured with its own bytes: not so large floats, which would only cost time to hand over."""
    return source.data.nbytes <= _MOST_FLOATS or not parameter.buffer.dtype.is_float


def index_limits(nest: Nest) -> dict[str, int]:
    """Return the least extent that a buffer's integers are checked against, for buffers whose integers are indices."""
    makers = {i.dest: i for i in nest.body if isinstance(i, Load | Compute)}
    limits: dict[str, int] = {}
    for check in nest.body:
        if not isinstance(check, BoundsCheck):
            continue
        extent = number(check.extent, f"an index's extent in {nest.name}")
        pending, seen = [check.arg], set[str]()
        while pending:
            name = pending.pop()
            maker = makers.get(name)
            if name in seen or maker is None:
                continue
            seen.add(name)
            if isinstance(maker, Compute):
                pending.extend(used(maker))
            elif maker.dtype.is_integer:
                limits[maker.buffer] = min(extent, limits.get(maker.buffer, extent))
    return limits


def _sampled(memory: Memory, values: bytes | None, limit: int | None) -> Memory:
    """Return the memory with known values, unless they are no indices of what they are checked against."""
    if not values or (limit is not None and not in_range(values, memory.dtype, limit)):
        return memory
    return replace(memory, fill=Fill.GIVEN, given=values)


def _memory(parameter: Parameter, limit: int | None, accuracy: Accuracy | None) -> Memory:
    dtype, elements = parameter.buffer.dtype, storage_elements(parameter.buffer)
    written = parameter.access is not Access.READ
    if parameter.access is Access.WRITE:
        return Memory(dtype, elements, Fill.POISON, written=True, accuracy=accuracy)
    if dtype.is_float:
        return Memory(dtype, elements, Fill.NORMAL, written=written, accuracy=accuracy)
    low, high = _SMALL if limit is None else (0, max(1, limit))
    if dtype.is_integer:
        high = min(high, 2 ** (8 * dtype.itemsize - dtype.is_signed))
    return Memory(dtype, elements, Fill.UNIFORM, low, high, written=written, accuracy=accuracy)
