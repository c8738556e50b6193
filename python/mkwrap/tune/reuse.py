"""Which arguments a kernel finds out of the cache in a model: reuse distances over the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TypeAlias

from mkwrap.ir.nodes import Buffer, Role
from mkwrap.stages import Schedule

Place: TypeAlias = str | int
"""A buffer's name, or its offset in the arena, which temporaries share."""


def cold_parameters(schedule: Schedule, kernel: str, cache_bytes: int) -> frozenset[int]:
    """Return the positions of a kernel's parameters that its first use finds out of the cache in a model.

    A model is called again and again. Between two uses of an element of a buffer the steps between them touch all their
    buffers, and the two steps that use it half of theirs on average; if that is more than the cache, the element is gone.
    What the first use of an input in a call finds was written by others, who knows when: it is cold.
    Buffers of dynamic size count nothing.
    """
    steps = schedule.steps
    here = next((k for k, step in enumerate(steps) if step.kernel == kernel), None)
    if here is None:
        return frozenset()
    buffers = schedule.program.buffers
    touched = [{_place(schedule, name): _bytes(buffers, name) for name in step.buffers} for step in steps]
    traffic = [sum(sizes.values()) for sizes in touched]
    earlier = [*range(here - 1, -1, -1), *range(len(steps) - 1, here - 1, -1)]
    cold = set()
    for position, name in enumerate(steps[here].buffers):
        place = _place(schedule, name)
        last = next(k for k in earlier if place in touched[k])
        if last >= here and name in buffers and buffers[name].role is Role.INPUT:
            cold.add(position)
            continue
        between = earlier[: earlier.index(last)]
        distinct = dict(chain.from_iterable(touched[k].items() for k in between))
        if sum(distinct.values()) + (traffic[last] + traffic[here]) / 2 > cache_bytes:
            cold.add(position)
    return frozenset(cold)


def _place(schedule: Schedule, name: str) -> Place:
    offset = schedule.placements.get(name)
    return name if offset is None or not offset.is_Integer else int(offset)


def _bytes(buffers: Mapping[str, Buffer], name: str) -> int:
    buffer = buffers.get(name)
    if buffer is None or not buffer.storage_elements.is_Integer:
        return 0
    return int(buffer.storage_elements) * buffer.dtype.itemsize
