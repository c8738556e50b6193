"""The dynamic sizes of a program that torch.export has traced, as torch.export takes them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import sympy
import torch
import torch.utils._pytree as pytree
from torch.export import Dim, ExportedProgram

from mkwrap.traced import expression

_AUTO: object = Dim.AUTO


def dynamic_shapes_of(program: ExportedProgram, module: torch.nn.Module) -> Mapping[str, object] | None:
    """Return what of a program's inputs may vary, by the parameters of its `module`; None where nothing may.

    A size is called as the program calls it (torch does not keep the user's names), and has the range that was exported. A
    dimension that is no multiple of one size plus a number is left to tracing, which finds what the program checks of it.
    """
    tensors = {node.name: node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")}
    inputs = [tensors.get(str(name)) for name in program.graph_signature.user_inputs]
    sizes = _Sizes(program)
    entries = [sizes.of(value) if isinstance(value, torch.Tensor) else None for value in inputs]
    if not any(entries):
        return None
    spec = program.call_spec.in_spec
    assert spec is not None
    by_position, by_name = pytree.tree_unflatten(entries, spec)
    parameters = list(inspect.signature(module.forward).parameters)
    return {**dict(zip(parameters, by_position, strict=False)), **by_name}


class _Sizes:
    """The sizes of a program: one Dim each, for all dimensions that it occurs in."""

    def __init__(self, program: ExportedProgram) -> None:
        self._ranges = program.range_constraints
        self._dims: dict[sympy.Symbol, Dim] = {}

    def of(self, tensor: torch.Tensor) -> dict[int, object]:
        """Return the dynamic dimensions of a traced tensor."""
        lengths = {dim: expression(size) for dim, size in enumerate(tensor.shape)}
        return {dim: self._dim(length) for dim, length in lengths.items() if length.free_symbols}

    def _dim(self, length: sympy.Expr) -> object:
        symbols = sorted(length.free_symbols, key=str)
        if len(symbols) > 1:
            return _AUTO
        line = sympy.Poly(length, symbols[0]) if length.is_polynomial(symbols[0]) else None
        if line is None or line.degree() != 1:
            return _AUTO
        scale, offset = (int(number) for number in line.all_coeffs())
        if scale < 1:
            return _AUTO
        dim = self._named(symbols[0])
        derived = dim if scale == 1 else scale * dim
        return derived + offset if offset else derived

    def _named(self, symbol: sympy.Symbol) -> Dim:
        if symbol not in self._dims:
            span = self._ranges[symbol]
            low, high = (int(end) if end.is_Integer else None for end in (span.lower, span.upper))
            self._dims[symbol] = Dim(symbol.name, min=max(low or 0, 0), max=high)
        return self._dims[symbol]
