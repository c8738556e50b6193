"""Compiles every variant of small reductions and scans for this machine's GPU, for `watched` to launch (C18).

Usage: `python -m tests.python.triton.build_watched FILE`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from mkwrap.options import Options
from mkwrap.stages import Access, Binary, Kernel, Source
from mkwrap.targets import cuda
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.headers import headers_digest
from mkwrap.toolchain.pool import Compiler
from mkwrap.toolchain.pool import build as build_sources
from tests.python.triton.nests import BF16, associative, layer_norm, padded_gather, reduction, scan, softmax
from tests.python.triton.oracle import fill, short_split, sources, walking
from tests.python.triton.watched import Watched


def cases() -> dict[str, Callable[[], Kernel]]:
    """Return the suites, small: rows that fit one block, that are walked, and that are cut; along both axes."""
    made: dict[str, Callable[[], Kernel]] = {}
    for op in ("sum", "maximum", "argmin", "welford"):
        made[f"{op}_short"] = partial(reduction, op, 70, 90)
        made[f"{op}_rows"] = partial(reduction, op, 9, 3001)
        made[f"{op}_split"] = partial(reduction, op, 2, 70_001)
        made[f"{op}_columns"] = partial(reduction, op, 65, 1100, outer=True)
    made["softmax"] = partial(softmax, 9, 3001, BF16)
    made["softmax_split"] = partial(softmax, 2, 70_001)
    made["softmax_columns"] = partial(softmax, 65, 500, outer=True)
    made["layer_norm"] = partial(layer_norm, 9, 1001, BF16)
    for op in ("sum", "cummax", "logaddexp"):
        made[f"scan_{op}_rows"] = partial(scan, op, 9, 1001)
        made[f"scan_{op}_split"] = partial(scan, op, 2, 70_001)
        made[f"scan_{op}_columns"] = partial(scan, op, 65, 1100, outer=True)
    made["scan_linear"] = partial(associative, 2, 20_000)
    made["gather"] = partial(padded_gather, 100, 33)
    return made


def build(file: Path) -> None:
    """Compile every variant of every case and write them to a file, with what they are to read."""
    options = Options()
    target = cuda.resolve("cuda", options)
    rendered: list[tuple[str, Source, tuple[bytes | int, ...]]] = []
    for name, make in cases().items():
        case = make()
        given = _given(case)
        found = (*sources(case, target.device), *short_split(case), *walking(case))
        rendered += [(f"{name} {source.variant.label}", source, given) for source in found]
    compiler = Compiler(
        target.compile, f"{target.toolchain} {headers_digest()}", options.jobs, Cache(options.cache_dir)
    )
    built = build_sources([source for _, source, _ in rendered], compiler)
    watched = []
    for (label, _, given), binary in zip(rendered, built, strict=True):
        assert isinstance(binary, Binary), binary
        watched.append(Watched(label, binary, given))
    file.write_bytes(pickle.dumps(watched))


def _given(case: Kernel) -> tuple[bytes | int, ...]:
    memory = fill(case)
    if case.name == "padded_gather":
        memory[1] %= 7
    flat = [memory[k].view(torch.uint8).numpy() for k in range(len(case.parameters))]
    pairs = zip(case.parameters, flat, strict=True)
    return tuple(data.nbytes if p.access is Access.WRITE else data.tobytes() for p, data in pairs)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
