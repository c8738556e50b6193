"""What a library holds of each kernel: one alternative where the choice is made for all sizes, else several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from mkwrap.artifact import Open, OpenPoints, OpenSelection
from mkwrap.errors import InternalError
from mkwrap.stages import Binary, Dispatch, Schedule, Selection

AnySelection: TypeAlias = Selection | OpenSelection
AnyChoice: TypeAlias = Dispatch | Open | OpenPoints


@dataclass(frozen=True)
class Alternative:
    """One binary of a kernel and the target it is for."""

    target: int
    binary: Binary


@dataclass(frozen=True)
class Contents:
    """A schedule and, for each of its kernels in use, the alternatives to run it by.

    Kernels and alternatives are numbered in order; `defaults` has a row per target, with each kernel's alternative.
    """

    schedule: Schedule
    selections: tuple[AnySelection, ...]
    kernels: Mapping[str, tuple[Alternative, ...]]
    defaults: tuple[tuple[int, ...], ...]

    def number(self, kernel: str) -> int:
        """Return a kernel's number."""
        return list(self.kernels).index(kernel)

    def alternatives(self, kernel: str, target: int) -> tuple[int, ...]:
        """Return the numbers of a kernel's alternatives on one target."""
        return tuple(number for number, a in enumerate(self.kernels[kernel]) if a.target == target)

    def dispatch(self, kernel: str, target: int) -> Dispatch | None:
        """Return a kernel's table on one target, None where one binary runs whatever the sizes."""
        choice = choice_of(self.selections[target], kernel)
        if isinstance(choice, OpenPoints):
            return choice.table
        several = len(self.alternatives(kernel, target)) > 1
        return choice if several and isinstance(choice, Dispatch) else None

    def running(self, kernel: str, target: int) -> tuple[int, ...]:
        """Return the numbers of a kernel's alternatives that run on one target as long as open choices are not made."""
        table = self.dispatch(kernel, target)
        if table is None:
            return (self.defaults[target][self.number(kernel)],)
        elected = [row.binary for row in table.rows]
        return tuple(n for n in self.alternatives(kernel, target) if self.kernels[kernel][n].binary in elected)

    @cached_property
    def open_tables(self) -> Mapping[tuple[str, int], OpenPoints]:
        """Return the open choices of dynamic sizes by kernel and target: their tables are parts, which closing replaces."""
        return {
            (name, target): choice
            for name in self.kernels
            for target, selection in enumerate(self.selections)
            if isinstance(choice := choice_of(selection, name), OpenPoints)
        }

    @cached_property
    def dispatched(self) -> tuple[str, ...]:
        """Return the kernels that choose among binaries by size, on one target at least, in order."""
        targets = range(len(self.selections))
        return tuple(name for name in self.kernels if any(self.dispatch(name, target) for target in targets))


def contents_of(selections: Sequence[AnySelection]) -> Contents:
    """Collect the alternatives of selections over one schedule, one selection per target.

    Raises `InternalError` for different schedules.
    """
    schedule = selections[0].schedule
    if any(selection.schedule is not schedule for selection in selections):
        raise InternalError("the targets of one library have different schedules")
    kernels: dict[str, tuple[Alternative, ...]] = {}
    for step in schedule.steps:
        if step.kernel not in kernels:
            kernels[step.kernel] = tuple(
                Alternative(target, binary)
                for target, selection in enumerate(selections)
                for binary in _binaries(selection, step.kernel)
            )
    defaults = tuple(
        tuple(next(n for n, a in enumerate(found) if a.target == target) for found in kernels.values())
        for target in range(len(selections))
    )
    return Contents(schedule, tuple(selections), kernels, defaults)


def choice_of(selection: AnySelection, kernel: str) -> AnyChoice:
    """Return what is known of a kernel's choice."""
    return selection.winners[kernel] if isinstance(selection, Selection) else selection.choices[kernel]


def _binaries(selection: AnySelection, kernel: str) -> tuple[Binary, ...]:
    choice = choice_of(selection, kernel)
    if isinstance(choice, Open | OpenPoints):
        return choice.binaries
    different: list[Binary] = []
    for row in choice.rows:
        if row.binary not in different:
            different.append(row.binary)
    return tuple(different)
