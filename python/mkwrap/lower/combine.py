"""The function of an associative scan: a graph over tensors becomes a function over scalars."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mkwrap.ir.analysis import defined, used
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.index import axis_ranges
from mkwrap.ir.nodes import Combine, Compute, Constant, Expr, Instruction, Load, Store
from mkwrap.ir.rewrite import Replay
from mkwrap.lower.lowering import Index, Lowering, Unsupported, axes_over
from mkwrap.lower.tensor import TensorValue, whole

_NOT_POINTWISE = "the combine function of a scan may hold pointwise operations only"


def combine_of(low: Lowering, graph: torch.fx.GraphModule, xs: Sequence[TensorValue]) -> Combine:
    """Turn a graph of two tuples of tensors, elements of `xs` along dim 0, into a function of two tuples of scalars.

    16-bit floats are handed in and out as float32, and rounded inside wherever the graph rounds. Raises `Unsupported` for
    what is not pointwise.
    """
    own = Lowering(rules=low.rules, origin=low.origin)
    # A tensor's element 0 along dim 0 has the shape the graph was traced with.
    shape = xs[0].shape[1:]
    dtypes = [x.dtype for x in xs]
    values: dict[torch.fx.Node, TensorValue] = {}
    arguments: list[str] = []
    results: Sequence[TensorValue] = ()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            dtype = dtypes[len(arguments) % len(dtypes)]
            buffer = own.temporary(dtype, shape)
            arguments.append(buffer.name)
            values[node] = whole(buffer)
        elif node.op == "call_function" and node.target in low.rules:
            args = torch.fx.node.map_arg(node.args, values.__getitem__)  # type: ignore[arg-type]
            kwargs = torch.fx.node.map_arg(node.kwargs, values.__getitem__)  # type: ignore[arg-type]
            made = low.rules[node.target](own, *args, **kwargs)
            if not isinstance(made, TensorValue):
                raise Unsupported(_NOT_POINTWISE)
            values[node] = made
        elif node.op == "output":
            results = [values[leaf] for leaf in node.args[0]]
        else:
            raise Unsupported(f"the combine function of a scan has {node.target}, which has no lowering")
    return _scalar_function(own, shape, arguments, results)


def _scalar_function(
    own: Lowering, shape: Sequence[Expr], arguments: Sequence[str], results: Sequence[TensorValue]
) -> Combine:
    """Join pointwise nests over `shape` into one body whose loads of the arguments are its parameters."""
    axes, index = axes_over("i", shape)
    ranges = axis_ranges(axes)
    builder = BodyBuilder()
    names: list[str] = []
    known: dict[str, tuple[Index, str]] = {}
    for argument in arguments:
        dtype = own.buffers[argument].dtype
        names.append(builder.load(argument, dtype.compute, ()))
        known[argument] = (index, builder.cast(names[-1], dtype))

    def value_at(buffer: str, place: Index) -> str:
        where, value = known[buffer]
        if where != place and any(expr.free_symbols for expr in where):
            raise Unsupported(_NOT_POINTWISE)
        return value

    def take(load: Load, place: Index, mask: str | None) -> str:
        if mask is not None:
            raise Unsupported(_NOT_POINTWISE)
        return value_at(load.buffer, place)

    def remember(store: Store, place: Index, value: str) -> bool:
        known[store.buffer] = (place, value)
        return False

    for nest in own.nests:
        if nest.reduction_axes:
            raise Unsupported(_NOT_POINTWISE)
        Replay(builder, {a.symbol: a.symbol for a in nest.axes}, ranges, on_load=take, on_store=remember).run(nest)
    made = [value_at(result.buffer.name, result.at(index, ranges)) for result in results]
    outputs = tuple(builder.cast(value, builder.dtype(value).compute) for value in made)
    half = len(names) // 2
    return Combine(tuple(names[:half]), tuple(names[half:]), _needed(builder.body(), outputs, names), outputs)


def _needed(
    body: Sequence[Instruction], outputs: Sequence[str], names: Sequence[str]
) -> tuple[Constant | Compute, ...]:
    """Return what the outputs need of a body, its parameters left out."""
    wanted = set(outputs)
    kept: list[Constant | Compute] = []
    for instruction in reversed(body):
        if not wanted.intersection(defined(instruction)) or defined(instruction)[0] in names:
            continue
        if not isinstance(instruction, Constant | Compute):
            raise Unsupported(_NOT_POINTWISE)
        kept.append(instruction)
        wanted.update(used(instruction))
    return tuple(reversed(kept))
