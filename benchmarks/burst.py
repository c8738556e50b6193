"""Times callees on one shape, interleaved: kernels back to back over rotating memory, without the host's part on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

Tensors: TypeAlias = tuple[torch.Tensor, ...]
Callee: TypeAlias = Callable[[Tensors, Tensors], object]
"""Runs once on inputs, into outputs (a peer that allocates its own leaves them alone)."""

_CACHE_BYTES = {"cpu": 0, "cuda": 128 << 20}
"""Copies of the arguments take at least so much together, so that none is found in the last cache."""
_MOST_COPIES = 16
_BATCH_S = 2.5e-3
_ROUNDS = 7


@dataclass(frozen=True)
class Sample:
    """Microseconds a run: the median over rounds, and half the distance of the quartiles."""

    median: float
    spread: float


def timed(callees: Mapping[str, Callee], inputs: Tensors, outputs: Tensors, device: str) -> dict[str, Sample]:
    """Return each callee's time; every round runs every callee once, so that what disturbs one disturbs all.

    Callees that fail are missing from the result.
    """
    nbytes = max(sum(t.numel() * t.element_size() for t in (*inputs, *outputs)), 1)
    copies = min(max(_CACHE_BYTES[device] // nbytes, 1), _MOST_COPIES)
    arguments = [(tuple(t.clone() for t in inputs), tuple(torch.empty_like(t) for t in outputs)) for _ in range(copies)]
    bursts: dict[str, tuple[Callable[[], object], int]] = {}
    for name, callee in callees.items():
        try:
            bursts[name] = _burst(callee, arguments, device)
        except (RuntimeError, ValueError) as error:
            print(f"    {name} left out: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
    samples: dict[str, list[float]] = {name: [] for name in bursts}
    for _ in range(_ROUNDS):
        for name, (burst, runs) in bursts.items():
            samples[name].append(_seconds(burst, device) / runs * 1e6)
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> Sample:
    quartiles = statistics.quantiles(values, n=4)
    return Sample(statistics.median(values), (quartiles[2] - quartiles[0]) / 2)


def _burst(callee: Callee, arguments: list[tuple[Tensors, Tensors]], device: str) -> tuple[Callable[[], object], int]:
    """Return a call of several runs that takes about `_BATCH_S`, and how many runs that is."""

    def sweep() -> None:
        for given, results in arguments:
            callee(given, results)

    for _ in range(2):
        sweep()
    once = max(_seconds(sweep, device), 1e-6)
    if device == "cpu":
        count = max(1, int(_BATCH_S / once))

        def repeated() -> None:
            for _ in range(count):
                sweep()

        return repeated, count * len(arguments)
    graph = torch.cuda.CUDAGraph()
    # The first replay tells how long a sweep takes without the host.
    with torch.cuda.graph(graph):
        sweep()
    graph.replay()
    once = max(_seconds(graph.replay, device), 1e-6)
    count = max(1, int(_BATCH_S / once))

    def replays() -> None:
        for _ in range(count):
            graph.replay()

    return replays, count * len(arguments)


def _seconds(call: Callable[[], object], device: str) -> float:
    if device == "cpu":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds * 1e-3
