"""R8: the weights of a model are swapped while it is called."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

import mkwrap
from mkwrap import errors


class Network(nn.Module):
    """Two layers and a constant that is folded at compile time; all are made of one number."""

    def __init__(self, number: float, wide: int = 24) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, wide), nn.Linear(wide, 16)
        self.shift = nn.Parameter(torch.zeros(16))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x))) + self.shift.exp()


def compiled(number: float, folder: Path, wide: int = 24) -> mkwrap.Model:
    options = mkwrap.Options(tune="off", cache_dir=folder / "cache")
    return mkwrap.compile(Network(number, wide).eval(), (torch.ones(4, 16),), options=options)


def test_r8_weights_are_swapped_under_load(tmp_path: Path) -> None:
    x = torch.ones(4, 16)
    numbers = [0.5, 1.0, 1.5]
    sources = [compiled(number, tmp_path) for number in numbers]
    expected = [float(Network(number)(x)[0, 0].detach()) for number in numbers]
    server = compiled(numbers[0], tmp_path)
    server(x)
    done = threading.Event()

    def serve(_: int) -> int:
        calls = 0
        while not done.is_set():
            y = server(x)
            assert min(abs(y - value).max().item() for value in expected) < 1e-3, "a mixture of weights"
            calls += 1
        return calls

    with ThreadPoolExecutor(4) as pool:
        serving = pool.map(serve, range(4))
        try:
            for k in range(90):
                server.use_weights(sources[k % 3])
                torch.testing.assert_close(server(x), torch.full((4, 16), expected[k % 3]))
        finally:
            done.set()
        assert all(calls > 0 for calls in serving)
    assert server.contexts <= 6, "contexts with the weights of old are gone"


def test_weights_outlive_the_model_they_are_from(tmp_path: Path) -> None:
    x = torch.ones(4, 16)
    server, source = compiled(0.5, tmp_path), compiled(1.0, tmp_path)
    server(x)
    expected = source(x)
    server.use_weights(source)
    del source
    assert torch.equal(server(x), expected)


def test_weights_of_another_program_are_refused(tmp_path: Path) -> None:
    x = torch.ones(4, 16)
    server, other = compiled(0.5, tmp_path), compiled(0.5, tmp_path, wide=32)
    with pytest.raises(ValueError, match="on no device yet"):
        server.use_weights(other)
    before = server(x)
    with pytest.raises(errors.WeightsError, match="another program"):
        server.use_weights(other)
    with pytest.raises(TypeError, match="expected a model, got a Linear"):
        server.use_weights(nn.Linear(2, 2))  # type: ignore[arg-type]
    assert torch.equal(server(x), before)
