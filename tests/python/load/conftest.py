"""Options for tests of loaded models."""

from __future__ import annotations

import pytest

import mkwrap


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> mkwrap.Options:
    """Default variants, nothing measured, in a cache of the module's own."""
    return mkwrap.Options(tune="off", cache_dir=tmp_path_factory.mktemp("cache"))
