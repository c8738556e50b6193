"""Traces a function or module with torch.export into a functional ATen graph."""

from __future__ import annotations

import dataclasses
import operator
import threading
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeAlias

import torch
import torch.utils._pytree as pytree
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.fx.traceback import preserve_node_meta

from mkwrap.aliasing import apart, refuse_overlap
from mkwrap.decompose import decompositions
from mkwrap.dims import TensorDims, dynamic_dims, spell_path
from mkwrap.emptiness import notes_of_emptiness
from mkwrap.errors import (
    CaptureError,
    DynamicShapeError,
    MkwrapError,
    UnsupportedOpError,
    UnsupportedUse,
)
from mkwrap.fit import Trace, traced_to_fit
from mkwrap.fold import fold_constants
from mkwrap.guards import GuardLines, guard_lines
from mkwrap.lower.lowering import dtype_of
from mkwrap.origins import SourceLines, raising_line, source_location
from mkwrap.results import refuse_sizes_as_results, refuse_texts_of_sizes
from mkwrap.stages import CapturedGraph, InputSpec
from mkwrap.symbols import (
    Symbols,
    TracingOptions,
    depends_on_values,
    layouts_of,
    sizes_from_zero,
    sizes_of,
    symbols_of,
    tracing_options,
)
from mkwrap.traced import Traced

Callee: TypeAlias = "Callable[..., object] | torch.nn.Module"
PythonValue: TypeAlias = bool | int | float | str | None
_PYTHON_VALUES = (bool, int, float, str, type(None))


# torch traces with state of the whole process: two traces at once break each other.
_TRACING = threading.Lock()


def capture(
    fn: Callee,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    dynamic_shapes: object,
    lowered_ops: Collection[object],
) -> CapturedGraph:
    """Trace `fn(*args, **kwargs)` on fake tensors; the caller's tensors are not touched.

    Raises `CaptureError` where torch.export cannot trace, `UnsupportedOpError` with every op outside `lowered_ops`,
    `DynamicShapeError` for dynamic dims that cannot be kept, `AliasingError` for mutated inputs that overlap others or
    themselves.
    """
    _register_dataclasses((args, kwargs))
    with_path, in_spec = pytree.tree_flatten_with_path((tuple(args), dict(kwargs)))
    leaves = [leaf for _, leaf in with_path]
    paths = [spell_path(path) for path, _ in with_path]
    constant_args = _constant_args(leaves, paths)
    out_specs: list[pytree.TreeSpec] = []
    module = _FlatModule(fn, _flat_call(leaves, in_spec, out_specs))
    samples = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    tensor_paths = [path for path, leaf in zip(paths, leaves, strict=True) if isinstance(leaf, torch.Tensor)]
    _refuse_sparse(tensor_paths, samples)
    dims = dynamic_dims(fn, args, kwargs, dynamic_shapes)
    found, broadcast = traced_to_fit(
        lambda dims: _trace(module, samples, tensor_paths, dims), dims, samples, tensor_paths
    )
    program, lines, traced = found.program, found.lines, found.inputs
    mutations = tuple(_mutations(program))
    symbols = symbols_of(traced, lines, program.graph)
    inputs = tuple(
        _input_spec(argument, sample, symbols, argument.name in mutations)
        for argument, sample in zip(traced, samples, strict=True)
    )
    refuse_overlap(inputs, samples)
    graph_module = program.graph_module
    _drop_assertions(graph_module)
    with _TRACING:
        constants = fold_constants(graph_module, _constants(program))
    sizes = sizes_of(graph_module, symbols)
    refuse_sizes_as_results(graph_module, sizes)
    refuse_texts_of_sizes(graph_module, out_specs[-1], traced, symbols, constant_args.values())
    _refuse_unsupported(graph_module, lowered_ops, sizes)
    return CapturedGraph(
        graph_module=graph_module,
        inputs=inputs,
        constants=constants,
        mutations=mutations,
        in_spec=in_spec,
        out_spec=out_specs[-1],
        constant_args=constant_args,
        samples={argument.name: sample for argument, sample in zip(traced, samples, strict=True)},
        symbols=symbols.specs,
        relations=symbols.relations,
        sizes=sizes,
        layouts=layouts_of(graph_module, symbols),
        notes=(*broadcast, *symbols.notes),
    )


class _FlatModule(torch.nn.Module):
    """Presents `fn` to torch.export as a module over flat tensors, so that any pytree of arguments will do."""

    def __init__(self, fn: Callee, call: Callable[..., list[object]]) -> None:
        super().__init__()
        # Held as a submodule where it is one: its parameters become inputs of the graph.
        self.fn = fn
        self._call = call

    def forward(self, *tensors: torch.Tensor) -> list[object]:
        """Call `fn` with the traced tensors in place of the examples; returns the flat result."""
        try:
            with SourceLines():
                return self._call(self.fn, tensors)
        except GuardOnDataDependentSymNode as error:
            # Caught here: torch prints the whole graph to stderr for an error of its own.
            raise DynamicShapeError(
                f"a size, or a branch of the program, depends on the values of tensors, at {raising_line(error)}; "
                "compute the number before the call and pass it, or select with torch.where"
            ) from None


def _flat_call(
    leaves: Sequence[object], in_spec: pytree.TreeSpec, out_specs: list[pytree.TreeSpec]
) -> Callable[..., list[object]]:
    """Return a function of (fn, tensors) that rebuilds the arguments and notes the result's structure.

    A closure: export copies what a module holds, and undoes what tracing assigns to it.
    """

    def call(fn: Callable[..., object], tensors: Sequence[torch.Tensor]) -> list[object]:
        remaining = iter(tensors)
        filled = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(filled, in_spec)
        result = fn(*args, **kwargs)
        _register_dataclasses(result)
        flat, out_spec = pytree.tree_flatten(result)
        out_specs.append(out_spec)
        return flat

    return call


def _register_dataclasses(value: object) -> None:
    """Make torch's pytrees look into every plain dataclass in a value; those that are known already stay as they are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) not in pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(type(value))
        for field in dataclasses.fields(value):
            _register_dataclasses(getattr(value, field.name, None))
    elif isinstance(value, Mapping):
        for item in value.values():
            _register_dataclasses(item)
    elif isinstance(value, tuple | list):
        for item in value:
            _register_dataclasses(item)


def _export(
    module: torch.nn.Module, samples: Sequence[torch.Tensor], dims: Sequence[TensorDims]
) -> tuple[torch.export.ExportedProgram, GuardLines]:
    """Trace and decompose; returns, too, which line asked what of dynamic sizes."""
    try:
        with ExitStack() as stack:
            # Outside no_grad, export would record grad-mode switches and train-only state that inference has no use for.
            stack.enter_context(torch.no_grad())
            stack.enter_context(preserve_node_meta())
            # torch's own passes use what torch deprecates; that is nothing a user could mend.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            lines, options = GuardLines(), TracingOptions()
            if any(dims):
                lines = stack.enter_context(guard_lines())
                stack.enter_context(sizes_from_zero())
                stack.enter_context(notes_of_emptiness(lines))
                options = tracing_options(dims)
            exported = torch.export.export(module, tuple(samples), strict=False, **options)
            if any(_changes(node) for node in exported.graph.nodes):
                # A tensor that is contiguous at size 1 alone is its own contiguous copy there: what changes one changes both.
                lines.layout.clear()
            for node in exported.graph.find_nodes(op="placeholder"):
                # Where dynamo took part (the function of an associative scan), its own notes here differ from one trace to
                # the next, which the decomposition takes for a defect. An argument has no line of its own to lose.
                node.meta.pop("custom", None)
            return exported.run_decompositions(decompositions()), lines
    except Exception as error:
        if isinstance(error, MemoryError | KeyboardInterrupt | MkwrapError):
            raise
        message = str(error).strip() or type(error).__name__
        raise CaptureError(f"torch.export could not trace the function: {message}") from error


def _changes(node: torch.fx.Node) -> bool:
    """Whether a node changes a tensor."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _trace(
    module: torch.nn.Module, samples: Sequence[torch.Tensor], paths: Sequence[str], dims: Sequence[TensorDims]
) -> Trace:
    with _TRACING:
        program, lines = _export(module, apart(samples), dims)
    return Trace(program, lines, _traced(program, paths, dims))


def _traced(program: torch.export.ExportedProgram, paths: Sequence[str], dims: Sequence[TensorDims]) -> list[Traced]:
    """Return the tensor arguments as the graph has them."""
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    fakes = {node.name: node.meta["val"] for node in program.graph.find_nodes(op="placeholder")}
    return [Traced(name, path, fakes[name], declared) for name, path, declared in zip(names, paths, dims, strict=True)]


def _constant_args(leaves: Sequence[object], paths: Sequence[str]) -> dict[int, PythonValue]:
    constants: dict[int, PythonValue] = {}
    for k, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
        if isinstance(leaf, torch.Tensor):
            continue
        if not isinstance(leaf, _PYTHON_VALUES):
            raise CaptureError(
                f"{path} is a {type(leaf).__name__}; arguments must be tensors, numbers, strings, None, "
                "or tuples, lists, dicts and dataclasses of them"
            )
        constants[k] = leaf
    return constants


def _refuse_sparse(paths: Sequence[str], samples: Sequence[torch.Tensor]) -> None:
    for path, sample in zip(paths, samples, strict=True):
        if sample.layout is not torch.strided:
            raise CaptureError(f"{path} has layout {sample.layout}; only strided tensors are supported (`to_dense()`)")


def _mutations(program: torch.export.ExportedProgram) -> list[str]:
    names: list[str] = []
    for spec in program.graph_signature.output_specs:
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            assert spec.target is not None
            names.append(spec.target)
        elif spec.kind is not OutputKind.USER_OUTPUT:
            raise CaptureError(
                f"the module changes its own buffer {_users_name(spec.target)!r} when called; a library has no hidden state: "
                "put the module into eval() mode, or pass the buffer as an input"
            )
    return names


def _users_name(target: str | None) -> str:
    """Return a buffer's name in the user's module, without the attribute of `_FlatModule` that holds the module."""
    return str(target).removeprefix("fn.")


def _input_spec(traced: Traced, sample: torch.Tensor, symbols: Symbols, mutated: bool) -> InputSpec:
    dtype = dtype_of(sample.dtype, traced.path)
    return InputSpec(
        name=traced.name,
        path=traced.path,
        dtype=dtype,
        shape=symbols.sizes(traced.fake.shape if traced.dims else sample.shape),
        strides=symbols.sizes(traced.fake.stride() if traced.dims else sample.stride()),
        alignment=16 if sample.data_ptr() % 16 == 0 else dtype.itemsize,
        mutated=mutated,
    )


def _constants(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    values: dict[str, torch.Tensor] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        assert spec.target is not None
        source = program.constants if spec.kind is InputKind.CONSTANT_TENSOR else program.state_dict
        value = source[spec.target] if spec.target in source else program.constants[spec.target]
        if not isinstance(value, torch.Tensor):
            raise CaptureError(f"{spec.target} is a {type(value).__name__}; only tensors can be constants of a library")
        values[spec.arg.name] = value.detach()
    return values


_ASSERTIONS = (
    torch.ops.aten._assert_tensor_metadata.default,
    torch.ops.aten._assert_scalar.default,
    torch.ops.aten.sym_constrain_range_for_size.default,
    torch.ops.aten.sym_constrain_range.default,
)


def _drop_assertions(graph_module: torch.fx.GraphModule) -> None:
    """Drop export's checks: of tensors and sizes, which every call checks; on values there is nothing to run them."""
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target in _ASSERTIONS:
            graph_module.graph.erase_node(node)


def _is_graph(graph_module: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    """Whether a node names a graph that an op of higher order runs."""
    return isinstance(getattr(graph_module, str(node.target)), torch.fx.GraphModule)


def _refuse_unsupported(
    graph_module: torch.fx.GraphModule, lowered_ops: Collection[object], sizes: Mapping[str, object]
) -> None:
    uses = [
        UnsupportedUse(str(node.target), _reason(node), source_location(node))
        for node in graph_module.graph.nodes
        if node.op == "call_function"
        and node.target is not operator.getitem
        and node.target not in lowered_ops
        and node.name not in sizes
        and not isinstance(node.meta.get("val"), torch.SymBool)
    ]
    uses += [
        UnsupportedUse(node.name, f"graph node of kind {node.op}", source_location(node))
        for node in graph_module.graph.nodes
        if node.op in ("call_module", "call_method") or (node.op == "get_attr" and not _is_graph(graph_module, node))
    ]
    if uses:
        raise UnsupportedOpError(uses)


def _reason(node: torch.fx.Node) -> str:
    """Say why a node cannot be lowered."""
    if node.target is torch.ops.higher_order.cond:
        return "a branch taken at run time; choose before the call, or compute both and select with torch.where"
    if depends_on_values(node.meta.get("val")):
        return "its result, or the size of its result, depends on the values of tensors"
    if isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat):
        return "a number made of sizes in a way that is not supported"
    return "no lowering"
