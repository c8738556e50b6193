"""Compiles one variant of a kernel into a shared library and calls it on numpy arrays."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mkwrap.options import default_cxx
from mkwrap.stages import BufferArgument, Device, Kernel, Packing, Source
from mkwrap.targets.cpu import LEVELS, include_dir
from mkwrap.toolchain.cxx import KERNEL_FLAGS

Array = npt.NDArray[np.generic]


def build(source: Source, device: Device, folder: Path) -> ctypes.CDLL:
    """Compile a source as the toolchain does, but with its entry visible."""
    library = folder / f"{source.launches[0].entry}.so"
    if not library.exists():
        flags = [flag for flag in KERNEL_FLAGS if "visibility" not in flag]
        command = [default_cxx(), *flags, *LEVELS[device.arch].flags, "-Werror", "-Wall", f"-I{include_dir()}"]
        command += ["-shared", "-x", "c++", "-", "-o", str(library)]
        done = subprocess.run(command, input=source.text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{source.text}"
    return ctypes.CDLL(str(library))


def packed(data: Array, packing: Packing) -> Array:
    """Lay out a constant, given in its logical shape."""
    places = np.indices(packing.shape)
    names = dict(zip((axis.name for axis in packing.axes), places, strict=True))
    index = [np.broadcast_to(_evaluate(str(expr), names), packing.shape) for expr in packing.index]
    inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(index, data.shape, strict=True)])
    safe = tuple(np.where(inside, i, 0) for i in index)
    return np.where(inside, data[safe], 0).astype(packing.dtype.value)


def _evaluate(text: str, names: Mapping[str, Array]) -> Array:
    functions = {"FloorDiv": np.floor_divide, "Mod": np.mod}
    return np.asarray(eval(text, {"__builtins__": {}}, {**functions, **names}))  # noqa: S307


class Run:
    """One compiled variant, ready to be called on the memory of its parameters."""

    def __init__(self, source: Source, device: Device, folder: Path) -> None:
        self.source = source
        launch = source.launches[0]
        self._entry = getattr(build(source, device, folder), launch.entry)
        self._entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._keep: list[Array] = []

    def bind(self, kernel: Kernel, memory: Mapping[str, Array]) -> Sequence[int]:
        """Return the addresses of the launch's arguments; `memory` holds each parameter as a strided array."""
        addresses: list[int] = []
        for argument in self.source.launches[0].args:
            if isinstance(argument, BufferArgument):
                array = memory[kernel.parameters[argument.parameter].buffer.name]
                if argument.packing is not None:
                    array = packed(array, argument.packing)
                self._keep.append(array)
                addresses.append(array.ctypes.data)
            else:
                workspace = np.full(int(self.source.workspace_bytes) + 64, 0xFF, np.uint8)
                self._keep.append(workspace)
                addresses.append(-(-workspace.ctypes.data // 64) * 64)
        return addresses

    def call(self, addresses: Sequence[int]) -> int:
        """Run the kernel once; returns its status."""
        array = (ctypes.c_void_p * len(addresses))(*addresses)
        return int(self._entry(array, None))
