"""Fetches ahead of a row: while one row is computed, the loads of a later one are on their way.

A processor's own prefetching ends with the page, and its reordering reaches over some hundred instructions: a row whose last
loop is long arithmetic would wait for memory in its first loop, row after row.
"""

from __future__ import annotations

import sympy

from mkwrap.codegen.cpp.reduction_plan import Plan
from mkwrap.codegen.cpp.statements import Statements
from mkwrap.ir.nodes import Load


def fetched(plan: Plan) -> tuple[Load, ...]:
    """Return the loads that differ from row to row and lie side by side along the vector axis, each address once."""
    values = plan.values
    if not plan.by_rows or not plan.outer:
        return ()
    found: dict[object, Load] = {}
    for i in values.nest.body:
        if isinstance(i, Load) and i.mask is None and values.varies(i.dest):
            flat = values.flat(i)
            if plan.outer[-1].symbol in flat.free_symbols and values.step(flat) == 1:
                found.setdefault((i.buffer, flat), i)
    return tuple(found.values())


def prefetches(plan: Plan, statements: Statements, rows: int) -> tuple[str, ...]:
    """Return the statements that ask for what `fetched` loads `rows` rows later."""
    row = plan.outer[-1].symbol
    later = [(i.buffer, sympy.expand(plan.values.flat(i).subs(row, row + rows))) for i in fetched(plan)]
    return tuple(f"mkw::prefetch({buffer}, {statements.index(flat)});" for buffer, flat in later)
