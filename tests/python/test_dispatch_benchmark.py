"""What `benchmarks.dispatch` makes of times: regret against the truth, and against the best library of one hint."""

from __future__ import annotations

import pytest
from benchmarks.dispatch import _line, _summary


def test_the_summary_compares_with_the_truth_and_with_the_best_single_hint_of_each_shape() -> None:
    rows = [
        {"us": {"truth": 2.0, "dispatched": 2.0, "smallest": 1.0, "middle": 4.0, "largest": 8.0}},
        {"us": {"truth": 1.0, "dispatched": 4.0, "smallest": 9.0, "middle": 5.0, "largest": 16.0}},
    ]
    summary = _summary(rows)
    assert summary["shapes"] == 2
    assert summary["dispatched"] == {"geometric mean": 2.0, "worst": 4.0}
    assert summary["smallest"]["geometric mean"] == pytest.approx(4.5**0.5, abs=1e-4)
    assert summary["dispatched over the best single hint"] == {"worst": 2.0}
    assert "worst 4.000" in _line(summary)


def test_a_library_that_is_missing_at_a_shape_counts_at_the_others() -> None:
    rows = [
        {"us": {"truth": 1.0, "dispatched": 1.0, "embedded": 1.0}},
        {"us": {"truth": 1.0, "dispatched": 2.0, "middle": 1.0}},
    ]
    summary = _summary(rows)
    assert summary["embedded"] == {"geometric mean": 1.0, "worst": 1.0}
    assert summary["dispatched over the best single hint"] == {"worst": 2.0}
