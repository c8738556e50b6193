"""How a variant walks rows in blocks: the nest as it reads it, its loops, and what it keeps in memory between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mkwrap.codegen.triton.keep import Kept, keep, kept_value
from mkwrap.codegen.triton.loops import Loops, cut
from mkwrap.codegen.triton.module import Formal, workspace_formal
from mkwrap.codegen.triton.online import online
from mkwrap.codegen.triton.rows import Rows
from mkwrap.codegen.triton.tile import plain
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Guard, Params

_MOST_KEPT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Walk:
    """Rows and their loops; `rows.buffers` has the workspace of `kept` among them."""

    rows: Rows
    loops: Loops
    kept: Kept | None

    @property
    def workspace_bytes(self) -> int | Expr:
        """Bytes of workspace that the kept value needs."""
        if self.kept is None or not self.kept.workspace:
            return 0
        return plain(self.kept.buffer.numel * self.kept.dtype.itemsize)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """What keeps the workspace of dynamic sizes from growing beyond measure."""
        nbytes = self.workspace_bytes
        return () if isinstance(nbytes, int) else (Guard(nbytes, most=_MOST_KEPT_BYTES),)

    def formals(self, offset: int | Expr) -> tuple[Formal, ...]:
        """The workspace argument of the kept value, `offset` bytes into the workspace."""
        if self.kept is None or not self.kept.workspace:
            return ()
        return (workspace_formal(self.kept.buffer.name, self.kept.dtype, offset),)


def walk_of(rows: Rows, params: Params) -> Walk:
    """Read rows as the params say.

    `online` merges a maximum with a sum of exponentials below it; `keep` stores a value in the first loop and loads it
    in later ones.
    """
    options = dict(params)
    nest = online(rows.nest) if options.get("online", False) else None
    rows = rows if nest is None else replace(rows, nest=nest)
    loops = cut(rows.nest)
    kept = _kept(rows, loops) if options.get("keep", False) else None
    if kept is None:
        return Walk(rows, loops, None)
    if kept.workspace:
        buffers = {**rows.buffers, kept.buffer.name: kept.buffer}
        rows = replace(rows, buffers=buffers)
    return Walk(rows, keep(rows.nest, loops, kept), kept)


def ways(rows: Rows, found: tuple[Params, ...]) -> tuple[Params, ...]:
    """Add the ways to walk that a nest allows to what was found: merged loops in every variant, the rest in the first."""
    merged = online(rows.nest)
    if merged is not None:
        found = (*((*params, ("online", True)) for params in found), *found[:1])
    best = rows if merged is None else replace(rows, nest=merged)
    if _kept(best, cut(best.nest)) is not None:
        found = (*found[:1], (*found[0], ("keep", True)), *found[1:])
    return found


def _kept(rows: Rows, loops: Loops) -> Kept | None:
    nest = rows.nest
    order = (*nest.axes, *nest.reduction_axes) if rows.inner else (*nest.reduction_axes, *nest.axes)
    kept = kept_value(nest, loops, rows.buffers, order)
    if kept is None or not kept.workspace:
        return kept
    if rows.rows is None or rows.length is None:
        # A point was asked whether it is worth it.
        return kept
    return kept if 0 < rows.rows * rows.length * kept.dtype.itemsize <= _MOST_KEPT_BYTES else None
