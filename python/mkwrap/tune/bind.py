"""From binaries to candidates of a contest: arguments bound to memories, objects linked so that they can be loaded."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mkwrap.errors import CompilerError
from mkwrap.ir.dtypes import DType
from mkwrap.stages import (
    Argument,
    Binary,
    BufferArgument,
    ConstantData,
    FaultArgument,
    Image,
    Kernel,
    Launch,
    Packing,
    WorkspaceArgument,
)
from mkwrap.toolchain.packing import pack
from mkwrap.tune import contest
from mkwrap.tune.arrays import number
from mkwrap.tune.contest import Call, Candidate, Fill, Memory
from mkwrap.tune.values import make


@dataclass
class Binder:
    """Collects the memories of a contest while its candidates are bound: parameters first, packed copies after."""

    kernel: Kernel
    memories: list[Memory]
    packed: dict[tuple[int, Packing], int] = field(default_factory=dict)
    """Place of each packed copy among the memories."""

    def bind(self, binary: Binary, images: Sequence[str | bytes]) -> Candidate:
        """Return a binary as a candidate; `images` are its images' loadable forms, in order.

        Raises `DynamicShapeError` for sizes that are not numbers.
        """
        source = binary.source
        # A CPU source has one image for all its launches.
        pairs = zip(binary.images, images, strict=True)
        loadable = list(pairs) if len(binary.images) > 1 else list(pairs) * len(source.launches)
        return Candidate(
            calls=tuple(self._call(launch, *pair) for launch, pair in zip(source.launches, loadable, strict=True)),
            workspace_bytes=number(source.workspace_bytes, "a workspace's size"),
            zero_workspace=source.zero_workspace,
        )

    def _call(self, launch: Launch, image: Image, loadable: str | bytes) -> Call:
        x, y, z = (number(extent, "a grid's extent") for extent in launch.grid)
        return Call(
            entry=image.entry,
            image=loadable,
            args=tuple(self._argument(argument) for argument in launch.args),
            grid=(x, y, z),
            threads=image.threads,
            shared_bytes=image.shared_bytes,
            global_scratch_bytes=image.global_scratch_bytes,
        )

    def _argument(self, argument: Argument) -> contest.Argument:
        match argument:
            case BufferArgument(parameter=parameter, packing=None):
                return contest.MemoryArgument(parameter)
            case BufferArgument(parameter=parameter, packing=packing):
                assert packing is not None
                return contest.MemoryArgument(self._copy(parameter, packing))
            case FaultArgument():
                return contest.FaultArgument()
            case WorkspaceArgument(offset=offset):
                return contest.ScratchArgument(number(offset, "a workspace's offset"))
            case _:
                width: Literal["i32", "i64"] = "i32" if argument.dtype is DType.INT32 else "i64"
                return contest.NumberArgument(number(argument.expr, "a size"), width)

    def packed_memory(self, parameter: int, packing: Packing) -> Memory:
        """Make the memory of a parameter's packed copy."""
        buffer = self.kernel.parameters[parameter].buffer
        source = ConstantData(buffer.name, make(self.memories[parameter], parameter))
        data = pack(source, buffer, packing)
        elements = data.nbytes // packing.dtype.itemsize
        cold = self.memories[parameter].cold
        return Memory(packing.dtype, elements, Fill.GIVEN, given=data.tobytes(), cold=cold)

    def _copy(self, parameter: int, packing: Packing) -> int:
        key = (parameter, packing)
        if key not in self.packed:
            memory = self.packed_memory(parameter, packing)
            self.packed[key] = len(self.memories)
            self.memories.append(memory)
        return self.packed[key]


def link_objects(images: Sequence[Image], cxx: str, folder: Path) -> Mapping[str, Path | str]:
    """Link objects into shared objects in `folder`; returns by digest the file that holds one, or why there is none.

    All are linked at once, since a link costs more than a kernel's compile; if that fails, each alone.
    Objects that define an entry another one has are linked alone, too.
    """
    distinct = {image.digest: image for image in images}
    entries = [image.entry for image in distinct.values()]
    together = [image for image in distinct.values() if entries.count(image.entry) == 1]
    files: dict[str, Path | str] = {}
    if len(together) > 1 and not (failure := _link(together, cxx, folder / "all.so")):
        files = dict.fromkeys((image.digest for image in together), folder / "all.so")
    for image in distinct.values():
        if image.digest not in files:
            output = folder / f"{image.digest}.so"
            failure = _link([image], cxx, output)
            files[image.digest] = failure or output
    return files


def _link(images: Sequence[Image], cxx: str, output: Path) -> str:
    """Link; returns the linker's complaint, or "". Raises `CompilerError` where the linker cannot be started."""
    objects = [output.parent / f"{image.digest}.o" for image in images]
    for path, image in zip(objects, images, strict=True):
        path.write_bytes(image.blob)
    command = [cxx, "-shared", "-fopenmp", "-Wl,-z,defs", "-o", str(output), *map(str, objects), "-lm"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "the linker ran for more than 120 s"
    except OSError as error:
        raise CompilerError(f"cannot start the linker {cxx!r}: {error.strerror}") from error
    return "" if done.returncode == 0 else f"cannot be linked: {done.stderr.decode(errors='replace')[:2000]}"
