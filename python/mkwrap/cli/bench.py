"""`mkwrap bench`: how long a library's calls take here, beside what its record says of its kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias, cast

import typer
from rich.table import Table
from rich.text import Text

import mkwrap
from mkwrap.cli.output import AsJson, print_json, show
from mkwrap.errors import InputError, MkwrapError, OptionError, SizeError
from mkwrap.report import KernelRow, spell_bytes, wrap_label
from mkwrap.sizes import expect_related
from mkwrap.tune.here import here

if TYPE_CHECKING:
    import torch

    from mkwrap.model import Model
    from mkwrap.toolchain.relink import Manifest


_LABEL_WIDTH = 60

_Sizes: TypeAlias = dict[str, int]
_Timed: TypeAlias = tuple[float, float, int]
"""Median and spread of a call in microseconds, and the calls made."""
_Row: TypeAlias = _Timed | MkwrapError


class _Calls(Protocol):
    def inputs_of(
        self, model: Model, device: int, below: int, sizes: Mapping[str, int] | None = None
    ) -> tuple[torch.Tensor, ...]: ...
    def call_us(self, model: Model, inputs: tuple[torch.Tensor, ...], seconds: float) -> _Timed: ...


_SHAPE = (
    "Values of a dynamic size, NAME=1,8,64; once per size. Every combination is measured, but those that calls refuse."
)


def bench(
    library: Annotated[Path, typer.Argument(help="The library.", show_default=False)],
    seconds: Annotated[float, typer.Option(help="How long to measure, each shape.", min=0.0)] = 1.0,
    device: Annotated[int, typer.Option(help="Ordinal of the CUDA device.", min=0)] = 0,
    below: Annotated[int, typer.Option(help="Integer inputs are random from 0 below this.", min=1)] = 1,
    shape: Annotated[list[str] | None, typer.Option(help=_SHAPE)] = None,
    as_json: AsJson = False,
) -> None:
    """Time back-to-back calls on random inputs made from the signature.

    Bytes per second are of what the kernels read and write, each buffer once per kernel. Integer inputs are zeros unless
    --below says more: they may be indices. Dynamic sizes that no --shape names are the example's.
    """
    model = mkwrap.load(library, device=device)
    calls = cast(_Calls, import_module("mkwrap.cli.calls"))
    shapes = _shapes(model, shape or [])
    if model.symbols:

        def timed(sizes: Mapping[str, int]) -> _Timed:
            return calls.call_us(model, calls.inputs_of(model, device, below, sizes), seconds)

        _show_shapes(model, library, _measured(model, shapes, timed), as_json)
    else:
        _show(model, library, device, calls.call_us(model, calls.inputs_of(model, device, below), seconds), as_json)


def _measured(model: Model, shapes: Sequence[_Sizes], timed: Callable[[_Sizes], _Timed]) -> list[tuple[_Sizes, _Row]]:
    """Time each shape; one that calls refuse has the error. Raises the first one's where none can be called."""
    rows: list[tuple[_Sizes, _Row]] = []
    for sizes in shapes:
        try:
            # Before there are inputs: some lengths may be below 0.
            expect_related(model.manifest, sizes)
            rows.append((sizes, timed(sizes)))
        except (InputError, SizeError) as error:
            rows.append((sizes, error))
    refused = [row for _, row in rows if isinstance(row, MkwrapError)]
    if len(refused) == len(rows):
        raise refused[0]
    return rows


def _shapes(model: Model, given: Sequence[str]) -> list[dict[str, int]]:
    """Return every combination of the sizes asked for; a size that is not is what it is at the first point of tuning."""
    points = cast("Mapping[str, Sequence[Mapping[str, int]]]", model.manifest.get("hints", {})).get("points", ())
    values = {symbol.name: [points[0][symbol.name]] if points else [] for symbol in model.symbols}
    ranges = {symbol.name: (symbol.low, symbol.high) for symbol in model.symbols}
    seen: set[str] = set()
    for text in given:
        name, _, listed = text.partition("=")
        if name not in values:
            raise OptionError(f"--shape is {text!r}; the dynamic sizes are: {', '.join(values) or 'none'}")
        try:
            values[name] = [int(value) for value in listed.split(",")]
        except ValueError as error:
            raise OptionError(f"--shape is {text!r}; expected {name}=1,8,64") from error
        if name in seen:
            raise OptionError(f"--shape names {name} twice; give all its values at once, as {name}=1,8,64")
        seen.add(name)
        low, high = ranges[name]
        if not all(low <= value <= high for value in values[name]):
            raise OptionError(f"--shape is {text!r}; the range of {name} is {low} to {high}")
    missing = [name for name, sizes in values.items() if not sizes]
    if missing:
        raise OptionError(f"give the values of {', '.join(missing)}, as --shape {missing[0]}=1,8,64")
    return [dict(zip(values, sizes, strict=True)) for sizes in product(*map(dict.fromkeys, values.values()))]


def _show_shapes(model: Model, library: Path, timed: Sequence[tuple[_Sizes, _Row]], as_json: bool) -> None:
    """Print a row per shape: its time, and which binary each kernel with a table ran; or why calls refuse it."""
    rows: list[dict[str, object]] = []
    for sizes, row in timed:
        if isinstance(row, MkwrapError):
            rows.append({"sizes": sizes, "refused": str(row)})
            continue
        median, spread, count = row
        ran = {kernel.name: kernel.variant for kernel in mkwrap.explain(model, **sizes).kernels}
        rows.append({"sizes": sizes, "median_us": median, "spread_us": spread, "calls": count, "kernels": ran})
    if as_json:
        print_json({"path": str(library), "shapes": rows})
        return
    show(Text(str(model.signature)))
    table = Table(box=None, pad_edge=False)
    for title in (*(symbol.name for symbol in model.symbols), "µs", "±", "calls"):
        table.add_column(title, justify="right", no_wrap=True)
    if any("refused" in row for row in rows):
        table.add_column("refused", overflow="fold")
    for sizes, row in timed:
        said = ("", "", "", Text(str(row))) if isinstance(row, MkwrapError) else _spelled(row)
        table.add_row(*map(str, sizes.values()), *said)
    show(table)


def _spelled(timed: _Timed) -> tuple[str, str, str]:
    median, spread, count = timed
    return f"{median:.2f}", f"{spread:.2f}", str(count)


def _show(model: Model, library: Path, device: int, timed: _Timed, as_json: bool) -> None:
    """Print the time of static sizes, and what is on record of each kernel."""
    median, spread, count = timed
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
