"""The state of one lowering: the buffers and nests made so far, and the two ways to make a nest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import sympy
import torch

from mkwrap.errors import UnsupportedDtypeError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import Ranges, axis_ranges, axis_symbol, contiguous_strides
from mkwrap.ir.nodes import Axis, Buffer, Expr, Nest, Origin, Role
from mkwrap.ir.relations import decided, relation_text
from mkwrap.ir.signature import Comparison, Relation
from mkwrap.lower.tensor import ZERO, TensorValue, whole

Index: TypeAlias = tuple[Expr, ...]
Scalar: TypeAlias = bool | int | float
Operand: TypeAlias = TensorValue | Scalar | Expr
RuleArg: TypeAlias = (
    TensorValue | Scalar | str | torch.dtype | torch.device | Sequence["RuleArg"] | torch.memory_format | None
)
Rule: TypeAlias = Callable[..., "TensorValue | tuple[TensorValue | None, ...]"]
"""`rule(low, *args, **kwargs)`: the op's arguments as torch passes them, tensors as TensorValue, sizes as Expr or int.

Returns the result, or a tuple for an op with several results (None: a result that nobody may use).
Raises `Unsupported` for a combination of arguments it does not lower.
"""


class Unsupported(Exception):
    """A rule does not lower this combination of arguments; the message says which. Collected into UnsupportedOpError."""


class NestWriter(BodyBuilder):
    """Builds one nest's body; knows the ranges of its axes, so that loads through views are simplified."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        super().__init__()
        self.ranges: Ranges = axis_ranges(axes)

    def read(self, value: Operand, index: Index, mask: str | None = None, dtype: DType | None = None) -> str:
        """Load the element of a tensor at `index` (or make a Python scalar a constant), converted to dtype if given."""
        if isinstance(value, sympy.Expr):
            return self.number(value, dtype if dtype is not None else expr_dtype(value))
        if not isinstance(value, TensorValue):
            return self.constant(value, dtype if dtype is not None else scalar_dtype(value))
        if any(n == 0 for n in value.shape):
            # Never read at run time; but a view without elements may have an index outside its buffer.
            return self.constant(0, dtype if dtype is not None else value.dtype)
        loaded = self.load(value.buffer.name, value.dtype, value.at(index, self.ranges), mask)
        return loaded if dtype is None else self.cast(loaded, dtype)


def scalar_dtype(value: Scalar) -> DType:
    """Default dtype of a Python scalar in torch: bool, int64 or float32."""
    if isinstance(value, bool):
        return DType.BOOL
    return DType.INT64 if isinstance(value, int) else DType.FLOAT32


def expr_dtype(value: Expr) -> DType:
    """Default dtype of a number made of sizes."""
    return DType.INT64 if value.is_integer else DType.FLOAT32


def dtype_of(dtype: torch.dtype, where: str = "") -> DType:
    """Convert torch's dtype; for those mkwrap does not compile `UnsupportedDtypeError`, which says `where` if given."""
    name = str(dtype).removeprefix("torch.")
    try:
        return DType(name)
    except ValueError:
        known = ", ".join(d.value for d in DType)
        place = f"{where}: " if where else ""
        raise UnsupportedDtypeError(f"{place}dtype {name} is not supported; supported are {known}") from None


Write: TypeAlias = Callable[[NestWriter, Index], Sequence[str]]
WriteReduction: TypeAlias = Callable[[NestWriter, Index, Index], Sequence[str]]


@dataclass
class Lowering:
    """Collects the buffers and nests of one program; context of every rule."""

    buffers: dict[str, Buffer] = field(default_factory=dict)
    nests: list[Nest] = field(default_factory=list)
    origin: Origin = field(default_factory=lambda: Origin("", ""))
    """Of the op being lowered; stamped on the nests it makes."""
    known: tuple[Relation, ...] = ()
    """What holds in every call."""
    limits: dict[sympy.Symbol, tuple[int, int]] = field(default_factory=dict)
    """Ranges of the dynamic sizes."""
    needs: list[Relation] = field(default_factory=list)
    """What every call must fulfil beyond that, as rules found."""
    count: int = 1
    """How many results tracing saw of the op being lowered."""
    rules: Mapping[torch._ops.OperatorBase, Rule] = field(default_factory=dict)
    """Every rule, for ops that hold a graph of their own."""

    def temporary(self, dtype: DType, shape: Sequence[Expr]) -> Buffer:
        """Make a dense row-major temporary."""
        dims = tuple(sympy.sympify(n) for n in shape)
        name = f"t{len(self.buffers)}"
        buffer = Buffer(name, dtype, dims, contiguous_strides(dims), Role.TEMPORARY)
        self.buffers[name] = buffer
        return buffer

    def surely(self, left: Expr | int, op: Comparison, right: Expr | int) -> bool:
        """Whether a comparison of sizes holds in every call."""
        relation = Relation(sympy.sympify(left), op, sympy.sympify(right))
        if decided(relation, self.limits) is True:
            return True
        given = ((known.left, known.op, known.right) for known in (*self.known, *self.needs))
        return (relation.left, op, relation.right) in given

    def need(self, left: Expr | int, op: Comparison, right: Expr | int) -> None:
        """Refuse calls whose sizes do not compare so. Raises `Unsupported` where none do."""
        relation = Relation(sympy.sympify(left), op, sympy.sympify(right), self.origin.location)
        if decided(relation, self.limits) is False:
            raise Unsupported(f"it needs {relation_text(relation)}")
        if not self.surely(left, op, right):
            self.needs.append(relation)

    def need_elements(self, shape: Sequence[Expr]) -> None:
        """Refuse calls in which a size is 0."""
        for extent in shape:
            for factor in sympy.Mul.make_args(sympy.sympify(extent)):
                self.need(1, "<=", factor)

    def smaller(self, a: Expr, b: Expr) -> Expr:
        """Return the smaller of two sizes."""
        if self.surely(a, "<=", b):
            return a
        if self.surely(b, "<=", a):
            return b
        self._keep_order(a, b)
        return sympy.Min(a, b)

    def larger(self, a: Expr, b: Expr) -> Expr:
        """Return the larger of two sizes."""
        if self.surely(a, "<=", b):
            return b
        if self.surely(b, "<=", a):
            return a
        self._keep_order(a, b)
        return sympy.Max(a, b)

    def _keep_order(self, a: Expr, b: Expr) -> None:
        """Refuse the sizes for which sympy's simplification, to which sizes are positive, would be wrong."""
        if (b - a).is_nonnegative:
            self.need(a, "<=", b)
        elif (a - b).is_nonnegative:
            self.need(b, "<=", a)

    def pointwise(self, shape: Sequence[Expr], dtypes: Sequence[DType], write: Write) -> tuple[TensorValue, ...]:
        """Make a nest with one store per dtype; `write(writer, index)` returns the values to store, of those dtypes."""
        axes, index = axes_over("i", shape)
        writer = NestWriter(axes)
        return self._finish(writer, axes, (), shape, index, dtypes, write(writer, index))

    def reduction(
        self,
        shape: Sequence[Expr],
        reduced: Sequence[Expr],
        dtypes: Sequence[DType],
        write: WriteReduction,
    ) -> tuple[TensorValue, ...]:
        """Make a nest over `shape` × `reduced` with one row-level store per dtype.

        `write(writer, index, reduced_index)` computes element values, calls `writer.reduce`, and returns row values.
        """
        axes, index = axes_over("i", shape)
        reduction_axes, reduced_index = axes_over("r", reduced)
        writer = NestWriter((*axes, *reduction_axes))
        return self._finish(writer, axes, reduction_axes, shape, index, dtypes, write(writer, index, reduced_index))

    def walk(self, shape: Sequence[Expr], dim: int, dtypes: Sequence[DType], write: Write) -> tuple[TensorValue, ...]:
        """Make a nest that goes along `dim` of `shape` in order, with one store per element and dtype.

        `write(writer, index)` scans or sorts values per element, and returns values per element. The dim's extent is not 1.
        """
        axes, index = axes_over("i", shape)
        row = Axis(axis_symbol(f"r{dim}"), sympy.sympify(shape[dim]))
        place = (*index[:dim], row.symbol, *index[dim + 1 :])
        rows = tuple(axis for axis in axes if axis.symbol != index[dim])
        writer = NestWriter((*rows, row))
        return self._finish(writer, rows, (row,), shape, place, dtypes, write(writer, place))

    def write_into(self, buffer: Buffer, value: TensorValue) -> None:
        """Make a nest that copies a value into an existing buffer of the same shape (outputs, mutated inputs)."""
        axes, index = axes_over("i", value.shape)
        writer = NestWriter(axes)
        writer.store(buffer.name, index, writer.read(value, index))
        self.nests.append(Nest(f"n{len(self.nests)}", axes, (), writer.body(), (self.origin,)))

    def _finish(
        self,
        writer: NestWriter,
        axes: tuple[Axis, ...],
        reduction_axes: tuple[Axis, ...],
        shape: Sequence[Expr],
        index: Index,
        dtypes: Sequence[DType],
        values: Sequence[str],
    ) -> tuple[TensorValue, ...]:
        results = []
        for dtype, value in zip(dtypes, values, strict=True):
            assert writer.dtype(value) is dtype, f"{self.origin.op} computes {writer.dtype(value)}, declares {dtype}"
            buffer = self.temporary(dtype, shape)
            writer.store(buffer.name, index, value)
            results.append(whole(buffer))
        self.nests.append(Nest(f"n{len(self.nests)}", axes, reduction_axes, writer.body(), (self.origin,)))
        return tuple(results)


def axes_over(prefix: str, shape: Sequence[Expr]) -> tuple[tuple[Axis, ...], Index]:
    """Make one axis per dim; a dim of extent 1 has no axis and index 0."""
    axes: list[Axis] = []
    index: list[Expr] = []
    for k, extent in enumerate(shape):
        size = sympy.sympify(extent)
        if size == 1:
            index.append(ZERO)
        else:
            axes.append(Axis(axis_symbol(f"{prefix}{k}"), size))
            index.append(axes[-1].symbol)
    return tuple(axes), tuple(index)
