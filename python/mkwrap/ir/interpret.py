"""The oracle: runs a program in numpy, vectorised over all axes of a nest at once. Slow and exact.

Buffers are numpy arrays of the buffer's shape with any strides; bfloat16 buffers are uint16 bit patterns
(`numeric.encode` and `decode` convert). Every index is checked, masked-off ones excepted.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import sympy

from mkwrap.errors import IndexRangeError, VerifyError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import (
    BoundsCheck,
    Buffer,
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
from mkwrap.ir.numeric import REDUCE, SCALAR, Array, contract, convert, decode, encode, storage_type, value_type
from mkwrap.ir.prefix import SCAN, associative, sort

Sizes: TypeAlias = Mapping[sympy.Symbol, int]
Leaf: TypeAlias = "Array | bool | int | float | str | None"


class _Bytes(Protocol):
    @property
    def data(self) -> Array: ...


class _Kind(Protocol):
    @property
    def name(self) -> str: ...


class _Output(Protocol):
    @property
    def kind(self) -> _Kind: ...
    @property
    def buffer(self) -> str: ...
    @property
    def shape(self) -> tuple[Expr, ...]: ...
    @property
    def strides(self) -> tuple[Expr, ...]: ...
    @property
    def offset(self) -> Expr | int: ...
    @property
    def same_as(self) -> int: ...
    @property
    def value(self) -> bool | int | float | str | None: ...


class _Symbol(Protocol):
    @property
    def symbol(self) -> sympy.Symbol: ...
    @property
    def input_name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def scale(self) -> int: ...
    @property
    def offset(self) -> int: ...


class ProgramLike(Protocol):
    """What the interpreter needs of `stages.Program`, which is above this layer."""

    @property
    def buffers(self) -> Mapping[str, Buffer]:
        """All buffers by name."""
        ...

    @property
    def nests(self) -> tuple[Nest, ...]:
        """In topological order."""
        ...

    @property
    def outputs(self) -> Sequence[_Output]:
        """Result leaves."""
        ...

    @property
    def constants(self) -> Mapping[str, _Bytes]:
        """Bytes of the constant buffers."""
        ...

    @property
    def symbols(self) -> Sequence[_Symbol]:
        """Dynamic sizes and the input dims that bind them."""
        ...


def interpret(program: ProgramLike, inputs: Mapping[str, Array]) -> tuple[Leaf, ...]:
    """Run every nest and return the result leaves; mutated inputs are changed in place.

    `inputs` maps names to arrays of the input's shape. Raises `IndexRangeError` as a run of the library would.
    """
    sizes = sizes_of_call(program.symbols, {name: array.shape for name, array in inputs.items()})
    memory: dict[str, Array] = {}
    for name, buffer in program.buffers.items():
        if buffer.role is Role.INPUT:
            memory[name] = inputs[name]
        elif buffer.role is Role.CONSTANT:
            memory[name] = _strided(program.constants[name].data.view(storage_type(buffer.dtype)), buffer, sizes)
        else:
            memory[name] = allocate(buffer, sizes)
    for nest in program.nests:
        interpret_nest(nest, memory, sizes)
    leaves: list[Leaf] = []
    for spec in program.outputs:
        match spec.kind.name:
            case "BUFFER":
                leaves.append(memory[spec.buffer])
            case "INPUT_VIEW":
                shape, strides = evaluate_all(spec.shape, sizes), evaluate_all(spec.strides, sizes)
                offset = evaluate_all((sympy.sympify(spec.offset),), sizes)[0]
                leaves.append(_view(inputs[spec.buffer], shape, strides, offset))
            case "SAME":
                leaves.append(leaves[spec.same_as])
            case _:
                leaves.append(spec.value)
    return tuple(leaves)


def sizes_of_call(symbols: Sequence[_Symbol], shapes: Mapping[str, Sequence[int]]) -> dict[sympy.Symbol, int]:
    """Values of the size symbols, from the shapes of the inputs that bind them."""
    return {s.symbol: (int(shapes[s.input_name][s.dim]) - s.offset) // s.scale for s in symbols}


def evaluate_all(exprs: Sequence[Expr], sizes: Sizes) -> tuple[int, ...]:
    """Values of expressions over size symbols."""
    return tuple(int(expr.xreplace({s: sympy.Integer(n) for s, n in sizes.items()})) for expr in exprs)


def allocate(buffer: Buffer, sizes: Sizes) -> Array:
    """Make an array for a buffer, with its strides; filled with 0xA5 bytes, so that a missing store shows."""
    shape = evaluate_all(buffer.shape, sizes)
    strides = evaluate_all(buffer.strides, sizes)
    elements = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    flat = np.full(elements * buffer.dtype.itemsize, 0xA5, np.uint8)
    return _strided(flat.view(storage_type(buffer.dtype)), buffer, sizes)


def _strided(flat: Array, buffer: Buffer, sizes: Sizes) -> Array:
    return _view(flat, evaluate_all(buffer.shape, sizes), evaluate_all(buffer.strides, sizes), 0)


def _view(base: Array, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Array:
    """View the memory of base's first element onwards; offset and strides in elements."""
    if 0 in shape:
        return np.empty(shape, base.dtype)
    origin = np.lib.stride_tricks.as_strided(base, (offset + 1,), (base.itemsize,))[offset:]
    return np.lib.stride_tricks.as_strided(origin, shape, [s * base.itemsize for s in strides])


def interpret_nest(nest: Nest, memory: Mapping[str, Array], sizes: Sizes | None = None) -> None:
    """Run one nest on arrays in memory, by buffer name; what it stores to is changed in place.

    Raises `IndexRangeError` for a data-dependent index out of range, `VerifyError` for any other.
    """
    run = _Run(nest, memory, sizes or {})
    if 0 in run.extents[: run.rows]:
        return
    with np.errstate(all="ignore"):
        for instruction in nest.body:
            run.step(instruction)


class _Run:
    """The values of one nest: arrays with one axis per nest axis, of extent 1 where the value does not vary."""

    def __init__(self, nest: Nest, memory: Mapping[str, Array], sizes: Sizes) -> None:
        self.nest = nest
        self.memory = memory
        self.rows = len(nest.axes)
        axes = (*nest.axes, *nest.reduction_axes)
        self.rank = len(axes)
        self.extents = evaluate_all([axis.extent for axis in axes], sizes)
        self.values: dict[str, Array] = {}
        self.dtypes: dict[str, DType] = {}
        self.symbols: dict[str, Array] = {s.name: self._scalar(np.asarray(n, np.int64)) for s, n in sizes.items()}
        for k, (axis, extent) in enumerate(zip(axes, self.extents, strict=True)):
            shape = [1] * self.rank
            shape[k] = extent
            self.symbols[axis.symbol.name] = np.arange(extent, dtype=np.int64).reshape(shape)

    def step(self, instruction: Instruction) -> None:
        match instruction:
            case Constant(dtype=dtype, value=value):
                self._define(instruction.dest, dtype, self._scalar(np.asarray(value)).astype(value_type(dtype)))
            case IndexValue(dtype=dtype, expr=expr):
                self._define(instruction.dest, dtype, convert(self._index(expr), DType.INT64, dtype))
            case Load(dtype=dtype):
                self._define(instruction.dest, dtype, self._load(instruction))
            case BoundsCheck():
                self._define(instruction.dest, DType.INT64, self._check(instruction))
            case Compute(dtype=dtype):
                self._define(instruction.dest, dtype, self._compute(instruction))
            case Reduce():
                results = self._reduce(instruction)
                for dest, kind, result in zip(instruction.dests, instruction.dtypes, results, strict=True):
                    self._define(dest, kind, result)
            case Scan() | Sort():
                rows = self._scan(instruction) if isinstance(instruction, Scan) else self._sort(instruction)
                for dest, kind, row in zip(instruction.dests, instruction.dtypes, rows, strict=True):
                    self._define(dest, kind, self._from_rows(row))
            case Store():
                self._store(instruction)

    def _define(self, dest: str, dtype: DType, value: Array) -> None:
        if value.dtype != value_type(dtype):
            raise VerifyError(f"{self.nest.name}: {dest} is {value.dtype}, declared {dtype.value}")
        self.values[dest] = value
        self.dtypes[dest] = dtype

    def _scalar(self, value: Array) -> Array:
        return value.reshape((1,) * self.rank)

    def _index(self, expr: Expr) -> Array:
        if expr.is_Integer:
            return self._scalar(np.asarray(int(expr), np.int64))
        if expr.is_Symbol:
            return self.symbols[expr.name] if expr.name in self.symbols else self.values[expr.name]
        parts = [self._index(arg) for arg in expr.args]
        if isinstance(expr, FloorDiv):
            return np.asarray(np.floor_divide(parts[0], parts[1]))
        if isinstance(expr, Mod):
            return np.asarray(np.remainder(parts[0], parts[1]))
        if isinstance(expr, sympy.Min | sympy.Max):
            return functools.reduce(np.minimum if isinstance(expr, sympy.Min) else np.maximum, parts)
        if not (expr.is_Add or expr.is_Mul or (expr.is_Pow and expr.exp.is_Integer and expr.exp.is_positive)):
            raise VerifyError(
                f"{self.nest.name}: the index expression {expr} has a part that is not +, ·, //, mod, min or max"
            )
        result = parts[0]
        for part in parts[1:]:
            result = result + part if expr.is_Add else result * part if expr.is_Mul else result**part
        return result

    def _place(self, buffer: str, index: Sequence[Expr], mask: Array | None) -> tuple[Array, ...]:
        """Evaluate and check an index, one array per dimension; 0 where the mask is false."""
        places: list[Array] = []
        for expr, extent in zip(index, self.memory[buffer].shape, strict=True):
            at = self._index(expr)
            if mask is not None:
                at = np.where(mask, at, 0)
            outside = (at < 0) | (at >= extent)
            if np.any(outside if mask is None else outside & mask):
                raise VerifyError(f"{self.nest.name}: index {expr} leaves {buffer}, whose extent there is {extent}")
            places.append(at)
        return tuple(places)

    def _load(self, load: Load) -> Array:
        mask = None if load.mask is None else self.values[load.mask]
        places = self._place(load.buffer, load.index, mask)
        source = self.memory[load.buffer]
        if source.dtype != storage_type(load.dtype):
            raise VerifyError(f"{self.nest.name}: {load.buffer} holds {source.dtype}, loaded as {load.dtype.value}")
        if mask is None:
            return decode(source[places].reshape(np.broadcast_shapes((1,) * self.rank, *[p.shape for p in places])),
                          load.dtype)  # fmt: skip
        shape = np.broadcast_shapes(mask.shape, *[p.shape for p in places])
        active = np.broadcast_to(mask, shape)
        result = np.zeros(shape, source.dtype)
        result[active] = source[tuple(np.broadcast_to(p, shape)[active] for p in places)]
        return decode(result, load.dtype)

    def _check(self, check: BoundsCheck) -> Array:
        arg, extent = self.values[check.arg], self._index(check.extent)
        outside = (arg < 0) | (arg >= extent)
        if check.mask is not None:
            outside = outside & self.values[check.mask]
        if np.any(outside):
            wrong = np.broadcast_to(arg, outside.shape)[outside][0]
            origin = self.nest.origins[0] if self.nest.origins else None
            place = f" ({origin.op} at {origin.location})" if origin else ""
            raise IndexRangeError(f"index {wrong} is out of range 0 … {int(extent.max()) - 1}{place}")
        return np.clip(arg, 0, np.maximum(extent - 1, 0))

    def _compute(self, compute: Compute) -> Array:
        args = [self.values[arg] for arg in compute.args]
        if compute.op == "cast":
            return np.asarray(convert(args[0], self.dtypes[compute.args[0]], compute.dtype))
        result = np.asarray(SCALAR[compute.op](*args))
        # A 16-bit brain float is held as float32, so that arithmetic on it must be rounded here.
        return convert(result, DType.FLOAT32, compute.dtype) if compute.dtype is DType.BFLOAT16 else result

    def _reduce(self, reduce: Reduce) -> tuple[Array, ...]:
        args = [self._whole_rows(self.values[arg]) for arg in reduce.args]
        if reduce.op == "dot":
            results: tuple[Array, ...] = (contract(args[0], args[1], self.rows),)
        else:
            results = REDUCE[reduce.op](
                args[0].reshape(*args[0].shape[: self.rows], -1 if args[0].size else self._depth)
            )
        ones = (1,) * (self.rank - self.rows)
        return tuple(
            convert(np.asarray(r).reshape(*r.shape, *ones), dtype.compute, dtype)
            for r, dtype in zip(results, reduce.dtypes, strict=True)
        )

    def _scan(self, scan: Scan) -> tuple[Array, ...]:
        rows = [self._rows(arg) for arg in scan.args]
        if scan.combine is None:
            return SCAN[scan.op](rows[0])
        return associative(scan.combine, scan.dtypes, np.broadcast_arrays(*rows))

    def _sort(self, instruction: Sort) -> tuple[Array, ...]:
        return sort(self._rows(instruction.arg), instruction.descending)

    def _rows(self, name: str) -> Array:
        """Give a value the reduction axes as one axis, in row-major order."""
        value = self._whole_rows(self.values[name])
        return value.reshape(*value.shape[: self.rows], self._depth)

    def _from_rows(self, value: Array) -> Array:
        return value.reshape(*value.shape[: self.rows], *self.extents[self.rows :])

    @property
    def _depth(self) -> int:
        return int(np.prod(self.extents[self.rows :], dtype=np.int64))

    def _whole_rows(self, value: Array) -> Array:
        """Broadcast along the reduction axes: what does not vary there still counts once per element."""
        return np.broadcast_to(value, (*value.shape[: self.rows], *self.extents[self.rows :]))

    def _store(self, store: Store) -> None:
        places = self._place(store.buffer, store.index, None)
        target = self.memory[store.buffer]
        dtype = self.dtypes[store.arg]
        if target.dtype != storage_type(dtype):
            raise VerifyError(f"{self.nest.name}: {store.buffer} holds {target.dtype}, stored to as {dtype.value}")
        shape = np.broadcast_shapes((1,) * self.rank, *[p.shape for p in places])
        target[places] = np.broadcast_to(encode(self.values[store.arg], dtype), shape).reshape(
            np.broadcast_shapes(*[p.shape for p in places])
        )
