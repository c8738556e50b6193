"""Compiled functions give back what eager gives, and refuse what they were not compiled for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.utils._pytree as torch_pytree

import mkwrap
from mkwrap import errors
from tests.python.binding.test_inputs import REFUSED

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module")
def add_one(options: mkwrap.Options) -> mkwrap.Model:
    return mkwrap.compile(lambda x: x + 1, (torch.zeros(8),), options=options)


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning", "ignore:.*quantize_per_tensor")
def test_r1_compiled(add_one: mkwrap.Model, make: Callable[[], object], message: str) -> None:
    with pytest.raises(errors.InputError, match=message) as caught:
        add_one(make())
    assert str(caught.value).startswith("args[0]: ")
    assert torch.equal(add_one(torch.ones(8)), torch.full((8,), 2.0))


class Pair(NamedTuple):
    left: object
    right: object


@dataclass
class Record:
    score: object
    parts: object
    note: object = None


torch_pytree.register_dataclass(Record, serialized_type_name="tests.mkwrap.Record")


def views(x: torch.Tensor, y: torch.Tensor) -> object:
    s = x + y
    return {
        "identical": x,
        "view": x.t(),
        "slice": [y[1:], y[:, 0]],
        "twice": (s, s),
        "constant": torch.full((2,), 7.0),
        "number": 3,
        "nothing": None,
        "empty": x[:0] * 2,
        "pair": Pair(s * 2, (s.sum(),)),
        "record": Record(s.mean(), [s.amax(dim=0)]),
    }


def nested_arguments(batch: dict[str, object], scale: float, *, flags: tuple[object, ...]) -> object:
    assert isinstance(batch["x"], torch.Tensor)
    return [batch["x"] * scale + flags[0], batch["name"]]  # type: ignore[operator]


def check_equal(got: object, expected: object) -> None:
    got_leaves, got_spec = torch_pytree.tree_flatten(got)
    leaves, spec = torch_pytree.tree_flatten(expected)
    assert got_spec == spec
    for a, b in zip(got_leaves, leaves, strict=True):
        if isinstance(b, torch.Tensor):
            assert isinstance(a, torch.Tensor)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            torch.testing.assert_close(a, b)
        else:
            assert type(a) is type(b)
            assert a == b


def test_r10_views_and_structures(options: mkwrap.Options, tmp_path: Path) -> None:
    x, y = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)
    mkwrap.compile(views, (x, y), options=options).save(tmp_path / "views.so")
    model = mkwrap.load(tmp_path / "views.so")
    got = model(x, y)
    check_equal(got, views(x, y))
    assert got["identical"] is x
    assert got["twice"][0] is got["twice"][1]
    for part in (got["view"], *got["slice"]):
        assert part.untyped_storage().data_ptr() in (x.untyped_storage().data_ptr(), y.untyped_storage().data_ptr())
    got["view"][0, 0] = 50
    assert x[0, 0] == 50
    fresh = model(x, y)["constant"]
    fresh += 1
    check_equal(model(x, y), views(x, y))


def test_r10_nested_arguments(options: mkwrap.Options) -> None:
    batch: dict[str, object] = {"x": torch.arange(4.0), "name": "b"}
    flags = (torch.ones(4),)
    model = mkwrap.compile(nested_arguments, (batch, 0.5), example_kwargs={"flags": flags}, options=options)
    check_equal(model(batch, 0.5, flags=flags), nested_arguments(batch, 0.5, flags=flags))
    with pytest.raises(errors.InputError, match=r"args\[1\]: expected the constant 0.5"):
        model(batch, 0.25, flags=flags)
    with pytest.raises(errors.InputError, match=r"args\[0\]\['name'\]"):
        model({"x": torch.arange(4.0), "name": "c"}, 0.5, flags=flags)
    with pytest.raises(errors.InputError, match=r"kwargs\['flags'\]\[0\]: wrong shape"):
        model(batch, 0.5, flags=(torch.ones(5),))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA driver")
def test_r4_load_without_driver(options: mkwrap.Options, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    model = mkwrap.compile(lambda x: x + 1, (torch.zeros(8),), target="cuda:sm_90", options=options)
    assert "cuda:sm_90" in str(model.report)
    assert model.signature.inputs[0].shape == (8,)
    model.save(tmp_path / "m.so")
    with pytest.raises(errors.DriverError, match="no CUDA driver on this machine"):
        mkwrap.load(tmp_path / "m.so")
    with pytest.raises(errors.DriverError, match="no CUDA driver on this machine"):
        model(torch.zeros(8))
