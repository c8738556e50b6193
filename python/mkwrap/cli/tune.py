"""`mkwrap tune`: the choices that a library was compiled without, made on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

import mkwrap
from mkwrap.cli.output import AsJson, print_json, show
from mkwrap.errors import TuningRecordError
from mkwrap.options import Options, TuneMode
from mkwrap.report import spell_bytes
from mkwrap.toolchain.destination import expect_place
from mkwrap.toolchain.library_file import read_library

if TYPE_CHECKING:
    from mkwrap.toolchain.relink import KernelEntry


def tune_command(
    library: Annotated[Path, typer.Argument(help="The library, its choice left open.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The winners' library, which may be the same; default: that.")
    ] = None,
    tune: Annotated[str, typer.Option(help="full or quick (a second per kernel).")] = "full",
    threads: Annotated[
        int | None, typer.Option(help="CPU: threads to tune for; default: what the library was compiled for.")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Another cache directory than the default.")] = None,
    save_tuning: Annotated[Path | None, typer.Option(help="Write the library's tuning record here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a library's variants on this machine and write the library of the winners.

    Neither a compiler nor a linker nor Triton is needed. Of several architectures this machine's is decided; the others stay
    open. What is decided already stays as it is. Broken off, it leaves the library alone; the same command goes on from there.
    """
    given = {"threads": threads, "cache_dir": cache_dir}
    options = Options(
        tune=cast(TuneMode, tune),
        progress=False if as_json else None,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    if save_tuning is not None:
        expect_place(save_tuning, "the tuning record", TuningRecordError)
    given_library = read_library(library)
    path = output if output is not None else library
    model = mkwrap.tune_library(library, path, options)
    decided = sorted(_open(given_library.manifest) - _open(model.manifest))
    after = path.stat().st_size
    rows = model.save_tuning(save_tuning) if save_tuning is not None else 0
    still_open = sorted({kernel.arch for kernel in model.report.kernels if kernel.is_open})
    if as_json:
        winners = {kernel.name: kernel.winner for kernel in model.report.kernels if not kernel.is_open}
        said = {"path": str(path), "bytes": after, "bytes_before": given_library.size, "winners": winners}
        print_json({**said, "decided": [name for name, _ in decided], "open": still_open})
        return
    show(model.report, Text())
    show(Text(f"{path}: {spell_bytes(after)}, before {spell_bytes(given_library.size)}", style="bold"))
    if not decided:
        done = "it stays as it is" if path.samefile(library) else "this is a copy"
        show(Text(f"nothing was open for this machine, nothing was measured: {done}", style="yellow"))
    if still_open:
        show(Text(f"open still: {', '.join(still_open)}"))
    if save_tuning is not None:
        show(Text(f"{save_tuning}: {rows} rows"))


def _open(manifest: Mapping[str, object]) -> set[tuple[str, int]]:
    """Return the kernels whose choice is open, each with the number of its target."""
    kernels = cast("Sequence[KernelEntry]", manifest["kernels"])
    return {(kernel["name"], kernel["target"]) for kernel in kernels if "open" in kernel}
