"""Launches the variants in a file, for a sanitizer to watch (C18; scripts/sanitize).

Usage: `python -m tests.python.triton.watched FILE`; `build_watched` writes the file. Two processes, so that neither compilers
nor torch are watched.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mkwrap import _C
from mkwrap.ir.dtypes import DType
from mkwrap.stages import Binary, BufferArgument, FaultArgument, WorkspaceArgument

_FAULT_BYTES = 4


@dataclass(frozen=True)
class Watched:
    """A variant and its memory: the bytes of what it reads, or, as a number, the bytes of what it only writes."""

    label: str
    binary: Binary
    memory: tuple[bytes | int, ...]


def run(file: Path) -> None:
    """Launch every variant twice. What it only writes, and its workspace, stay uninitialised, for initcheck to see."""
    watched: list[Watched] = pickle.loads(file.read_bytes())
    context = _C.CudaContext(0)
    for item in watched:
        # Before what the sanitizer says of it.
        sys.stdout.write(f"{item.label}\n")
        sys.stdout.flush()
        places = [context.allocate(max(len(m) if isinstance(m, bytes) else m, 16)) for m in item.memory]
        for place, content in zip(places, item.memory, strict=True):
            if isinstance(content, bytes) and content:
                context.upload(place, content)
        workspace = context.allocate(int(item.binary.source.workspace_bytes) + 16)
        fault = context.allocate(_FAULT_BYTES)
        context.fill(fault, 0, _FAULT_BYTES)
        launches = list(_launches(context, item.binary, places, workspace, fault))
        context.run(launches)
        context.run(launches)
        for place in (*places, workspace, fault):
            context.free(place)


def _launches(
    context: _C.CudaContext, binary: Binary, places: list[int], workspace: int, fault: int
) -> Iterator[_C.CudaLaunch | _C.CudaFill]:
    if binary.source.zero_workspace:
        yield workspace, 0, int(binary.source.workspace_bytes)
    for image, launch in zip(binary.images, binary.source.launches, strict=True):
        args: list[_C.CudaArgument] = []
        for argument in launch.args:
            if isinstance(argument, BufferArgument):
                args.append(("ptr", places[argument.parameter]))
            elif isinstance(argument, WorkspaceArgument):
                args.append(("ptr", workspace + int(argument.offset)))
            elif isinstance(argument, FaultArgument):
                args.append(("ptr", fault))
            else:
                args.append(("i32" if argument.dtype is DType.INT32 else "i64", int(argument.expr)))
        blocks = int(launch.grid[0]) * int(launch.grid[1]) * int(launch.grid[2])
        scratch = context.allocate(image.global_scratch_bytes * blocks) if image.global_scratch_bytes else 0
        function = context.load(image.blob, image.entry, image.shared_bytes)
        x, y, z = (int(extent) for extent in launch.grid)
        yield function.launch((x, y, z), image.threads, image.shared_bytes, [*args, ("ptr", scratch), ("ptr", 0)])


if __name__ == "__main__":
    run(Path(sys.argv[1]))
