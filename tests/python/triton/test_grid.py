"""Issue 3, must hold 2, small sizes: every forced variant of a grid of reductions equals eager, interpreted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.python.triton.emulate import run
from tests.python.triton.grid import Point, check_point, points
from tests.python.triton.nests import H100

POINTS = tuple(points((1, 5, 67), 600))


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_every_forced_variant_equals_eager(point: Point, tmp_path: Path) -> None:
    check_point(point, H100, "cpu", partial(run, folder=tmp_path))
