"""The tensor arguments as torch traced them, and what its shape environment says of their sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from mkwrap.dims import DynamicDim, TensorDims
from mkwrap.ir.nodes import Expr

Number: TypeAlias = "int | float | torch.SymInt | torch.SymFloat"


@dataclass(frozen=True)
class Traced:
    """One tensor argument as it was traced."""

    name: str
    path: str
    fake: torch.Tensor
    dims: TensorDims


def expression(value: Number) -> Expr:
    """Return a number of torch's, symbolic or not, as an expression over torch's symbols."""
    node = getattr(value, "node", None)
    return sympy.sympify(value) if node is None else node.expr


def dynamic_sizes(inputs: Sequence[Traced]) -> Iterator[tuple[Traced, int, DynamicDim, Expr]]:
    """Yield every dimension that may vary, with torch's expression of it."""
    for traced in inputs:
        for dim, declared in sorted(traced.dims.items()):
            yield traced, dim, declared, expression(traced.fake.shape[dim])


def environment_of(inputs: Sequence[Traced]) -> ShapeEnv | None:
    """Return what torch knows of the sizes of one trace; None where all are static."""
    for traced in inputs:
        for size in traced.fake.shape:
            node = getattr(size, "node", None)
            if node is not None:
                environment: ShapeEnv = node.shape_env
                return environment
    return None


def conditions_of(environment: ShapeEnv) -> list[sympy.Basic]:
    """Return what tracing asks of torch's symbols in every call."""
    asserted = [item.expr for items in environment.deferred_runtime_asserts.values() for item in items]
    return [*asserted, *(guard.expr for guard in environment.guards)]


def values_of(environment: ShapeEnv) -> dict[sympy.Symbol, Expr]:
    """Return what torch's symbols are in the example call."""
    values = getattr(environment, "backed_var_to_val", None) or environment.var_to_val
    return {symbol: sympy.Integer(int(value)) for symbol, value in values.items()}
