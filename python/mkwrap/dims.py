"""Reads `dynamic_shapes` as torch.export takes it: which dimension of which tensor argument may vary, and how."""

from __future__ import annotations

import dataclasses
import inspect
import keyword
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

import sympy
import torch
import torch.utils._pytree as pytree
from torch.export.dynamic_shapes import Dim, ShapesCollection

from mkwrap.errors import DynamicShapeError
from mkwrap.ir.index import size_symbol
from mkwrap.ir.nodes import Expr
from mkwrap.ir.signature import UNBOUNDED

_TAKEN = re.compile(r"([bdikprtv]\d+(_\d+)?)+|(arg|out)\d+")
"""Names of axes, values and buffers."""


@dataclasses.dataclass(frozen=True)
class DynamicDim:
    """How one dimension may vary: it is `scale`·size + `offset` for the size called `name`, which is low … high.

    Without a name it is a size of its own. `required` ones are refused where tracing makes them a constant.
    """

    name: str | None
    low: int
    high: int
    scale: int = 1
    offset: int = 0
    required: bool = True

    @property
    def expr(self) -> Expr | None:
        """Its length as an expression; None without a name."""
        return None if self.name is None else self.scale * size_symbol(self.name) + self.offset

    @property
    def bare(self) -> bool:
        """Whether it is a named size itself, not derived from one."""
        return self.name is not None and (self.scale, self.offset) == (1, 0)


TensorDims: TypeAlias = Mapping[int, DynamicDim]
"""The dynamic dimensions of one tensor."""


def dynamic_dims(
    fn: Callable[..., object] | torch.nn.Module,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    dynamic_shapes: object,
) -> list[TensorDims]:
    """Return the dynamic dimensions of every tensor in (args, kwargs), in the order of torch's pytrees.

    `dynamic_shapes` follows the parameters of `fn`: a dict by name, or a tuple by position; below that it has the structure
    of the arguments. Raises `DynamicShapeError` naming the argument whose entry does not fit.
    """
    if isinstance(dynamic_shapes, ShapesCollection):
        by_position, by_name = _by_argument(_anything, args, kwargs, _collected(dynamic_shapes, args, kwargs))
    else:
        by_position, by_name = _by_argument(fn, args, kwargs, dynamic_shapes)
    found: list[TensorDims] = []
    for k, (value, spec) in enumerate(zip(args, by_position, strict=True)):
        found.extend(_walk(value, spec, f"args[{k}]"))
    for name, value in kwargs.items():
        found.extend(_walk(value, by_name.get(name), f"kwargs[{name!r}]"))
    _check_names(found)
    _check_examples(found, args, kwargs)
    return found


def spell_path(path: pytree.KeyPath) -> str:
    """Spell where a leaf of (args, kwargs) is: `args[1]['mask']`."""
    root = "args" if isinstance(path[0], pytree.SequenceKey) and path[0].idx == 0 else "kwargs"
    return root + pytree.keystr(path[1:])


def _anything(*args: object, **kwargs: object) -> None:
    """Take any arguments: tensors of a collection are found by identity, whatever the parameters are called."""


def _collected(collection: ShapesCollection, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    try:
        found: object = collection.dynamic_shapes(_anything, tuple(args), dict(kwargs))  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise DynamicShapeError(
            "dynamic_shapes is a ShapesCollection with entries for tensors that are no arguments of the example call; give it "
            "the very tensors of the example"
        ) from error
    return found


def _by_argument(
    fn: Callable[..., object] | torch.nn.Module, args: Sequence[object], kwargs: Mapping[str, object], given: object
) -> tuple[list[object], dict[str, object]]:
    """Distribute the entries of `dynamic_shapes` over positional and keyword arguments."""
    if given is None:
        return [None] * len(args), {}
    bound = _bound(fn, args, kwargs)
    if isinstance(given, tuple | list):
        count = len(args) + len(kwargs) if bound is None else len(bound.arguments)
        if len(given) != count:
            raise DynamicShapeError(f"dynamic_shapes has {len(given)} entries for {count} arguments")
        if bound is None:
            return list(given[: len(args)]), dict(zip(kwargs, given[len(args) :], strict=True))
        given = dict(zip(bound.arguments, given, strict=True))
    if not isinstance(given, Mapping):
        raise DynamicShapeError(
            f"dynamic_shapes is a {type(given).__name__}; write a dict by parameter name or a tuple by position"
        )
    if bound is None:
        raise DynamicShapeError(
            "the function's parameters have no names that could be known; write dynamic_shapes as a tuple"
        )
    return _by_parameter(bound, args, kwargs, given)


def _bound(
    fn: Callable[..., object] | torch.nn.Module, args: Sequence[object], kwargs: Mapping[str, object]
) -> inspect.BoundArguments | None:
    """Match the arguments to the parameters of `fn`; None where its signature cannot be known or does not fit."""
    try:
        return inspect.signature(fn.forward if isinstance(fn, torch.nn.Module) else fn).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return None


def _by_parameter(
    bound: inspect.BoundArguments, args: Sequence[object], kwargs: Mapping[str, object], given: Mapping[str, object]
) -> tuple[list[object], dict[str, object]]:
    by_position: list[object] = []
    by_name: dict[str, object] = {}
    known: set[str] = set()
    for name in bound.arguments:
        kind = bound.signature.parameters[name].kind
        spec = given.get(name)
        known.add(name)
        if kind is inspect.Parameter.VAR_POSITIONAL:
            rest = len(args) - len(by_position)
            by_position.extend(_entries(spec, rest, f"dynamic_shapes[{name!r}]"))
        elif kind is inspect.Parameter.VAR_KEYWORD:
            extra = bound.arguments[name]
            known.update(extra)
            nested = _known(spec, extra, f"dynamic_shapes[{name!r}]")
            by_name.update({key: nested.get(key, given.get(key)) for key in extra})
        elif len(by_position) < len(args):
            by_position.append(spec)
        else:
            by_name[name] = spec
    unknown = [str(name) for name in given if name not in known]
    if unknown:
        called = ", ".join(bound.arguments)
        first = next(iter(bound.arguments), "x")
        how = (
            f"; dimensions go below their argument: {{{first!r}: {{0: …}}}}"
            if any(n.isdigit() for n in unknown)
            else ""
        )
        raise DynamicShapeError(
            f"dynamic_shapes names {', '.join(unknown)}; the arguments of this call are {called}{how}"
        )
    assert by_name.keys() <= kwargs.keys()
    return by_position, by_name


def _entries(spec: object, count: int, where: str) -> list[object]:
    if spec is None:
        return [None] * count
    if not isinstance(spec, tuple | list) or len(spec) != count:
        raise DynamicShapeError(f"{where} must be a tuple of {count}, one entry per argument, got {spec!r}")
    return list(spec)


def _walk(value: object, spec: object, path: str) -> Iterator[TensorDims]:
    """Yield the dims of every tensor below an argument, with the entry of `dynamic_shapes` that belongs to it."""
    if isinstance(value, torch.Tensor):
        yield _tensor_dims(value, spec, path)
        return
    if pytree.tree_is_leaf(value):
        if spec is not None and not _is_the_number(spec, value):
            raise DynamicShapeError(f"{path} is no tensor, but dynamic_shapes has {spec!r} for it; write None there")
        return
    children, _ = pytree.tree_flatten_with_path(value, is_leaf=lambda item: item is not value)
    names = [_name_of(key) for (key,), _ in children]
    for k, ((key,), child) in enumerate(children):
        part = _child(spec, key, k, names, path)
        yield from _walk(child, part, path + pytree.keystr((key,)))


def _is_the_number(spec: object, value: object) -> bool:
    return isinstance(spec, int) and spec == value


def _child(spec: object, key: object, position: int, names: Sequence[object], path: str) -> object:
    """Return the part of an entry that belongs to one item of a container."""
    if spec is None:
        return None
    if isinstance(key, pytree.SequenceKey) or (isinstance(key, pytree.GetAttrKey) and isinstance(spec, tuple | list)):
        return _entries(spec, len(names), f"dynamic_shapes for {path}")[position]
    name = _name_of(key)
    if dataclasses.is_dataclass(spec):
        return getattr(spec, str(name))
    return _known(spec, names, f"dynamic_shapes for {path}").get(name)


def _name_of(key: object) -> object:
    return key.key if isinstance(key, pytree.MappingKey) else getattr(key, "name", None)


def _known(spec: object, names: Collection[object], where: str) -> Mapping[object, object]:
    """Return an entry by name, none of which is misspelt."""
    if spec is None:
        return {}
    there = ", ".join(map(str, names))
    if not isinstance(spec, Mapping):
        raise DynamicShapeError(f"{where} must be a dict like the argument, with {there}, got {spec!r}")
    unknown = [str(name) for name in spec if name not in names]
    if unknown:
        raise DynamicShapeError(f"{where} names {', '.join(unknown)}; there is {there}")
    return spec


def _tensor_dims(tensor: torch.Tensor, spec: object, path: str) -> TensorDims:
    if spec is None:
        return {}
    if isinstance(spec, tuple | list):
        if len(spec) != tensor.dim():
            raise DynamicShapeError(
                f"dynamic_shapes for {path} has {len(spec)} entries, the tensor {tensor.dim()} dimensions"
            )
        spec = dict(enumerate(spec))
    if not isinstance(spec, Mapping):
        raise DynamicShapeError(f"dynamic_shapes for {path} must be a dict or a tuple of dimensions, got {spec!r}")
    found: dict[int, DynamicDim] = {}
    for dim, entry in spec.items():
        if not isinstance(dim, int) or not 0 <= dim < tensor.dim():
            there = f"there are 0 … {tensor.dim() - 1}" if tensor.dim() else "the tensor has none"
            raise DynamicShapeError(f"dynamic_shapes for {path} names dimension {dim!r}; {there}")
        dynamic = _dynamic_dim(entry, tensor.shape[dim], f"{path}.shape[{dim}]")
        if dynamic is not None:
            found[dim] = dynamic
    return found


def _dynamic_dim(entry: object, size: int, where: str) -> DynamicDim | None:
    """Read the entry of one dimension; None where it does not vary."""
    hint = getattr(getattr(entry, "type", None), "name", None)
    if entry is None or hint == "STATIC":
        return None
    is_number = isinstance(entry, int) and not isinstance(entry, bool)
    if is_number or type(entry).__name__ == "_StaticDim":
        expected = entry if isinstance(entry, int) else int(entry.value)  # type: ignore[attr-defined]
        if expected != size:
            raise DynamicShapeError(
                f"{where} is {size} in the example, but dynamic_shapes says it is always {expected}"
            )
        return None
    if hint in ("AUTO", "DYNAMIC"):
        ends = _ends(getattr(entry, "min", None), getattr(entry, "max", None), where)
        found = DynamicDim(None, *ends, required=hint == "DYNAMIC")
    elif isinstance(entry, Dim):
        found = _named(entry, where)
    else:
        raise DynamicShapeError(
            f"{where}: {entry!r} is no dimension; write a Dim, Dim.AUTO, Dim.DYNAMIC, an int or None"
        )
    _check_example(found, size, where)
    return found


def _named(dim: Dim, where: str) -> DynamicDim:
    root = getattr(dim, "root", dim)
    low, high = _ends(root.min, root.max, f"{where}: the Dim {root.__name__!r}")
    if root is dim:
        return DynamicDim(dim.__name__, low, high)
    line = sympy.Poly(dim.fn(size_symbol("x")), size_symbol("x"))  # type: ignore[attr-defined]
    return DynamicDim(root.__name__, low, high, int(line.nth(1)), int(line.nth(0)))


def _ends(low: object, high: object, what: str) -> tuple[int, int]:
    """Return a range as torch has it: None, or an infinity of its own, is no end. Sizes begin at 0."""
    for end in (low, high):
        if isinstance(end, float) and math.isfinite(end):
            raise DynamicShapeError(f"{what} has the bound {end!r}; a size is an integer")
    return (
        max(low, 0) if isinstance(low, int) else 0,
        min(high, UNBOUNDED) if isinstance(high, int) else UNBOUNDED,
    )


def _check_example(found: DynamicDim, size: int, where: str) -> None:
    value, rest = divmod(size - found.offset, found.scale)
    if rest or not found.low <= value <= found.high:
        span = f"at least {found.low}" if found.high == UNBOUNDED else f"in {found.low} … {found.high}"
        must = span if found.name is None else f"{found.name if found.bare else found.expr}, with {found.name} {span}"
        raise DynamicShapeError(f"{where} is {size} in the example, but must be {must}")


def _check_examples(dims: Sequence[TensorDims], args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Check that a name means one size in the example."""
    leaves, _ = pytree.tree_flatten_with_path((tuple(args), dict(kwargs)))
    tensors = [(path, leaf) for path, leaf in leaves if isinstance(leaf, torch.Tensor)]
    known: dict[str, tuple[int, str]] = {}
    for (path, tensor), own in zip(tensors, dims, strict=True):
        for dim, declared in own.items():
            if declared.name is None:
                continue
            size = (tensor.shape[dim] - declared.offset) // declared.scale
            where = f"{spell_path(path)}.shape[{dim}]"
            first, there = known.setdefault(declared.name, (size, where))
            if first != size:
                raise DynamicShapeError(
                    f"{declared.name} is {first} at {there} in the example, and {size} at {where}; one Dim is one size"
                    + ("; leave a dimension static (None) that is 1 and broadcast" if 1 in (first, size) else "")
                )


def _check_names(dims: Sequence[TensorDims]) -> None:
    """Check that a name means one range, and can name a size in the library."""
    ranges: dict[str, tuple[int, int]] = {}
    for dim in (dim for tensor in dims for dim in tensor.values() if dim.name is not None):
        assert dim.name is not None
        if not dim.name.isidentifier() or keyword.iskeyword(dim.name) or _TAKEN.fullmatch(dim.name):
            raise DynamicShapeError(
                f"the Dim is called {dim.name!r}, which names something else in a library; use a word"
            )
        if ranges.setdefault(dim.name, (dim.low, dim.high)) != (dim.low, dim.high):
            raise DynamicShapeError(f"two Dims are called {dim.name!r}, with different ranges; use one Dim")
