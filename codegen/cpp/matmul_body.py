"""Writes the pointwise parts of a matrix product, operands and epilogue: C++ over vectors along an axis, or scalars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sympy

from mkwrap.codegen.cpp.indexing import spell_index, step_along, variable
from mkwrap.codegen.cpp.spelling import CTYPES, literal, spell
from mkwrap.codegen.writer import Writer
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges
from mkwrap.ir.nodes import (
    BoundsCheck,
    Compute,
    Constant,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Reduce,
    Scan,
    Sort,
    Store,
)


class Body:
    """Writes instructions whose loads and stores have one-dimensional indices; pointers are members of `arg`.

    With an `axis`, values that vary along it are vectors of `width` lanes; the text then reads a variable `lanes`,
    which says those that are meant, and vectors start at multiples of `width`. A bounds check sets a variable `failed`.
    """

    def __init__(self, writer: Writer, ranges: Ranges, axis: sympy.Symbol | None = None, width: int = 1) -> None:
        self._writer = writer
        self._ranges = ranges
        self._axis = axis
        self._width = width
        self._dtypes: dict[str, DType] = {}
        self._vectors: set[str] = set()

    def give(self, name: str, dtype: DType) -> None:
        """Declare a variable that is there already; it varies along the axis."""
        self._dtypes[name] = dtype
        if self._axis is not None:
            self._vectors.add(name)

    def emit(self, instructions: Iterable[Instruction]) -> None:
        """Write instructions in order; what has been written already is left out."""
        for instruction in instructions:
            if isinstance(instruction, Store):
                self._store(instruction)
            elif not isinstance(instruction, Reduce | Scan | Sort) and instruction.dest not in self._dtypes:
                self._define(instruction)

    def value(self, name: str, dtype: DType) -> str:
        """Spell a value converted to a dtype, as a vector where there is an axis."""
        text = self._vector(name) if self._axis is not None else name
        return text if self._dtypes[name] is dtype else spell("cast", self._dtypes[name], dtype, [text])

    def _define(self, instruction: Constant | IndexValue | Load | BoundsCheck | Compute) -> None:
        match instruction:
            case Constant(dtype=dtype, value=value):
                text, vector = literal(value, dtype), False
            case IndexValue():
                text, vector = self._index_value(instruction)
            case Load():
                text, vector = self._load(instruction)
            case BoundsCheck():
                text, vector = self._bounds_check(instruction)
            case Compute(op=op, args=args, dtype=dtype):
                vector = any(arg in self._vectors for arg in args)
                spelled = [self._vector(arg) if vector else arg for arg in args]
                text = spell(op, self._dtypes[args[-1]], dtype, spelled)
        dtype = DType.INT64 if isinstance(instruction, BoundsCheck) else instruction.dtype
        self._dtypes[instruction.dest] = dtype
        if vector:
            self._vectors.add(instruction.dest)
        self._writer.line(f"const {'auto' if vector else CTYPES[dtype]} {instruction.dest} = {text};")

    def _vector(self, name: str) -> str:
        return name if name in self._vectors else f"mkw::splat<{self._width}>({name})"

    def _step(self, expr: Expr) -> Expr | None:
        if any(symbol.name in self._vectors for symbol in expr.free_symbols):
            return None
        return sympy.Integer(0) if self._axis is None else step_along(expr, self._axis, self._width, self._ranges)

    def _spell(self, expr: Expr) -> str:
        return spell_index(expr, self._ranges)

    def _per_lane(self, expr: Expr) -> str:
        """A function from the lane to the expression's value in it."""

        def name(symbol: sympy.Symbol) -> str:
            if symbol == self._axis:
                return f"({symbol} + lane)"
            return f"{symbol}[lane]" if symbol.name in self._vectors else variable(symbol)

        return f"[&](int lane) -> int64_t {{ return {spell_index(expr, self._ranges, name)}; }}"

    def _index_value(self, instruction: IndexValue) -> tuple[str, bool]:
        step = self._step(instruction.expr)
        if step == 0:
            text, vector = f"(int64_t)({self._spell(instruction.expr)})", False
        elif step is not None:
            start, growth = self._spell(instruction.expr), self._spell(step)
            text, vector = f"mkw::ramp<{self._width}>((int64_t)({start}), (int64_t)({growth}))", True
        else:
            text, vector = f"mkw::lanewise<{self._width}>({self._per_lane(instruction.expr)})", True
        return spell("cast", DType.INT64, instruction.dtype, [text]), vector

    def _load(self, load: Load) -> tuple[str, bool]:
        (expr,) = load.index
        pointer, step, mask = f"arg.{load.buffer}", self._step(expr), load.mask
        if step == 0 and (mask is None or mask not in self._vectors):
            text = f"{pointer}[{self._spell(expr)}]"
            return (text if mask is None else f"{mask} ? {text} : {_zero(load.dtype)}"), False
        place = f"{pointer} + ({self._spell(expr)})"
        if step == 1:
            if mask is None:
                return f"mkw::load(lanes, {place})", True
            return f"mkw::load_masked(lanes, {self._vector(mask)}, {place})", True
        if mask is not None:
            return f"mkw::gather_masked(lanes, {self._vector(mask)}, {pointer}, {self._per_lane(expr)})", True
        if step is not None:
            return f"mkw::load_strided(lanes, {place}, {self._spell(step)})", True
        return f"mkw::gather(lanes, {pointer}, {self._per_lane(expr)})", True

    def _bounds_check(self, check: BoundsCheck) -> tuple[str, bool]:
        extent = self._spell(check.extent)
        mask = check.mask or "true"
        if check.arg not in self._vectors and mask not in self._vectors:
            return f"mkw::bounds_check({check.arg}, {extent}, {mask}, failed)", False
        masks = self._vector(mask)
        return f"mkw::bounds_check(lanes, {self._vector(check.arg)}, {extent}, {masks}, failed)", True

    def _store(self, store: Store) -> None:
        (expr,) = store.index
        pointer, step = f"arg.{store.buffer}", self._step(expr)
        place = f"{pointer} + ({self._spell(expr)})" if step is not None else pointer
        if step == 0:
            value = f"{store.arg}[0]" if store.arg in self._vectors else store.arg
            self._writer.line(f"{pointer}[{self._spell(expr)}] = {value};")
        elif step == 1:
            self._writer.line(f"mkw::store(lanes, {place}, {self._vector(store.arg)});")
        elif step is not None:
            self._writer.line(f"mkw::store_strided(lanes, {place}, {self._spell(step)}, {self._vector(store.arg)});")
        else:
            self._writer.line(f"mkw::scatter(lanes, {pointer}, {self._per_lane(expr)}, {self._vector(store.arg)});")


def _zero(dtype: DType) -> str:
    return f"{CTYPES[dtype]}{{}}"


def buffers_in(instructions: Sequence[Instruction]) -> tuple[str, ...]:
    """Names of the buffers that instructions touch, in order of first use."""
    return tuple(dict.fromkeys(i.buffer for i in instructions if isinstance(i, Load | Store)))
