"""What one variant of the blocked matrix product needs: panels, packing shared or per thread, the workspace."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from mkwrap.codegen.cpp.matmul_problem import DEPTH, Problem, Side, is_multiple, quotient_up
from mkwrap.codegen.cpp.matmul_tiles import Blocking
from mkwrap.codegen.cpp.matmul_variants import Choice, Layout
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Kernel

_ALIGNMENT = 64  # bytes: a cache line, so that threads share none


@dataclass(frozen=True)
class Plan:
    """All that the text of a variant depends on. `width` is the number of lanes of a vector."""

    kernel: Kernel
    problem: Problem
    choice: Choice
    width: int
    least: int = 0
    """Multiply-adds from which on there is a team, where they are dynamic."""

    @property
    def cut(self) -> Blocking:
        """How the work is cut."""
        return self.choice.blocking

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return self.cut.vectors * self.width

    @property
    def row_tiles(self) -> Expr:
        """Tiles that cover the rows."""
        return quotient_up(self.problem.m, self.cut.rows)

    @property
    def panels(self) -> Expr:
        """Panels that cover the columns."""
        return quotient_up(self.problem.n, self.columns)

    @property
    def tasks(self) -> Expr:
        """Independent parts of the work."""
        return self.problem.batch * self.cut.row_parts * self.cut.column_parts

    @property
    def whole_rows(self) -> bool:
        """Whether tiles cover the rows exactly."""
        return is_multiple(self.problem.m, self.cut.rows)

    @property
    def fits(self) -> bool:
        """Whether tiles at the border have microkernels of their own: where sizes, and so what is left over, vary."""
        return bool(self.problem.m.free_symbols or self.problem.n.free_symbols)

    @property
    def packs_a(self) -> bool:
        """Whether rows of A are copied into the workspace."""
        return self.choice.a is Layout.PACKED

    @property
    def packs_b(self) -> bool:
        """Whether panels of B are made in the workspace."""
        return self.choice.b is Layout.PACKED

    @property
    def shared(self) -> bool:
        """Whether all is packed before the first product: where tasks would otherwise pack the same data again."""
        return (self.packs_a and self.cut.column_parts > 1) or (self.packs_b and self.cut.row_parts > 1)

    @property
    def pads_b(self) -> bool:
        """Whether the last panel of a B in place may lack columns: it is packed, then."""
        return self.choice.b is Layout.IN_PLACE and not is_multiple(self.problem.n, self.columns)

    @property
    def stages_b(self) -> bool:
        """Whether panels of B are made in two steps: computed along the depth, then transposed."""
        side = self.problem.b
        return self.packs_b and not self.plain(side) and side.contiguous == DEPTH

    def plain(self, side: Side) -> bool:
        """Whether memory holds an operand in the accumulator's type, with steps that are numbers."""
        load = side.load
        return load is not None and load.dtype is self.problem.dtype and len(side.body) == 1 and side.depth is not None

    @property
    def a_bytes(self) -> Expr:
        """Bytes of packed A: of all batches where packing is shared, else of one task."""
        task_rows = quotient_up(self.row_tiles, self.cut.row_parts) * self.cut.rows
        rows = self.problem.batch * self.problem.m if self.shared else task_rows
        return self._bytes(rows * self.problem.k if self.packs_a else 0)

    @property
    def b_bytes(self) -> Expr:
        """Bytes of packed B, likewise."""
        panels = self.problem.batch * self.panels if self.shared else quotient_up(self.panels, self.cut.column_parts)
        return self._bytes(panels * self.columns * self.problem.k if self.packs_b else 0)

    @property
    def stage_bytes(self) -> Expr:
        """Bytes of a panel before its transposition."""
        return self._bytes(self.columns * self.problem.k if self.stages_b else 0)

    @property
    def pad_bytes(self) -> Expr:
        """Bytes of the panel that lacks columns."""
        return self._bytes(self.columns * self.problem.k if self.pads_b else 0)

    @property
    def sum_bytes(self) -> Expr:
        """Bytes of the sums of a column of tiles, which are kept where the depth is cut."""
        rows = quotient_up(self.row_tiles, self.cut.row_parts) * self.cut.rows
        return self._bytes(rows * self.columns if self.cuts_depth else 0)

    @property
    def cuts_depth(self) -> bool:
        """Whether products are summed over several parts of the depth."""
        return self.cut.depth > 0

    @property
    def thread_offset(self) -> Expr:
        """Where the threads' own parts of the workspace begin."""
        return self.a_bytes + self.b_bytes if self.shared else sympy.Integer(0)

    @property
    def thread_bytes(self) -> Expr:
        """Workspace of one thread."""
        own = sympy.Integer(0) if self.shared else self.a_bytes + self.b_bytes
        return self.stage_bytes + self.pad_bytes + self.sum_bytes + own

    @property
    def workspace_bytes(self) -> Expr:
        """Workspace of the variant."""
        return sympy.expand(self.thread_offset + self.cut.threads * self.thread_bytes)

    def _bytes(self, elements: Expr | int) -> Expr:
        return quotient_up(elements * self.problem.dtype.itemsize, _ALIGNMENT) * _ALIGNMENT
