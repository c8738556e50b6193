"""Dynamic sizes on a GPU: scratch memory that grows with runs in flight, and captures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.export import Dim

import mkwrap
from mkwrap.errors import GraphCaptureError, InputError

pytestmark = [pytest.mark.cuda, pytest.mark.toolchain]

SIZES = ((64, 100), (1, 1), (3, 700), (0, 5), (4096, 17), (70_000, 16), (64, 100), (9, 8192))


def _program(x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = torch.softmax(x + bias, -1)
    return y, (y - y.sum(0)).sum(1), x[:, 1:]


def _arguments(rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, cols, device="cuda"), torch.randn(cols, device="cuda")


@pytest.fixture
def model(tmp_path: Path) -> mkwrap.Model:
    """A model of two symbols, tuned at two points of each, with temporaries."""
    rows, cols = Dim("rows", min=0, max=2**17), Dim("cols", min=1, max=2**13)
    hints = {"rows": [64, 4096], "cols": [100, 1024]}
    options = mkwrap.Options(tune="off", hints=hints, cache_dir=tmp_path / "cache")
    shapes = ({0: rows, 1: cols}, {0: cols})
    return mkwrap.compile(_program, _arguments(64, 100), dynamic_shapes=shapes, options=options)


def _compare(got: tuple[torch.Tensor, ...], arguments: tuple[torch.Tensor, torch.Tensor]) -> None:
    for one, other in zip(got, _program(*arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_c21_sizes_in_any_order_equal_eager_while_runs_are_in_flight(model: mkwrap.Model) -> None:
    calls = [_arguments(rows, cols) for rows, cols in SIZES]
    results = [model(*arguments) for arguments in calls for _ in range(3)]
    for number, got in enumerate(results):
        _compare(got, calls[number // 3])
    for arguments in calls:
        said = mkwrap.explain(model, rows=arguments[0].shape[0], cols=arguments[0].shape[1])
        assert tuple(kernel.alternative for kernel in said.kernels) == model.elected(arguments)
    with pytest.raises(InputError, match=r"cols in 1\.\.8192, got 8193"):
        model(*_arguments(1, 8193))


def test_c43_a_capture_uses_what_there_is_and_is_not_broken_by_growth(model: mkwrap.Model) -> None:
    small, large = _arguments(64, 100), _arguments(4096, 1024)
    assert model.scratch_bytes(small) > 0
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        model(*small)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        captured = model(*small)
    with torch.cuda.stream(stream):
        model(*large)
    stream.synchronize()
    small[0].copy_(torch.randn_like(small[0]))
    graph.replay()
    torch.cuda.synchronize()
    _compare(captured, small)


# Torch says so of a capture in which nothing ran.
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_a_capture_that_needs_memory_is_refused(model: mkwrap.Model) -> None:
    small, large = _arguments(64, 100), _arguments(4096, 1024)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        model(*small)
    stream.synchronize()
    refused = torch.cuda.CUDAGraph()
    with (
        pytest.raises(GraphCaptureError, match="while the stream is captured"),
        torch.cuda.graph(refused, stream=stream),
    ):
        model(*large)
    torch.cuda.synchronize()
    _compare(model(*large), large)
