"""The options that tests of whole compiles share."""

from __future__ import annotations

from tests.python.compiler.conftest import quick, shared_cache, two_threads

__all__ = ["quick", "shared_cache", "two_threads"]
