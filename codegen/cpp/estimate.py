"""Priors: how long a nest takes on one core, and how well an axis suits vectors. Order the spaces, decide nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from mkwrap.codegen.cpp.indexing import spell_index
from mkwrap.codegen.cpp.values import Values
from mkwrap.ir.analysis import arithmetic_cost
from mkwrap.ir.nodes import Expr, IndexValue, Load, Nest, Store
from mkwrap.stages import Device

DYNAMIC = 1 << 14
"""What a dynamic extent counts as."""

_BYTES_PER_US = 20_000.0
_VECTOR_OPS_PER_US = 6_000.0
_FORK_US = 5.0
_LITTLE_PS, _MUCH_PS = round(_FORK_US / 2 * 1e6), round(2 * _FORK_US * 1e6)
"""Work of one thread from which on several are tried, and from which on they are the first guess."""


def number(expr: sympy.Expr) -> int:
    """Return a size as a number, dynamic symbols replaced by a guess."""
    return int(expr.subs(dict.fromkeys(expr.free_symbols, DYNAMIC)))


def points(nest: Nest) -> int:
    """Number of iterations of the innermost body."""
    return number(sympy.Mul(*[axis.extent for axis in (*nest.axes, *nest.reduction_axes)]))


def traffic(values: Values) -> int:
    """Bytes that one iteration reads and writes."""
    return sum(values.buffers[i.buffer].dtype.itemsize for i in values.nest.body if isinstance(i, Load | Store))


def serial_us(values: Values) -> float:
    """Microseconds on one core, roughly."""
    return points(values.nest) * _point_us(values)


@dataclass(frozen=True)
class Team:
    """How many threads run a kernel; where `work`, in picoseconds on one of them, is dynamic, only from `least` on."""

    threads: int
    work: Expr | None = None
    least: int = 0

    @property
    def condition(self) -> str:
        """Spell when there is a team; "" where there always is."""
        return f"{spell_index(self.work, {})} >= {self.least}" if self.work is not None and self.threads > 1 else ""


def team(values: Values, threads: int, device: Device, steps: int = 1) -> Team:
    """Return the team of a choice of `threads`; `steps`: how much longer an element takes than is estimated.

    With dynamic sizes the choice is one for sizes like those it was made at: little work is never shared, much always, since
    a text made for one size runs at others, too.
    """
    extent = sympy.Mul(*[axis.extent for axis in (*values.nest.axes, *values.nest.reduction_axes)])
    if not extent.free_symbols:
        return Team(threads)
    work = extent * max(1, round(steps * _point_us(values) * 1e6))
    return Team(threads if threads > 1 else device.units, work, _LITTLE_PS if threads > 1 else _MUCH_PS)


def _point_us(values: Values) -> float:
    weight = arithmetic_cost(values.nest) + len(values.nest.body)
    return max(traffic(values) / _BYTES_PER_US, weight / max(1, values.lanes) / _VECTOR_OPS_PER_US)


def thread_counts(values: Values, device: Device) -> tuple[int, ...]:
    """Return the thread counts worth trying, best guess first."""
    time = serial_us(values)
    if device.units == 1 or time < _FORK_US / 2:
        return (1,)
    if time < 8 * _FORK_US:
        return (device.units, 1) if time > 2 * _FORK_US else (1, device.units)
    return (device.units,)


def irregularity(values: Values) -> int:
    """Count the accesses that are neither contiguous nor uniform along the vector axis, and indices not linear along it."""
    count = 0
    for i in values.nest.body:
        if isinstance(i, Load | Store):
            step = values.step(values.flat(i))
            irregular = step is None or (step not in (0, 1))
            count += irregular or (isinstance(i, Store) and step == 0 and not values.nest.reduction_axes)
        elif isinstance(i, IndexValue):
            count += values.step(i.expr) is None
    return count
