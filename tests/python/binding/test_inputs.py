"""What a call takes: everything that is not the tensor it was compiled for is refused by name (R1)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

from mkwrap import _C, errors
from tests.python.binding.hand_library import ADD_ONE, HandLibrary, Tensor, build

pytestmark = pytest.mark.toolchain


def opened(path: Path, flat: str = "single", *, exchange: bool = True) -> _C.Model:
    with path.open("rb") as file:
        model = _C.Model(file.fileno(), str(path), exchange)
    model.flat = flat  # type: ignore[assignment]
    return model


@pytest.fixture(scope="module")
def add_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ADD_ONE, tmp_path_factory.mktemp("libraries") / "add_one.so")


@pytest.fixture(params=[True, False], ids=["exchange", "protocol"])
def model(request: pytest.FixtureRequest, add_one: Path) -> _C.Model:
    made = opened(add_one, exchange=request.param)
    assert made.exchange is request.param
    return made


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(8)


class TwoFaced(torch.Tensor):
    """A tensor with operations of its own."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def] # noqa: ANN206, ANN001
        raise AssertionError("no operation may run on this tensor")


REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("fp32[4]", lambda: torch.zeros(4), r"shape: expected \[8\], got \[4\]"),
    ("int64[8]", lambda: torch.zeros(8, dtype=torch.int64), "dtype: expected float32, got int64"),
    ("fp64[8]", lambda: torch.zeros(8, dtype=torch.float64), "dtype: expected float32, got float64"),
    ("rank", lambda: torch.zeros(2, 4), "expected 1 dimensions"),
    ("strided view", lambda: torch.zeros(16)[::2], r"strides: expected \[1\] .*got \[2\]"),
    ("another device", lambda: torch.zeros(8, device="meta"), r"expected .* on cpu, got .*meta"),
    ("conj view", lambda: torch.zeros(8, dtype=torch.complex64).conj(), "expected .*float32.*got"),
    ("neg view", lambda: torch.zeros(8, dtype=torch.complex64).conj().imag, "negated view"),
    ("neg view of a real", lambda: torch._neg_view(torch.ones(8)), "negated view"),
    ("FakeTensor", fake, "got a FakeTensor"),
    ("own operations", lambda: torch.zeros(8).as_subclass(TwoFaced), "got a TwoFaced"),
    ("requires grad", lambda: torch.zeros(8, requires_grad=True), "requires a gradient"),
    ("Parameter", lambda: torch.nn.Parameter(torch.zeros(8)), "requires a gradient"),
    ("sparse", lambda: torch.zeros(8).to_sparse(), "got a Tensor"),
    ("quantized", lambda: torch.quantize_per_tensor(torch.zeros(8), 1.0, 0, torch.qint8), "got a Tensor"),
    ("list", lambda: [1.0] * 8, "got a value of type list"),
    ("None", lambda: None, "got a value of type NoneType"),
    ("number", lambda: 3.0, "got a value of type float"),
    ("big-endian", lambda: np.zeros(8, ">f4"), "byte order"),
    ("strided array", lambda: np.zeros(16, np.float32)[::2], r"strides: expected \[1\]"),
    ("array of fp64", lambda: np.zeros(8), "dtype: expected float32, got float64"),
]


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning", "ignore:.*quantize_per_tensor")
def test_r1_refused(model: _C.Model, make: Callable[[], object], message: str) -> None:
    argument = make()
    with pytest.raises(errors.InputError, match=message) as caught:
        model(argument)
    text = str(caught.value)
    assert text.startswith("args[0]: ")
    assert "expected" in text
    assert "got" in text
    assert "\n" not in text
    assert torch.equal(model(torch.ones(8)), torch.full((8,), 2.0)), "the model is usable after a refusal"


def test_r1_misaligned(tmp_path: Path) -> None:
    aligned = HandLibrary([Tensor((8,), alignment=16)], [Tensor((8,))], ADD_ONE.body)
    model = opened(build(aligned, tmp_path / "aligned.so"))
    memory = torch.zeros(64)
    shift = next(k for k in range(4) if memory[k:].data_ptr() % 16 == 0)
    assert torch.equal(model(memory[shift : shift + 8]), torch.ones(8))
    with pytest.raises(errors.InputError, match="multiple of 16"):
        model(memory[shift + 1 : shift + 9])


ACCEPTED: list[tuple[str, Callable[[], object]]] = [
    ("offset view", lambda: torch.arange(16.0)[3:11]),
    ("array", lambda: np.arange(3.0, 11.0, dtype=np.float32)),
    ("column", lambda: torch.arange(3.0, 11.0).reshape(8, 1)[:, 0]),
    ("plain subclass", lambda: torch.arange(3.0, 11.0).as_subclass(type("Plain", (torch.Tensor,), {}))),
]


@pytest.mark.parametrize("make", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepted(model: _C.Model, make: Callable[[], object]) -> None:
    assert torch.equal(model(make()), torch.arange(4.0, 12.0))


def test_read_only_array_is_accepted_where_it_is_only_read(model: _C.Model) -> None:
    array = np.zeros(8, np.float32)
    array.flags.writeable = False
    assert torch.equal(model(array), torch.ones(8))


def test_parameter_without_gradients(model: _C.Model) -> None:
    weight = torch.nn.Parameter(torch.ones(8))
    with torch.no_grad():
        result = model(weight)
    assert torch.equal(result, torch.full((8,), 2.0))
    assert not result.requires_grad


def test_inference_mode(model: _C.Model) -> None:
    with torch.inference_mode():
        assert torch.equal(model(torch.ones(8)), torch.full((8,), 2.0))


def test_no_run_on_tensors_without_memory(model: _C.Model) -> None:
    x = torch.ones(8)
    with FakeTensorMode(), pytest.raises(errors.InputError, match="expected"):
        model(x)
    with pytest.raises(errors.InputError, match="expected"):
        torch.vmap(model)(torch.zeros(3, 8))


def test_mutated_inputs(tmp_path: Path) -> None:
    library = HandLibrary(
        [Tensor((4,), mutated=True), Tensor((4,))],
        [],
        "for (int i = 0; i < 4; ++i) in[0][i] += in[1][i]; return 0;",
    )
    model = opened(build(library, tmp_path / "add.so"), "tuple")
    x, y = torch.zeros(4), torch.ones(4)
    assert model(x, y) == ()
    assert torch.equal(x, torch.ones(4))
    array = np.zeros(4, np.float32)
    model(array, y)
    assert array.tolist() == [1, 1, 1, 1]
    array.flags.writeable = False
    with pytest.raises(errors.InputError, match=r"args\[0\].*read-only"):
        model(array, y)
    shared = torch.zeros(6)
    with pytest.raises(errors.AliasingError, match=r"args\[0\].*args\[1\]"):
        model(shared[:4], shared[2:])
    model(shared[:4], torch.ones(4))
    assert shared.tolist() == [1, 1, 1, 1, 0, 0]


def test_caller_given_outputs(model: _C.Model) -> None:
    out = torch.zeros(8)
    model.run_into((torch.ones(8),), (out,))
    assert torch.equal(out, torch.full((8,), 2.0))
    with pytest.raises(errors.InputError, match=r"output\[0\]"):
        model.run_into((torch.ones(8),), (torch.zeros(7),))
    frozen = np.zeros(8, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(errors.InputError, match="read-only"):
        model.run_into((torch.ones(8),), (frozen,))


def test_descriptor_is_the_models_own(add_one: Path) -> None:
    model = opened(add_one)
    assert os.fstat(model.file).st_size == add_one.stat().st_size
