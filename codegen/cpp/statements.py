"""Writes single instructions of a nest as C++ expressions: vectors along the vector axis, scalars elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import sympy

from mkwrap.codegen.cpp.indexing import is_size, spell_index, variable
from mkwrap.codegen.cpp.spelling import CTYPES, literal, spell
from mkwrap.codegen.cpp.values import Values
from mkwrap.errors import VerifyError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol
from mkwrap.ir.nodes import BoundsCheck, Compute, Constant, Expr, IndexValue, Instruction, Load, Reduce, Store

Rename = Callable[[str], str]


def axis_names(values: Values) -> Mapping[sympy.Symbol, str]:
    """Return the C++ variable of each axis: p0, p1, … for parallel axes, r0, r1, … for reduction axes."""
    nest = values.nest
    names = {axis.symbol: f"p{k}" for k, axis in enumerate(nest.axes)}
    return names | {axis.symbol: f"r{k}" for k, axis in enumerate(nest.reduction_axes)}


@dataclass(frozen=True)
class Statements:
    """How instructions are written at one place of a kernel.

    `lanes` is the C++ variable that says which lanes are meant; `ref` spells a value's name at that place.
    """

    values: Values
    lanes: str = "lanes"
    ref: Rename = str
    streaming: bool = False

    def at(self, lanes: str, ref: Rename = str) -> Statements:
        """Return the same for another place."""
        return replace(self, lanes=lanes, ref=ref)

    # ── index expressions ──

    def index(self, expr: Expr) -> str:
        """Spell an index that is uniform, or an index of a vector's first lane."""
        return spell_index(expr, self.values.ranges, self._name)

    def lane_index(self, expr: Expr, origin: bool = True) -> str:
        """Spell an index as a function of the C++ variable `lane`."""
        values = self.values
        axis = values.axis
        if axis is None:
            raise VerifyError("a lane index outside a vector loop")
        lane = axis_symbol("lane")
        moved = expr.subs(axis, axis + lane) if origin else expr
        ranges = {**values.ranges, lane: (sympy.Integer(0), sympy.Integer(values.lanes - 1))}
        low, high = ranges[axis]
        ranges[axis] = (low, high - lane)
        varying = {s: f"{self.ref(s.name)}[lane]" for s in values.varying_values(expr)}
        return spell_index(moved, ranges, lambda s: varying.get(s) or self._name(s))

    def _name(self, symbol: sympy.Symbol) -> str:
        if symbol.name in self.values.dtypes and not is_size(symbol):
            return self.ref(symbol.name)
        return axis_names(self.values).get(symbol) or variable(symbol)

    # ── values ──

    def scalar_or_vector(self, name: str, vector: bool) -> str:
        """Spell a value, spread over the lanes where a vector is asked for and it is none."""
        text = self.ref(name)
        if not vector or self.values.varies(name):
            return text
        return f"mkw::splat<{self.values.lanes}>({text})"

    def expression(self, i: Instruction) -> str:
        """Spell the right-hand side of an instruction that defines one value."""
        match i:
            case Constant(dtype=dtype, value=value):
                return literal(value, dtype)
            case IndexValue():
                return self._index_value(i)
            case Load():
                return self._load(i)
            case BoundsCheck():
                return self._bounds_check(i)
            case Compute(dest=dest, dtype=dtype, op=op, args=args):
                vector = self.values.varies(dest)
                texts = [self.scalar_or_vector(arg, vector) for arg in args]
                return spell(op, self.values.dtypes[args[-1]], dtype, texts)
            case _:
                raise VerifyError(f"{type(i).__name__} is no expression")

    def _index_value(self, i: IndexValue) -> str:
        ctype = CTYPES[i.dtype]
        if not self.values.varies(i.dest):
            return f"mkw::to<{ctype}>((int64_t)({self.index(i.expr)}))"
        lanes = self.values.lanes
        step = self.values.step(i.expr)
        if step is not None and i.dtype.is_integer:
            return f"mkw::ramp<{lanes}>(({ctype})({self.index(i.expr)}), ({ctype})({self.index(step)}))"
        lane = f"[&](int lane) {{ return (int64_t)({self.lane_index(i.expr)}); }}"
        return f"mkw::to<{ctype}>(mkw::lanewise<{lanes}>({lane}))"

    def _bounds_check(self, i: BoundsCheck) -> str:
        extent = f"(int64_t)({self.index(i.extent)})"
        if not self.values.varies(i.dest):
            mask = "true" if i.mask is None else self.ref(i.mask)
            return f"mkw::bounds_check({self.ref(i.arg)}, {extent}, {mask}, failed)"
        arg = self.scalar_or_vector(i.arg, True)
        mask = f"mkw::splat<{self.values.lanes}>(true)" if i.mask is None else self.scalar_or_vector(i.mask, True)
        return f"mkw::bounds_check({self.lanes}, {arg}, {extent}, {mask}, failed)"

    def _load(self, i: Load) -> str:
        values = self.values
        flat = values.flat(i)
        ctype = CTYPES[values.buffers[i.buffer].dtype]
        if not values.varies(i.dest):
            text = f"{i.buffer}[{self.index(flat)}]"
            return text if i.mask is None else f"{self.ref(i.mask)} ? {text} : {ctype}{{}}"
        if i.mask is not None and values.varies(i.mask):
            return self._masked_load(i, flat)
        text = self.plain_load(i, flat)
        if i.mask is None:
            return text
        return f"{self.ref(i.mask)} ? {text} : mkw::splat<{values.lanes}>({ctype}{{}})"

    def plain_load(self, i: Load, flat: Expr) -> str:
        """Spell a load of a vector without a mask, at `flat` elements from the buffer's first."""
        step = self.values.step(flat)
        if step == 1:
            return f"mkw::load({self.lanes}, {i.buffer} + ({self.index(flat)}))"
        if step is not None:
            return f"mkw::load_strided({self.lanes}, {i.buffer} + ({self.index(flat)}), {self.index(step)})"
        return f"mkw::gather({self.lanes}, {i.buffer}, {self._offset(flat)})"

    def _masked_load(self, i: Load, flat: Expr) -> str:
        mask = self.ref(i.mask or "")
        # The address of the first lane may lie outside the buffer where its mask is false, hence integers are added.
        if self.values.step(flat) == 1:
            return f"mkw::load_masked({self.lanes}, {mask}, {i.buffer} + ({self.index(flat)}))"
        return f"mkw::gather_masked({self.lanes}, {mask}, {i.buffer}, {self._offset(flat)})"

    def _offset(self, flat: Expr) -> str:
        return f"[&](int lane) {{ (void)lane; return (int64_t)({self.lane_index(flat)}); }}"

    # ── stores and reductions ──

    def store(self, i: Store, vector: bool) -> str:
        """Spell a store, of a vector or of a scalar."""
        flat = self.values.flat(i)
        if not vector:
            return f"{i.buffer}[{self.index(flat)}] = {self.ref(i.arg)};"
        value = self.scalar_or_vector(i.arg, True)
        step = self.values.step(flat)
        if step == 1:
            function = "store_streaming" if self.streaming else "store"
            return f"mkw::{function}({self.lanes}, {i.buffer} + ({self.index(flat)}), {value});"
        if step is not None:
            return f"mkw::store_strided({self.lanes}, {i.buffer} + ({self.index(flat)}), {self.index(step)}, {value});"
        return f"mkw::scatter({self.lanes}, {i.buffer}, {self._offset(flat)}, {value});"


@dataclass(frozen=True)
class Accumulator:
    """A Reduce's accumulator in C++: its type over scalars or vectors, its step, and the results in its fields."""

    reduce: Reduce
    values: Values
    positions: DType

    @property
    def dtype(self) -> DType:
        """The type values are accumulated in."""
        return self.values.dtypes[self.reduce.args[0]].compute

    def ctype(self, lanes: int) -> str:
        """Spell the accumulator's type for vectors of `lanes` lanes; 1 for scalars."""
        element = CTYPES[self.dtype]
        value = f"mkw::Vec<{element}, {lanes}>" if lanes > 1 else element
        name = _ACCUMULATORS[self.reduce.op]
        return f"mkw::{name}<{value}, {CTYPES[self.positions]}>" if self.is_positional else f"mkw::{name}<{value}>"

    @property
    def is_positional(self) -> bool:
        """Whether positions are accumulated, too."""
        return self.reduce.op in ("argmax", "argmin")

    def step(self, statements: Statements, target: str, position: Expr, ascending: bool) -> str:
        """Spell taking the reduce's argument into `target`.

        `position` is the place in the reduced row; `ascending`: one accumulator meets ever higher ones.
        """
        arg = self.reduce.args[0]
        text = statements.ref(arg)
        if self.values.dtypes[arg] is not self.dtype:
            text = f"mkw::to<{CTYPES[self.dtype]}>({text})"
        lanes = self.values.lanes
        if not self.values.varies(arg):
            text = f"mkw::splat<{lanes}>({text})"
        if not self.is_positional:
            return f"{target}.step({statements.lanes}, {text});"
        ctype = CTYPES[self.positions]
        move = statements.index(self.values.step(position) or sympy.Integer(0))
        at = f"mkw::ramp<{lanes}>(({ctype})({statements.index(position)}), ({ctype})({move}))"
        return f"{target}.{'next' if ascending else 'step'}({statements.lanes}, {text}, {at});"

    def results(self, source: str) -> tuple[str, ...]:
        """Spell the reduce's results from the finished accumulator, in the dtypes it promises."""
        if self.is_positional:
            fields: tuple[str, ...] = (f"{source}.value", f"{source}.position")
        elif self.reduce.op == "welford":
            fields = (f"{source}.mean", f"{source}.m2")
        else:
            fields = (f"{source}.value",)
        held = (self.dtype, self.positions) if self.is_positional else (self.dtype,) * len(fields)
        return tuple(
            field if dtype is have else f"mkw::to<{CTYPES[dtype]}>({field})"
            for field, dtype, have in zip(fields, self.reduce.dtypes, held, strict=True)
        )


_ACCUMULATORS: Mapping[str, str] = {
    "sum": "Sum",
    "prod": "Prod",
    "maximum": "Maximum",
    "minimum": "Minimum",
    "argmax": "ArgMax",
    "argmin": "ArgMin",
    "welford": "Welford",
}

SUPPORTED_REDUCTIONS = frozenset(_ACCUMULATORS)
