"""`mkwrap record`: tuning records, shown and merged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mkwrap.cli.output import AsJson, print_json, print_lines, show
from mkwrap.report import wrap_label
from mkwrap.tune.record import Point, Row, encode, merge
from mkwrap.tune.record_file import read_record, write_record

Files = Annotated[list[Path], typer.Argument(help="Tuning records (JSON lines).", show_default=False)]

_LABEL_WIDTH = 50

record_app = typer.Typer(help="Tuning records (docs/record.md): show, merge.", no_args_is_help=True)


@record_app.command("show")
def show_record(files: Files, as_json: AsJson = False) -> None:
    """Show each row: the kernel, where it was measured, the winner and what it saves against the default."""
    rows = _read(files)
    if as_json:
        print_lines(encode(row) for row in rows)
        return
    for device in dict.fromkeys(row.device for row in rows):
        table = Table("kernel", "winner", box=None, pad_edge=False)
        table.columns[1].overflow = "fold"
        for title in ("µs", "default/winner"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("measured", no_wrap=True)
        for row in (row for row in rows if row.device == device):
            point = row.points[0]
            label = Text(wrap_label(point.winner, _LABEL_WIDTH))
            table.add_row(row.kernel, label, *_times(point), f"{row.measured_at[:10]} {row.mode}")
        show(Text.assemble((f"{device.kind}:{device.arch}", "bold"), f" {device.name}, {device.units} units"), table)
    show("1 row" if len(rows) == 1 else f"{len(rows)} rows")


@record_app.command("merge")
def merge_records(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the merged record.")],
    as_json: AsJson = False,
) -> None:
    """Merge records: of rows for one question the newest full measurement is kept (docs/record.md)."""
    rows = _read(files)
    count = write_record(output, merge(rows))
    if as_json:
        print_json({"path": str(output), "rows": count, "dropped": len(rows) - count})
    else:
        show(f"{output}: {count} rows, {len(rows) - count} older or weaker ones dropped")


def _read(files: Sequence[Path]) -> list[Row]:
    return [row for file in files for row in read_record(file)]


def _times(point: Point) -> tuple[str, str]:
    """Spell the winner's time, and how many times as long the default takes."""
    winner = next(entry for entry in point.candidates if entry.variant == point.winner)
    default = point.candidates[0]
    if winner.median_us is None:
        return "", ""
    ratio = "" if default.median_us is None else f"{default.median_us / max(winner.median_us, 1e-9):.2f}"
    return f"{winner.median_us:.2f}", ratio
