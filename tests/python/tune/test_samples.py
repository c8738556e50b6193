"""Kernels are measured on the integers that they find in the example call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import mkwrap
from mkwrap.capture import capture
from mkwrap.examples import reader
from mkwrap.fuse import fuse
from mkwrap.ir.dtypes import DType
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.stages import Schedule
from mkwrap.tune.contest import Contest, Fill, Memory
from mkwrap.tune.inputs import memories
from mkwrap.tune.measure import Outcome, Referee
from mkwrap.tune.samples import Samples, in_range
from mkwrap.tune.values import make


def _scheduled(fn: Callable[..., torch.Tensor], *args: torch.Tensor) -> tuple[Schedule, Samples]:
    captured = capture(fn, args, {}, None, RULES)
    schedule = fuse(lower(captured))
    return schedule, Samples(schedule, reader(captured.samples))


def _memories(schedule: Schedule, samples: Samples, kernel: int = -1) -> tuple[Memory, ...]:
    chosen = list(schedule.kernels.values())[kernel]
    return memories(schedule, chosen, schedule.program.constants, samples)


def _integers(own: tuple[Memory, ...], dtype: DType = DType.INT64) -> Memory:
    (memory,) = (m for m in own if m.dtype is dtype and not m.written)
    return memory


def _gather(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return table[index]


def test_c34_indices_of_an_input_are_the_examples() -> None:
    index = torch.tensor([3, -1, 0, 6])
    memory = _integers(_memories(*_scheduled(_gather, torch.randn(7, 4), index)))
    assert memory.fill is Fill.GIVEN
    assert make(memory, 0).view(np.int64).tolist() == index.tolist()


def test_c34_indices_that_a_kernel_computes_are_computed() -> None:
    table, logits = torch.randn(7, 4), torch.randn(5, 7).to(torch.bfloat16)
    schedule, samples = _scheduled(lambda t, x: t[x.argmax(-1)] * 2, table, logits)
    assert len(schedule.kernels) == 2
    memory = _integers(_memories(schedule, samples))
    assert make(memory, 0).view(np.int64).tolist() == logits.argmax(-1).tolist()


def test_c34_where_an_index_is_too_much_work_it_is_random_and_in_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkwrap.tune.samples._MOST_POINTS", 34)
    memory = _integers(_memories(*_scheduled(lambda t, x: t[x.argmax(-1)] * 2, torch.randn(7, 4), torch.randn(5, 7))))
    assert (memory.fill, memory.low, memory.high) == (Fill.UNIFORM, 0, 7)


def test_c34_an_example_out_of_range_is_not_used() -> None:
    memory = _integers(_memories(*_scheduled(_gather, torch.randn(7, 4), torch.tensor([0, 7]))))
    assert (memory.fill, memory.high) == (Fill.UNIFORM, 7)
    ends = np.array([-7, 6], np.int64).tobytes()
    assert in_range(ends, DType.INT64, 7)
    assert not in_range(ends, DType.INT64, 6)
    assert in_range(b"", DType.INT64, 0)


def test_masks_are_the_examples_in_their_strides() -> None:
    mask = torch.rand(6, 8).t() > 0.9
    schedule, samples = _scheduled(lambda x, m: torch.where(m, x, 0.0), torch.randn(8, 6), mask)
    memory = _integers(_memories(schedule, samples), DType.BOOL)
    assert make(memory, 0).tolist() == mask.t().reshape(-1).tolist()


def test_long_values_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkwrap.tune.samples._MOST_BYTES", 20)
    memory = _integers(_memories(*_scheduled(_gather, torch.randn(7, 4), torch.tensor([3, 1, 0, 6, 5]))))
    assert make(memory, 0).view(np.int64).tolist() == [3, 1, 3, 1, 3]


def test_a_fake_example_has_no_values() -> None:
    schedule, _ = _scheduled(_gather, torch.randn(7, 4), torch.tensor([3, 1]))
    with FakeTensorMode():
        fake = torch.empty(2, dtype=torch.int64)
    names = [spec.name for spec in schedule.program.inputs]
    memory = _integers(_memories(schedule, Samples(schedule, reader(dict.fromkeys(names, fake)))))
    assert memory.fill is Fill.UNIFORM


@pytest.mark.toolchain
def test_c11_compiling_leaves_the_examples_alone(tmp_path: Path) -> None:
    def step(counts: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        counts.add_(index)
        return x[counts.clamp(0, 3)]

    args = (torch.tensor([0, 1, 2]), torch.randn(4, 5), torch.tensor([1, 1, -1]))
    before = [arg.clone() for arg in args]
    versions = [arg._version for arg in args]
    model = mkwrap.compile(step, args, options=mkwrap.Options(cache_dir=tmp_path, tune="quick", threads=1))
    assert all(torch.equal(a, b) for a, b in zip(args, before, strict=True))
    assert [arg._version for arg in args] == versions
    expected = step(*before)
    assert torch.equal(model(*args), expected)
    assert torch.equal(args[0], before[0])


@pytest.mark.toolchain
def test_kernels_that_are_equal_but_for_their_buffers_are_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Contest] = []
    hold = Referee.hold

    def count(referee: Referee, contest: Contest) -> Outcome:
        held.append(contest)
        return hold(referee, contest)

    monkeypatch.setattr(Referee, "hold", count)

    def rows(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ((x.softmax(-1) @ w).softmax(-1) @ v).softmax(-1)

    args = (torch.randn(32, 32), torch.randn(32, 32), torch.randn(32, 32))
    options = mkwrap.Options(cache_dir=tmp_path, tune="quick", threads=1)
    model = mkwrap.compile(rows, args, options=options)
    assert sorted(kernel.uses for kernel in model.report.kernels) == [2, 3]
    assert len(held) <= 2
    torch.testing.assert_close(model(*args), rows(*args))
