"""The harness itself: it sees wrong values, dtypes, shapes and mutations, and lets right ones pass."""

from __future__ import annotations

import pytest
import torch
from tests.python.lower.differential import check, same


def test_mutations_views_and_nested_results_are_compared() -> None:
    def fn(x: torch.Tensor, options: dict[str, torch.Tensor]) -> dict[str, object]:
        total = x + options["y"]
        options["y"].mul_(2)
        return {"pair": (total, total), "view": x[1:], "none": None, "number": 3, "input": x}

    check(fn, torch.randn(3, 4).t(), {"y": torch.randn(3)})


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (torch.tensor([1.0]), torch.tensor([1.001])),
        (torch.tensor([1]), torch.tensor([2])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.tensor([1.0]), torch.tensor([[1.0]])),
        (torch.tensor([float("nan")]), torch.tensor([1.0])),
        (1, True),
        (None, 1),
    ],
)
def test_differences_are_seen(actual: object, expected: object) -> None:
    with pytest.raises(AssertionError, match="leaf"):
        same(actual, expected, "leaf")
