"""Structures survive JSON and agree with torch's pytrees."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.utils._pytree as torch_pytree

from mkwrap import errors
from mkwrap.pytree import decode, decode_value, encode, encode_call, encode_value


class Point(NamedTuple):
    x: object
    y: object


@dataclass
class Outputs:
    logits: object
    hidden: object = None
    extra: object = None


class Box:
    def __init__(self, content: object, label: str) -> None:
        self.content, self.label = content, label


@dataclass
class Unregistered:
    x: object


torch_pytree.register_dataclass(Outputs, serialized_type_name="tests.mkwrap.Outputs")
torch_pytree.register_pytree_node(
    Box,
    lambda box: ([box.content], [box.label]),
    lambda items, context: Box(next(iter(items)), context[0]),
    serialized_type_name="tests.mkwrap.Box",
)

CASES = [
    0,
    (),
    [],
    {},
    (1, [2, {"a": 3, "b": (4,)}]),
    {"z": 1, "a": 2, 3: 4, None: 5},
    Point(1, [Point(2, 3)]),
    OrderedDict(b=1, a=2),
    defaultdict(list, {"q": 1, "r": (2,)}),
    deque([1, 2], maxlen=4),
    Outputs(1, extra=[2, 3]),
    torch.return_types.max((1, 2)),
]


@pytest.mark.parametrize("value", CASES, ids=str)
def test_round_trip(value: object) -> None:
    leaves, spec = torch_pytree.tree_flatten(value)
    structure = decode(json.loads(json.dumps(encode(spec))))
    mine: list[object] = []
    structure.flatten(value, "args", mine)
    assert mine == leaves
    again = structure.unflatten(iter(leaves))
    assert type(again) is type(value)
    assert again == value
    assert len(list(structure.paths("args"))) == len(leaves)


def test_registered_node() -> None:
    leaves, spec = torch_pytree.tree_flatten([Box({"a": 1}, "cup")])
    structure = decode(json.loads(json.dumps(encode(spec))))
    again = structure.unflatten(iter(leaves))
    assert isinstance(again, list)
    assert (again[0].content, again[0].label) == ({"a": 1}, "cup")
    with pytest.raises(errors.InputError, match=r"args\[0\]: expected a Box with \['cup'\]"):
        structure.flatten([Box({"a": 1}, "jug")], "args", [])


def test_order_of_dict_keys_does_not_matter() -> None:
    _, spec = torch_pytree.tree_flatten({"a": 1, "b": 2})
    leaves: list[object] = []
    decode(encode(spec)).flatten({"b": 2, "a": 1}, "args", leaves)
    assert leaves == [1, 2]


def test_paths() -> None:
    _, spec = torch_pytree.tree_flatten(({"m": [1]}, Outputs(1)))
    assert list(decode(encode(spec)).paths("args")) == ["args[0]['m'][0]", "args[1].logits"]


@pytest.mark.parametrize(
    ("example", "value", "message"),
    [
        ((1, 2), (1,), "args: expected a tuple of 2, got one of 1"),
        ((1, 2), [1, 2], "args: expected a tuple of 2, got a value of type list"),
        ({"a": 1}, {"b": 1}, r"args: expected the keys \['a'\], got \['b'\]"),
        ({"a": 1}, OrderedDict(a=1), "got a value of type OrderedDict"),
        ([{"a": (1,)}], [{"a": 1}], r"args\[0\]\['a'\]: expected a tuple of 1, got a value of type int"),
        (Outputs(1), Outputs(1, hidden=2), "args.hidden: expected None"),
        (Outputs(1), Point(1, 2), "args: expected a Outputs, got a value of type Point"),
    ],
)
def test_another_structure(example: object, value: object, message: str) -> None:
    _, spec = torch_pytree.tree_flatten(example)
    with pytest.raises(errors.InputError, match=message):
        decode(encode(spec)).flatten(value, "args", [])


def test_what_cannot_be_written_down() -> None:
    class Local(NamedTuple):
        x: int

    for value, message in [
        (Local(1), "defined inside a function"),
        ({(1, 2): 3}, "dict key"),
        (defaultdict(lambda: 0, a=1), "factory"),
        (Box(1, object()), "context"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(errors.CaptureError, match=message):
            encode(torch_pytree.tree_structure(value))


def test_types_that_are_gone() -> None:
    missing = {"kind": "sequence", "type": "tests.nowhere:Point", "make": "args", "items": []}
    with pytest.raises(errors.LibraryFormatError, match=r"tests\.nowhere:Point"):
        decode(missing)
    function = {"kind": "dataclass", "type": "os.path:join", "fields": [], "none": [], "items": []}
    with pytest.raises(errors.LibraryFormatError, match="not a type"):
        decode(function)
    unregistered = {"kind": "registered", "type": f"{__name__}:Unregistered", "context": None, "items": []}
    with pytest.raises(errors.LibraryFormatError, match="registered with torch"):
        decode(unregistered)
    for nonsense in ({"kind": "spiral"}, 3, None, ["*"]):
        with pytest.raises(errors.LibraryFormatError, match="does not know"):
            decode(nonsense)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, True, 3, -0.5, "text", math.inf, -math.inf, math.nan])
def test_values(value: bool | int | float | str | None) -> None:
    again = decode_value(json.loads(json.dumps(encode_value(value), allow_nan=False)))
    assert repr(again) == repr(value)


def test_call() -> None:
    _, arguments = torch_pytree.tree_flatten(((1, 2.5), {"k": "mode"}))
    call = encode_call(arguments, torch_pytree.tree_structure(0), {1: math.inf, 2: "mode"})
    assert call["result"] == "*"
    assert call["constants"] == {"1": {"float": "inf"}, "2": "mode"}
