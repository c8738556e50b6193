"""Rewrites Welford reductions as two passes: the mean, then squares of the distance from it.

Ensures the same results within rounding. The sum of the distances corrects the error of the rounded mean: T. F. Chan,
G. H. Golub and R. J. LeVeque, "Algorithms for Computing the Sample Variance" (1983), the corrected two-pass algorithm.
"""

from __future__ import annotations

from dataclasses import replace

import sympy

from mkwrap.codegen.cpp.indexing import AtLeastOne
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Compute, Constant, Expr, IndexValue, Instruction, Nest, Reduce


def two_pass(nest: Nest) -> Nest:
    """Return the nest with every float32 or float64 Welford reduction in two passes."""
    count = sympy.Mul(*[axis.extent for axis in nest.reduction_axes])
    body: list[Instruction] = []
    for i in nest.body:
        if isinstance(i, Reduce) and i.op == "welford" and i.dtypes[0] in (DType.FLOAT32, DType.FLOAT64):
            body.extend(_passes(i, count))
        else:
            body.append(i)
    return replace(nest, body=tuple(body))


def _passes(i: Reduce, count: Expr) -> list[Instruction]:
    mean, m2 = i.dests
    arg, dtype = i.args[0], i.dtypes[0]
    number = f"{mean}_count"

    def compute(dest: str, op: str, *args: str) -> Compute:
        return Compute(dest, dtype, op, args)

    def total(dest: str, of: str) -> Reduce:
        return Reduce((dest,), (dtype,), "sum", (of,))

    return [
        *_count(number, count, dtype),
        total(f"{mean}_sum", arg),
        compute(mean, "div", f"{mean}_sum", number),
        compute(f"{mean}_delta", "sub", arg, mean),
        compute(f"{mean}_square", "mul", f"{mean}_delta", f"{mean}_delta"),
        total(f"{mean}_squares", f"{mean}_square"),
        total(f"{mean}_lost", f"{mean}_delta"),
        compute(f"{mean}_excess", "mul", f"{mean}_lost", f"{mean}_lost"),
        compute(f"{mean}_share", "div", f"{mean}_excess", number),
        compute(m2, "sub", f"{mean}_squares", f"{mean}_share"),
    ]


def _count(number: str, count: Expr, dtype: DType) -> list[Instruction]:
    """Make the number of elements, at least 1: of none, the mean and the squares are 0, as Welford's are."""
    if count.is_Integer:
        return [Constant(number, dtype, float(max(int(count), 1)))]
    whole = f"{number}_int"
    return [
        IndexValue(whole, DType.INT64, AtLeastOne(count)),
        Compute(number, dtype, "cast", (whole,)),
    ]
