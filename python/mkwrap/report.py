"""The report of a library: its kernels, their origins, every variant with its time or its rejection, the winner."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_WIDTH = 140


@dataclass(frozen=True)
class VariantRow:
    """One variant of a kernel. Times are in microseconds; `rejected` is the reason, or empty."""

    variant: str
    median_us: float | None = None
    spread_us: float | None = None
    runs: int = 0
    rejected: str = ""
    winner: bool = False


@dataclass(frozen=True)
class KernelRow:
    """One kernel: what it computes, how often a run calls it, why its winner won."""

    name: str
    uses: int
    origins: tuple[str, ...]
    reason: str
    variants: tuple[VariantRow, ...]

    @property
    def winner(self) -> str:
        """Return the label of the variant in the library."""
        return next(row.variant for row in self.variants if row.winner)


@dataclass(frozen=True)
class Report:
    """What `print(model.report)` shows; the same as data in `kernels`."""

    target: str
    device: str
    kernels: tuple[KernelRow, ...]
    memory: Mapping[str, int]
    """Bytes: arena, workspace (per call in flight), constants (per model), traffic (estimate of one run)."""

    def __str__(self) -> str:
        """Render as plain text."""
        stream = io.StringIO()
        Console(file=stream, width=_WIDTH, color_system=None, force_terminal=False).print(self)
        return stream.getvalue().rstrip("\n")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render with rich."""
        steps = sum(kernel.uses for kernel in self.kernels)
        yield Text(f"{self.target}, tuned for {self.device or 'no device'}: {len(self.kernels)} kernels, {steps} steps")
        yield Text(", ".join(f"{name} {_spell_bytes(size)}" for name, size in self.memory.items()))
        yield from self._tables()

    def _tables(self) -> Iterator[Table]:
        table = Table("kernel", "variant", "median µs", "± µs", "note", show_lines=False)
        for kernel in self.kernels:
            table.add_section()
            for k, row in enumerate(kernel.variants):
                table.add_row(
                    escape(f"{kernel.name} ×{kernel.uses}") if k == 0 else "",
                    escape(("► " if row.winner else "  ") + row.variant),
                    "" if row.median_us is None else f"{row.median_us:.2f}",
                    "" if row.spread_us is None else f"{row.spread_us:.2f}",
                    escape(_note(kernel, row)),
                )
            table.add_row("", escape("  computes " + ", ".join(_ops(kernel.origins))), "", "", "", style="dim")
        yield table


def _note(kernel: KernelRow, row: VariantRow) -> str:
    if row.rejected:
        return f"rejected: {row.rejected}"
    return kernel.reason if row.winner else ""


def _ops(origins: Sequence[str]) -> list[str]:
    """Return each origin's op once, with how often it occurs."""
    counts: dict[str, int] = {}
    for origin in origins:
        op = origin.split(" ", 1)[0].rstrip(":")
        counts[op] = counts.get(op, 0) + 1
    return [op if n == 1 else f"{op} ×{n}" for op, n in counts.items()] or ["nothing the user wrote"]


def _spell_bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def make_report(manifest: Mapping[str, object]) -> Report:
    """Read a manifest (docs/manifest.md) into a report."""
    target = _mapping(manifest["target"])
    memory = _mapping(manifest["memory"])
    return Report(
        target=f"{target['kind']}:{target['arch']}",
        device=str(target["device"]),
        kernels=tuple(_kernel(_mapping(kernel)) for kernel in _list(manifest["kernels"])),
        memory={name: int(str(memory[name])) for name in ("arena", "workspace", "constants", "traffic")},
    )


def _kernel(kernel: Mapping[str, object]) -> KernelRow:
    winner = str(kernel["winner"])
    rows = [
        VariantRow(
            variant=str(timing["variant"]),
            median_us=float(str(timing["median_us"])),
            spread_us=float(str(timing["spread_us"])),
            runs=int(str(timing["runs"])),
            winner=timing["variant"] == winner,
        )
        for timing in map(_mapping, _list(kernel["timings"]))
    ]
    if not any(row.winner for row in rows):
        rows.insert(0, VariantRow(variant=winner, winner=True))
    rows += [
        VariantRow(variant=str(rejected["variant"]), rejected=str(rejected["reason"]))
        for rejected in map(_mapping, _list(kernel["rejected"]))
    ]
    return KernelRow(
        name=str(kernel["name"]),
        uses=int(str(kernel["uses"])),
        origins=tuple(str(origin) for origin in _list(kernel["origins"])),
        reason=str(kernel["reason"]),
        variants=tuple(rows),
    )


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value


def _list(value: object) -> Sequence[object]:
    assert isinstance(value, Sequence)
    return value
