"""One cache for the whole run: kernels that several tests share are compiled once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mkwrap import Options


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
