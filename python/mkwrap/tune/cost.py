"""What a CUDA variant takes at the least, told from its launches and images; variants that promise little are pruned.

Pure. Every number is a bound from below: a variant is pruned where even so it takes more than `HOPELESS` times what the best
takes at the least. That is a heuristic, no proof: the best may take longer than its bound, by more than the factor. So
never pruned are entry 0 (the default), each template's first variant, and any variant whose architecture is not in the table;
and a variant pruned before the build returns where all that ruled it out fail to build.

A kernel of dynamic sizes is static at each of its points. A text of it is pruned where another one promises so much more at
every point at which it is worth trying. Never pruned are what goes first at a point, each template's first text, and the
first one that is right for all sizes. Texts that the model cannot tell apart, as the forms of one choice, stay or go
together. What is pruned returns where all that ruled it out at one point (that with the fewest such texts) fail to build.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from mkwrap.ir.nodes import Expr, Load, Nest, Reduce, Store
from mkwrap.ir.relations import limits_of
from mkwrap.points import kernel_at, kernel_symbols, source_at, values_at
from mkwrap.spaces import open_guards
from mkwrap.stages import Binary, Candidates, Device, Kernel, Point, Pruned, Rejected, Source, Variant

HOPELESS = 2.0
"""Beside the best estimate: what the bounds leave out is taken to be alike for all variants, or to cost the best less."""

_WARP = 32
_MOST_REGISTERS = 255
# Registers are given out to a warp in units of 256, and a block takes 1 KiB of shared memory for the system
# (CUDA Occupancy Calculator).
_REGISTER_UNIT = 256
_RESERVED_SHARED = 1024
# Bytes per cycle that one multiprocessor can take from L2, and that its L1 gives it (CUDA C++ Best Practices Guide;
# Jia et al., Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking, 2018; unchanged since).
_L2_BYTES_PER_CYCLE = 64
_L1_BYTES_PER_CYCLE = 128
# Seconds between a load and its data, when nothing else is on the way; measured on A100 and H100: 250 … 300 cycles from L2,
# 450 … 600 from memory (Luo et al., Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, 2024).
_L2_LATENCY_S = 130e-9
_MEMORY_LATENCY_S = 300e-9
# L2 gives at most about so many times what memory gives (same source).
_L2_FACTOR = 3.0
# Between the starts of two kernels of one stream (measured on H100: 0.8 µs in a graph).
_LAUNCH_S = 0.8e-6
# A thread that keeps so much on its stack is far from the fastest, if another variant keeps nothing there.
_HEAVY_SPILL_BYTES = 256

_PRUNED = "pruned: "

Entry = TypeVar("Entry", Source, Binary)
_Looks: TypeAlias = tuple[str, tuple[object, ...]]


@dataclass(frozen=True)
class Chip:
    """A multiprocessor's limits (CUDA C++ Programming Guide, technical specifications) and the chip's peaks (data sheets)."""

    warps: int
    blocks: int
    shared_bytes: int
    clock_hz: float
    """The highest."""
    bytes_per_s: float
    dot_flops: float
    """Dense float16 products, the fastest that sums in float32."""
    registers: int = 65536


# A100 80 GB, RTX 3090, RTX 4090, H100 SXM (H200's memory), B200.
CHIPS: Mapping[str, Chip] = {
    "sm_80": Chip(64, 32, 164 << 10, 1.41e9, 2.04e12, 312e12),
    "sm_86": Chip(48, 16, 100 << 10, 1.70e9, 0.94e12, 142e12),
    "sm_89": Chip(48, 24, 100 << 10, 2.52e9, 1.01e12, 330e12),
    "sm_90": Chip(64, 32, 228 << 10, 1.98e9, 4.8e12, 990e12),
    "sm_100": Chip(64, 32, 228 << 10, 1.97e9, 8.0e12, 2250e12),
}


@dataclass(frozen=True)
class Shape:
    """What of a launch decides how fast it can be; registers and shared bytes are 0 before the build."""

    blocks: int
    threads: int
    registers: int = 0
    shared_bytes: int = 0
    spilled_bytes: int = 0


def resident_blocks(chip: Chip, shape: Shape) -> int:
    """Return how many blocks fit on one multiprocessor, at least 1."""
    warps = -(-shape.threads // _WARP)
    register_file = -(-max(shape.registers, 1) * _WARP // _REGISTER_UNIT) * _REGISTER_UNIT * warps
    limits = (
        chip.blocks,
        chip.warps // warps,
        chip.registers // register_file,
        chip.shared_bytes // (shape.shared_bytes + _RESERVED_SHARED),
    )
    return max(min(limits), 1)


def least_seconds(chip: Chip, units: int, shape: Shape, traffic: float, flops: float, *, cached: bool) -> float:
    """Bound a launch from below that moves `traffic` bytes and multiplies, on a chip of so many multiprocessors.

    `cached`: all bytes may be in L2. The bound is the largest of: what memory, the busy multiprocessors' ports and the loads in
    flight can move (Little's law; data on the way need registers or shared memory to arrive in); spills through L1; products
    at the busy multiprocessors' peak; the latency of each wave of blocks.
    """
    busy = min(units, shape.blocks)
    waves = shape.blocks / (units * resident_blocks(chip, shape))
    resident = min(resident_blocks(chip, shape), -(-shape.blocks // units))
    room = resident * (shape.threads * 4 * (shape.registers or _MOST_REGISTERS) + shape.shared_bytes)
    latency = _L2_LATENCY_S if cached else _MEMORY_LATENCY_S
    peak = chip.bytes_per_s * (_L2_FACTOR if cached else 1.0)
    rate = min(peak, busy * _L2_BYTES_PER_CYCLE * chip.clock_hz, busy * room / latency)
    spilled = 2 * shape.spilled_bytes * shape.threads * shape.blocks
    return max(
        traffic / rate,
        spilled / (busy * _L1_BYTES_PER_CYCLE * chip.clock_hz),
        flops / (chip.dot_flops * busy / units),
        math.ceil(waves) * latency,
    )


def estimate(kernel: Kernel, entry: Source | Binary, device: Device) -> float | None:
    """Return the least microseconds of a static variant's run; None where nothing can be said.

    Whichever of its launches is the fastest may move all the bytes and do all the products.
    """
    chip, traffic = CHIPS.get(device.arch), _traffic(kernel)
    shapes = _shapes(entry)
    if chip is None or traffic is None or not shapes:
        return None
    flops = _dot_flops(kernel.nest)
    cached = traffic <= device.l2_bytes
    work = (least_seconds(chip, device.units, shape, traffic, flops, cached=cached) for shape in shapes)
    return 1e6 * (len(shapes) * _LAUNCH_S + min(work))


def prune(kernel: Kernel, entries: Sequence[Entry], device: Device) -> tuple[tuple[Entry, ...], tuple[Rejected, ...]]:
    """Return the variants to go on with, in order, and the others, with the reason "pruned: …"."""
    estimates = [estimate(kernel, entry, device) for entry in entries]
    known = [value for value in estimates if value is not None]
    first: set[str] = set()
    calm = any(_spilled(entry) == 0 for entry in entries)
    kept: list[Entry] = []
    rejected = []
    for entry, value in zip(entries, estimates, strict=True):
        variant = _variant(entry)
        reason = ""
        if value is not None and variant.template in first:
            if value > HOPELESS * min(known):
                reason = f"{_PRUNED}takes at least {value:.1f} µs, another variant perhaps {min(known):.1f}"
            elif calm and _spilled(entry) > _HEAVY_SPILL_BYTES:
                reason = f"{_PRUNED}spills {_spilled(entry)} bytes per thread, another variant none"
        first.add(variant.template)
        if reason:
            rejected.append(Rejected(variant, reason))
        else:
            kept.append(entry)
    return tuple(kept), tuple(rejected)


def is_pruned(entry: Rejected) -> bool:
    """Whether a variant is out because others promise more, not because it is wrong."""
    return entry.reason.startswith(_PRUNED)


def hopeful(
    sources: Mapping[str, Sequence[Source | Rejected]], candidates: Candidates, device: Device, force: Mapping[str, str]
) -> Mapping[str, tuple[Source | Rejected, ...]]:
    """Prune before anybody builds; kernels that are forced stay as they are.

    What is pruned knows its rivals: which of them build is not known yet.
    """

    def kept(name: str, written: Sequence[Source | Rejected]) -> tuple[Source | Rejected, ...]:
        if name in force or device.arch not in CHIPS:
            return tuple(written)
        if name in candidates.points:
            return _hopeful_at_points(candidates, name, written, device)
        return _hopeful(candidates.schedule.kernels[name], written, device)

    return {name: kept(name, written) for name, written in sources.items()}


def _hopeful(kernel: Kernel, written: Sequence[Source | Rejected], device: Device) -> tuple[Source | Rejected, ...]:
    kept, rejected = prune(kernel, [entry for entry in written if isinstance(entry, Source)], device)
    least = {source.variant: estimate(kernel, source, device) for source in kept}
    reasons = {entry.variant: entry.reason for entry in rejected}

    def ruled_out(source: Source) -> Pruned:
        own = estimate(kernel, source, device)
        assert own is not None
        rivals = tuple(v for v, value in least.items() if value is not None and own > HOPELESS * value)
        return Pruned(source.variant, reasons[source.variant], source=source, rivals=rivals)

    return tuple(
        ruled_out(entry) if isinstance(entry, Source) and entry.variant in reasons else entry for entry in written
    )


@dataclass(frozen=True)
class _Verdict:
    """Why a text is ruled out at a point, and what else it is beside: all that promises so much more there."""

    reason: str
    rivals: frozenset[_Looks]


def _hopeful_at_points(
    candidates: Candidates, name: str, written: Sequence[Source | Rejected], device: Device
) -> tuple[Source | Rejected, ...]:
    worth = candidates.points[name]
    sources = {entry.variant: entry for entry in written if isinstance(entry, Source)}
    looks = {variant: _looks(source) for variant, source in sources.items()}
    ranges = limits_of(candidates.schedule.program.symbols)
    free = next((variant for variant, source in sources.items() if not open_guards(source, ranges)), None)
    first = dict(reversed([(variant.template, variant) for variant in sources]))
    stays = {looks[variant] for variant in (*first.values(), *(tried[0] for tried in worth.values()), free) if variant}
    ruled_out: dict[_Looks, _Verdict] = {}
    for point, tried in worth.items():
        shown = {looks[variant]: sources[variant] for variant in tried}
        verdicts = _verdicts(candidates.schedule.kernels[name], point, shown, device)
        stays |= shown.keys() - verdicts.keys()
        for own, verdict in verdicts.items():
            if own not in ruled_out or len(verdict.rivals) < len(ruled_out[own].rivals):
                ruled_out[own] = verdict

    def judged(entry: Source | Rejected) -> Source | Rejected:
        if not isinstance(entry, Source) or looks[entry.variant] in stays or looks[entry.variant] not in ruled_out:
            return entry
        verdict = ruled_out[looks[entry.variant]]
        rivals = tuple(variant for variant in sources if looks[variant] in verdict.rivals & stays)
        return Pruned(entry.variant, verdict.reason, source=entry, rivals=rivals)

    return tuple(map(judged, written))


def _verdicts(
    kernel: Kernel, point: Point, sources: Mapping[_Looks, Source], device: Device
) -> Mapping[_Looks, _Verdict]:
    """Return what is hopeless at a point beside others that are right there."""
    values = values_at(kernel_symbols(kernel), point)
    fixed = kernel_at(kernel, values)
    estimates = {looks: estimate(fixed, source_at(source, values), device) for looks, source in sources.items()}
    known = {looks: value for looks, value in estimates.items() if value is not None}
    at = " ".join(f"{symbol.name}={size}" for symbol, size in values.items())
    verdicts = {}
    for looks, own in known.items():
        rivals = frozenset(other for other, value in known.items() if own > HOPELESS * value)
        if rivals:
            best = min(known.values())
            reason = f"{_PRUNED}takes at least {own:.1f} µs at {at}, another variant perhaps {best:.1f}"
            verdicts[looks] = _Verdict(reason, rivals)
    return verdicts


def _looks(source: Source) -> _Looks:
    """Return all that the model sees of a text: those that look the same, as the forms of one choice, stay or go together."""
    return source.variant.template, tuple((launch.grid, *sorted(launch.options.items())) for launch in source.launches)


def _shapes(entry: Source | Binary) -> list[Shape]:
    """Return the shape of each launch; nothing where a grid is dynamic."""
    source = entry.source if isinstance(entry, Binary) else entry
    shapes = []
    for number, launch in enumerate(source.launches):
        blocks = _integer(math.prod(launch.grid))
        if not blocks:
            return []
        if isinstance(entry, Binary):
            image = entry.images[number]
            numbers = (image.threads, image.registers, image.shared_bytes, image.spilled_bytes)
            shapes.append(Shape(blocks, *numbers))
        else:
            shapes.append(Shape(blocks, _WARP * int(launch.options.get("num_warps", 1))))
    return shapes


def _traffic(kernel: Kernel) -> int | None:
    """Return the bytes that a kernel reads and writes at the least: each buffer once, or the elements it asks for.

    None for dynamic sizes.
    """
    nest = kernel.nest
    points = _integer(math.prod(axis.extent for axis in (*nest.axes, *nest.reduction_axes)))
    touched = {i.buffer for i in nest.body if isinstance(i, Load | Store)}
    buffers = [parameter.buffer for parameter in kernel.parameters if parameter.buffer.name in touched]
    sizes = [_integer(math.prod(buffer.shape)) for buffer in buffers]
    if points is None or None in sizes:
        return None
    pairs = zip(buffers, sizes, strict=True)
    return sum(min(size, points) * buffer.dtype.itemsize for buffer, size in pairs if size is not None)


def _dot_flops(nest: Nest) -> float:
    """Return the operations of a nest's products: two per point."""
    points = _integer(math.prod(axis.extent for axis in (*nest.axes, *nest.reduction_axes)))
    return 2.0 * (points or 0) * sum(isinstance(i, Reduce) and i.op == "dot" for i in nest.body)


def _integer(value: Expr | int) -> int | None:
    return value if isinstance(value, int) else int(value) if value.is_Integer else None


def _variant(entry: Source | Binary) -> Variant:
    return entry.source.variant if isinstance(entry, Binary) else entry.variant


def _spilled(entry: Source | Binary) -> int:
    return max(image.spilled_bytes for image in entry.images) if isinstance(entry, Binary) else 0
