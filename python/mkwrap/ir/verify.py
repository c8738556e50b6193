"""Checks that a nest is legal. `verify_program` checks all of a program's, after every stage that makes them.

Rules of a nest, by the name an error gives:
    axes      axis symbols are distinct, extents do not depend on axes
    ssa       every value is defined once, before its use, and no axis has its name
    symbols   an index names axes, sizes and int64 values only; a store's index names no values
    buffers   every buffer is known; constants are never written
    ranks     one index expression per dimension
    dtypes    operands and results have the dtypes the rows of `ops` ask for; stores and loads have the buffer's
    bounds    no index is provably out of bounds (a masked load may be, where its mask is false)
    levels    what is stored once per row does not vary along a reduction axis
    scans     a scan or sort has axes to run over; a scan has a function to combine with exactly where its op asks for one;
              a row that is sorted has at most `ops.SORT_LIMIT` elements (a dynamic one by the range of its size)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import sympy

from mkwrap.errors import VerifyError
from mkwrap.ir.analysis import defined, dependencies, element_level, index_exprs, results, stores, stores_elements
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_ranges, axis_symbol, bounds, simplify
from mkwrap.ir.nodes import (
    BoundsCheck,
    Buffer,
    Combine,
    Compute,
    Constant,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Nest,
    Reduce,
    Role,
    Scan,
    Sort,
    Store,
)
from mkwrap.ir.ops import ASSOCIATIVE, OPS, REDUCTIONS, SCANS, SORT_LIMIT, Kind


def verify(nest: Nest, buffers: Mapping[str, Buffer], sizes: Collection[sympy.Symbol] = ()) -> None:
    """Check one nest; `sizes` are known besides those in the buffers' shapes. Raises `VerifyError` naming the rule."""
    verify_all((nest,), buffers, sizes)


def verify_all(nests: Iterable[Nest], buffers: Mapping[str, Buffer], sizes: Collection[sympy.Symbol] = ()) -> None:
    """Check nests over the same buffers, as `verify` does each of them."""
    known = set(sizes)
    for buffer in buffers.values():
        for expr in (*buffer.shape, *buffer.strides):
            known |= expr.free_symbols
    for nest in nests:
        _NestCheck(nest, buffers, known).run()


@dataclass
class _NestCheck:
    nest: Nest
    buffers: Mapping[str, Buffer]
    sizes: Collection[sympy.Symbol]
    dtypes: dict[str, DType] = field(default_factory=dict)
    ranges: dict[sympy.Symbol, tuple[Expr, Expr]] = field(default_factory=dict)
    runs: bool = True
    """False where an axis has extent 0: nothing in the nest is ever executed."""

    def run(self) -> None:
        self._check_axes()
        for instruction in self.nest.body:
            self._check_names(instruction)
            self._check_access(instruction)
            self._check_dtypes(instruction)
            self._define(instruction)
        self._check_levels()

    def fail(self, rule: str, message: str) -> VerifyError:
        return VerifyError(f"nest {self.nest.name} breaks the rule '{rule}': {message}")

    def _check_axes(self) -> None:
        axes = (*self.nest.axes, *self.nest.reduction_axes)
        symbols = {axis.symbol for axis in axes}
        if len(symbols) != len(axes):
            raise self.fail("axes", "two axes have the same symbol")
        for axis in axes:
            if not axis.extent.free_symbols <= set(self.sizes):
                raise self.fail("axes", f"the extent {axis.extent} of {axis.symbol} is not made of sizes")
            if axis.extent.is_negative:
                raise self.fail("axes", f"axis {axis.symbol} has extent {axis.extent}")
        self.ranges.update(axis_ranges(axes))
        self.runs = all(axis.extent != 0 for axis in axes)

    def _check_names(self, instruction: Instruction) -> None:
        axes = {axis.symbol.name for axis in (*self.nest.axes, *self.nest.reduction_axes)}
        for dest in defined(instruction):
            if dest in self.dtypes:
                raise self.fail("ssa", f"{dest} is defined twice")
            if dest in axes:
                raise self.fail("ssa", f"{dest} is the name of an axis")
        for name in dependencies(instruction, set()):
            if name not in self.dtypes:
                raise self.fail("ssa", f"{name} is used before it is defined")
        for expr in index_exprs(instruction):
            for symbol in expr.free_symbols:
                self._check_symbol(instruction, symbol)

    def _check_symbol(self, instruction: Instruction, symbol: sympy.Symbol) -> None:
        if symbol.name in self.dtypes:
            if isinstance(instruction, Store):
                raise self.fail("symbols", f"the index of a store to {instruction.buffer} depends on {symbol}")
            if self.dtypes[symbol.name] is not DType.INT64:
                raise self.fail("symbols", f"index value {symbol} is {self.dtypes[symbol.name].value}, not int64")
        elif symbol not in self.ranges and symbol not in self.sizes:
            raise self.fail("symbols", f"{symbol} is no axis, size or value")

    def _check_access(self, instruction: Instruction) -> None:
        if not isinstance(instruction, Load | Store):
            return
        buffer = self.buffers.get(instruction.buffer)
        if buffer is None:
            raise self.fail("buffers", f"{instruction.buffer} is unknown")
        if isinstance(instruction, Store) and buffer.role is Role.CONSTANT:
            raise self.fail("buffers", f"constant {buffer.name} is written")
        if len(instruction.index) != len(buffer.shape):
            raise self.fail("ranks", f"{len(instruction.index)} indices into {buffer.name} of rank {len(buffer.shape)}")
        if not self.runs or (isinstance(instruction, Load) and instruction.mask is not None):
            return
        for index, extent in zip(instruction.index, buffer.shape, strict=True):
            if _out_of_bounds(index, extent, self.ranges):
                raise self.fail("bounds", f"{index} leaves 0 … {extent - 1} of {buffer.name}")

    def _check_dtypes(self, instruction: Instruction) -> None:
        match instruction:
            case Constant(dest, dtype, value):
                self._expect(_holds(dtype, value), f"{dest} = {value!r} is no {dtype.value}")
            case IndexValue(dest, dtype):
                self._expect(dtype.is_integer, f"index value {dest} is {dtype.value}")
            case Load(dest, dtype, buffer, _, mask):
                self._expect(self.buffers[buffer].dtype is dtype, f"{dest} loads {buffer} as {dtype.value}")
                self._expect_mask(mask)
            case Store(buffer, _, arg):
                self._expect(self.buffers[buffer].dtype is self.dtypes[arg], f"{arg} is stored into {buffer}")
            case BoundsCheck(dest, arg, _, mask):
                self._expect(self.dtypes[arg] is DType.INT64, f"{dest} checks {arg} of {self.dtypes[arg].value}")
                self._expect_mask(mask)
            case Compute():
                self._check_compute(instruction, self.dtypes)
            case Reduce():
                self._check_reduce(instruction)
            case Scan():
                self._check_scan(instruction)
            case Sort():
                self._check_sort(instruction)

    def _expect(self, holds: bool, message: str) -> None:
        if not holds:
            raise self.fail("dtypes", message)

    def _expect_mask(self, mask: str | None) -> None:
        self._expect(mask is None or self.dtypes[mask] is DType.BOOL, f"mask {mask} is not bool")

    def _check_compute(self, instruction: Compute, dtypes: Mapping[str, DType]) -> None:
        row = OPS.get(instruction.op)
        if row is None:
            raise self.fail("dtypes", f"there is no op {instruction.op}")
        args = tuple(dtypes[arg] for arg in instruction.args)
        given = f"{instruction.dest} = {instruction.op}({', '.join(d.value for d in args)}): {instruction.dtype.value}"
        self._expect(len(args) == row.arity, f"{given} has {len(args)} arguments instead of {row.arity}")
        self._expect(_LEGAL[row.kind](args, instruction.dtype), f"{given}, but {row.kind.value}")

    def _check_reduce(self, instruction: Reduce) -> None:
        row = REDUCTIONS.get(instruction.op)
        if row is None:
            raise self.fail("dtypes", f"there is no reduction {instruction.op}")
        args = [self.dtypes[arg] for arg in instruction.args]
        self._expect(len(args) == row.arity and len(set(args)) == 1, f"{instruction.op} of {args}")
        self._expect(instruction.dtypes == row.results(args[0]), f"{instruction.op} gives {instruction.dtypes}")
        self._expect(len(instruction.dests) == len(instruction.dtypes), f"{instruction.op} has other results")

    def _check_scan(self, instruction: Scan) -> None:
        if not self.nest.reduction_axes:
            raise self.fail("scans", f"{instruction.op} has no axis to run over")
        if (instruction.combine is not None) != (instruction.op == ASSOCIATIVE):
            raise self.fail("scans", f"{instruction.op} with combine {instruction.combine}")
        args = tuple(self.dtypes[arg] for arg in instruction.args)
        self._expect(len(instruction.dests) == len(instruction.dtypes), f"scan {instruction.op} has other results")
        self._expect(not set(args) & _HALVES, f"scan {instruction.op} of {args}")
        if instruction.combine is not None:
            self._expect(instruction.dtypes == args, f"scan of {args} gives {instruction.dtypes}")
            self._check_combine(instruction.combine, args)
            return
        row = SCANS.get(instruction.op)
        if row is None:
            raise self.fail("dtypes", f"there is no scan {instruction.op}")
        legal = len(args) == 1 and (args[0].is_float or (args[0].is_integer and not row.floats_only))
        self._expect(legal, f"scan {instruction.op} of {args}")
        self._expect(instruction.dtypes == row.results(args[0]), f"scan {instruction.op} gives {instruction.dtypes}")

    def _check_sort(self, instruction: Sort) -> None:
        row = sympy.Mul(*[axis.extent for axis in self.nest.reduction_axes])
        if not self.nest.reduction_axes or (row.is_Integer and row > SORT_LIMIT):
            raise self.fail("scans", f"a sort of rows of {row} elements; at most {SORT_LIMIT} are possible")
        dtype = self.dtypes[instruction.arg]
        self._expect(dtype not in _HALVES and dtype is not DType.BOOL, f"sort of {dtype.value}")
        self._expect(instruction.dtypes == (dtype, DType.INT64), f"sort of {dtype.value} gives {instruction.dtypes}")

    def _check_combine(self, combine: Combine, args: tuple[DType, ...]) -> None:
        """Check a combining function: SSA in a scope of its own, results of the arguments' dtypes."""
        widths = {len(combine.left), len(combine.right), len(combine.results), len(args)}
        if len(widths) > 1 or len({*combine.left, *combine.right}) < 2 * len(args):
            raise self.fail("scans", f"combine of {combine.left} and {combine.right} gives {combine.results}")
        dtypes = dict(zip((*combine.left, *combine.right), (*args, *args), strict=True))
        for instruction in combine.body:
            unknown = [name for name in dependencies(instruction, set()) if name not in dtypes]
            if unknown or instruction.dest in dtypes:
                raise self.fail("ssa", f"combine: {instruction.dest} of {unknown or 'itself'}")
            if isinstance(instruction, Compute):
                self._check_compute(instruction, dtypes)
            else:
                self._expect(_holds(instruction.dtype, instruction.value), f"combine: {instruction}")
            dtypes[instruction.dest] = instruction.dtype
        given = tuple(dtypes.get(name) for name in combine.results)
        self._expect(given == args, f"combine of {args} gives {given}")

    def _define(self, instruction: Instruction) -> None:
        self.dtypes.update(results(instruction))
        if isinstance(instruction, BoundsCheck):
            self.ranges[axis_symbol(instruction.dest)] = (sympy.Integer(0), instruction.extent - 1)

    def _check_levels(self) -> None:
        inner = element_level(self.nest)
        for store in stores(self.nest):
            if store.arg in inner and not stores_elements(self.nest, store):
                message = f"{store.arg} varies along a reduction axis, the store to {store.buffer} does not"
                raise self.fail("levels", message)


def _is_one(args: tuple[DType, ...], result: DType) -> bool:
    return set(args) == {result}


def _is_float(dtype: DType) -> bool:
    return dtype in (DType.FLOAT32, DType.FLOAT64)


# Arithmetic on 16-bit floats is done in float32: a cast on either side.
_HALVES = {DType.FLOAT16, DType.BFLOAT16}

_LEGAL: Mapping[Kind, Callable[[tuple[DType, ...], DType], bool]] = {
    Kind.SAME: lambda args, result: _is_one(args, result) and result not in _HALVES,
    Kind.COMPARE: lambda args, result: len(set(args)) == 1 and not set(args) & _HALVES and result is DType.BOOL,
    Kind.SHIFT: lambda args, result: _is_one(args, result) and result.is_integer,
    Kind.FLOAT: lambda args, result: _is_one(args, result) and _is_float(result),
    Kind.TEST: lambda args, result: _is_float(args[0]) and result is DType.BOOL,
    Kind.WHERE: lambda args, result: args[0] is DType.BOOL and _is_one(args[1:], result),
    Kind.CAST: lambda *_: True,
    Kind.BITS: lambda args, result: _is_one(args, result) and not result.is_float,
}


def _holds(dtype: DType, value: bool | int | float) -> bool:
    """Whether a Python value is of the type constants of this dtype have, and in range."""
    if dtype is DType.BOOL:
        return isinstance(value, bool)
    if dtype.is_float:
        return isinstance(value, float)
    low = -(1 << (8 * dtype.itemsize - 1)) if dtype.is_signed else 0
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < low + (1 << 8 * dtype.itemsize)


def _out_of_bounds(index: Expr, extent: Expr, ranges: Ranges) -> bool:
    """Whether some point certainly leaves 0 … extent − 1; interval bounds are exact for affine indices only."""
    if index.is_Integer and extent.is_Integer:
        return not 0 <= int(index) < int(extent)
    limits = bounds(simplify(index, ranges), ranges)
    if limits is None:
        return False
    low, high = limits
    beyond = high - (extent - 1)
    if _is_affine(index, ranges):
        return bool(low.is_negative or beyond.is_positive)
    return bool(high.is_negative or (low - (extent - 1)).is_positive)


def _is_affine(index: Expr, ranges: Ranges) -> bool:
    """Whether the index is Σ integer·symbol + integer: each symbol then reaches its bounds independently of others."""
    for term in sympy.Add.make_args(index):
        coefficient, rest = term.as_coeff_Mul()
        if not coefficient.is_Integer or not (rest == 1 or rest in ranges):
            return False
    return True
