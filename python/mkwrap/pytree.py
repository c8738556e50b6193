"""How Python arguments become a flat list of leaves and a flat list becomes the result, as JSON.

A structure is `"*"` (a leaf) or an object: `kind`, its `items`, and what the kind needs to be made again. Leaves are
counted in the order of torch.utils._pytree, so structures agree with what capture saw.

    {"kind": "tuple" | "list", "items": […]}
    {"kind": "dict" | "ordered_dict", "keys": [key, …], "items": […]}
    {"kind": "default_dict", "factory": "list", "keys": …, "items": …}
    {"kind": "deque", "maxlen": null | int, "items": …}
    {"kind": "sequence", "type": "module:name", "make": "args" | "list", "items": …}  named tuples, torch.return_types
    {"kind": "dataclass", "type": "module:name", "fields": […], "none": […], "items": …}
    {"kind": "registered", "type": "module:name", "context": …, "items": …}     other nodes registered with torch
"""

from __future__ import annotations

import builtins
import collections
import dataclasses
import importlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import torch.utils._pytree as torch_pytree

from mkwrap.errors import CaptureError, InputError, LibraryFormatError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
PythonValue: TypeAlias = bool | int | float | str | None
LEAF = "*"


class Structure(Protocol):
    """A tree that leaves are taken from and put into."""

    def flatten(self, value: object, path: str, leaves: list[object]) -> None:
        """Append value's leaves; raises `InputError` naming the path where value has another structure."""

    def unflatten(self, leaves: Iterator[object]) -> object:
        """Build a value, taking as many leaves as the structure has."""

    def paths(self, path: str) -> Iterator[str]:
        """Yield how the user writes each leaf of a value that is written `path`."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf."""

    def flatten(self, value: object, path: str, leaves: list[object]) -> None:  # noqa: ARG002 — one signature for all
        """Append the value itself."""
        leaves.append(value)

    def unflatten(self, leaves: Iterator[object]) -> object:
        """Take one leaf."""
        return next(leaves)

    def paths(self, path: str) -> Iterator[str]:
        """Yield the path itself."""
        yield path


@dataclasses.dataclass(frozen=True)
class Items:
    """A node whose parts have positions."""

    cls: type
    parts: tuple[Structure, ...]
    make: Callable[[list[object]], object]

    def flatten(self, value: object, path: str, leaves: list[object]) -> None:
        """Append the parts' leaves; type and length must be the same."""
        if type(value) is not self.cls:
            raise _mismatch(path, f"a {self.cls.__name__} of {len(self.parts)}", value)
        assert isinstance(value, Sequence | collections.deque)
        if len(value) != len(self.parts):
            raise InputError(f"{path}: expected a {self.cls.__name__} of {len(self.parts)}, got one of {len(value)}")
        for k, (part, item) in enumerate(zip(self.parts, value, strict=True)):
            part.flatten(item, f"{path}[{k}]", leaves)

    def unflatten(self, leaves: Iterator[object]) -> object:
        """Build from the parts."""
        return self.make([part.unflatten(leaves) for part in self.parts])

    def paths(self, path: str) -> Iterator[str]:
        """Yield the parts' paths."""
        for k, part in enumerate(self.parts):
            yield from part.paths(f"{path}[{k}]")


@dataclasses.dataclass(frozen=True)
class Entries:
    """A mapping: the keys must be the same, their order need not be."""

    cls: type
    keys: tuple[PythonValue, ...]
    parts: tuple[Structure, ...]
    make: Callable[[dict[PythonValue, object]], object]

    def flatten(self, value: object, path: str, leaves: list[object]) -> None:
        """Append the entries' leaves in this structure's order."""
        if type(value) is not self.cls:
            raise _mismatch(path, f"a {self.cls.__name__} with keys {list(self.keys)}", value)
        assert isinstance(value, Mapping)
        if value.keys() != set(self.keys):
            raise InputError(f"{path}: expected the keys {list(self.keys)}, got {list(value)}")
        for key, part in zip(self.keys, self.parts, strict=True):
            part.flatten(value[key], f"{path}[{key!r}]", leaves)

    def unflatten(self, leaves: Iterator[object]) -> object:
        """Build from the entries."""
        return self.make({key: part.unflatten(leaves) for key, part in zip(self.keys, self.parts, strict=True)})

    def paths(self, path: str) -> Iterator[str]:
        """Yield the entries' paths."""
        for key, part in zip(self.keys, self.parts, strict=True):
            yield from part.paths(f"{path}[{key!r}]")


@dataclasses.dataclass(frozen=True)
class Record:
    """A dataclass; fields that were None when it was captured are part of the structure."""

    cls: type
    fields: tuple[str, ...]
    none: tuple[str, ...]
    parts: tuple[Structure, ...]

    def flatten(self, value: object, path: str, leaves: list[object]) -> None:
        """Append the fields' leaves."""
        if type(value) is not self.cls:
            raise _mismatch(path, f"a {self.cls.__name__}", value)
        for name in self.none:
            if getattr(value, name) is not None:
                raise _mismatch(f"{path}.{name}", "None", getattr(value, name))
        for name, part in zip(self.fields, self.parts, strict=True):
            part.flatten(getattr(value, name), f"{path}.{name}", leaves)

    def unflatten(self, leaves: Iterator[object]) -> object:
        """Build from the fields."""
        values = {name: part.unflatten(leaves) for name, part in zip(self.fields, self.parts, strict=True)}
        return self.cls(**values, **dict.fromkeys(self.none))

    def paths(self, path: str) -> Iterator[str]:
        """Yield the fields' paths."""
        for name, part in zip(self.fields, self.parts, strict=True):
            yield from part.paths(f"{path}.{name}")


@dataclasses.dataclass(frozen=True)
class Registered:
    """A node that its module registers with torch.utils._pytree; the context is plain data."""

    cls: type
    context: object
    parts: tuple[Structure, ...]

    def flatten(self, value: object, path: str, leaves: list[object]) -> None:
        """Append the leaves of what the registered function gives; its context must be the same."""
        if type(value) is not self.cls:
            raise _mismatch(path, f"a {self.cls.__name__}", value)
        items, context = torch_pytree.SUPPORTED_NODES[self.cls].flatten_fn(value)
        if _plain(context) != self.context or len(items) != len(self.parts):
            raise InputError(f"{path}: expected a {self.cls.__name__} with {self.context}, got one with {context}")
        for k, (part, item) in enumerate(zip(self.parts, items, strict=True)):
            part.flatten(item, f"{path}[{k}]", leaves)

    def unflatten(self, leaves: Iterator[object]) -> object:
        """Build by the registered function."""
        items = [part.unflatten(leaves) for part in self.parts]
        result: object = torch_pytree.SUPPORTED_NODES[self.cls].unflatten_fn(items, self.context)
        return result

    def paths(self, path: str) -> Iterator[str]:
        """Yield the parts' paths."""
        for k, part in enumerate(self.parts):
            yield from part.paths(f"{path}[{k}]")


def _mismatch(path: str, expected: str, got: object) -> InputError:
    return InputError(f"{path}: expected {expected}, got a value of type {type(got).__name__}")


# ── encode: torch's tree specification → JSON ─────────────────────────────────────────────────────────────────────────


def encode_call(
    arguments: torch_pytree.TreeSpec,
    result: torch_pytree.TreeSpec,
    constants: Mapping[int, PythonValue],
    parameters: Sequence[str] = (),
) -> dict[str, Json]:
    """Return the manifest's `call`: both structures, the constant arguments by leaf position, the parameters' names.

    `arguments` is the structure of `(args, kwargs)`. Raises `CaptureError` for a node that cannot be written down.
    """
    return {
        "arguments": encode(arguments),
        "result": encode(result),
        "constants": {str(position): encode_value(value) for position, value in sorted(constants.items())},
        "parameters": list(parameters),
    }


def parameter_names(fn: Callable[..., object]) -> tuple[str, ...]:
    """Return the names of the positional parameters of a function or module, as far as they have names."""
    try:
        parameters = inspect.signature(getattr(fn, "forward", fn)).parameters.values()
    except (TypeError, ValueError):
        return ()
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in named)


def encode(spec: torch_pytree.TreeSpec) -> Json:
    """Return the structure as JSON; raises `CaptureError` naming a type that cannot be written down."""
    if spec.is_leaf():
        return LEAF
    kind: object = spec.type
    items = [encode(child) for child in spec.children()]
    for cls, name in ((tuple, "tuple"), (list, "list")):
        if kind is cls:
            return {"kind": name, "items": items}
    if kind is dict or kind is collections.OrderedDict:
        name = "dict" if kind is dict else "ordered_dict"
        return {"kind": name, "keys": _keys(spec.context), "items": items}
    if kind is collections.defaultdict:
        factory, keys = spec.context
        name = getattr(factory, "__name__", "")
        if getattr(builtins, name, None) is not factory:
            raise CaptureError(f"a defaultdict whose factory is {factory!r} cannot be part of a library's call")
        return {"kind": "default_dict", "factory": name, "keys": _keys(keys), "items": items}
    if kind is collections.deque:
        return {"kind": "deque", "maxlen": spec.context, "items": items}
    if kind is collections.namedtuple:
        return {"kind": "sequence", "type": _type_name(spec.context), "make": "args", "items": items}
    assert isinstance(kind, type)
    if issubclass(kind, tuple):
        return {"kind": "sequence", "type": _type_name(kind), "make": "list", "items": items}
    if dataclasses.is_dataclass(kind) and not issubclass(kind, Mapping):
        fields, none = spec.context
        return {"kind": "dataclass", "type": _type_name(kind), "fields": [*fields], "none": [*none], "items": items}
    return {"kind": "registered", "type": _type_name(kind), "context": _plain(spec.context), "items": items}


def _keys(keys: Sequence[object]) -> Json:
    for key in keys:
        if not isinstance(key, str | int | float | None):
            raise CaptureError(f"the dict key {key!r} cannot be part of a library's call; use strings or numbers")
    return [encode_value(key) for key in keys]  # type: ignore[arg-type]


def _type_name(cls: type) -> str:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if "<locals>" in name:
        raise CaptureError(
            f"{cls.__qualname__} is defined inside a function, where a saved library cannot find it again; "
            "define it at the top of a module"
        )
    return name


def _plain(context: object) -> Json:
    """Return a registered node's context as JSON would give it back; raises `CaptureError` if it is not plain data."""
    if isinstance(context, str | int | float | None):
        return context
    if isinstance(context, list | tuple):
        return [_plain(item) for item in context]
    if isinstance(context, dict) and all(isinstance(key, str) for key in context):
        return {key: _plain(value) for key, value in context.items()}
    raise CaptureError(f"a registered pytree node whose context is {context!r} cannot be part of a library's call")


def encode_value(value: PythonValue) -> Json:
    """Return a Python constant as JSON; floats that JSON lacks become {"float": "nan" | "inf" | "-inf"}."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


# ── decode: JSON → structure ──────────────────────────────────────────────────────────────────────────────────────────


def decode_value(data: Json) -> PythonValue:
    """Invert `encode_value`."""
    if isinstance(data, Mapping):
        return float(str(data["float"]))
    assert isinstance(data, bool | int | float | str | None)
    return data


def decode(data: Json) -> Structure:
    """Make the structure that `encode` wrote; raises `LibraryFormatError` where a type cannot be imported."""
    if data == LEAF:
        return Leaf()
    if not isinstance(data, Mapping) or data.get("kind") not in _DECODERS:
        raise LibraryFormatError(f"the manifest describes an argument structure this mkwrap does not know: {data!r}")
    return _DECODERS[str(data["kind"])](data)


def _parts(data: Mapping[str, Json]) -> tuple[Structure, ...]:
    return tuple(decode(item) for item in _list(data["items"]))


def _list(data: Json) -> Sequence[Json]:
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise LibraryFormatError(f"the manifest has {data!r} where a list belongs")
    return data


def _decoded_keys(data: Mapping[str, Json]) -> tuple[PythonValue, ...]:
    return tuple(decode_value(key) for key in _list(data["keys"]))


def _named_type(data: Mapping[str, Json]) -> type:
    name = str(data["type"])
    module, _, qualified = name.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise LibraryFormatError(
            f"the library's call uses the type {name}, which cannot be found here: {error}"
        ) from error
    if not isinstance(found, type):
        raise LibraryFormatError(f"the library's call uses {name}, which is not a type here")
    return found


def _sequence(data: Mapping[str, Json]) -> Structure:
    cls = _named_type(data)
    if data["make"] == "args":
        return Items(cls, _parts(data), lambda items: cls(*items))
    return Items(cls, _parts(data), cls)


def _deque(data: Mapping[str, Json]) -> Structure:
    limit = data["maxlen"]
    assert limit is None or isinstance(limit, int)
    return Items(collections.deque, _parts(data), lambda items: collections.deque(items, maxlen=limit))


def _default_dict(data: Mapping[str, Json]) -> Structure:
    factory = getattr(builtins, str(data["factory"]))
    return Entries(
        collections.defaultdict,
        _decoded_keys(data),
        _parts(data),
        lambda entries: collections.defaultdict(factory, entries),
    )


def _dataclass(data: Mapping[str, Json]) -> Structure:
    fields, none = (tuple(str(name) for name in _list(data[key])) for key in ("fields", "none"))
    return Record(_named_type(data), fields, none, _parts(data))


def _registered(data: Mapping[str, Json]) -> Structure:
    cls = _named_type(data)
    if cls not in torch_pytree.SUPPORTED_NODES:
        raise LibraryFormatError(
            f"the library's call uses {data['type']}, which nothing has registered with torch here"
        )
    return Registered(cls, data["context"], _parts(data))


_DECODERS: Mapping[str, Callable[[Mapping[str, Json]], Structure]] = {
    "tuple": lambda data: Items(tuple, _parts(data), tuple),
    "list": lambda data: Items(list, _parts(data), list),
    "dict": lambda data: Entries(dict, _decoded_keys(data), _parts(data), dict),
    "ordered_dict": lambda data: Entries(
        collections.OrderedDict, _decoded_keys(data), _parts(data), collections.OrderedDict
    ),
    "default_dict": _default_dict,
    "deque": _deque,
    "sequence": _sequence,
    "dataclass": _dataclass,
    "registered": _registered,
}
