"""Walks a captured graph and lowers every node: CapturedGraph → Program.

*Requires* a functional graph whose ops all have a rule. *Ensures* a verified `Program`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import sympy
import torch

from mkwrap.errors import UnsupportedDtypeError, UnsupportedOpError, UnsupportedUse
from mkwrap.fit import refuse_unfit
from mkwrap.ir.index import FloorDiv, Mod, contiguous_strides, recombine, simplify
from mkwrap.ir.nodes import Buffer, Expr, Origin, Role
from mkwrap.ir.relations import limits_of, narrowed
from mkwrap.ir.verify_program import verify_program
from mkwrap.lower import RULES
from mkwrap.lower.lowering import Lowering, Unsupported, dtype_of
from mkwrap.lower.tensor import TensorValue, whole
from mkwrap.origins import source_location
from mkwrap.stages import CapturedGraph, ConstantData, InputSpec, OutputKind, OutputSpec, Program


def lower(captured: CapturedGraph) -> Program:
    """Lower every node by its rule; collects all refusals into one `UnsupportedOpError`.

    Raises `DynamicShapeError` where the program would refuse the example call.
    """
    low = Lowering(rules=RULES, known=captured.relations, limits=dict(limits_of(captured.symbols)))
    constants = {name: _constant(low, name, tensor) for name, tensor in captured.constants.items()}
    for spec in captured.inputs:
        low.buffers[spec.name] = Buffer(
            spec.name, spec.dtype, spec.shape, spec.strides, Role.INPUT, alignment=spec.alignment
        )
    values = _lower_nodes(low, captured)
    leaves = _leaves(captured)
    count = len(captured.mutations)
    low.origin = Origin("output", "")
    outputs = _outputs(low, captured, leaves[count:], leaves[:count], values)
    _write_back(low, captured.mutations, [(leaf, values[leaf]) for leaf in leaves[:count]])
    _need_divisors(low, captured)
    _need_sizes(low, outputs)
    symbols, relations, notes = narrowed(captured.symbols, [*captured.relations, *low.needs])
    program = Program(
        buffers=dict(low.buffers),
        nests=tuple(low.nests),
        inputs=captured.inputs,
        outputs=outputs,
        constants=constants,
        symbols=symbols,
        relations=relations,
        notes=(*captured.notes, *notes),
    )
    verify_program(program)
    refuse_unfit(program, captured.samples)
    return program


def _need_divisors(low: Lowering, captured: CapturedGraph) -> None:
    """Refuse calls in which Python would divide by a size that is 0."""
    for expr in captured.sizes.values():
        for part in sympy.preorder_traversal(expr):
            if part.is_Pow and part.exp.is_negative:
                low.need_elements([part.base])
            elif isinstance(part, FloorDiv | Mod):
                low.need_elements([part.args[1]])


def _need_sizes(low: Lowering, outputs: Sequence[OutputSpec]) -> None:
    """Refuse calls in which a size would be negative: eager raises there."""
    shapes = [buffer.shape for buffer in low.buffers.values()] + [spec.shape for spec in outputs]
    extents = [axis.extent for nest in low.nests for axis in (*nest.axes, *nest.reduction_axes)]
    for extent in dict.fromkeys([*(n for shape in shapes for n in shape), *extents]):
        low.need(0, "<=", extent)


def _constant(low: Lowering, name: str, tensor: torch.Tensor) -> ConstantData:
    shape = tuple(sympy.Integer(n) for n in tensor.shape)
    low.buffers[name] = Buffer(name, dtype_of(tensor.dtype), shape, contiguous_strides(shape), Role.CONSTANT)
    dense = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    data = dense.reshape(-1).view(torch.uint8).numpy() if dense.numel() else np.zeros(0, np.uint8)
    return ConstantData(name, data)


def _lower_nodes(low: Lowering, captured: CapturedGraph) -> dict[torch.fx.Node, TensorValue]:
    values: dict[torch.fx.Node, TensorValue] = {}
    several: dict[torch.fx.Node, Sequence[TensorValue | None]] = {}
    graphs: dict[torch.fx.Node, torch.fx.GraphModule] = {}
    refused: list[UnsupportedUse] = []

    def known(node: torch.fx.Node) -> TensorValue | torch.fx.GraphModule | Expr:
        if node.name in captured.sizes:
            return captured.sizes[node.name]
        return graphs[node] if node in graphs else values[node]

    new_values = set(_leaves(captured)[: len(captured.mutations)])
    for node in captured.graph_module.graph.nodes:
        if node.op == "placeholder" and node.name in low.buffers:
            values[node] = whole(low.buffers[node.name])
        elif node.op == "get_attr":
            graphs[node] = getattr(captured.graph_module, node.target)
        elif node.op != "call_function" or node.name in captured.sizes:
            continue
        elif node.target is operator.getitem:
            item = several[node.args[0]][node.args[1]]
            if item is None:
                refused.append(_absent(node))
                item = _poison(low, node, refused)
            values[node] = item
        else:
            result = _lower_node(low, node, known, refused)
            if isinstance(result, TensorValue):
                values[node] = result
            else:
                several[node] = result
        if node in new_values and node.op == "call_function":
            values[node] = _of_its_own(low, values[node])
    if refused:
        raise UnsupportedOpError(refused)
    return values


def _lower_node(
    low: Lowering,
    node: torch.fx.Node,
    known: Callable[[torch.fx.Node], TensorValue | torch.fx.GraphModule | Expr],
    refused: list[UnsupportedUse],
) -> TensorValue | Sequence[TensorValue | None]:
    low.origin = Origin(str(node.target), source_location(node))
    low.count = len(node.meta["val"]) if isinstance(node.meta.get("val"), tuple | list) else 1
    try:
        # map_arg is typed for graphs of nodes; it maps to whatever the function returns.
        args = torch.fx.node.map_arg(node.args, known)  # type: ignore[arg-type]
        kwargs = torch.fx.node.map_arg(node.kwargs, known)  # type: ignore[arg-type]
        return RULES[node.target](low, *args, **kwargs)  # type: ignore[index]
    except Unsupported as reason:
        refused.append(UnsupportedUse(str(node.target), str(reason), low.origin.location))
        return _poison(low, node, refused)
    except TypeError:
        # Sympy's word for a size that a rule takes for a number.
        if not any(getattr(number, "free_symbols", None) for number in _numbers(node, known)):
            raise
        refused.append(UnsupportedUse(str(node.target), "it takes no dynamic size as an argument", low.origin.location))
        return _poison(low, node, refused)
    except UnsupportedDtypeError as error:
        raise UnsupportedDtypeError(f"{low.origin.op} at {low.origin.location}: {error}") from None


def _numbers(
    node: torch.fx.Node, known: Callable[[torch.fx.Node], TensorValue | torch.fx.GraphModule | Expr]
) -> Iterator[object]:
    """Yield what the nodes that are arguments of a node stand for."""
    for source in node.all_input_nodes:
        if isinstance(source.meta.get("val"), torch.SymInt | torch.SymFloat):
            yield known(source)


def _leaves(captured: CapturedGraph) -> list[torch.fx.Node]:
    """Return what the graph's output node holds: new values of mutated inputs, then the leaves of the result."""
    output_node = next(node for node in captured.graph_module.graph.nodes if node.op == "output")
    return list(output_node.args[0])


def _absent(node: torch.fx.Node) -> UnsupportedUse:
    """Refuse the use of a result that a rule does not give."""
    source, position = node.args
    assert isinstance(source, torch.fx.Node)
    reason = f"its result {position} is used, which differs between devices or serves training alone"
    return UnsupportedUse(str(source.target), reason, source_location(source))


def _of_its_own(low: Lowering, value: TensorValue) -> TensorValue:
    """Give a mutated input's new value a buffer in the input's shape: a view of it is then a view of the input."""
    if value == whole(value.buffer) and value.buffer.role is Role.TEMPORARY:
        return value
    return low.pointwise(value.shape, [value.dtype], lambda writer, index: [writer.read(value, index)])[0]


def _poison(
    low: Lowering, node: torch.fx.Node, refused: Sequence[UnsupportedUse]
) -> TensorValue | tuple[TensorValue, ...]:
    """Stand in for the result of a refused op, so that the walk can go on and find the other refusals.

    Raises `UnsupportedOpError` at once where the result has dynamic sizes, which only its rule could tell.
    """
    meta = node.meta["val"]
    many = isinstance(meta, tuple | list)
    results = meta if many else [meta]
    if not all(isinstance(n, int) for t in results for n in t.shape):
        raise UnsupportedOpError(refused)
    made = tuple(whole(low.temporary(dtype_of(t.dtype), [sympy.Integer(n) for n in t.shape])) for t in results)
    return made if many else made[0]


def _write_back(low: Lowering, names: Sequence[str], new_values: Sequence[tuple[torch.fx.Node, TensorValue]]) -> None:
    """Copy new values into the mutated inputs; those that are old values of mutated inputs are saved before any copy."""
    saved: list[TensorValue] = []
    for leaf, value in new_values:
        low.origin = Origin("write back to input", source_location(leaf))
        if value.buffer.name in names:
            (value,) = low.pointwise(value.shape, [value.dtype], lambda w, i, v=value: [w.read(v, i)])  # type: ignore[misc]  # noqa: PLW2901
        saved.append(value)
    for name, (leaf, _), value in zip(names, new_values, saved, strict=True):
        low.origin = Origin("write back to input", source_location(leaf))
        low.write_into(low.buffers[name], value)


def _outputs(
    low: Lowering,
    captured: CapturedGraph,
    leaves: Sequence[object],
    mutated: Sequence[torch.fx.Node],
    values: dict[torch.fx.Node, TensorValue],
) -> tuple[OutputSpec, ...]:
    inputs = {spec.name: spec for spec in captured.inputs}
    new_value_of = {values[node].buffer.name: name for name, node in zip(captured.mutations, mutated, strict=True)}
    owners = dict(zip(mutated, captured.mutations, strict=True))
    specs: list[OutputSpec] = []
    seen: dict[torch.fx.Node, int] = {}
    for position, leaf in enumerate(leaves):
        if not isinstance(leaf, torch.fx.Node):
            specs.append(OutputSpec(OutputKind.VALUE, value=leaf))  # type: ignore[arg-type]
            continue
        if leaf in seen:
            specs.append(OutputSpec(OutputKind.SAME, same_as=seen[leaf]))
            continue
        seen[leaf] = position
        value = values[leaf]
        owner = owners.get(leaf) or (leaf.name if leaf.op == "placeholder" and leaf.name in inputs else None)
        viewed = inputs.get(new_value_of.get(value.buffer.name, value.buffer.name))
        if owner is not None:
            specs.append(_input_itself(inputs[owner]))
        elif viewed is not None and not value.fresh and (view := _input_view(value, viewed)) is not None:
            specs.append(view)
        else:
            specs.append(_written(low, position, leaf, value, captured.layouts.get(leaf.name)))
    return tuple(specs)


def _input_itself(spec: InputSpec) -> OutputSpec:
    return OutputSpec(
        OutputKind.INPUT_VIEW,
        buffer=spec.name,
        dtype=spec.dtype,
        shape=spec.shape,
        strides=spec.strides,
        identical=True,
    )


def _input_view(value: TensorValue, spec: InputSpec) -> OutputSpec | None:
    """Return a value that maps an input's elements as a view of its memory; None where no strides do."""
    ranges = {axis: (sympy.Integer(0), extent - 1) for axis, extent in zip(value.axes, value.shape, strict=True)}
    places = [i * s for i, s in zip(value.index, spec.strides, strict=True)]
    flat = recombine(simplify(sympy.expand(sympy.Add(*places)), ranges))
    strides = tuple(flat.coeff(axis) for axis in value.axes)
    offset = sympy.expand(flat - sympy.Add(*[axis * s for axis, s in zip(value.axes, strides, strict=True)]))
    if offset.free_symbols.union(*(stride.free_symbols for stride in strides)) & set(value.axes):
        return None
    return OutputSpec(
        OutputKind.INPUT_VIEW,
        buffer=spec.name,
        dtype=spec.dtype,
        shape=value.shape,
        strides=strides,
        offset=offset,
    )


def _written(
    low: Lowering, position: int, leaf: torch.fx.Node, value: TensorValue, layout: tuple[Expr, ...] | None
) -> OutputSpec:
    """Copy a value into an output buffer with the strides eager would give it."""
    strides = contiguous_strides(value.shape) if layout is None else _dense_strides(value.shape, layout)
    buffer = Buffer(f"out{position}", value.dtype, value.shape, strides, Role.OUTPUT, alignment=16)
    low.buffers[buffer.name] = buffer
    low.origin = Origin("output", source_location(leaf))
    low.write_into(buffer, value)
    return OutputSpec(
        OutputKind.BUFFER, buffer=buffer.name, dtype=value.dtype, shape=value.shape, strides=buffer.strides
    )


def _dense_strides(shape: tuple[Expr, ...], strides: Sequence[Expr]) -> tuple[Expr, ...]:
    """Keep eager's strides where they are a permutation of dense ones; row-major otherwise (expanded, sliced results)."""
    order = _by_stride(shape, strides)
    permuted = [shape[k] for k in order]
    dense = dict(zip(order, contiguous_strides(permuted), strict=True))
    if all(shape[k] == 1 or sympy.expand(strides[k] - dense[k]) == 0 for k in order):
        return tuple(dense[k] for k in range(len(shape)))
    return contiguous_strides(shape)


def _by_stride(shape: tuple[Expr, ...], strides: Sequence[Expr]) -> list[int]:
    """Return the dims by stride, largest first; where sizes are dynamic, in the order in which they could be dense."""
    if all(stride.is_Integer for stride in strides):
        return sorted(range(len(shape)), key=lambda k: (-int(strides[k]), k))
    order: list[int] = []
    rest, step = list(range(len(shape))), sympy.Integer(1)
    while rest:
        fits = [k for k in rest if sympy.expand(strides[k] - step) == 0]
        # Of several dims with one stride, all but one have size 1, and those are static as far as that is known.
        inner = max(fits or rest, key=lambda k: (shape[k] == 1, k))
        rest.remove(inner)
        order.insert(0, inner)
        step = sympy.expand(step * shape[inner])
    return order
