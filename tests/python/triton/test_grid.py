"""Issue 3, must hold 2, small sizes: every forced variant of a grid of reductions and scans equals eager, interpreted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from tests.python.triton.emulate import run
from tests.python.triton.grid import INTEGER_SCANS, SCANS, VIEWS, Point, check_point, points
from tests.python.triton.nests import H100

POINTS = (*points((1, 5, 67), 600), *points((1, 4, 67), 300, SCANS, INTEGER_SCANS))


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_every_forced_variant_equals_eager(point: Point, tmp_path: Path) -> None:
    check_point(point, H100, "cpu", partial(run, folder=tmp_path))


@pytest.mark.parametrize("name", VIEWS)
def test_c33_reductions_of_views_equal_eager(name: str, tmp_path: Path) -> None:
    point = Point(name, VIEWS[name], (6, 45), 1, torch.float32)
    assert check_point(point, H100, "cpu", partial(run, folder=tmp_path)) >= 2
