"""The grammar of loop nests, on one page.

A `Nest` is a set of axes around a body in SSA form: every instruction defines named values once, before their use.
Index expressions are sympy integer expressions over axis symbols, size symbols and names of int64 SSA values
(a data-dependent index is written with the symbol of the value that holds it).

    Nest        := name axes* reduction_axes* Instruction* origins*
    Instruction := Constant | IndexValue | Load | BoundsCheck | Compute | Reduce | Scan | Sort | Store

Values depend on the parallel axes; those computed before any `Reduce` from a reduction axis also depend on the
reduction axes ("element level"). The results of `Reduce` and what is computed from them alone are at "row level"; those of
`Scan` and `Sort` are at element level. `analysis.element_level` tells which is which.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TypeAlias

import sympy

from mkwrap.ir.dtypes import DType

Expr: TypeAlias = sympy.Expr


class Role(Enum):
    """What a buffer is to the program."""

    INPUT = "input"
    CONSTANT = "constant"
    OUTPUT = "output"
    TEMPORARY = "temporary"


@dataclass(frozen=True)
class Buffer:
    """Named strided memory. Shape in elements, strides in elements; index `i` lives at offset Σ i_k·strides_k."""

    name: str
    dtype: DType
    shape: tuple[Expr, ...]
    strides: tuple[Expr, ...]
    role: Role
    alignment: int = 64
    """Bytes the address of the first element is a multiple of."""

    def flat_index(self, index: tuple[Expr, ...]) -> Expr:
        """Offset in elements of the element at `index`."""
        terms = [i * s for i, s in zip(index, self.strides, strict=True)]
        return sympy.Add(*terms)

    @property
    def numel(self) -> Expr:
        """Number of logical elements."""
        return sympy.Mul(*self.shape)

    @property
    def storage_elements(self) -> Expr:
        """Elements from the first to one past the last that is addressed (1 + Σ (shape_k − 1)·stride_k); shapes > 0."""
        return sympy.Add(1, *[(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)])


@dataclass(frozen=True)
class Axis:
    """One loop variable, running over 0 … extent − 1."""

    symbol: sympy.Symbol
    extent: Expr


@dataclass(frozen=True)
class Origin:
    """Where a nest comes from: the ATen op and the user's source line (`file:line: code`), for messages and reports."""

    op: str
    location: str


@dataclass(frozen=True)
class Constant:
    """dest = value."""

    dest: str
    dtype: DType
    value: bool | int | float


@dataclass(frozen=True)
class IndexValue:
    """dest = the integer value of an index expression, as data."""

    dest: str
    dtype: DType
    expr: Expr


@dataclass(frozen=True)
class Load:
    """dest = buffer[index]; where `mask` is false the result is 0 and memory is not touched.

    `index` has one expression per buffer dimension and is in bounds wherever the mask holds.
    """

    dest: str
    dtype: DType
    buffer: str
    index: tuple[Expr, ...]
    mask: str | None = None


@dataclass(frozen=True)
class BoundsCheck:
    """dest = arg clamped into 0 … extent − 1; the run fails with an index error if arg lay outside where mask holds.

    `arg` is int64 and negative indices have been wrapped before. Every data-dependent index passes through one.
    """

    dest: str
    arg: str
    extent: Expr
    mask: str | None = None


@dataclass(frozen=True)
class Compute:
    """dest = op(args): a scalar primitive of `ops.OPS`; `dtype` is the type of dest."""

    dest: str
    dtype: DType
    op: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Reduce:
    """dests = op over the reduction axes of args: a row of `ops.REDUCTIONS`."""

    dests: tuple[str, ...]
    dtypes: tuple[DType, ...]
    op: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Combine:
    """An associative function of two tuples of scalars, in SSA form; its names are known inside it alone.

    `results` = body(`left`, `right`), where `left` stands for what comes earlier in the row. The three tuples are equally long,
    and their dtypes agree position by position.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    body: tuple[Constant | Compute, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """dests = inclusive scan of args over the nest's reduction axes taken in row-major order.

    A row of `ops.SCANS`, or `ops.ASSOCIATIVE` with a `combine`. Dests have one value per element, and are known in the same
    walk over the row as the args. The row is walked in order: no reduction axis of such a nest may change its place.
    """

    dests: tuple[str, ...]
    dtypes: tuple[DType, ...]
    op: str
    args: tuple[str, ...]
    combine: Combine | None = None


@dataclass(frozen=True)
class Sort:
    """dests = (the values of arg along the row in order, the int64 position each had), one of each per element.

    The row is the nest's reduction axes taken in row-major order, of at most `ops.SORT_LIMIT` elements. Equal values keep their
    order, also where `descending`; NaN counts as larger than any number. All of the row is read before anything is known.
    """

    dests: tuple[str, str]
    dtypes: tuple[DType, DType]
    arg: str
    descending: bool = False


@dataclass(frozen=True)
class Store:
    """buffer[index] = arg, converted by nobody: the value has the buffer's dtype."""

    buffer: str
    index: tuple[Expr, ...]
    arg: str


Instruction: TypeAlias = Constant | IndexValue | Load | BoundsCheck | Compute | Reduce | Scan | Sort | Store


@dataclass(frozen=True)
class Nest:
    """Axes around a body. Parallel axes outermost first; every Reduce, Scan and Sort runs over all `reduction_axes`."""

    name: str
    axes: tuple[Axis, ...]
    reduction_axes: tuple[Axis, ...]
    body: tuple[Instruction, ...]
    origins: tuple[Origin, ...] = ()

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the buffers the nest loads from."""
        return frozenset(i.buffer for i in self.body if isinstance(i, Load))

    @cached_property
    def writes(self) -> frozenset[str]:
        """Names of the buffers the nest stores to."""
        return frozenset(i.buffer for i in self.body if isinstance(i, Store))
