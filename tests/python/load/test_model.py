"""Models as Python calls them: structures of arguments and results, saving, reports."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import mkwrap
from mkwrap import errors
from mkwrap.report import spell_bytes
from tests.python.binding.hand_library import ADD_ONE, HandLibrary, Tensor
from tests.python.load.libraries import buffer, sealed

pytestmark = pytest.mark.toolchain


class Pair(NamedTuple):
    left: object
    right: object


TWO_INPUTS = HandLibrary(
    inputs=[Tensor((2, 3)), Tensor((2, 3))],
    outputs=[Tensor((2, 3))],
    body="for (int i = 0; i < 6; ++i) out[0][i] = in[0][i] - in[1][i]; return 0;",
)


def test_flat_calls(tmp_path: Path) -> None:
    model = sealed(tmp_path / "m.so", ADD_ONE, [0], {}, 0, [buffer(0)])
    assert model.flat == "single"
    assert torch.equal(model(torch.zeros(8)), torch.ones(8))
    with pytest.raises(errors.InputError, match="args: expected a tuple of 1, got one of 2"):
        model(torch.zeros(8), torch.zeros(8))
    with pytest.raises(errors.InputError, match="kwargs"):
        model(torch.zeros(8), x=1)
    with pytest.raises(errors.InputError, match=r"args\[0\].*got a value of type list"):
        model([torch.zeros(8)])


@pytest.mark.parametrize("cls", [tuple, list])
def test_flat_sequences(tmp_path: Path, cls: type) -> None:
    model = sealed(tmp_path / "m.so", ADD_ONE, [0], {}, cls([0]), [buffer(0)])
    assert model.flat == cls.__name__
    result = model(torch.zeros(8))
    assert type(result) is cls
    assert torch.equal(result[0], torch.ones(8))


def test_r10_structures(tmp_path: Path) -> None:
    args = [{"a": 0, "b": [0, 3]}]
    result = OrderedDict(first=Pair(0, (0, 0)), second=[0, {"n": 0, 7: 0}])
    outputs = [
        buffer(0),
        {"kind": "same", "same_as": 0},
        {"kind": "input_view", "input": 1, "shape": [3], "strides": [1], "offset": 3, "identical": False},
        {"kind": "input_view", "input": 0, "shape": [2, 3], "strides": [3, 1], "offset": 0, "identical": True},
        {"kind": "value", "value": {"float": "nan"}},
        {"kind": "value", "value": None},
    ]
    model = sealed(tmp_path / "m.so", TWO_INPUTS, args, {"k": 0}, result, outputs, {2: 3, 3: "mode"})
    assert model.flat == "none"
    x, y = torch.arange(6.0).reshape(2, 3), torch.arange(12.0)[4:10].reshape(2, 3)
    got = model({"b": [y, 3], "a": x}, k="mode")
    assert list(got) == ["first", "second"]
    assert type(got) is OrderedDict
    assert type(got["first"]) is Pair
    difference, (same, view) = got["first"]
    assert torch.equal(difference, x - y)
    assert same is difference
    assert torch.equal(view, y[1])
    view += 100
    assert y[1].tolist() == [107, 108, 109], "the view aliases the input"
    assert got["second"][0] is x
    assert np.isnan(got["second"][1]["n"])
    assert got["second"][1][7] is None


def test_constant_arguments_must_be_equal(tmp_path: Path) -> None:
    constants = {1: 3, 2: True, 3: float("nan"), 4: None}
    model = sealed(tmp_path / "m.so", ADD_ONE, [0, 3, True], {"eps": 0.0, "m": None}, 0, [buffer(0)], constants)
    x = torch.zeros(8)
    assert torch.equal(model(x, 3, True, m=None, eps=float("nan")), torch.ones(8))
    with pytest.raises(errors.InputError, match=r"args\[1\]: expected the constant 3 .*got 4"):
        model(x, 4, True, eps=float("nan"), m=None)
    with pytest.raises(errors.InputError, match=r"args\[2\]: expected the constant True .*got 1"):
        model(x, 3, 1, eps=float("nan"), m=None)
    with pytest.raises(errors.InputError, match=r"kwargs\['eps'\]: expected the constant nan .*got 0.5"):
        model(x, 3, True, eps=0.5, m=None)
    with pytest.raises(errors.InputError, match=r"kwargs\['m'\]: expected the constant None .*type Tensor"):
        model(x, 3, True, eps=float("nan"), m=x)
    with pytest.raises(errors.InputError, match="expected the keys"):
        model(x, 3, True)


def test_views_of_arrays(tmp_path: Path) -> None:
    view = {"kind": "input_view", "input": 0, "shape": [2], "strides": [3], "offset": 1, "identical": False}
    model = sealed(tmp_path / "m.so", TWO_INPUTS, [0, 0], {}, 0, [view])
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = model(x, torch.zeros(2, 3))
    assert got.tolist() == [1, 4]
    x[1, 1] = 9
    assert got.tolist() == [1, 9]


def test_a_result_of_nothing(tmp_path: Path) -> None:
    library = HandLibrary([Tensor((2,), mutated=True)], [], "in[0][0] = 4; return 0;")
    model = sealed(tmp_path / "m.so", library, [0], {}, None, [{"kind": "value", "value": None}])
    x = torch.zeros(2)
    assert model(x) is None
    assert x.tolist() == [4, 0]


def test_save_and_load(tmp_path: Path) -> None:
    model = sealed(tmp_path / "m.so", ADD_ONE, [0], {}, 0, [buffer(0)])
    content = (tmp_path / "m.so").read_bytes()
    (tmp_path / "m.so").unlink()
    (tmp_path / "saved.so").write_bytes(b"an older model")
    model.save(tmp_path / "saved.so")
    assert (tmp_path / "saved.so").read_bytes() == content
    again = mkwrap.load(tmp_path / "saved.so")
    assert torch.equal(again(torch.zeros(8)), torch.ones(8))
    assert again.manifest == model.manifest
    missing = tmp_path / "nowhere" / "m.so"
    with pytest.raises(errors.CacheError, match=rf"to {missing}: there is no folder {missing.parent}"):
        model.save(missing)
    with pytest.raises(errors.CacheError, match=rf"to {tmp_path}: it is a folder"):
        model.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.cpp", "saved.so"]


@pytest.mark.parametrize("path", [None, 3, b"m.so"])
@pytest.mark.parametrize(
    "load", [mkwrap.load, lambda path: mkwrap.load(path, tune=True), mkwrap.tune_library, mkwrap.Model]
)
def test_what_is_no_path_is_refused(load: Callable[[object], object], path: object) -> None:
    with pytest.raises(errors.InputError, match="the path of a library is expected, got "):
        load(path)


@pytest.mark.parametrize("device", ["cuda:3", None, 1.0, True])
def test_a_device_is_an_ordinal(tmp_path: Path, device: object) -> None:
    sealed(tmp_path / "m.so", ADD_ONE, [0], {}, 0, [buffer(0)])
    with pytest.raises(errors.InputError, match=r"device is .*; expected a device's ordinal"):
        mkwrap.load(tmp_path / "m.so", device=device)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", [-1, 2**32])
def test_an_ordinal_is_in_range(tmp_path: Path, device: int) -> None:
    sealed(tmp_path / "m.so", ADD_ONE, [0], {}, 0, [buffer(0)])
    with pytest.raises(errors.TargetError, match=f"there is no cpu device {device}"):
        mkwrap.load(tmp_path / "m.so", device=device)


def test_options_are_options(tmp_path: Path) -> None:
    sealed(tmp_path / "m.so", ADD_ONE, [0], {}, 0, [buffer(0)])
    for call in (mkwrap.load, mkwrap.tune_library):
        with pytest.raises(errors.OptionError, match=r"options is .*; expected a mkwrap\.Options"):
            call(tmp_path / "m.so", options={"tune": "off"})  # type: ignore[operator]


def test_load_in_a_fresh_process(tmp_path: Path) -> None:
    sealed(
        tmp_path / "m.so",
        ADD_ONE,
        [Pair(0, 1)],
        {},
        {"y": Pair(0, 2)},
        [buffer(0), {"kind": "value", "value": 2}],
        {1: 1},
    )
    program = (
        "import mkwrap, torch; from tests.python.load.test_model import Pair; "
        f"y = mkwrap.load({str(tmp_path / 'm.so')!r})(Pair(torch.zeros(8), 1))['y']; "
        "assert type(y) is Pair and y.right == 2, y; print(y.left.tolist())"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1.0] * 8


def test_signature_and_repr(tmp_path: Path) -> None:
    model = sealed(tmp_path / "m.so", TWO_INPUTS, [0, 0], {}, 0, [buffer(0)])
    assert str(model.signature) == "(args[0]: float32[2, 3], args[1]: float32[2, 3]) → float32[2, 3]"
    assert "m.so for cpu:test-arch" in repr(model)
    assert model.signature.inputs[1].strides == (3, 1)
    assert (model.device_type, model.workspace_bytes) == ("cpu", 0)
    model.create(0)
    assert model.workspace_bytes == 64


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1536, "1.5 KiB"), (1 << 33, "8.0 GiB"), (1 << 49, "512.0 TiB"), (1 << 62, "4.0 EiB")],
)
def test_bytes_have_a_unit_that_fits(size: int, text: str) -> None:
    assert spell_bytes(size) == text


def test_report(tmp_path: Path) -> None:
    model = sealed(tmp_path / "m.so", ADD_ONE, [0], {}, 0, [buffer(0)])
    stream = io.StringIO()
    print(model.report, file=stream)
    lines = stream.getvalue().splitlines()

    def row(*words: str) -> str:
        return next(line for line in lines if all(word in line for word in words))

    assert "a [red] machine" in row("cpu:test-arch", "1 kernel, 2 steps")
    assert "3.0 MiB" in row("traffic")
    assert row("kernel0 ×2", "measured", "aten.add.Tensor")
    assert "►" in row("pointwise[unroll=1]", "1.50 µs", "0.25")
    assert "►" not in row("pointwise[unroll=4]", "2.50 µs", "1.67×")
    assert row("split[parts=9]")
    assert row("rejected: g++: [bold] error")
    kernel = model.report.kernels[0]
    assert (kernel.winner, kernel.uses) == ("pointwise[unroll=1]", 2)
    assert [variant.rejected for variant in kernel.variants] == ["", "", "g++: [bold] error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"call": {"arguments": "*", "result": "*", "constants": {}}}, "pair of args and kwargs"),
        ({"outputs": []}, "other arguments than its code"),
        ({"outputs": [{"kind": "hologram"}]}, "hologram"),
        ({"outputs": [{"kind": "buffer", "index": "0"}]}, "cannot be read"),
    ],
)
def test_a_manifest_that_is_not_understood(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "m.so"
    outputs = change.get("outputs", [buffer(0)])
    assert isinstance(outputs, list)
    library = HandLibrary(ADD_ONE.inputs, ADD_ONE.outputs, ADD_ONE.body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.python.load.libraries.encode_call", lambda *_: change.get("call", _call()))
        patch.setitem(_manifest(), "format", change.get("format", 1))
        with pytest.raises(errors.LibraryFormatError, match=message):
            sealed(path, library, [0], {}, 0, outputs)


def _call() -> dict[str, object]:
    empty = {"kind": "dict", "keys": [], "items": []}
    arguments = {"kind": "tuple", "items": [{"kind": "tuple", "items": ["*"]}, empty]}
    return {"arguments": arguments, "result": "*", "constants": {}}


def _manifest() -> dict[str, object]:
    from tests.python.load import libraries  # noqa: PLC0415 — patched in place

    assert isinstance(libraries.MANIFEST, dict)
    return libraries.MANIFEST


def test_import_is_light() -> None:
    program = "import sys, mkwrap, mkwrap._C; mkwrap.Options; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.split() == ["False", "False"]
    assert set(mkwrap.__all__) <= set(dir(mkwrap))
    assert (mkwrap.include_dir() / "mkwrap" / "abi.h").exists()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mkwrap.nothing  # type: ignore[attr-defined]
