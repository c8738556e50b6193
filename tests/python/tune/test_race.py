"""A contest as text: what goes in comes out, whatever its arguments are."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from mkwrap.capture import capture
from mkwrap.examples import reader
from mkwrap.fuse import fuse
from mkwrap.lower import RULES
from mkwrap.lower.graph import lower
from mkwrap.options import Options
from mkwrap.stages import Binary, Image, Source
from mkwrap.targets import resolve
from mkwrap.tune.contest import Argument, FaultArgument, Fill
from mkwrap.tune.match import LIMITS
from mkwrap.tune.race import contest_of, race_of
from mkwrap.tune.samples import Samples
from mkwrap.tune.values import make
from mkwrap.variants import render, variants


@pytest.mark.parametrize("target_name", ["cpu", "cuda:sm_90"])
def test_a_contest_over_indices_travels_as_text(target_name: str) -> None:
    options = Options()
    index = torch.tensor([2, 0, 6])
    captured = capture(lambda table, index: table[index], (torch.randn(7, 8), index), {}, None, RULES)
    schedule = fuse(lower(captured))
    target = resolve(target_name, options)
    ((name, kernel),) = schedule.kernels.items()
    written = [s for s in render(variants(schedule, target), target)[name] if isinstance(s, Source)]
    image = Image("entry", b"cubin", "digest", threads=128)
    binaries = [Binary(source, (image,) * len(source.launches)) for source in written]
    race = race_of(schedule, kernel, binaries, LIMITS["quick"], Samples(schedule, reader(captured.samples)), 1 << 20)
    given = [blob for blob in race.given if isinstance(blob, bytes)]
    contest = contest_of(race.text, given, LIMITS["quick"], lambda call: call)
    assert (contest.kind, contest.cache_bytes) == (target.kind, 1 << 20)
    assert len(contest.candidates) == len(written)
    (indices,) = (memory for memory in contest.memories if memory.fill is Fill.GIVEN)
    assert make(indices, 0).tobytes() == index.numpy().tobytes()
    arguments = {
        type(argument) for candidate in contest.candidates for call in candidate.calls for argument in call.args
    }
    assert arguments <= set(get_args(Argument))
    assert (FaultArgument in arguments) == (target.kind == "cuda")
