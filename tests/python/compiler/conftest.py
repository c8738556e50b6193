"""One cache for the whole run: kernels that several tests share are compiled once."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from mkwrap import Options
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory of this test run."""
    return tmp_path_factory.mktemp("mkwrap-cache")


@pytest.fixture(scope="session")
def quick(shared_cache: Path) -> Options:
    """Default variants, nothing measured: for tests of results."""
    return Options(tune="off", cache_dir=shared_cache, progress=False)


@pytest.fixture(scope="session")
def two_threads(quick: Options) -> Options:
    """Variants for two threads on every machine."""
    return replace(quick, threads=2)


@pytest.fixture
def contests(monkeypatch: pytest.MonkeyPatch) -> list[Contest]:
    """Let the sizes of a contest decide who wins it; returns the contests that were held."""
    seen: list[Contest] = []

    def hold(_self: Referee, contest: Contest) -> Outcome:
        seen.append(contest)
        sizes = repr([memory.elements for memory in contest.memories])
        best = int(hashlib.sha256(sizes.encode()).hexdigest(), 16) % len(contest.candidates)
        return Outcome({k: (1.0 if k == best else 3.0,) * 20 for k in range(len(contest.candidates))}, {})

    monkeypatch.setattr(Referee, "hold", hold)
    return seen
