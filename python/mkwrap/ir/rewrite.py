"""Rebuilds bodies: replays a nest's instructions into a builder under other axes, with some loads replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import sympy

from mkwrap.ir.analysis import defined, dependencies
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_symbol, bounds, simplify
from mkwrap.ir.nodes import (
    BoundsCheck,
    Compute,
    Constant,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Nest,
    Reduce,
    Scan,
    Sort,
    Store,
)

OnLoad: TypeAlias = Callable[[Load, tuple[Expr, ...], str | None], str | None]
"""Given a load, its rewritten index and mask: the value to use instead, or None to load."""
OnStore: TypeAlias = Callable[[Store, tuple[Expr, ...], str], bool]
"""Given a store, its rewritten index and value: whether to emit it."""


def load_always(_load: Load, _index: tuple[Expr, ...], _mask: str | None) -> str | None:
    """Keep every load."""
    return None


def store_always(_store: Store, _index: tuple[Expr, ...], _value: str) -> bool:
    """Keep every store."""
    return True


@dataclass
class Replay:
    """Replays bodies into `builder`.

    `axes` maps axis symbols of the replayed nest to expressions over the builder's axes, whose `ranges` simplify indices;
    `mask` (a value of the builder) is joined to the mask of every load and bounds check.
    """

    builder: BodyBuilder
    axes: Mapping[sympy.Symbol, Expr]
    ranges: Ranges
    on_load: OnLoad = load_always
    on_store: OnStore = store_always
    mask: str | None = None

    def run(self, nest: Nest) -> dict[str, str]:
        """Replay a whole nest; returns the new name of every value."""
        names: dict[str, str] = {}
        symbols: dict[sympy.Symbol, Expr] = dict(self.axes)
        for instruction in nest.body:
            self._replay(instruction, names, symbols)
        return names

    def _replay(self, instruction: Instruction, names: dict[str, str], symbols: dict[sympy.Symbol, Expr]) -> None:
        builder = self.builder
        match instruction:
            case Constant(dest, dtype, value):
                names[dest] = builder.constant(value, dtype)
            case IndexValue(dest, dtype, expr):
                names[dest] = builder.index_value(self._index(expr, symbols), dtype)
                if dtype is DType.INT64:
                    symbols[axis_symbol(dest)] = self._index(expr, symbols)
            case Load(dest, dtype, buffer, index, mask):
                where = tuple(self._index(expr, symbols) for expr in index)
                joined = self._join(names[mask] if mask is not None else None)
                replaced = self.on_load(instruction, where, joined)
                names[dest] = builder.load(buffer, dtype, where, joined) if replaced is None else replaced
                symbols[axis_symbol(dest)] = axis_symbol(names[dest])
            case BoundsCheck(dest, arg, extent, mask):
                known = symbols.get(axis_symbol(arg))
                if known is not None and self._surely_inside(known, extent):
                    names[dest] = names[arg]
                    symbols[axis_symbol(dest)] = known
                else:
                    joined = self._join(names[mask] if mask is not None else None)
                    symbol = builder.bounds_check(names[arg], extent, joined)
                    names[dest] = symbol.name
                    symbols[axis_symbol(dest)] = symbol
            case Compute(dest, dtype, op, args):
                names[dest] = builder.compute(op, *[names[arg] for arg in args], dtype=dtype)
                symbols[axis_symbol(dest)] = axis_symbol(names[dest])
            case Reduce(dests, _, op, args):
                names.update(zip(dests, builder.reduce(op, *[names[arg] for arg in args]), strict=True))
            case Scan() | Sort():
                made = self._whole_row(instruction, names)
                names.update(zip(instruction.dests, made, strict=True))
                symbols.update(zip(map(axis_symbol, instruction.dests), map(axis_symbol, made), strict=True))
            case Store(buffer, index, arg):
                where = tuple(self._index(expr, symbols) for expr in index)
                if self.on_store(instruction, where, names[arg]):
                    builder.store(buffer, where, names[arg])

    def _whole_row(self, instruction: Scan | Sort, names: Mapping[str, str]) -> tuple[str, ...]:
        if isinstance(instruction, Sort):
            return self.builder.sort(names[instruction.arg], instruction.descending)
        args = [names[arg] for arg in instruction.args]
        return self.builder.scan(instruction.op, *args, combine=instruction.combine)

    def _index(self, expr: Expr, symbols: Mapping[sympy.Symbol, Expr]) -> Expr:
        if expr.is_Integer:
            return expr
        return simplify(expr.xreplace(dict(symbols)), self.ranges)

    def _surely_inside(self, expr: Expr, extent: Expr) -> bool:
        limits = bounds(expr, self.ranges)
        return (
            limits is not None
            and bool(limits[0].is_nonnegative)
            and bool((extent - 1 - limits[1]).is_nonnegative)
            and all(symbol in self.ranges for symbol in expr.free_symbols)
        )

    def _join(self, mask: str | None) -> str | None:
        if mask is None or self.mask is None:
            return mask if self.mask is None else self.mask
        return self.builder.compute("bitand", self.mask, mask)


def live_body(body: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """Drop the instructions that no store depends on; bounds checks stay only where used."""
    names = {name for instruction in body for name in defined(instruction)}
    needed: set[str] = set()
    kept: list[Instruction] = []
    for instruction in reversed(body):
        if isinstance(instruction, Store) or any(name in needed for name in defined(instruction)):
            kept.append(instruction)
            needed.update(dependencies(instruction, names))
    return tuple(reversed(kept))
