"""Tiles: which points of a nest one program works on, and the values it computes there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy

from mkwrap.codegen.triton.indexing import over_position
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Ranges, axis_symbol
from mkwrap.ir.nodes import Axis, Expr

INT32_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Dim:
    """One dimension of a tile: a block of the row-major positions of some axes.

    `block` 0 means a scalar: the position is one per program. `masked`: positions may run past the end.
    """

    name: str
    axes: tuple[Axis, ...]
    block: int
    masked: bool

    @property
    def numel(self) -> Expr:
        """Number of positions."""
        return sympy.Mul(*[axis.extent for axis in self.axes])

    @property
    def symbol(self) -> sympy.Symbol:
        """The symbol of the position."""
        return axis_symbol(self.name)

    @property
    def mask(self) -> str:
        """The text of the mask."""
        return f"{self.name}_mask"


@dataclass(frozen=True)
class Value:
    """Text of an SSA value, its dtype, and the tile dimensions along which it has its extent (1 along the others)."""

    text: str
    dtype: DType
    dims: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tile:
    """The dimensions of a program's tile, outermost first; scalar dimensions take no part in shapes."""

    dims: tuple[Dim, ...]

    @property
    def blocks(self) -> tuple[Dim, ...]:
        """The dimensions that have an extent."""
        return tuple(dim for dim in self.dims if dim.block)

    def shape(self, names: frozenset[str]) -> str:
        """Text of the shape of a value that has its extent along `names`."""
        return "[" + ", ".join(str(dim.block) if dim.name in names else "1" for dim in self.blocks) + "]"

    def subscript(self, name: str) -> str:
        """Text that puts a 1-D range along a dimension."""
        if len(self.blocks) == 1:
            return ""
        return "[" + ", ".join(":" if dim.name == name else "None" for dim in self.blocks) + "]"

    def axis(self, name: str) -> int:
        """Number of a dimension in shapes."""
        return [dim.name for dim in self.blocks].index(name)

    def ranges(self) -> dict[sympy.Symbol, tuple[Expr, Expr]]:
        """Bounds of the positions, masked lanes not counted."""
        return {dim.symbol: (sympy.Integer(0), dim.numel - 1) for dim in self.dims}

    def positions(self, expr: Expr, ranges: Ranges) -> Expr:
        """Rewrite an expression over axes as one over the tile's positions."""
        for dim in self.dims:
            expr = over_position(expr, dim.axes, dim.symbol, ranges)
        return expr

    def along(self, expr: Expr, values: Mapping[str, Value]) -> frozenset[str]:
        """Tile dimensions along which an expression over positions and values varies."""
        names = {symbol.name for symbol in expr.free_symbols if not is_size(symbol)}
        found = {dim.name for dim in self.blocks if dim.name in names}
        for name in sorted(names & values.keys()):
            found |= values[name].dims
        return frozenset(found)


def is_size(symbol: sympy.Symbol) -> bool:
    """Whether a symbol is a dynamic size, whatever its name: positions and values may be 0, sizes count as positive."""
    return bool(symbol.is_positive)


def size_name(symbol: sympy.Symbol) -> str:
    """Name the argument of a dynamic size; no other name in a text starts with `size_`."""
    return f"size_{symbol.name}"


def ceil_div(a: Expr | int, b: int) -> int | Expr:
    """⌈a / b⌉, as an int where a is known."""
    extent = sympy.sympify(a)
    if extent.is_Integer:
        return -(-int(extent) // b)
    return FloorDiv(extent + (b - 1), sympy.Integer(b))


def overhangs(extent: int | None, block: int) -> bool:
    """Whether blocks may run past an extent; one block is launched for a known extent of 0, too."""
    if extent is None:
        return block > 1
    return extent == 0 or extent % block != 0


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n (1 for n < 1)."""
    return 1 << max(n - 1, 0).bit_length()


def plain(size: Expr | int) -> Expr | int:
    """A known size as an int."""
    expr = sympy.sympify(size)
    return int(expr) if expr.is_Integer else expr


def static(extents: Sequence[Expr] | Expr) -> int | None:
    """The product as an int where all extents are known, else None."""
    product = sympy.Mul(*extents) if isinstance(extents, Sequence) else extents
    return int(product) if product.is_Integer else None
