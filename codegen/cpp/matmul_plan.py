"""What one variant of the blocked matrix product needs: panels, packing shared or per thread, the workspace."""

from __future__ import annotations

from dataclasses import dataclass

from mkwrap.codegen.cpp.matmul_problem import DEPTH, Problem, Side
from mkwrap.codegen.cpp.matmul_tiles import Blocking
from mkwrap.codegen.cpp.matmul_variants import Choice, Layout
from mkwrap.stages import Kernel

_ALIGNMENT = 64  # bytes: a cache line, so that threads share none


@dataclass(frozen=True)
class Plan:
    """All that the text of a variant depends on. `width` is the number of lanes of a vector."""

    kernel: Kernel
    problem: Problem
    choice: Choice
    width: int

    @property
    def cut(self) -> Blocking:
        """How the work is cut."""
        return self.choice.blocking

    @property
    def columns(self) -> int:
        """Columns of a panel."""
        return self.cut.vectors * self.width

    @property
    def row_tiles(self) -> int:
        """Tiles that cover the rows."""
        return -(-self.problem.m // self.cut.rows)

    @property
    def panels(self) -> int:
        """Panels that cover the columns."""
        return -(-self.problem.n // self.columns)

    @property
    def tasks(self) -> int:
        """Independent parts of the work."""
        return self.problem.batch * self.cut.row_parts * self.cut.column_parts

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
    def stages_b(self) -> bool:
        """Whether panels of B are made in two steps: computed along the depth, then transposed."""
        side = self.problem.b
        return self.packs_b and not self.plain(side) and side.contiguous == DEPTH

    def plain(self, side: Side) -> bool:
        """Whether memory holds an operand in the accumulator's type, with steps that are numbers."""
        load = side.load
        return load is not None and load.dtype is self.problem.dtype and len(side.body) == 1 and side.depth is not None

    @property
    def a_bytes(self) -> int:
        """Bytes of packed A: of all batches where packing is shared, else of one task."""
        task_rows = -(-self.row_tiles // self.cut.row_parts) * self.cut.rows
        rows = self.problem.batch * self.problem.m if self.shared else task_rows
        return self._bytes(rows * self.problem.k) if self.packs_a else 0

    @property
    def b_bytes(self) -> int:
        """Bytes of packed B, likewise."""
        panels = self.problem.batch * self.panels if self.shared else -(-self.panels // self.cut.column_parts)
        return self._bytes(panels * self.columns * self.problem.k) if self.packs_b else 0

    @property
    def stage_bytes(self) -> int:
        """Bytes of a panel before its transposition."""
        return self._bytes(self.columns * self.problem.k) if self.stages_b else 0

    @property
    def sum_bytes(self) -> int:
        """Bytes of the sums of a column of tiles, which are kept where the depth is cut."""
        if not self.cuts_depth:
            return 0
        return self._bytes(-(-self.row_tiles // self.cut.row_parts) * self.cut.rows * self.columns)

    @property
    def cuts_depth(self) -> bool:
        """Whether products are summed over several parts of the depth."""
        return self.cut.depth < self.problem.k

    @property
    def thread_offset(self) -> int:
        """Where the threads' own parts of the workspace begin."""
        return self.a_bytes + self.b_bytes if self.shared else 0

    @property
    def thread_bytes(self) -> int:
        """Workspace of one thread."""
        return self.stage_bytes + self.sum_bytes + (0 if self.shared else self.a_bytes + self.b_bytes)

    @property
    def workspace_bytes(self) -> int:
        """Workspace of the variant."""
        return self.thread_offset + self.cut.threads * self.thread_bytes

    def _bytes(self, elements: int) -> int:
        size = elements * self.problem.dtype.itemsize
        return -(-size // _ALIGNMENT) * _ALIGNMENT
