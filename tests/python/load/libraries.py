"""Sealed libraries with a hand-written body and a manifest as the compiler writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch.utils._pytree as torch_pytree

from mkwrap.model import Model
from mkwrap.pytree import PythonValue, encode_call
from mkwrap.toolchain.seal import publish
from tests.python.binding.hand_library import HandLibrary, build

MANIFEST: Mapping[str, object] = {
    "format": 1,
    "abi_version": 1,
    "mkwrap_version": "0.1.0",
    "target": {"kind": "cpu", "arch": "test-arch", "features": [], "device": "a [red] machine", "units": 1},
    "targets": [{"kind": "cpu", "arch": "test-arch", "features": [], "device": "a [red] machine", "units": 1}],
    "symbols": [],
    "kernels": [
        {
            "name": "kernel0",
            "target": 0,
            "winner": "pointwise[unroll=1]",
            "reason": "measured",
            "uses": 2,
            "steps": [0, 1],
            "origins": ["aten.add.Tensor at model.py:1: x + 1"],
            "timings": [
                {"variant": "pointwise[unroll=1]", "median_us": 1.5, "spread_us": 0.25, "runs": 7},
                {"variant": "pointwise[unroll=4]", "median_us": 2.5, "spread_us": 0.5, "runs": 7},
            ],
            "rejected": [{"variant": "split[parts=9]", "reason": "g++: [bold] error"}],
            "workspace_bytes": 0,
            "launches": [],
        }
    ],
    "constants": [],
    "memory": {"arena": 0, "workspace": 64, "constants": 0, "traffic": 3 << 20},
}


def sealed(
    path: Path,
    library: HandLibrary,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    result: object,
    outputs: Sequence[Mapping[str, object]],
    constants: Mapping[int, PythonValue] | None = None,
) -> Model:
    """Build, seal and open a library called like `(*args, **kwargs) → result`; leaves of these are placeholders."""
    _, in_spec = torch_pytree.tree_flatten((tuple(args), dict(kwargs)))
    _, out_spec = torch_pytree.tree_flatten(result)
    manifest = {
        **MANIFEST,
        "inputs": [{"shape": list(tensor.shape)} for tensor in library.inputs],
        "outputs": [_shaped(output, library) for output in outputs],
        "call": encode_call(in_spec, out_spec, constants or {}),
    }
    build(replace(library, manifest=manifest), path)
    publish(path.read_bytes(), path)
    return Model(path)


def buffer(index: int) -> dict[str, object]:
    """Describe a result leaf that is output number index."""
    return {"kind": "buffer", "index": index}


def _shaped(output: Mapping[str, object], library: HandLibrary) -> Mapping[str, object]:
    if output["kind"] != "buffer":
        return output
    return {**output, "shape": list(library.outputs[int(str(output["index"]))].shape)}
