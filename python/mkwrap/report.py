"""The report of a library: its kernels, their origins, every variant with its time or its rejection, the winner."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_WIDTH = 100


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
class LaunchRow:
    """One launch of a kernel's winner: threads per block and resources (CUDA), or an entry alone (CPU)."""

    entry: str
    threads: int
    registers: int
    shared_bytes: int
    spilled_bytes: int

    def __str__(self) -> str:
        """Spell like `mkw_reduction_0: 128 threads, 32 registers, 4.0 KiB shared`."""
        said = [f"{self.threads} threads", f"{self.registers} registers"] if self.registers else []
        said += [f"{spell_bytes(self.shared_bytes)} shared"] if self.shared_bytes else []
        said += [f"{spell_bytes(self.spilled_bytes)} spilled"] if self.spilled_bytes else []
        return f"{self.entry}{': ' if said else ''}{', '.join(said)}"


@dataclass(frozen=True)
class PointRow:
    """The choice at one point of a kernel of dynamic sizes; times in microseconds, None where it was not measured."""

    at: Mapping[str, int]
    variant: str
    reason: str
    median_us: float | None = None
    spread_us: float | None = None

    def __str__(self) -> str:
        """Spell the point: `batch=3 seq=700`."""
        return spell_sizes(self.at)


@dataclass(frozen=True)
class KernelRow:
    """One kernel on one target: what it computes, how often a run calls it, why its winner won.

    Where the choice is open (docs/open-choice.md), the winner is what runs until it is made.
    """

    name: str
    target: int
    arch: str
    """The target's, where the library has several."""
    is_open: bool
    """Whether the choice is still to be made on the target machine."""
    uses: int
    origins: tuple[str, ...]
    reason: str
    variants: tuple[VariantRow, ...]
    launches: tuple[LaunchRow, ...] = ()
    workspace_bytes: str = "0"
    points: tuple[PointRow, ...] = ()
    """Of dynamic sizes; `variants` then has those in the library, winners all but for an open choice, and the rejected."""
    left_out: int = 0
    """Rows that the kernel's table from sizes to binaries had no room for."""

    @property
    def winner(self) -> str:
        """Return the label of the variant in the library."""
        return next(row.variant for row in self.variants if row.winner)

    @property
    def ops(self) -> str:
        """Return each origin's op once, with how often it occurs."""
        counts: dict[str, int] = {}
        for origin in self.origins:
            op = origin.split(" ", 1)[0].rstrip(":")
            counts[op] = counts.get(op, 0) + 1
        return ", ".join(op if n == 1 else f"{op} ×{n}" for op, n in counts.items()) or "nothing the user wrote"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render with rich: a heading, then one line per variant, the times before the label, which may be long."""
        place = f" on {self.arch}" if self.arch else ""
        yield Text.assemble((f"{self.name} ×{self.uses}{place}", "bold"), f", {self.reason}: ", (self.ops, "cyan"))
        if self.points:
            yield from self._of_points(options)
            return
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
        for justify in ("left", "right", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        table.add_column(overflow="fold")
        best = next((row.median_us for row in self.variants if row.winner), None)
        times = [_times(row, best) for row in self.variants]
        taken = sum(max((len(row[column]) for row in times), default=0) + 1 for column in range(3)) + 2
        for row, spelled in zip(self.variants, times, strict=True):
            label = Text(
                wrap_label(row.variant, options.max_width - taken),
                style="bold" if row.winner else "dim" if row.rejected else "",
            )
            if row.rejected:
                label.append(f"\nrejected: {row.rejected}", style="yellow")
            table.add_row("►" if row.winner else "", *spelled, label)
        yield table

    def _of_points(self, options: ConsoleOptions) -> RenderResult:
        """Render the variants in the library by number, then the point where each runs."""
        kept = [row.variant for row in self.variants if row.winner]
        for number, variant in enumerate(kept, 1):
            yield Text.assemble((f"►{number} ", "bold"), wrap_label(variant, options.max_width - 4))
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 2))
        for justify in ("left", "right", "right", "left", "left"):
            table.add_column(justify=justify)
        for point in self.points:
            median, spread, _ = _times(VariantRow(point.variant, point.median_us, point.spread_us), None)
            mark = f"►{kept.index(point.variant) + 1}" if point.variant in kept else point.variant
            table.add_row(str(point), median, spread, mark, Text(point.reason, style="dim"))
        yield table
        if self.left_out:
            yield Text(
                f"a table has no room for {_count(self.left_out, 'row')} more, which were left out", style="yellow"
            )
        waiting = sum(not row.winner and not row.rejected for row in self.variants)
        if waiting:
            yield Text(f"{_count(waiting, 'more variant')} in the library until the choice is made", style="dim")
        for row in self.variants:
            if row.rejected:
                yield Text(f"{row.variant}: rejected: {row.rejected}", style="yellow")


@dataclass(frozen=True)
class Report:
    """What `print(model.report)` shows; the same as data in `kernels`."""

    target: str
    device: str
    """The devices whose choice is made; empty where all is left open."""
    kernels: tuple[KernelRow, ...]
    memory: Mapping[str, int | None]
    """Bytes: arena, workspace (per call in flight), constants (per model), traffic (estimate of one run).

    With dynamic sizes the most that they can be; None where a size has no upper bound.
    """
    points: tuple[str, ...] = ()
    """Of dynamic sizes: where the program is tuned, as `batch=3 seq=700`."""
    left_out: tuple[str, ...] = ()
    """Points that were asked for and had no room (`Options.max_points`)."""
    notes: tuple[str, ...] = ()
    """What became of declared dimensions: those that are constants, ranges that became narrower, with the line that did it."""
    relations: tuple[str, ...] = ()
    """What every call's sizes are checked for beyond their ranges, with the line that asks for it."""

    def __str__(self) -> str:
        """Render as plain text."""
        stream = io.StringIO()
        Console(file=stream, width=_WIDTH, color_system=None, force_terminal=False).print(self)
        return "\n".join(line.rstrip() for line in stream.getvalue().rstrip("\n").split("\n"))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render with rich."""
        first = [kernel for kernel in self.kernels if kernel.target == self.kernels[0].target]
        kernels = _count(len(first), "kernel")
        steps = _count(sum(kernel.uses for kernel in first), "step")
        tuned = f"tuned for {self.device}" if self.device else "not tuned"
        yield Text.assemble((self.target, "bold"), f", {tuned}: {kernels}, {steps}")
        yield Text(", ".join(f"{name} {_spell_most(size)}" for name, size in self.memory.items()))
        if self.points:
            yield Text(f"points: {', '.join(self.points)}")
        if self.left_out:
            yield Text(f"left out, beyond Options.max_points: {', '.join(self.left_out)}", style="yellow")
        for note in self.notes:
            yield Text(f"note: {note}", style="yellow")
        for relation in self.relations:
            yield Text(f"every call: {relation}")
        for kernel in self.kernels:
            yield Text()
            yield kernel


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def wrap_label(label: str, width: int) -> str:
    """Break a variant's label after commas, so that no line but one without any is longer than `width`."""
    lines, rest = [], label
    while len(rest) > width:
        end = rest.rfind(",", 0, max(1, width)) + 1
        if end == 0:
            break
        lines.append(rest[:end])
        rest = "  " + rest[end:]
    return "\n".join([*lines, rest])


def _times(row: VariantRow, best: float | None) -> tuple[str, str, str]:
    """Spell median, spread, and how many times as long as the winner a variant takes."""
    if row.median_us is None:
        return "", "", ""
    ratio = f"{row.median_us / best:.2f}×" if best and not row.winner else ""
    return f"{row.median_us:.2f} µs", f"± {row.spread_us or 0.0:.2f}", ratio


def spell_sizes(sizes: Mapping[str, int]) -> str:
    """Spell sizes by name: `batch=3 seq=700`."""
    return " ".join(f"{name}={size}" for name, size in sizes.items())


def spell_bytes(size: float) -> str:
    """Spell a number of bytes with a unit: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} EiB"


def _spell_most(size: int | None) -> str:
    return "without bound" if size is None else spell_bytes(size)


def _bytes(size: object) -> int | None:
    return None if size is None else int(str(size))


def make_report(manifest: Mapping[str, object]) -> Report:
    """Read a manifest (docs/manifest.md) into a report."""
    targets = [_mapping(target) for target in _list(manifest["targets"])]
    memory = _mapping(manifest["memory"])
    archs = [str(target["arch"]) for target in targets]
    kernels = tuple(_kernel(_mapping(kernel), archs) for kernel in _list(manifest["kernels"]))
    is_open = {kernel.target for kernel in kernels if kernel.is_open}
    hints = _mapping(manifest.get("hints", {"points": (), "left_out": ()}))
    devices = [str(target["device"]) for k, target in enumerate(targets) if target["device"] and k not in is_open]
    return Report(
        target=f"{targets[0]['kind']}:{', '.join(archs)}",
        device=", ".join(dict.fromkeys(devices)),
        kernels=kernels,
        memory={name: _bytes(memory[name]) for name in ("arena", "workspace", "constants", "traffic")},
        points=tuple(spell_sizes(_sizes(point)) for point in _list(hints["points"])),
        left_out=tuple(spell_sizes(_sizes(point)) for point in _list(hints["left_out"])),
        notes=tuple(map(str, _list(manifest.get("notes", ())))),
        relations=tuple(_relation(_mapping(each)) for each in _list(manifest.get("relations", ()))),
    )


def _kernel(kernel: Mapping[str, object], archs: Sequence[str]) -> KernelRow:
    winner = str(kernel["winner"])
    reasons = {
        str(entry["variant"]): str(entry["reason"]) for entry in (_mapping(r) for r in _list(kernel["rejected"]))
    }
    dispatch = _mapping(kernel.get("dispatch", {"alternatives": ()}))
    table = [_mapping(a) for a in _list(dispatch["alternatives"])]
    points = tuple(_point(_mapping(point)) for point in _list(kernel.get("points", ())))
    rows = [
        VariantRow(
            variant=str(timing["variant"]),
            median_us=float(str(timing["median_us"])),
            spread_us=float(str(timing["spread_us"])),
            runs=int(str(timing["runs"])),
            rejected=reasons.pop(str(timing["variant"]), ""),
            winner=timing["variant"] == winner,
        )
        for timing in map(_mapping, _list(kernel["timings"]))
    ]
    runs = [str(alternative["variant"]) for alternative in table]
    rows = [VariantRow(variant=label, winner=True) for label in runs] or rows
    if "open" in kernel:
        alternatives = map(_mapping, _list(_mapping(kernel["open"])["alternatives"]))
        labels = [str(alternative["variant"]) for alternative in alternatives]
        rows = [VariantRow(variant=label, winner=label in (runs or [winner])) for label in labels]
    if not any(row.winner for row in rows):
        rows.insert(0, VariantRow(variant=winner, winner=True))
    # What is in the library was no good at some points alone.
    here = {row.variant for row in rows}
    at_points = _rejections(_list(kernel.get("points", ())))
    reasons |= {str(r["variant"]): str(r["reason"]) for r in at_points if r["variant"] not in here}
    rows += [VariantRow(variant=label, rejected=reason) for label, reason in reasons.items()]
    return KernelRow(
        name=str(kernel["name"]),
        target=int(str(kernel["target"])),
        arch=archs[int(str(kernel["target"]))] if len(archs) > 1 else "",
        is_open="open" in kernel,
        uses=int(str(kernel["uses"])),
        origins=tuple(str(origin) for origin in _list(kernel["origins"])),
        reason=str(kernel["reason"]),
        variants=tuple(rows),
        launches=tuple(_launch(_mapping(launch)) for each in table or [kernel] for launch in _list(each["launches"])),
        workspace_bytes=str(kernel["workspace_bytes"]),
        points=points,
        left_out=int(str(dispatch.get("left_out", 0))),
    )


def _point(point: Mapping[str, object]) -> PointRow:
    timings = {str(timing["variant"]): timing for timing in map(_mapping, _list(point["timings"]))}
    own = timings.get(str(point["winner"]))
    times = (None, None) if own is None else (float(str(own["median_us"])), float(str(own["spread_us"])))
    return PointRow(_sizes(point["at"]), str(point["winner"]), str(point["reason"]), *times)


def _relation(relation: Mapping[str, object]) -> str:
    place = f" (at {relation['origin']})" if relation["origin"] else ""
    return f"{relation['holds']}{place}"


def _sizes(value: object) -> Mapping[str, int]:
    return {str(name): int(str(size)) for name, size in _mapping(value).items()}


def _rejections(points: Sequence[object]) -> list[Mapping[str, object]]:
    return [_mapping(entry) for point in points for entry in _list(_mapping(point)["rejected"])]


def _launch(launch: Mapping[str, object]) -> LaunchRow:
    numbers = [int(str(launch[name])) for name in ("threads", "registers", "shared_bytes", "spilled_bytes")]
    return LaunchRow(str(launch["entry"]), *numbers)


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value


def _list(value: object) -> Sequence[object]:
    assert isinstance(value, Sequence)
    return value
