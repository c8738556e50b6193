"""Random inputs of a loaded library, and how long its calls take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from mkwrap.calls import mapping, sequence
from mkwrap.model import Model
from mkwrap.sizes import read_size
from mkwrap.tune.spread import summary

_BATCH_S = 0.01
_ROUNDS = 9
_MOST_ROUNDS = 200


def inputs_of(
    model: Model, device: int, below: int, sizes: Mapping[str, int] | None = None
) -> tuple[torch.Tensor, ...]:
    """Make inputs that the library accepts: floats normal, bools at random, integers from 0 below `below`.

    `sizes` are the values of the dynamic sizes, by name; every one must be given.
    """
    place = torch.device("cuda", device) if model.device_type == "cuda" else torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    entries = [mapping(entry) for entry in sequence(model.manifest["inputs"])]
    return tuple(_tensor(entry, sizes or {}, generator, below).to(place) for entry in entries)


def _tensor(
    entry: Mapping[str, object], sizes: Mapping[str, int], generator: torch.Generator, below: int
) -> torch.Tensor:
    shape, strides = ([read_size(size)(sizes) for size in sequence(entry[key])] for key in ("shape", "strides"))
    dtype: torch.dtype = getattr(torch, str(entry["dtype"]))
    tensor = torch.empty_strided(shape, strides, dtype=dtype)
    if dtype.is_floating_point:
        return tensor.copy_(torch.randn(shape, generator=generator))
    return tensor.copy_(torch.randint(2 if dtype is torch.bool else below, shape, generator=generator))


def call_us(model: Model, inputs: tuple[torch.Tensor, ...], seconds: float) -> tuple[float, float, int]:
    """Return median and spread (half the distance between the quartiles) of a call in microseconds, and the calls made.

    Samples are means over batches of about 10 ms: back to back calls, which on a GPU overlap with their launches.
    """
    timed = _timed_cuda if model.device_type == "cuda" else _timed_cpu
    model.run(inputs)
    first = timed(model, inputs, 1)
    batch = max(1, int(_BATCH_S / max(timed(model, inputs, max(1, int(1e-3 / max(first, 1e-9)))), 1e-9)))
    samples: list[float] = []
    end = time.monotonic() + seconds
    while len(samples) < _ROUNDS or (time.monotonic() < end and len(samples) < _MOST_ROUNDS):
        samples.append(timed(model, inputs, batch) * 1e6)
    median, spread = summary(samples)
    return median, spread, batch * len(samples)


def _timed_cpu(model: Model, inputs: tuple[torch.Tensor, ...], calls: int) -> float:
    start = time.perf_counter()
    _repeat(lambda: model.run(inputs), calls)
    return (time.perf_counter() - start) / calls


def _timed_cuda(model: Model, inputs: tuple[torch.Tensor, ...], calls: int) -> float:
    start, end = torch.Event("cuda", enable_timing=True), torch.Event("cuda", enable_timing=True)
    start.record()
    _repeat(lambda: model.run(inputs), calls)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / calls


def _repeat(call: Callable[[], object], calls: int) -> None:
    for _ in range(calls):
        call()
