"""C36: what is elected by real measurements does not depend on the day."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from tests.python.tune.kernels import choose

from mkwrap.capture import capture
from mkwrap.fuse import fuse
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.options import Options
from mkwrap.stages import Source
from mkwrap.targets import resolve
from mkwrap.toolchain.pool import Compiler, build
from mkwrap.variants import render, variants


def _elected(target_name: str, rows: int, columns: int, options: Options, times: int) -> tuple[str, Counter[str]]:
    """Tune a softmax so many times; returns the default's label and how often each variant won."""
    target = resolve(target_name, options)
    captured = capture(lambda x: torch.softmax(x, -1), (torch.randn(rows, columns),), {}, None, RULES)
    candidates = variants(fuse(lower(captured)), target)
    ((kernel, written),) = render(candidates, target).items()
    sources = [entry for entry in written if isinstance(entry, Source)]
    binaries = {kernel: build(sources, Compiler(target.compile, target.toolchain, options.jobs))}
    winners: Counter[str] = Counter()
    for _ in range(times):
        selection = choose(candidates, binaries, target, options)
        assert len(selection.timings[kernel]) > 1
        winners[selection.winners[kernel].only.source.variant.label] += 1
    return sources[0].variant.label, winners


def _steady(default: str, winners: Counter[str]) -> bool:
    """Whether at most one of twenty elections was neither for the most frequent winner nor for the default."""
    favourite = max((label for label in winners if label != default), key=lambda label: winners[label], default=default)
    return sum(count for label, count in winners.items() if label not in (favourite, default)) <= 1


@pytest.mark.toolchain
@pytest.mark.slow
def test_c36_a_cpu_kernel_of_few_microseconds_elects_the_same_19_times_of_20(tmp_path: Path) -> None:
    default, winners = _elected("cpu", 16, 256, Options(cache_dir=tmp_path, tune="quick", threads=1), 20)
    assert _steady(default, winners), winners


@pytest.mark.cuda
@pytest.mark.slow
def test_c36_a_cuda_kernel_of_few_microseconds_elects_the_same_19_times_of_20(tmp_path: Path) -> None:
    default, winners = _elected("cuda", 512, 1024, Options(cache_dir=tmp_path), 20)
    assert _steady(default, winners), winners
