"""Models on a GPU: streams, captures, and what they refuse."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap import errors

pytestmark = pytest.mark.cuda


def chain(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Several kernels with temporaries between them, so that a shared scratch memory would show."""
    for _ in range(4):
        x = torch.softmax(x @ w, dim=-1) + x
    return x


@pytest.fixture(scope="module")
def model(options: mkwrap.Options) -> mkwrap.Model:
    x = torch.randn(256, 256, device="cuda")
    return mkwrap.compile(chain, (x, x), options=options)


def inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    return tuple(torch.randn(256, 256, device="cuda", generator=generator) for _ in range(2))  # type: ignore[return-value]


def check(got: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> None:
    expected = chain(x.double(), w.double())
    torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-3)


def test_runs_on_the_current_stream(model: mkwrap.Model, tmp_path: Path) -> None:
    x, w = inputs(0)
    check(model(x, w), x, w)
    model.save(tmp_path / "m.so")
    again = mkwrap.load(tmp_path / "m.so", device=torch.cuda.current_device())
    check(again(x, w), x, w)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late = x * 1.0
        result = model(late, w)
    side.synchronize()
    check(result, x, w)


def test_streams_have_scratch_memory_of_their_own(model: mkwrap.Model) -> None:
    pairs = [inputs(k) for k in range(8)]
    streams = [torch.cuda.Stream() for _ in pairs]
    torch.cuda.synchronize()
    results = []
    for _ in range(20):
        results.clear()
        for stream, pair in zip(streams, pairs, strict=True):
            with torch.cuda.stream(stream):
                results.append(model(*pair))
        torch.cuda.synchronize()
        for result, pair in zip(results, pairs, strict=True):
            check(result, *pair)
    contexts = model.contexts
    model(*pairs[0])
    assert model.contexts <= contexts + 1


def test_c38_threads(model: mkwrap.Model) -> None:
    def call(k: int) -> None:
        pair = inputs(k)
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
            result = model(*pair)
            torch.cuda.current_stream().synchronize()
        check(result, *pair)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(32)))


class Weighted(torch.nn.Module):
    """A module whose one constant takes 64 MiB."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4096, 4096))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.amax(x * self.weight)


@pytest.mark.alone
def test_c38_first_use_from_eight_threads(options: mkwrap.Options, tmp_path: Path) -> None:
    constant, path = 4 * 4096 * 4096, tmp_path / "m.so"
    module, x = Weighted().cuda(), torch.randn(4096, 4096, device="cuda")
    mkwrap.compile(module, (x,), options=options).save(path)
    expected = module(x).item()
    for device in range(min(torch.cuda.device_count(), 2)):
        there = x.to(f"cuda:{device}")
        mkwrap.load(path, device=device)(there)  # what the driver and torch keep from a first use
        gc.collect()
        torch.cuda.synchronize(device)
        before = torch.cuda.mem_get_info(device)[0]
        barrier = threading.Barrier(8)

        def first_use(
            _: int, device: int = device, there: torch.Tensor = there, barrier: threading.Barrier = barrier
        ) -> tuple[mkwrap.Model, float]:
            barrier.wait()
            loaded = mkwrap.load(path, device=device)
            return loaded, loaded(there).item()

        with ThreadPoolExecutor(8) as pool:
            used = list(pool.map(first_use, range(8)))
        assert [result for _, result in used] == [expected] * 8
        assert before - torch.cuda.mem_get_info(device)[0] < 2 * constant, "eight models hold the constants once"
        del used
        gc.collect()
        assert before - torch.cuda.mem_get_info(device)[0] < constant, "and give them back"


def swapped(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return chain(x, w)


def test_c43_captured_in_a_graph(options: mkwrap.Options) -> None:
    x, w = inputs(1)
    # A library of its own: other tests leave contexts in the common one's pool.
    model = mkwrap.compile(swapped, (w, x), options=options)
    model(w, x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = model(w, x)
    other = inputs(2)
    contexts = model.contexts
    for k in range(3, 6):
        pair = inputs(k)
        x.copy_(pair[0])
        w.copy_(pair[1])
        graph.replay()
        with torch.cuda.stream(torch.cuda.Stream()):
            between = model(*reversed(other))
        torch.cuda.synchronize()
        check(result, *pair)
        check(between, *other)
    assert model.contexts > contexts, "the captured context is not shared with other calls"


def test_an_index_out_of_range_is_reported_by_the_next_call(options: mkwrap.Options) -> None:
    table = torch.randn(100, 64, device="cuda")
    good = torch.randint(0, 100, (1000,), device="cuda")
    bad = good.clone()
    bad[777] = 100
    embed = mkwrap.compile(
        lambda table, index: torch.nn.functional.embedding(index, table), (table, good), options=options
    )
    embed(table, bad)
    with pytest.raises(errors.IndexRangeError, match=r"embedding(.|\n)*earlier run"):
        embed.synchronize()
    embed.synchronize()
    embed(table, bad)
    torch.cuda.synchronize()
    with pytest.raises(IndexError, match="earlier run"):
        embed(table, good)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = embed(table, bad)
    embed.synchronize()
    graph.replay()
    with pytest.raises(errors.IndexRangeError):
        embed.synchronize()
    bad.copy_(good)
    graph.replay()
    embed.synchronize()
    assert torch.equal(result, table[good])


def test_r1_cuda(model: mkwrap.Model) -> None:
    x, w = inputs(0)
    with pytest.raises(errors.InputError, match=r"args\[1\]: wrong device: expected cuda:0, got cpu"):
        model(x, w.cpu())
    with pytest.raises(errors.InputError, match=r"args\[0\].*float64"):
        model(x.double(), w)
    with pytest.raises(errors.InputError, match=r"args\[0\].*strides"):
        model(x.t(), w)
    check(model(x, w), x, w)


def test_slow_path(model: mkwrap.Model) -> None:
    slow = mkwrap.Model(model.path, exchange=False)
    x, w = inputs(3)
    check(slow(x, w), x, w)
    assert torch.equal(slow(x, w), model(x, w))
