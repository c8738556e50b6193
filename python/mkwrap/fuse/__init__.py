"""Decides which work shares a kernel and which memory temporaries share: Program → Schedule."""

from __future__ import annotations

from collections.abc import Callable

from mkwrap.fuse.copies import drop_dead_stores, forward_copies
from mkwrap.fuse.inline import inline_pointwise
from mkwrap.fuse.kernels import make_kernels
from mkwrap.fuse.memory import plan_memory
from mkwrap.fuse.merge import merge_nests
from mkwrap.ir.verify_program import verify_program
from mkwrap.stages import Program, Schedule

PASSES: tuple[Callable[[Program], Program], ...] = (
    forward_copies,
    inline_pointwise,
    merge_nests,
    drop_dead_stores,
)
"""In order; the module of each says why it stands where it stands."""


def fuse(program: Program) -> Schedule:
    """Run the passes, each verified, then name the kernels and plan the arena."""
    for apply in PASSES:
        program = apply(program)
        verify_program(program)
    kernels, steps = make_kernels(program)
    arena = plan_memory(steps, kernels, program.buffers, program.symbols)
    return Schedule(program, kernels, steps, arena.placements, arena.size)
