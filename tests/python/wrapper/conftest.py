"""The fake driver is built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.python.wrapper.fakes import build_runner


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that runs any library on the fake driver."""
    return build_runner(tmp_path_factory.mktemp("fake"))
