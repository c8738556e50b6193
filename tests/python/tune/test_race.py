"""A contest written into a library is the contest that is read back, every field of it."""

from __future__ import annotations

import json
from dataclasses import is_dataclass, replace

import pytest
from tests.python.tune.kernels import LOOP, SLOW, built, plus_one

from mkwrap.errors import LibraryFormatError
from mkwrap.stages import Binary
from mkwrap.tune import contest
from mkwrap.tune.bind import Binder
from mkwrap.tune.contest import Call, Contest
from mkwrap.tune.expected import expected_results
from mkwrap.tune.inputs import memories
from mkwrap.tune.match import LIMITS
from mkwrap.tune.race import _TYPES, contest_of, race_of

pytestmark = pytest.mark.toolchain


def test_the_contest_there_is_the_contest_here() -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    (kernel,) = candidates.schedule.kernels.values()
    racers = [binary for binary in binaries[kernel.name] if isinstance(binary, Binary)]
    race = race_of(candidates.schedule, kernel, racers, LIMITS["full"], cache_bytes=1 << 20)
    given = [blob for blob in race.given if isinstance(blob, bytes)]
    assert len(given) == len(race.given) > 0  # the right result
    there = contest_of(race.text, given, LIMITS["quick"], lambda call: call)
    own = memories(candidates.schedule, kernel, {}, None, 1 << 20)
    binder = Binder(kernel, list(own))
    runners = tuple(binder.bind(binary, [image.digest for image in binary.images]) for binary in racers)
    here = Contest("cpu", own, runners, LIMITS["quick"], expected_results(kernel, own), 1 << 20)
    assert there == here


def test_images_are_found_by_whoever_reads() -> None:
    candidates, binaries = built(plus_one(), {"slow": SLOW, "fast": LOOP})
    (kernel,) = candidates.schedule.kernels.values()
    racers = [binary for binary in binaries[kernel.name] if isinstance(binary, Binary)]
    race = race_of(candidates.schedule, kernel, racers, LIMITS["full"])
    seen: list[Call] = []

    def located(call: Call) -> Call:
        seen.append(call)
        return replace(call, image=b"cubin", entry="other", offset=16)

    there = contest_of(race.text, [b"" for _ in race.given], LIMITS["full"], located)
    assert [call.image for call in seen] == [image.digest for binary in racers for image in binary.images]
    assert {call.image for candidate in there.candidates for call in candidate.calls} == {b"cubin"}


def test_every_value_of_a_contest_travels() -> None:
    """A new class of `contest.py` that a contest holds must be known to the reader."""
    answers = {"At", "Fault", "Samples", "Done", "Prepare"}
    classes = {name for name, made in vars(contest).items() if isinstance(made, type) and is_dataclass(made)}
    assert classes - answers == set(_TYPES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "3",
        '["Contest", {}]',
        '["Nothing", {}]',
        '["Memory", {"dtype": {"DType": "FLOAT0"}}]',
        "[" * 100_000,
        json.dumps(["Contest", {"kind": "cpu", "memories": {"bytes": 7}, "candidates": 1, "limits": None}]),
    ],
)
def test_r6_what_is_no_contest_is_refused(text: str) -> None:
    with pytest.raises(LibraryFormatError, match="an open choice of the library cannot be read"):
        contest_of(text, [], LIMITS["full"], lambda call: call)
