"""One row per pointwise op: a scalar formula and how its operands are promoted; `rule` makes a lowering of a row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sympy
import torch
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND, elementwise_dtypes

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Operand, Rule, Unsupported, dtype_of
from mkwrap.lower.tensor import TensorValue
from mkwrap.lower.term import Term, wrap_integer

Kind: TypeAlias = ELEMENTWISE_TYPE_PROMOTION_KIND
DEFAULT = Kind.DEFAULT
INT_TO_FLOAT = Kind.INT_TO_FLOAT
ALWAYS_BOOL = Kind.ALWAYS_BOOL
BOOL_TO_LONG = Kind.BOOL_TO_LONG

Formula: TypeAlias = Callable[..., Term]
"""Takes one Term per operand, then the op's other arguments as torch passes them; returns the result's Term."""


@dataclass(frozen=True)
class Row:
    """How one op computes: `operands` leading arguments are tensors or numbers, the rest parameters of the formula."""

    formula: Formula
    operands: int = 1
    promotion: Kind = DEFAULT
    exact_scalars: bool = False
    """Numbers and 0-d tensors after the first operand are not rounded to a 16-bit common dtype (eager's kernels differ in
    this)."""
    wide: bool = True
    """Compute 16-bit floats in float32; False for ops that only move or select values."""


def rule(row: Row) -> Rule:
    """Make the lowering rule of a row."""
    return functools.partial(_lower_row, row)


def _lower_row(row: Row, low: Lowering, *args: Operand, **params: object) -> TensorValue:
    operands, rest = args[: row.operands], args[row.operands :]
    common = promote(operands, row.promotion)

    def formula(*terms: Term) -> Term:
        return row.formula(*terms, *rest, **params)

    result = DType.BOOL if row.promotion is ALWAYS_BOOL else common
    return elementwise(low, operands, formula, common, result, exact_scalars=row.exact_scalars, wide=row.wide)


def elementwise(
    low: Lowering,
    operands: Sequence[Operand],
    formula: Formula,
    common: DType,
    result: DType,
    *,
    exact_scalars: bool = False,
    wide: bool = True,
) -> TensorValue:
    """Broadcast the operands, convert them to `common`, apply the formula, convert to `result`."""
    shape = broadcast_shape(low, [value.shape for value in operands if isinstance(value, TensorValue)])
    compute = common.compute if wide else common

    def write(writer: NestWriter, index: Index) -> list[str]:
        terms = []
        for k, operand in enumerate(operands):
            exact = exact_scalars and k > 0 and not (isinstance(operand, TensorValue) and operand.rank)
            via = compute if exact else common
            terms.append(read_operand(writer, operand, shape, index, via).cast(compute))
        return [formula(*terms).cast(result).name]

    return low.pointwise(shape, [result], write)[0]


def read_operand(
    writer: NestWriter, operand: Operand | Expr, shape: Sequence[Expr], index: Index, dtype: DType
) -> Term:
    """Read an operand broadcast to `shape`, as dtype; numbers are rounded and wrapped to it."""
    if isinstance(operand, TensorValue):
        return Term(writer, writer.read(operand.broadcast(shape), index, dtype=dtype))
    if isinstance(operand, sympy.Expr):
        return Term(writer, writer.number(operand, dtype))
    return Term(writer, writer.constant(round_scalar(operand, dtype), dtype))


def round_scalar(value: bool | int | float, dtype: DType) -> bool | int | float:
    """Convert a Python scalar to the nearest value of a dtype; integers wrap."""
    if dtype.is_float:
        return float(torch.tensor(float(value), dtype=torch_dtype(dtype)).item())
    if isinstance(value, float) and dtype.is_integer:
        return wrap_integer(int(value), dtype)
    return wrap_integer(value, dtype)


def torch_dtype(dtype: DType) -> torch.dtype:
    """Convert to torch's dtype."""
    converted = getattr(torch, dtype.value)
    assert isinstance(converted, torch.dtype)
    return converted


def promote(operands: Sequence[Operand | Expr], kind: Kind) -> DType:
    """Common dtype of operands under torch's promotion rules (ALWAYS_BOOL: the dtype that is compared in)."""
    samples: list[torch.Tensor | bool | int | float] = []
    for value in operands:
        if isinstance(value, TensorValue):
            shape = (1,) if value.rank else ()
            samples.append(torch.empty(shape, dtype=torch_dtype(value.dtype), device="meta"))
        elif isinstance(value, sympy.Expr):
            samples.append(0 if value.is_integer else 0.0)
        elif isinstance(value, bool | int | float):
            samples.append(value)
        else:
            raise Unsupported(f"operand of type {type(value).__name__}")
    asked = Kind.NO_OPMATH if kind is ALWAYS_BOOL else kind
    try:
        result = elementwise_dtypes(*samples, type_promotion_kind=asked)[1]
    except (RuntimeError, ValueError) as error:
        raise Unsupported(f"type promotion failed: {error}") from None
    return dtype_of(result)


def broadcast_shape(low: Lowering, shapes: Sequence[Sequence[Expr]]) -> tuple[Expr, ...]:
    """Shape of tensors of these shapes broadcast together; a dynamic size other than the first found must equal it."""
    rank = max((len(shape) for shape in shapes), default=0)
    result: list[Expr] = [sympy.Integer(1)] * rank
    for shape in shapes:
        for k, extent in enumerate(shape, start=rank - len(shape)):
            if result[k] == 1:
                result[k] = sympy.sympify(extent)
            elif extent not in (1, result[k]):
                if sympy.sympify(extent - result[k]).is_Integer:
                    raise Unsupported(f"shapes do not broadcast: {extent} against {result[k]}")
                low.need(extent, "==", result[k])
    return tuple(result)
