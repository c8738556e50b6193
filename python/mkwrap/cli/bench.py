"""`mkwrap bench`: how long a library's calls take here, beside what its record says of its kernels."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, cast

import typer
from rich.table import Table
from rich.text import Text

import mkwrap
from mkwrap.cli.output import AsJson, print_json, show
from mkwrap.report import KernelRow, spell_bytes, wrap_label
from mkwrap.tune.here import here

if TYPE_CHECKING:
    import torch

    from mkwrap.model import Model
    from mkwrap.toolchain.relink import Manifest


_LABEL_WIDTH = 60


class _Calls(Protocol):
    def inputs_of(self, model: Model, device: int, below: int) -> tuple[torch.Tensor, ...]: ...
    def call_us(self, model: Model, inputs: tuple[torch.Tensor, ...], seconds: float) -> tuple[float, float, int]: ...


def bench(
    library: Annotated[Path, typer.Argument(help="The library.", show_default=False)],
    seconds: Annotated[float, typer.Option(help="How long to measure.", min=0.0)] = 1.0,
    device: Annotated[int, typer.Option(help="Ordinal of the CUDA device.", min=0)] = 0,
    below: Annotated[int, typer.Option(help="Integer inputs are random from 0 below this.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Time back-to-back calls on random inputs made from the signature.

    Bytes per second are of what the kernels read and write, each buffer once per kernel. Integer inputs are zeros unless
    --below says more: they may be indices.
    """
    model = mkwrap.load(library, device=device)
    calls = cast(_Calls, import_module("mkwrap.cli.calls"))
    median, spread, count = calls.call_us(model, calls.inputs_of(model, device, below), seconds)
    report = model.report
    traffic = report.memory["traffic"] or 0
    kernels = recorded(model, device)
    if as_json:
        rows = [
            {"name": kernel.name, "uses": kernel.uses, "winner": kernel.winner, "median_us": us}
            for kernel, us in kernels
        ]
        print_json(
            {
                "path": str(library),
                "median_us": median,
                "spread_us": spread,
                "calls": count,
                "traffic_bytes": traffic,
                "bytes_per_second": traffic / median * 1e6,
                "kernels": rows,
            }
        )
        return
    rate = f"{traffic / median / 1e3:.1f} GB/s ({spell_bytes(traffic)} a call)" if traffic else "no traffic"
    show(Text.assemble((f"{median:.2f} µs", "bold"), f" ± {spread:.2f}, {rate}, {count} calls of {model.signature}"))
    table = Table("kernel", "winner, as recorded", box=None, pad_edge=False)
    table.columns[1].overflow = "fold"
    for title in ("µs", "uses", "µs in all"):
        table.add_column(title, justify="right", no_wrap=True)
    for kernel, us in kernels:
        times = ("", str(kernel.uses), "") if us is None else (f"{us:.2f}", str(kernel.uses), f"{us * kernel.uses:.2f}")
        table.add_row(kernel.name, Text(wrap_label(kernel.winner, _LABEL_WIDTH)), *times)
    total = sum((us or 0.0) * kernel.uses for kernel, us in kernels)
    table.add_row("", "all kernels", "", "", f"{total:.2f}", style="bold")
    show(table)


def recorded(model: Model, device: int) -> list[tuple[KernelRow, float | None]]:
    """Return the kernels of the target that the device runs, each with its winner's recorded median in microseconds."""
    targets = cast("Manifest", model.manifest)["targets"]
    number = here(targets, str(model.path), ordinal=device).number
    return [(kernel, _winner_us(kernel)) for kernel in model.report.kernels if kernel.target == number]


def _winner_us(kernel: KernelRow) -> float | None:
    return next(row.median_us for row in kernel.variants if row.winner)
