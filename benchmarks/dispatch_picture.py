"""The picture of `benchmarks.dispatch`: time over the ground truth's, per case and way, along the shapes by their work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LIMIT = 4.0
_STYLES = {
    "dispatched": ("#1b6ca8", "o", 5),
    "embedded": ("#2a9d8f", "_", 7),
    "smallest": ("#d95f02", "v", 3.5),
    "middle": ("#e6ab02", "s", 3.5),
    "largest": ("#a6761d", "^", 3.5),
    "dynamic=True": ("#9aa5b1", "x", 4),
    "mark_dynamic": ("#c77cff", "+", 5),
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw a result into a file; raises ImportError where matplotlib is not installed.

    Each case has two plots: latency over shape, and every way's time over that of a library made for exactly that shape.
    """
    # Imported here: an optional extra that only the picture needs.
    from matplotlib.figure import Figure  # noqa: PLC0415

    cases = result["cases"]
    figure = Figure(figsize=(13, 2.9 * len(cases) + 0.6), layout="constrained")
    grid = figure.subplots(len(cases), 2, squeeze=False)
    for (latency, ratio), (name, case) in zip(grid, cases.items(), strict=True):
        rows = sorted(case["shapes"], key=lambda row: math.prod(row["shape"].values()))
        work = [math.prod(row["shape"].values()) for row in rows]
        latency.plot(work, [row["us"]["truth"] for row in rows], "-", color="#444444", linewidth=0.8, label="truth")
        for way, (color, marker, size) in _STYLES.items():
            known = [(w, row["us"]) for w, row in zip(work, rows, strict=True) if way in row["us"]]
            if not known:
                continue
            style = {"color": color, "marker": marker, "markersize": size, "linestyle": "none", "label": way}
            latency.plot([w for w, _ in known], [us[way] for _, us in known], **style)
            ratio.plot([w for w, _ in known], [min(us[way] / us["truth"], _LIMIT) for _, us in known], **style)
        for axes in (latency, ratio):
            axes.set_xscale("log")
            axes.set_xlabel(" · ".join(rows[0]["shape"]) if rows else "")
            axes.grid(color="#eeeeee")
        latency.set_yscale("log")
        latency.set_ylabel("µs")
        summary = case["summary"].get("dispatched", {})
        latency.set_title(name, fontsize=9)
        ratio.set_title(f"dispatched {summary.get('geometric mean')} (worst {summary.get('worst')})", fontsize=9)
        ratio.axhline(1.0, color="#444444", linewidth=0.8)
        ratio.axhline(1.25, color="#444444", linewidth=0.6, linestyle=":")
        ratio.set_ylim(0.7, _LIMIT * 1.02)
        ratio.set_ylabel("over the truth")
    grid[0][0].legend(fontsize=7)
    machine = result["machine"]
    figure.suptitle(f"dispatch over unseen shapes, {machine.get('gpu', machine['processor'])}", fontsize=10)
    figure.savefig(path, dpi=110)
