"""The call of a library, read from its manifest: arguments to input tensors, output buffers to the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch.utils.dlpack import from_dlpack

from mkwrap.errors import InputError, LibraryFormatError
from mkwrap.pytree import Items, Leaf, PythonValue, Structure, decode, decode_value
from mkwrap.sizes import read_size

if TYPE_CHECKING:
    from mkwrap.pytree import Json

Flat: TypeAlias = Literal["none", "single", "tuple", "list"]
Give: TypeAlias = Callable[[Sequence[object], Sequence[object], Sequence[object]], object]
"""Makes one leaf of the result from the input tensors, the output buffers and the leaves before it."""
ReadSizes: TypeAlias = Callable[[Sequence[object]], Mapping[str, int]]
"""Gives the values of the symbols for the input tensors of a call."""


@dataclass(frozen=True)
class Call:
    """How arguments become inputs, and leaves become the result."""

    args: Structure
    kwargs: Structure
    paths: tuple[str, ...]
    """How the user writes each leaf of the arguments."""
    constants: Mapping[int, PythonValue]
    """Leaves that are no tensors: every call must pass equal ones."""
    result: Structure

    def flatten(self, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[object, ...]:
        """Return the input tensors in order; raises `InputError` naming the argument that differs."""
        leaves: list[object] = []
        self.args.flatten(args, "args", leaves)
        self.kwargs.flatten(kwargs, "kwargs", leaves)
        for position, expected in self.constants.items():
            if not _equal(leaves[position], expected):
                raise InputError(
                    f"{self.paths[position]}: expected the constant {expected!r} it was compiled with, "
                    f"got {_spell(leaves[position])}"
                )
        return tuple(leaf for k, leaf in enumerate(leaves) if k not in self.constants)

    @property
    def flat(self) -> Flat:
        """Say what a call returns whose arguments are all tensors, by position; "none" if they are structured."""
        if self.constants or list(self.kwargs.paths("")) or not _all_leaves(self.args, tuple):
            return "none"
        if isinstance(self.result, Leaf):
            return "single"
        if _all_leaves(self.result, tuple):
            return "tuple"
        return "list" if _all_leaves(self.result, list) else "none"


def _all_leaves(structure: Structure, cls: type) -> bool:
    return (
        isinstance(structure, Items)
        and structure.cls is cls
        and all(isinstance(part, Leaf) for part in structure.parts)
    )


def _equal(got: object, expected: PythonValue) -> bool:
    if type(got) is not type(expected):
        return False
    return got == expected or (isinstance(expected, float) and repr(got) == repr(expected) == "nan")


def _spell(value: object) -> str:
    plain = isinstance(value, bool | int | float | str | None)
    return repr(value) if plain else f"a value of type {type(value).__name__}"


def read_call(call: Mapping[str, object]) -> Call:
    """Read the manifest's `call`, as `pytree.encode_call` wrote it."""
    arguments = decode(_json(call["arguments"]))
    if not isinstance(arguments, Items) or len(arguments.parts) != 2:
        raise LibraryFormatError("the manifest's arguments are not a pair of args and kwargs")
    args, kwargs = arguments.parts
    constants = {int(k): decode_value(_json(v)) for k, v in mapping(call["constants"]).items()}
    paths = (*args.paths("args"), *kwargs.paths("kwargs"))
    return Call(args, kwargs, paths, constants, decode(_json(call["result"])))


def giver(output: Mapping[str, object], sizes: ReadSizes) -> Give:
    """Return what makes the result leaf that an entry of the manifest's `outputs` describes."""
    match output["kind"]:
        case "buffer":
            index = _int(output["index"])
            return lambda _inputs, buffers, _earlier: buffers[index]
        case "same":
            same_as = _int(output["same_as"])
            return lambda _inputs, _buffers, earlier: earlier[same_as]
        case "value":
            value = decode_value(_json(output["value"]))
            return lambda _inputs, _buffers, _earlier: value
        case "input_view" if output["identical"]:
            number = _int(output["input"])
            return lambda inputs, _buffers, _earlier: inputs[number]
        case "input_view":
            return _view_giver(output, sizes)
        case kind:
            raise LibraryFormatError(
                f"the manifest describes an output of kind {kind!r}, which this mkwrap does not know"
            )


def _view_giver(output: Mapping[str, object], sizes: ReadSizes) -> Give:
    number, offset = _int(output["input"]), read_size(output["offset"])
    shape = [read_size(size) for size in sequence(output["shape"])]
    strides = [read_size(stride) for stride in sequence(output["strides"])]

    def give(inputs: Sequence[object], _buffers: Sequence[object], _earlier: Sequence[object]) -> object:
        base = inputs[number]
        tensor = base if isinstance(base, torch.Tensor) else from_dlpack(base)
        values = sizes(inputs)
        extents, steps = ([size(values) for size in each] for each in (shape, strides))
        return tensor.as_strided(extents, steps, tensor.storage_offset() + offset(values))

    return give


@dataclass(frozen=True)
class Symbol:
    """A dynamic size: its name, its inclusive range, and where it is read.

    Dimension `dim` of the library's input number `input` is `scale`·size + `offset` long.
    """

    name: str
    low: int
    high: int
    """2⁶³ − 1 where there is no bound."""
    input: int
    dim: int
    scale: int = 1
    offset: int = 0


def read_symbols(manifest: Mapping[str, object]) -> tuple[Symbol, ...]:
    """Read the manifest's `symbols`."""
    return tuple(
        Symbol(str(entry["name"]), *(_int(entry[key]) for key in ("low", "high", "input", "dim", "scale", "offset")))
        for entry in map(mapping, sequence(manifest["symbols"]))
    )


def size_reader(symbols: Sequence[Symbol]) -> ReadSizes:
    """Return what reads the symbols' values from inputs that a run has checked."""

    def read(inputs: Sequence[object]) -> Mapping[str, int]:
        found = {}
        for symbol in symbols:
            base = inputs[symbol.input]
            extent = (base if isinstance(base, torch.Tensor) else from_dlpack(base)).shape[symbol.dim]
            found[symbol.name] = (int(extent) - symbol.offset) // symbol.scale
        return found

    return read


def mapping(value: object) -> Mapping[str, object]:
    """Check that a value read from JSON is an object."""
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {value!r}")
    return value


def sequence(value: object) -> Sequence[object]:
    """Check that a value read from JSON is a list."""
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return value


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer, got {value!r}")
    return value


def _json(value: object) -> Json:
    if not isinstance(value, bool | int | float | str | list | Mapping | None):
        raise TypeError(f"expected JSON, got {value!r}")
    return value
