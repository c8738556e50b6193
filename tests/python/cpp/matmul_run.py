"""Matrix products built by hand, and every variant of theirs run against the interpreter and float64."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tests.python.cpp.running import F32, I, J, K, R, buffer, copies, fill, target, whole
from tests.python.cpp.running import kernel as make_kernel

from mkwrap.codegen.template import Template
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.nodes import Buffer
from mkwrap.ir.numeric import Array, decode
from mkwrap.stages import Binary, BufferArgument, ConstantData, Kernel, Params, Source, Variant, WorkspaceArgument
from mkwrap.targets.target import Target
from mkwrap.toolchain.packing import pack


@dataclass(frozen=True)
class Product:
    """C[z, i, j] = (Σ A[z, i, r] · B[z, r, j] + bias[j], then relu) in one dtype; strides of each buffer in elements."""

    batch: int
    m: int
    n: int
    k: int
    dtype: DType = F32
    a: tuple[int, int, int] | None = None
    b: tuple[int, int, int] | None = None
    c: tuple[int, int, int] | None = None
    epilogue: bool = True
    cast: bool = False
    constant: bool = False

    @property
    def kernel(self) -> Kernel:
        """The nest and its parameters a, b, bias, c."""
        wide = self.dtype.compute
        body = BodyBuilder()
        a, b = body.load("a", self.dtype, (K, I, R)), body.load("b", self.dtype, (K, R, J))
        if self.cast:
            a, b = body.cast(a, wide), body.cast(b, wide)
        (value,) = body.reduce("dot", a, b)
        if self.epilogue:
            value = body.compute("add", value, body.cast(body.load("bias", self.dtype, (J,)), wide))
            value = body.compute("maximum", value, body.constant(0, wide))
        body.store("c", (K, I, J), body.cast(value, self.dtype))
        nest = whole("matmul_0", (K, self.batch), (I, self.m), (J, self.n), (R, self.k), body=body, reduce=1)
        reads = [
            buffer("a", self.dtype, (self.batch, self.m, self.k), self.a),
            buffer("b", self.dtype, (self.batch, self.k, self.n), self.b),
        ]
        reads += [buffer("bias", self.dtype, (self.n,))] if self.epilogue else []
        made = make_kernel(nest, reads, [buffer("c", self.dtype, (self.batch, self.m, self.n), self.c)])
        if not self.constant:
            return made
        parameters = tuple(replace(p, constant=p.buffer.name in ("b", "bias")) for p in made.parameters)
        return replace(made, parameters=parameters)


@dataclass(frozen=True)
class Built:
    """A variant's source and its entry."""

    source: Source
    entry: ctypes._CFuncPtr


def storage(array: Array) -> Array:
    """All elements from an array's first to its last, as bytes."""
    if array.size == 0:
        return np.zeros(0, np.uint8)
    extent = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) + array.itemsize
    return np.frombuffer((ctypes.c_uint8 * extent).from_address(array.ctypes.data), np.uint8)


def bound(source: Source, kernel: Kernel, memory: Mapping[str, Array]) -> tuple[list[int], list[Array]]:
    """Addresses of a launch's arguments, and what must stay alive for them."""
    addresses: list[int] = []
    alive: list[Array] = []
    for argument in source.launches[0].args:
        if isinstance(argument, BufferArgument):
            b: Buffer = kernel.parameters[argument.parameter].buffer
            array = memory[b.name]
            if argument.packing is not None:
                array = np.ascontiguousarray(pack(ConstantData(b.name, storage(array)), b, argument.packing))
            alive.append(array)
            addresses.append(array.ctypes.data)
        else:
            assert isinstance(argument, WorkspaceArgument)
            workspace = np.full(int(source.workspace_bytes) + 64, 0xFF, np.uint8)
            alive.append(workspace)
            addresses.append(workspace.ctypes.data + -workspace.ctypes.data % 64 + int(argument.offset))
    return addresses, alive


def build(template: Template, kernel: Kernel, params: Params, folder: Path, on: Target) -> Built:
    """Compile and link one variant."""
    binary = on.compile(template.render(kernel, Variant(kernel.name, template.name, params), on.device))
    assert isinstance(binary, Binary), binary.reason
    image = binary.images[0]
    paths = [folder / f"{image.entry}.{ending}" for ending in ("o", "so")]
    if not paths[1].exists():
        paths[0].write_bytes(image.blob)
        subprocess.run(["g++", "-shared", "-fopenmp", str(paths[0]), "-o", str(paths[1]), "-lm"], check=True)
    return Built(binary.source, ctypes.CDLL(str(paths[1]))[image.entry])


def call(function: ctypes._CFuncPtr, addresses: Sequence[int]) -> int:
    """Run a kernel once; returns its status."""
    return int(function((ctypes.c_void_p * len(addresses))(*addresses), None))


def check(
    template: Template, kernel: Kernel, folder: Path, tolerance: float, on: Target | None = None,
    memory: Mapping[str, Array] | None = None,
) -> list[Source]:  # fmt: skip
    """Run the distinct variants on random data and compare all written buffers with the interpreter's."""
    on = on or target()
    if memory is None:
        rng = np.random.default_rng(0)
        memory = {p.buffer.name: fill(p.buffer, rng, -5, 5) for p in kernel.parameters}
    expected = copies(memory)
    interpret_nest(kernel.nest, expected)
    sources = []
    for params in distinct(template.space(kernel, on.device)):
        built = build(template, kernel, params, folder, on)
        actual = copies(memory)
        addresses, _alive = bound(built.source, kernel, actual)
        assert call(built.entry, addresses) == 0
        for parameter in kernel.parameters:
            b = parameter.buffer
            pair = [decode(values[b.name], b.dtype) for values in (actual, expected)]
            compare(*pair, tolerance, f"{built.source.variant.label} {b.name}")
        sources.append(built.source)
    return sources


def distinct(space: Sequence[Params]) -> list[Params]:
    """Leave out variants that differ from an earlier one in the sizes of tiles and parts alone."""
    kept: dict[tuple[object, ...], Params] = {}
    for params in space:
        values = dict(params)
        kept.setdefault((values.get("a"), values.get("b"), values.get("vector"), values["threads"]), params)
    return list(kept.values())


def compare(actual: Array, expected: Array, tolerance: float, what: str) -> None:
    """Equal integers; floats within `tolerance` of the largest magnitude, NaN and infinities alike."""
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale, err_msg=what)
