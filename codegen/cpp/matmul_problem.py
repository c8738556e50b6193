"""A matrix product as the C++ templates see it: flattened batch, row, column and depth.

Their sizes are numbers, or expressions of dynamic sizes. All accesses are rewritten to
one-dimensional indices over BATCH, ROW, COLUMN and DEPTH.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.matmul_roles import MatmulRoles, Operand, affine, matmul_roles, split_axes
from mkwrap.codegen.parameters import buffers_of, size_symbols
from mkwrap.ir.analysis import index_exprs
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Ranges, axis_symbol, delinearize, recombine, simplify
from mkwrap.ir.nodes import Axis, BoundsCheck, Buffer, Expr, IndexValue, Instruction, Load, Store
from mkwrap.stages import Kernel

BATCH, ROW, COLUMN, DEPTH = (axis_symbol(name) for name in ("batch", "row", "column", "depth"))
"""Positions in the flattened axes; the names of variables in the generated text."""


@dataclass(frozen=True)
class Side:
    """How one operand lies in memory. Strides in elements; None where there is none or the operand is not a plain load.

    `line` runs along the operand's rows (a) or columns (b), `depth` along the reduction.
    `body` is the operand over the four symbols.
    """

    operand: Operand
    body: tuple[Instruction, ...]
    load: Load | None
    line: Expr | None
    depth: Expr | None
    contiguous: sympy.Symbol
    """Along which of its two symbols most of its loads are contiguous."""


@dataclass(frozen=True)
class Problem:
    """Sizes, both operands, and the epilogue (stores included) flattened. `dtype` is the accumulator's."""

    roles: MatmulRoles
    buffers: Mapping[str, Buffer]
    dtype: DType
    sizes: tuple[sympy.Symbol, ...]
    """The dynamic sizes it names, by name."""
    batch: Expr
    m: Expr
    n: Expr
    k: Expr
    a: Side
    b: Side
    epilogue: tuple[Instruction, ...]

    @property
    def products(self) -> int:
        """Multiply-adds in all, dynamic sizes guessed."""
        return estimate.number(self.batch * self.m * self.n * self.k)

    @property
    def ranges(self) -> Ranges:
        """Bounds of the flattened positions."""
        sizes = {BATCH: self.batch, ROW: self.m, COLUMN: self.n, DEPTH: self.k}
        return {symbol: (sympy.Integer(0), size - 1) for symbol, size in sizes.items()}

    @property
    def checks(self) -> bool:
        """Whether an index depends on data."""
        return any(isinstance(i, BoundsCheck) for i in self.roles.nest.body)


def problem_of(kernel: Kernel) -> Problem | None:
    """Read a kernel as a matrix product; None where it is not one."""
    geometry = buffers_of(kernel)
    roles = matmul_roles(split_axes(kernel.nest), geometry)
    if roles is None:
        return None
    view = _Flattening(roles, geometry)
    batch, m, n, k = (sympy.Mul(*[axis.extent for axis in axes]) for axes, _ in view.groups)
    return Problem(
        roles=roles,
        buffers={name: _flat(buffer) for name, buffer in geometry.items()},
        dtype=roles.accumulator,
        sizes=size_symbols(kernel.nest, geometry.values()),
        batch=batch,
        m=m,
        n=n,
        k=k,
        a=_side(view, roles.a, ROW),
        b=_side(view, roles.b, COLUMN),
        epilogue=view.body(roles.epilogue),
    )


def quotient_up(a: Expr | int, b: Expr | int) -> Expr:
    """Return ⌈a / b⌉ for b > 0."""
    return FloorDiv(sympy.sympify(a) + b - 1, sympy.sympify(b))


def is_multiple(size: Expr, of: int) -> bool:
    """Whether a size is known to be a multiple of a number."""
    return bool(sympy.Mod(size, of) == 0)


class _Flattening:
    """Rewrites index expressions over the nest's axes to expressions over the four symbols."""

    def __init__(self, roles: MatmulRoles, buffers: Mapping[str, Buffer]) -> None:
        self._buffers = buffers
        self.groups = ((roles.batch, BATCH), (roles.m, ROW), (roles.n, COLUMN), (roles.k, DEPTH))
        self._ranges: Ranges = {
            symbol: (sympy.Integer(0), sympy.Mul(*[axis.extent for axis in axes]) - 1) for axes, symbol in self.groups
        }

    def body(self, instructions: Sequence[Instruction]) -> tuple[Instruction, ...]:
        """Rewrite instructions; loads and stores get one-dimensional indices."""
        return tuple(self._rewritten(i) for i in instructions)

    def _rewritten(self, instruction: Instruction) -> Instruction:
        match instruction:
            case Load() | Store():
                flat = self._buffers[instruction.buffer].flat_index(instruction.index)
                return replace(instruction, index=(self._over(flat),))
            case IndexValue(expr=expr):
                return replace(instruction, expr=self._over(expr))
            case _:
                return instruction

    def _over(self, expr: Expr) -> Expr:
        for axes, symbol in self.groups:
            expr = _replaced(expr, axes, symbol, self._ranges)
        return recombine(simplify(expr, self._ranges))


def _replaced(expr: Expr, axes: Sequence[Axis], symbol: sympy.Symbol, ranges: Ranges) -> Expr:
    if not axes:
        return expr
    split = affine(expr, [axis.symbol for axis in axes])
    if split is not None:
        stride = _joint_stride([(split[0][axis.symbol], axis.extent) for axis in axes if axis.extent != 1])
        if stride is not None:
            return split[1] + stride * symbol
    digits = delinearize(symbol, [axis.extent for axis in axes], ranges)
    return expr.subs({axis.symbol: digit for axis, digit in zip(axes, digits, strict=True)}, simultaneous=True)


def _joint_stride(strides: Sequence[tuple[Expr, Expr]]) -> Expr | None:
    """The stride along the flattened axes (outermost first), where they run as one."""
    if not strides:
        return sympy.Integer(0)
    step, reached = strides[-1][0], strides[-1][1]
    for stride, extent in reversed(strides[:-1]):
        if sympy.expand(stride - step * reached) != 0:
            return None
        reached = reached * extent
    return step


def _flat(buffer: Buffer) -> Buffer:
    return replace(buffer, shape=(buffer.storage_elements,), strides=(sympy.Integer(1),))


def _side(view: _Flattening, operand: Operand, line: sympy.Symbol) -> Side:
    body = view.body(operand.body)
    plain = operand.plain_load is not None
    load = body[0] if plain and isinstance(body[0], Load) else None
    split = affine(load.index[0], (line, DEPTH)) if load is not None else None
    regular = split is not None and not any(s.free_symbols & {BATCH, ROW, COLUMN, DEPTH} for s in split[0].values())
    return Side(
        operand=operand,
        body=body,
        load=load,
        line=split[0][line] if split is not None and regular else None,
        depth=split[0][DEPTH] if split is not None and regular else None,
        contiguous=_contiguous(body, line),
    )


def _contiguous(body: Sequence[Instruction], line: sympy.Symbol) -> sympy.Symbol:
    """The symbol along which more loads have stride 1; the depth on a tie."""
    score = 0
    for instruction in body:
        if isinstance(instruction, Load):
            split = affine(index_exprs(instruction)[0], (line, DEPTH))
            if split is not None:
                score += (split[0][DEPTH] == 1) - (split[0][line] == 1)
    return line if score < 0 else DEPTH
