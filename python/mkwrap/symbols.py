"""Gives torch's symbolic sizes their names: size symbols of the IR with ranges and relations, and what became a constant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, TypedDict

import sympy
import torch
from torch.export import Dim
from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import ShapeEnv, free_unbacked_symbols

from mkwrap.dims import TensorDims
from mkwrap.errors import DynamicShapeError
from mkwrap.guards import GuardLines
from mkwrap.ir.index import size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.ir.relations import narrowed
from mkwrap.ir.signature import UNBOUNDED, Relation, SymbolSpec
from mkwrap.ir.spelled import spelled
from mkwrap.traced import Number, Traced, conditions_of, dynamic_sizes, environment_of, expression, values_of
from mkwrap.translate import UntranslatableError, relations_of, sliced_length, translated


def sizes_from_zero() -> AbstractContextManager[None]:
    """While active, torch takes a dynamic size for any number from 0, not from 2, and guards what it decides on 0 and 1."""
    patched: AbstractContextManager[None] = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return patched


class TracingOptions(TypedDict, total=False):
    """Keyword arguments of torch.export."""

    dynamic_shapes: dict[str, tuple[dict[int, object] | None, ...]]
    prefer_deferred_runtime_asserts_over_guards: bool


def tracing_options(dims: Sequence[TensorDims]) -> TracingOptions:
    """Return what torch.export is told: which dimensions vary, and to note what it asks of them rather than to refuse it.

    Names, ranges and derived dimensions are kept here: torch refuses every range that it cannot prove to be right.
    """
    shapes = tuple(dict.fromkeys(tensor, _AUTO) or None for tensor in dims)
    return {"dynamic_shapes": {"tensors": shapes}, "prefer_deferred_runtime_asserts_over_guards": True}


_AUTO: object = Dim.AUTO


@dataclass(frozen=True)
class Symbols:
    """The dynamic sizes of a captured graph."""

    meaning: Mapping[sympy.Symbol, Expr]
    """Torch's symbols, as expressions over ours."""
    specs: tuple[SymbolSpec, ...] = ()
    relations: tuple[Relation, ...] = ()
    notes: tuple[str, ...] = ()
    """What became of declared ranges and dimensions, a line each."""

    def size(self, value: Number) -> Expr:
        """Return a number of torch's as an expression over ours. Raises `UntranslatableError`."""
        return translated(expression(value), self.meaning)

    def sizes(self, values: Sequence[Number]) -> tuple[Expr, ...]:
        """Return sizes or strides of torch's as expressions over ours."""
        return tuple(self.size(value) for value in values)


def symbols_of(inputs: Sequence[Traced], lines: GuardLines, graph: torch.fx.Graph) -> Symbols:
    """Name every dynamic size of a traced graph, and collect what tracing asks of them.

    Raises `DynamicShapeError` where a declared dimension became a constant or equal to another one, or nothing binds a size.
    """
    environment = environment_of(inputs)
    if environment is None:
        _refuse_constants(inputs, lines)
        return Symbols({}, notes=tuple(_constants(inputs, {}, lines)))
    fixed = {
        symbol: sympy.Integer(int(span.lower))
        for symbol, span in environment.var_to_range.items()
        if span.is_singleton() and span.lower.is_Integer
    }
    fixed.update(_strides(environment))
    fixed.update(_equal_to_constants(environment, inputs))
    _refuse_constants(inputs, lines, fixed)
    meaning = {**fixed, **_named(inputs, fixed, lines)}
    meaning.update(_replaced(environment, meaning))
    for symbol, length in _sliced(graph, meaning):
        meaning[symbol] = length
    specs = tuple(_specs(inputs, meaning))
    relations = [*_ranges(environment, meaning, specs, lines), *_relations(environment, meaning, lines)]
    relations += [
        Relation(sympy.Integer(1), "<=", meaning[s], line) for s, line in lines.not_empty.items() if s in meaning
    ]
    narrow, left, notes = narrowed(specs, relations)
    return Symbols(meaning, narrow, left, (*_constants(inputs, fixed, lines), *notes))


def sizes_of(graph_module: torch.fx.GraphModule, symbols: Symbols) -> dict[str, Expr]:
    """Return the graph nodes that are numbers made of sizes, as expressions; what no expression tells is left out."""
    sizes: dict[str, Expr] = {}
    for node in graph_module.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.SymInt | torch.SymFloat | int | float):
            try:
                sizes[node.name] = symbols.size(value)
            except UntranslatableError:
                continue
    return sizes


def layouts_of(graph_module: torch.fx.GraphModule, symbols: Symbols) -> dict[str, tuple[Expr, ...]]:
    """Return the strides of every tensor that the graph gives back."""
    layouts: dict[str, tuple[Expr, ...]] = {}
    for leaf in graph_module.graph.output_node().args[0]:  # type: ignore[union-attr]
        if isinstance(leaf, torch.fx.Node) and isinstance(leaf.meta.get("val"), torch.Tensor):
            try:
                strides = symbols.sizes(leaf.meta["val"].stride())
            except UntranslatableError:
                continue
            # A size counts as 1 in a stride where it is 0: without elements, strides say nothing.
            layouts[leaf.name] = tuple(s.replace(sympy.Max, _without_one) for s in strides)
    return layouts


def _without_one(*args: Expr) -> Expr:
    return sympy.Max(*[arg for arg in args if arg != 1])


def depends_on_values(value: object) -> bool:
    """Whether the result of a node is a number, or has a size, that only the values of tensors tell."""
    numbers: list[object] = [value]
    if isinstance(value, torch.Tensor):
        numbers = [*value.shape]
    elif isinstance(value, tuple | list):
        return any(depends_on_values(item) for item in value)
    nodes = [getattr(number, "node", None) for number in numbers]
    return any(node is not None and free_unbacked_symbols(node.expr) for node in nodes)


def _strides(environment: ShapeEnv) -> Iterator[tuple[sympy.Symbol, Expr]]:
    """Yield the symbols of strides that no sizes tell: every call must have those of the example."""
    values = values_of(environment)
    for source, symbol in environment.source_to_var.items():
        if ".stride()" in source and symbol in values:
            yield symbol, values[symbol]


def _equal_to_constants(environment: ShapeEnv, inputs: Sequence[Traced]) -> Iterator[tuple[sympy.Symbol, Expr]]:
    """Yield the sizes that every call must have as the example has them, where no dimension is declared to vary."""
    required = {
        symbol for _, _, declared, expr in dynamic_sizes(inputs) if declared.required for symbol in expr.free_symbols
    }
    for condition in conditions_of(environment):
        if not isinstance(condition, sympy.Eq) or not condition.lhs.is_Symbol or not condition.rhs.is_Integer:
            continue
        if condition.lhs not in required and not free_unbacked_symbols(condition):
            yield condition.lhs, sympy.Integer(int(condition.rhs))


def _constants(inputs: Sequence[Traced], fixed: Mapping[sympy.Symbol, Expr], lines: GuardLines) -> Iterator[str]:
    for traced, dim, _, expr in dynamic_sizes(inputs):
        value = expr.xreplace(dict(fixed))
        if value.is_Integer:
            yield f"{traced.path}.shape[{dim}] is always {value}" + lines.place(expr, value)


def _refuse_constants(
    inputs: Sequence[Traced], lines: GuardLines, fixed: Mapping[sympy.Symbol, Expr] | None = None
) -> None:
    for traced, dim, declared, expr in dynamic_sizes(inputs):
        value = expr.xreplace(dict(fixed or {}))
        if value.is_Integer and declared.required:
            what = f"the Dim {declared.name!r}" if declared.name else "Dim.DYNAMIC"
            raise DynamicShapeError(
                f"{traced.path}.shape[{dim}] is declared as {what}, but tracing made it the constant {value}"
                f"{lines.place(expr, value)}; use the size without turning it into a number there, give what must be as long "
                "the same Dim, or declare Dim.AUTO or a static dimension"
            )


def _named(inputs: Sequence[Traced], fixed: Mapping[sympy.Symbol, Expr], lines: GuardLines) -> dict[sympy.Symbol, Expr]:
    """Give each of torch's symbols its meaning: the user's names first, then s0, s1, … in order of appearance."""
    meaning = _declared(inputs, fixed)
    taken = {declared.name for _, _, declared, _ in dynamic_sizes(inputs)}
    count = 0
    for _, _, _, expr in dynamic_sizes(inputs):
        for symbol in sorted(expr.free_symbols, key=str):
            if symbol in meaning or symbol in fixed:
                continue
            while f"s{count}" in taken:
                count += 1
            meaning[symbol] = size_symbol(f"s{count}")
            count += 1
    _refuse_other_sizes(inputs, {**fixed, **meaning}, lines)
    return meaning


def _declared(inputs: Sequence[Traced], fixed: Mapping[sympy.Symbol, Expr]) -> dict[sympy.Symbol, Expr]:
    """Tell torch's symbols from what dimensions are declared to be.

    Torch writes a dimension by the symbol of another where it found one to follow from the other: if n + 1 is declared as
    x, n is x − 1. Plain symbols come first: x − 1 may be a name of its own.
    """
    meaning: dict[sympy.Symbol, Expr] = {}
    named = [(expr, declared.expr) for _, _, declared, expr in dynamic_sizes(inputs) if declared.expr is not None]
    for expr, length in sorted(named, key=lambda pair: not pair[0].is_Symbol):
        unknown = expr.free_symbols - meaning.keys() - fixed.keys()
        if len(unknown) != 1:
            continue
        (symbol,) = unknown
        factor = sympy.expand(expr).coeff(symbol)
        rest = sympy.expand(expr - factor * symbol)
        if not factor.is_Integer or factor == 0 or symbol in rest.free_symbols:
            continue
        with suppress(UntranslatableError):
            value = sympy.expand((length - translated(rest, {**fixed, **meaning})) / factor)
            if all(term.as_coeff_Mul()[0].is_Integer for term in sympy.Add.make_args(value)):
                meaning[symbol] = value
    return meaning


def _refuse_other_sizes(inputs: Sequence[Traced], meaning: Mapping[sympy.Symbol, Expr], lines: GuardLines) -> None:
    """Refuse a dimension that is declared as something else than what the program needs it to be."""
    for traced, dim, declared, expr in dynamic_sizes(inputs):
        try:
            known = translated(expr, meaning)
        except UntranslatableError as reason:
            raise DynamicShapeError(
                f"the program needs {traced.path}.shape[{dim}] to be {reason}{lines.place(expr)}, which has no expression here; "
                "make the dimension static"
            ) from None
        if declared.expr is None or sympy.expand(known - declared.expr) == 0:
            continue
        raise DynamicShapeError(
            f"{traced.path}.shape[{dim}] is declared as {declared.expr}, but the program needs it to be {spelled(known)}"
            f"{lines.place(expr)}; {_remedy(known, inputs, meaning)}"
        )


def _remedy(known: Expr, inputs: Sequence[Traced], meaning: Mapping[sympy.Symbol, Expr]) -> str:
    """Say how to declare a dimension that has to be `known`: a Dim is derived from one other, by a factor and a sum."""
    symbol = next(iter(known.free_symbols))
    if not sympy.expand(known - known.coeff(symbol) * symbol).is_Integer:
        return "declare it Dim.AUTO, which takes what the others make it"
    unnamed = [
        f"{traced.path}.shape[{dim}]"
        for traced, dim, declared, expr in dynamic_sizes(inputs)
        if declared.name is None and translated(expr, meaning) == symbol
    ]
    if unnamed:
        return f"declare {unnamed[0]} by a Dim called {symbol}, and this so"
    return "declare it so: one Dim serves any number of dimensions"


def _replaced(environment: ShapeEnv, meaning: Mapping[sympy.Symbol, Expr]) -> Iterator[tuple[sympy.Symbol, Expr]]:
    """Yield the symbols that torch found to be equal to others."""
    for symbol in environment.replacements:
        expr = environment.replace(symbol)
        if symbol not in meaning and expr.free_symbols <= meaning.keys():
            with suppress(UntranslatableError):
                yield symbol, translated(expr, meaning)


def _sliced(graph: torch.fx.Graph, meaning: Mapping[sympy.Symbol, Expr]) -> Iterator[tuple[sympy.Symbol, Expr]]:
    """Yield the symbols that older releases of torch make for lengths of slices, which ranges do not tell, as expressions."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.slice.Tensor):
        given: tuple[Any, ...] = (*node.args, *_WHOLE[len(node.args) - 1 :])
        source, dim, start, end, step = given
        length = expression(node.meta["val"].shape[dim])
        if not length.is_Symbol or length in meaning or not free_unbacked_symbols(length):
            continue
        try:
            ends = [None if at is None else translated(_end(at), meaning) for at in (start, end)]
            extent = translated(expression(source.meta["val"].shape[dim]), meaning)
        except UntranslatableError:
            continue
        yield length, sliced_length(extent, ends[0], ends[1], int(step))


_WHOLE: tuple[int | None, ...] = (0, None, None, 1)
"""Dim, start, end and step of a slice that says nothing."""


def _end(at: torch.fx.Node | Number) -> Expr:
    return expression(at.meta["val"] if isinstance(at, torch.fx.Node) else at)


def _specs(inputs: Sequence[Traced], meaning: Mapping[sympy.Symbol, Expr]) -> Iterator[SymbolSpec]:
    """Bind every size symbol to the first dimension that is it, or else to the first derived from it."""
    bare: dict[sympy.Symbol, SymbolSpec] = {}
    derived: dict[sympy.Symbol, SymbolSpec] = {}
    order: dict[sympy.Symbol, None] = {}
    ranges: dict[sympy.Symbol, tuple[int, int]] = {}
    for traced, dim, declared, expr in dynamic_sizes(inputs):
        length = sympy.expand(translated(expr, meaning))
        order.update(dict.fromkeys(sorted(length.free_symbols, key=str)))
        if len(length.free_symbols) != 1:
            continue
        (symbol,) = length.free_symbols
        scale = length.coeff(symbol)
        offset = sympy.expand(length - scale * symbol)
        if not scale.is_Integer or not offset.is_Integer or scale <= 0:
            continue
        if declared.name is not None or length == symbol:
            low, high = ranges.get(symbol, (0, UNBOUNDED))
            ranges[symbol] = (max(low, declared.low), min(high, declared.high))
        where = bare if length == symbol else derived
        where.setdefault(symbol, SymbolSpec(symbol, 0, UNBOUNDED, traced.name, dim, int(scale), int(offset)))
    for symbol in order:
        spec = bare.get(symbol) or derived.get(symbol)
        if spec is None:
            raise DynamicShapeError(f"no dimension of an argument tells the size {symbol}; make one that is dynamic")
        low, high = ranges.get(symbol, (0, UNBOUNDED))
        yield SymbolSpec(symbol, low, high, spec.input_name, spec.dim, spec.scale, spec.offset)


def _ranges(
    environment: ShapeEnv, meaning: Mapping[sympy.Symbol, Expr], specs: Sequence[SymbolSpec], lines: GuardLines
) -> Iterator[Relation]:
    """Yield what tracing found of the range of single symbols."""
    ours = {spec.symbol for spec in specs}
    for symbol, expr in meaning.items():
        if not expr.free_symbols or not expr.free_symbols <= ours:
            continue
        span = environment.var_to_range.get(symbol)
        if span is None:
            continue
        origin = lines.of_symbol(symbol)
        if span.lower.is_Integer and span.lower > 0:
            yield Relation(sympy.Integer(int(span.lower)), "<=", expr, origin)
        if span.upper.is_Integer:
            yield Relation(expr, "<=", sympy.Integer(int(span.upper)), origin)


def _relations(environment: ShapeEnv, meaning: Mapping[sympy.Symbol, Expr], lines: GuardLines) -> Iterator[Relation]:
    conditions = conditions_of(environment)
    of_layout = lines.of_layout(conditions, environment.replace)
    for condition in conditions:
        text = str(condition)
        # A size that no argument tells comes from a slice, whose length is known here, or from an op that is refused.
        unknown = free_unbacked_symbols(condition) - meaning.keys()
        if unknown or condition in of_layout:
            continue
        try:
            yield from relations_of(condition, meaning, lines.of(text))
        except UntranslatableError as reason:
            origin = lines.of(text)
            raise DynamicShapeError(
                f"the program asks of its sizes that {reason}, which cannot be checked in a call"
                + (f" (at {origin})" if origin else "")
            ) from None
