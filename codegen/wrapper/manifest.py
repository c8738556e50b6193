"""The manifest of a library; docs/manifest.md is its schema."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mkwrap.artifact import Row
from mkwrap.codegen.wrapper.contents import Contents
from mkwrap.codegen.wrapper.launcher import Layout, input_number, output_number
from mkwrap.codegen.wrapper.manifest_kernel import Json, describe_kernel, describe_size
from mkwrap.codegen.wrapper.sizes import largest, most_of
from mkwrap.ir.nodes import Expr
from mkwrap.ir.relations import relation_text
from mkwrap.stages import (
    Device,
    Hints,
    OutputKind,
    OutputSpec,
    Program,
    Versions,
)

FORMAT = 1
ABI_VERSION = 2


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
        "kernels": [
            describe_kernel(contents, layout, name, n) for n in range(len(targets)) for name in contents.kernels
        ],
        "constants": _constants(program, layout),
        "memory": {
            "arena": largest(layout.arena_bytes, program.symbols),
            "workspace": most_workspace(layout.rows),
            "constants": sum(c.size for c in layout.parts.constants.placed),
            "traffic": traffic_bytes,
        },
        "code": list(apart),
        "texts": layout.parts.texts,
    }
    return json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def most_workspace(rows: Sequence[Row]) -> int | None:
    """Return the most workspace that any target's choice needs, None where dynamic sizes have no upper ends."""
    return most_of([row.workspace_bytes for row in rows])


def _sizes(exprs: Sequence[Expr]) -> Json:
    return [describe_size(expr) for expr in exprs]


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
                "offset": describe_size(spec.offset),
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
