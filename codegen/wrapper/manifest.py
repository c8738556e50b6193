"""The manifest of a library; docs/manifest.md is its schema."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import sympy

from mkwrap.codegen.wrapper.blobs import binary_of
from mkwrap.codegen.wrapper.launcher import Layout, input_number, output_number
from mkwrap.codegen.wrapper.sizes import is_static
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Device, OutputKind, OutputSpec, Program, Selection

FORMAT = 1
ABI_VERSION = 1

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


def render_manifest(selection: Selection, layout: Layout, traffic_bytes: int, description: Description) -> str:
    """Return the manifest: JSON with sorted keys, so that equal selections give equal text."""
    program = selection.schedule.program
    device = description.device
    manifest: Mapping[str, Json] = {
        "format": FORMAT,
        "abi_version": ABI_VERSION,
        "mkwrap_version": description.version,
        "target": {
            "kind": device.kind,
            "arch": device.arch,
            "features": description.features,
            "device": device.name,
            "units": device.units,
        },
        "inputs": _inputs(program),
        "outputs": [_output(program, spec) for spec in program.outputs],
        "symbols": [
            {
                "name": spec.symbol.name,
                "low": spec.low,
                "high": spec.high,
                "input": input_number(program, spec.input_name),
                "dim": spec.dim,
            }
            for spec in program.symbols
        ],
        "call": description.call,
        "kernels": _kernels(selection),
        "constants": _constants(program, layout),
        "memory": {
            "arena": layout.arena_bytes,
            "workspace": layout.workspace_bytes,
            "constants": sum(c.size for c in layout.constants.placed),
            "traffic": traffic_bytes,
        },
    }
    return json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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


def _kernels(selection: Selection) -> Json:
    steps: dict[str, list[int]] = {}
    origins: dict[str, dict[str, None]] = {}
    for number, step in enumerate(selection.schedule.steps):
        steps.setdefault(step.kernel, []).append(number)
        origins.setdefault(step.kernel, {}).update(dict.fromkeys(step.origins))
    return [
        {
            "name": name,
            "steps": numbers,
            "uses": len(numbers),
            "origins": list(origins[name]),
            **_choice(selection, name),
        }
        for name, numbers in steps.items()
    ]


def _choice(selection: Selection, name: str) -> Mapping[str, Json]:
    binary = binary_of(selection, name)
    return {
        "winner": binary.source.variant.label,
        "reason": selection.reasons.get(name, ""),
        "timings": [
            {
                "variant": timing.variant.label,
                "median_us": timing.median_us,
                "spread_us": timing.spread_us,
                "runs": timing.runs,
            }
            for timing in selection.timings.get(name, ())
        ],
        "rejected": [
            {"variant": rejected.variant.label, "reason": rejected.reason}
            for rejected in selection.rejected.get(name, ())
        ],
        "workspace_bytes": _size(binary.source.workspace_bytes),
        "launches": [
            {
                "entry": image.entry,
                "digest": image.digest,
                "threads": image.threads,
                "shared_bytes": image.shared_bytes,
                "registers": image.registers,
                "spilled_bytes": image.spilled_bytes,
            }
            for image in binary.images
        ],
    }


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
        for name in sorted(layout.constants.names)
    ]
