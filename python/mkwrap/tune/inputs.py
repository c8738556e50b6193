"""From a kernel's parameters to the memories of its contest: what a kernel is measured and checked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mkwrap.errors import DynamicShapeError
from mkwrap.ir.analysis import used
from mkwrap.ir.nodes import BoundsCheck, Buffer, Compute, Expr, Load, Nest
from mkwrap.stages import Access, ConstantData, Kernel, Parameter, Schedule
from mkwrap.tune.accuracy import accuracies
from mkwrap.tune.contest import Accuracy, Fill, Memory
from mkwrap.tune.reuse import cold_parameters

# Integers that no bounds check sees are positive and small: they may be divisors or shifts.
_SMALL = (1, 8)
_MOST_FLOATS = 1 << 24


def memories(
    schedule: Schedule, kernel: Kernel, constants: Mapping[str, ConstantData], cache_bytes: int = 0
) -> tuple[Memory, ...]:
    """Return one memory per parameter; constants have the bytes that the kernel's first use binds.

    `cache_bytes`: size of the device's last cache, which decides what is cold.

    Raises `DynamicShapeError` for sizes that are not numbers.
    """
    bound = next((step.buffers for step in schedule.steps if step.kernel == kernel.name), ())
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
        result.append(replace(memory, cold=place in cold))
    return tuple(result)


def _own_bytes_matter(source: ConstantData, parameter: Parameter) -> bool:
    """Whether a constant is measured with its own bytes: not so large floats, which would only cost time to hand over."""
    return source.data.nbytes <= _MOST_FLOATS or not parameter.buffer.dtype.is_float


def number(expr: Expr | int, what: str) -> int:
    """Return a static expression's value; raises `DynamicShapeError` where it depends on a symbol."""
    if isinstance(expr, int):
        return expr
    if not expr.is_Integer:
        raise DynamicShapeError(f"{what} is {expr}: kernels of dynamic sizes are not measured")
    return int(expr)


def storage_elements(buffer: Buffer) -> int:
    """Return how many elements a static buffer's memory has; 0 where a dimension is empty."""
    if any(extent == 0 for extent in buffer.shape):
        return 0
    return number(buffer.storage_elements, f"the size of {buffer.name}")


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
