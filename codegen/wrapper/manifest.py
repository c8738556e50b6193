"""The manifest of a library; docs/manifest.md is its schema."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import sympy

from mkwrap.artifact import Open
from mkwrap.codegen.wrapper.blobs import constant_parts
from mkwrap.codegen.wrapper.contents import AnySelection, Contents, choice_of
from mkwrap.codegen.wrapper.launcher import Layout, input_number, output_number
from mkwrap.codegen.wrapper.sizes import is_static, largest
from mkwrap.ir.nodes import Expr
from mkwrap.ir.relations import relation_text
from mkwrap.stages import (
    Binary,
    Device,
    Dispatch,
    Hints,
    OutputKind,
    OutputSpec,
    PointChoice,
    Program,
    Rejected,
    Timing,
    Versions,
)

FORMAT = 1
ABI_VERSION = 2

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True)
class Description:
    """What the manifest says that the selection does not know."""

    device: Device
    features: tuple[str, ...]
    """Instruction set features the CPU must have, as /proc/cpuinfo names them."""
    version: str
    """mkwrap's own."""
    call: Mapping[str, Json]
    """How Python arguments become inputs and leaves become the result."""
    further: tuple[Device, ...] = ()
    """The devices of a library's further targets."""
    versions: tuple[Versions, ...] = ()
    """Of each target: what the rows of a tuning record carry; empty where no record is kept."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """Return the device of each target."""
        return (self.device, *self.further)


def render_manifest(
    contents: Contents, layout: Layout, traffic_bytes: int | None, description: Description, apart: Sequence[str]
) -> str:
    """Return the manifest: JSON with sorted keys, so that equal selections give equal text.

    `apart` are the entries whose code can be dropped.
    """
    program = contents.schedule.program
    targets = [_target(description, number) for number in range(len(description.devices))]
    manifest: Mapping[str, Json] = {
        "format": FORMAT,
        "abi_version": ABI_VERSION,
        "mkwrap_version": description.version,
        "target": targets[0],
        "targets": targets,
        "inputs": _inputs(program),
        "outputs": [_output(program, spec) for spec in program.outputs],
        "symbols": [
            {
                "name": spec.symbol.name,
                "low": spec.low,
                "high": spec.high,
                "input": input_number(program, spec.input_name),
                "dim": spec.dim,
                "scale": spec.scale,
                "offset": spec.offset,
            }
            for spec in program.symbols
        ],
        **_hints(contents.selections[0].hints),
        **_told(program),
        "call": description.call,
        "kernels": [_kernel(contents, layout, name, n) for n in range(len(targets)) for name in contents.kernels],
        "constants": _constants(program, layout),
        "memory": {
            "arena": largest(layout.arena_bytes, program.symbols),
            "workspace": _most_workspace(contents, layout),
            "constants": sum(c.size for c in layout.parts.constants.placed),
            "traffic": traffic_bytes,
        },
        "code": list(apart),
        "texts": layout.parts.texts,
    }
    return json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def most_scratch(contents: Contents, layout: Layout) -> int | None:
    """Return the bytes of scratch that a run needs at most, None where dynamic sizes have no upper ends."""
    arena = largest(layout.arena_bytes, contents.schedule.program.symbols)
    workspace = _most_workspace(contents, layout)
    return None if arena is None or workspace is None else arena + workspace


def _most_workspace(contents: Contents, layout: Layout) -> int | None:
    """Return the largest workspace of any target's choice; of all binaries that dynamic sizes may choose."""
    symbols = contents.schedule.program.symbols
    if not symbols:
        return max(row.workspace_bytes for row in layout.rows)
    wanted = [largest(size, symbols) for sizes in layout.scratch.values() for size in sizes]
    return None if None in wanted else max((size for size in wanted if size is not None), default=0)


def _size(expr: Expr | int) -> Json:
    return int(expr) if is_static(expr) else str(sympy.sympify(expr))


def _sizes(exprs: Sequence[Expr]) -> Json:
    return [_size(expr) for expr in exprs]


def _inputs(program: Program) -> Json:
    return [
        {
            "name": spec.name,
            "path": spec.path,
            "dtype": spec.dtype.value,
            "shape": _sizes(spec.shape),
            "strides": _sizes(spec.strides),
            "alignment": spec.alignment,
            "mutated": spec.mutated,
        }
        for spec in program.inputs
    ]


def _output(program: Program, spec: OutputSpec) -> Json:
    geometry: Mapping[str, Json] = {
        "dtype": spec.dtype.value,
        "shape": _sizes(spec.shape),
        "strides": _sizes(spec.strides),
    }
    match spec.kind:
        case OutputKind.BUFFER:
            return {
                "kind": "buffer",
                "index": output_number(program, spec.buffer),
                "name": spec.buffer,
                "alignment": program.buffers[spec.buffer].alignment,
                **geometry,
            }
        case OutputKind.INPUT_VIEW:
            return {
                "kind": "input_view",
                "input": input_number(program, spec.buffer),
                "offset": _size(spec.offset),
                "identical": spec.identical,
                **geometry,
            }
        case OutputKind.SAME:
            return {"kind": "same", "same_as": spec.same_as}
        case OutputKind.VALUE:
            return {"kind": "value", "value": _value(spec.value)}


def _value(value: bool | int | float | str | None) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    return value


def _target(description: Description, number: int) -> Mapping[str, Json]:
    device = description.devices[number]
    versions = description.versions[number] if description.versions else None
    return {
        "kind": device.kind,
        "arch": device.arch,
        "features": description.features,
        "device": device.name,
        "units": device.units,
        "tuning": None if versions is None else {"device": asdict(device), "versions": asdict(versions)},
    }


def _kernel(contents: Contents, layout: Layout, name: str, target: int) -> Json:
    steps = [number for number, step in enumerate(contents.schedule.steps) if step.kernel == name]
    origins = dict.fromkeys(origin for number in steps for origin in contents.schedule.steps[number].origins)
    return {
        "name": name,
        "target": target,
        "steps": steps,
        "uses": len(steps),
        "origins": list(origins),
        **_choice(contents, layout, name, target),
    }


def _choice(contents: Contents, layout: Layout, name: str, target: int) -> Mapping[str, Json]:
    selection = contents.selections[target]
    alternatives = [
        _alternative(contents, layout, name, number)
        for number, alternative in enumerate(contents.kernels[name])
        if alternative.target == target
    ]
    described: dict[str, Json] = {
        "winner": alternatives[0]["variant"],
        "reason": selection.reasons.get(name, ""),
        **_evidence(selection.timings.get(name, ()), selection.rejected.get(name, ())),
        **{key: value for key, value in alternatives[0].items() if key != "variant"},
        **_tuned(selection, name),
    }
    if name in selection.points:
        described["points"] = [_point(choice) for choice in selection.points[name]]
    if isinstance(choice_of(selection, name), Open):
        race = next(r for r in layout.parts.races if (r.kernel, r.target) == (name, target))
        described["open"] = {"race": race.part, "given": race.given, "alternatives": alternatives}
    table = contents.dispatch(name, target)
    if table is not None:
        described["dispatch"] = _dispatch(contents, name, target, table, alternatives)
    return described


def _point(choice: PointChoice) -> Json:
    found: dict[str, Json] = {"at": choice.at, "winner": choice.winner.label, "reason": choice.reason}
    return found | _evidence(choice.timings, choice.rejected)


def _evidence(timings: Sequence[Timing], rejected: Sequence[Rejected]) -> dict[str, Json]:
    return {
        "timings": [
            {
                "variant": timing.variant.label,
                "median_us": timing.median_us,
                "spread_us": timing.spread_us,
                "runs": timing.runs,
            }
            for timing in timings
        ],
        "rejected": [{"variant": entry.variant.label, "reason": entry.reason} for entry in rejected],
    }


def _hints(hints: Hints) -> Mapping[str, Json]:
    """Say at which points the program is tuned; nothing for static sizes."""
    if not hints.points:
        return {}
    points, left_out = (
        [{str(symbol.name): size for symbol, size in values.items()} for values in listed]
        for listed in (hints.points, hints.left_out)
    )
    return {"hints": {"points": points, "left_out": left_out}}


def _told(program: Program) -> Mapping[str, Json]:
    """Say what became of declared dimensions, and what calls are refused for beyond ranges; nothing where there is nothing."""
    asked: list[Json] = [{"holds": relation_text(each), "origin": each.origin} for each in program.relations]
    told: Mapping[str, Json] = {"notes": list(program.notes), "relations": asked}
    return {name: lines for name, lines in told.items() if lines}


def _dispatch(contents: Contents, name: str, target: int, table: Dispatch, alternatives: list[dict[str, Json]]) -> Json:
    """Describe a table; its rows are in their own order, in which the first of equals is elected."""
    numbers = contents.alternatives(name, target)
    binaries = [contents.kernels[name][number].binary for number in numbers]
    rows: list[Json] = []
    for row in table.rows:
        position = binaries.index(row.binary)
        source = row.binary.source
        rows.append(
            {
                "point": list(row.point),
                "variant": source.variant.label,
                "alternative": numbers[position],
                "handicap": row.handicap,
                "guards": [
                    {"expr": _size(guard.expr), "most": guard.most, "multiple": guard.multiple}
                    for guard in source.guards
                ],
            }
        )
    symbols: list[Json] = [symbol.name for symbol in table.symbols]
    left_out: Mapping[str, Json] = {"left_out": table.left_out} if table.left_out else {}
    return {"symbols": symbols, "rows": rows, "alternatives": alternatives, **left_out}


def _tuned(selection: AnySelection, name: str) -> Mapping[str, Json]:
    """What a kernel's row in a tuning record holds that no other key says."""
    key, tuned = selection.keys.get(name), selection.tuned.get(name)
    return {
        "key": None if key is None else key.choice,
        "nest": None if key is None else key.nest,
        "tuned": None
        if tuned is None
        else {
            "mode": tuned.mode,
            "measured_at": tuned.measured_at,
            # A list: the first is the default, and the manifest's keys are sorted.
            "images": [{"variant": label, "images": images} for label, images in tuned.images.items()],
        },
    }


def _alternative(contents: Contents, layout: Layout, name: str, number: int) -> dict[str, Json]:
    binary = contents.kernels[name][number].binary
    return {
        "variant": binary.source.variant.label,
        "alternative": number,
        "workspace_bytes": _size(binary.source.workspace_bytes),
        "scratch_bytes": _size(layout.scratch[name][number]),
        "constants": constant_parts(contents, layout.parts.constants, name, binary),
        "launches": _launches(contents, layout, name, number, binary),
    }


def _launches(contents: Contents, layout: Layout, name: str, number: int, binary: Binary) -> Json:
    placed = layout.parts.images
    launches: list[Mapping[str, Json]] = []
    for image in binary.images:
        part = layout.parts.image(contents.number(name), number, image) if placed else None
        launches.append(
            {
                "entry": image.entry,
                "digest": image.digest,
                "threads": image.threads,
                "shared_bytes": image.shared_bytes,
                "registers": image.registers,
                "spilled_bytes": image.spilled_bytes,
                "part": None if part is None else placed[part].part,
            }
        )
    return launches


def _constants(program: Program, layout: Layout) -> Json:
    return [
        {
            "name": name,
            "dtype": program.buffers[name].dtype.value,
            "shape": _sizes(program.buffers[name].shape),
            "strides": _sizes(program.buffers[name].strides),
            "bytes": int(program.constants[name].data.nbytes),
            "sha256": hashlib.sha256(np.ascontiguousarray(program.constants[name].data).data).hexdigest(),
        }
        for name in sorted(layout.parts.constants.names)
    ]
