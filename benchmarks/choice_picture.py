"""The picture of `benchmarks.choice`: every variant of every case, relative to the best, and what was elected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LIMIT = 4.0
"""Variants slower than this times the best are drawn at the edge."""


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw a result of `benchmarks.choice` into a file; raises ImportError where matplotlib is not installed."""
    # Imported here: an optional extra that only the picture needs.
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = {name: row for name, row in result["cases"].items() if "regret" in row}
    names = sorted(rows, key=lambda name: rows[name]["entry_0"])
    figure = Figure(figsize=(11, 1.6 + 0.19 * len(names)), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        for kernel in rows[name]["kernels"].values():
            best = min(kernel["truth_us"].values())
            for color, pruned in (("#9aa5b1", False), ("#c51b7d", True)):
                others = [
                    min(us / best, _LIMIT)
                    for label, us in kernel["truth_us"].items()
                    if (label in kernel["pruned"]) is pruned
                ]
                axes.plot(others, [y] * len(others), "|", color=color, markersize=7)
    for color, label in (("#9aa5b1", "a variant"), ("#c51b7d", "a variant pruned by the cost model")):
        axes.plot([], [], "|", color=color, markersize=7, label=label)
    places = range(len(names))
    entry = [min(rows[name]["entry_0"], _LIMIT) for name in names]
    regret = [min(rows[name]["regret"], _LIMIT) for name in names]
    axes.plot(
        entry, places, "o", color="#d95f02", markerfacecolor="none", markersize=6, label="entry 0: no measurement"
    )
    axes.plot(regret, places, "o", color="#1b6ca8", markersize=4, label="elected by the tuner")
    axes.axvline(1.0, color="#444444", linewidth=0.8)
    axes.axvline(1.1, color="#444444", linewidth=0.6, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(0.94, _LIMIT * 1.05)
    axes.set_xticks([1, 1.1, 1.25, 1.5, 2, 3, 4], ["best", "1.1", "1.25", "1.5", "2", "3", "≥ 4"])
    axes.minorticks_off()
    axes.set_ylim(-1, len(names))
    axes.set_yticks(list(places), names, fontsize=7)
    axes.set_xlabel("time, relative to the best variant")
    axes.grid(axis="x", color="#eeeeee")
    axes.legend(loc="lower right", fontsize=8)
    summary, machine = result["summary"], result["machine"]
    axes.set_title(
        f"{summary['cases']} cases, {summary['variants']} variants on {machine.get('gpu', machine['processor'])}: "
        f"regret {summary['regret, geometric mean']:.3f} (worst {summary['regret, worst']:.3f}), "
        f"entry 0 {summary['entry 0, geometric mean']:.3f} (worst {summary['entry 0, worst']:.2f})",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)
