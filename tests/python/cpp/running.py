"""Builds kernels by hand, compiles every variant, runs them through ctypes and compares with the interpreter."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sympy
from tests.python.nests import axes

from mkwrap import targets
from mkwrap.codegen.template import Template
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import axis_symbol
from mkwrap.ir.interpret import allocate, interpret_nest
from mkwrap.ir.nodes import Buffer, Nest
from mkwrap.ir.numeric import Array, decode, encode
from mkwrap.options import Options
from mkwrap.stages import (
    Binary,
    BufferArgument,
    ConstantData,
    Image,
    Kernel,
    Launch,
    Params,
    Source,
    Variant,
    WorkspaceArgument,
)
from mkwrap.targets.target import Target
from mkwrap.toolchain.packing import pack

F32, F64, BF16, F16, I64, I32, BOOL = (
    DType.FLOAT32, DType.FLOAT64, DType.BFLOAT16, DType.FLOAT16, DType.INT64, DType.INT32, DType.BOOL
)  # fmt: skip
I, J, K, R, Q = (axis_symbol(name) for name in ("i0", "i1", "i2", "q0", "q1"))  # noqa: E741  the usual names of indices


@cache
def target(name: str = "cpu", threads: int = 2) -> Target:
    return targets.resolve(name, Options(threads=threads))


def whole(name: str, *dims: tuple[sympy.Symbol, int], body: BodyBuilder, reduce: int = 0) -> Nest:
    """A nest whose last `reduce` axes are reduced over."""
    cut = len(dims) - reduce
    return Nest(name, axes(*dims[:cut]), axes(*dims[cut:]), body.body())


@cache
def _scratch() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="mkwrap-test-")


def link(binary: Binary) -> Path:
    """Link an object into a library, once per process."""
    image = binary.images[0]
    library = Path(_scratch().name) / f"{image.entry}-{image.digest[:8]}.so"
    if not library.exists():
        obj = library.with_suffix(".o")
        obj.write_bytes(image.blob)
        subprocess.run(["g++", "-shared", "-fopenmp", obj, "-o", library, "-lm"], check=True)
    return library


def entry_of(binary: Binary) -> ctypes._CFuncPtr:
    """Link an object into a library and return its entry."""
    function = getattr(ctypes.CDLL(str(link(binary))), binary.images[0].entry)
    function.restype = ctypes.c_int32
    return function


def variants_of(template: Template, k: Kernel, device_of: Target) -> tuple[Variant, ...]:
    return tuple(Variant(k.name, template.name, params) for params in template.space(k, device_of.device))


def build(template: Template, k: Kernel, variant: Variant, on: Target) -> Binary:
    """Compile a variant; equal text is compiled once in this process, since equal text gives equal bytes."""
    source = template.render(k, variant, on.device)
    images = _images(source.text, source.launches[0].entry, on.name, on.device.units)
    return Binary(source, images)


@cache
def _images(text: str, entry: str, name: str, threads: int) -> tuple[Image, ...]:
    binary = target(name, threads).compile(Source(Variant("", ""), "cpp", text, (Launch(entry, ()),)))
    assert isinstance(binary, Binary), binary.reason
    return binary.images


def storage(array: Array) -> Array:
    """View all elements from an array's first to its last, as bytes."""
    if array.size == 0:
        return np.zeros(0, np.uint8)
    extent = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)) + array.itemsize
    return np.frombuffer((ctypes.c_uint8 * extent).from_address(array.ctypes.data), np.uint8)


def bound(source: Source, k: Kernel, memory: Mapping[str, Array]) -> tuple[list[int], list[Array]]:
    """Return the addresses of a launch's arguments, and what must stay alive for them; constants are packed."""
    workspace = np.full(int(source.workspace_bytes) + 64, 0xFF, np.uint8)
    addresses: list[int] = []
    alive: list[Array] = [workspace]
    for argument in source.launches[0].args:
        if isinstance(argument, BufferArgument):
            b = k.parameters[argument.parameter].buffer
            array = memory[b.name]
            if argument.packing is not None:
                array = np.ascontiguousarray(pack(ConstantData(b.name, storage(array)), b, argument.packing))
            alive.append(array)
            addresses.append(array.ctypes.data)
        elif isinstance(argument, WorkspaceArgument):
            addresses.append(workspace.ctypes.data + -workspace.ctypes.data % 64 + int(argument.offset))
    return addresses, alive


def call(
    function: ctypes._CFuncPtr, source: Source, k: Kernel, memory: Mapping[str, Array], sizes: Sequence[int] = ()
) -> int:
    """Run a kernel on arrays in memory (in place); returns its status. Dynamic kernels here take no workspace."""
    addresses, _alive = bound(source, k, memory)
    return int(function((ctypes.c_void_p * len(addresses))(*addresses), (ctypes.c_int64 * len(sizes))(*sizes)))


def fill(b: Buffer, rng: np.random.Generator, low: int = -50, high: int = 50) -> Array:
    """Make an array of random values in a buffer's geometry."""
    array = allocate(b, {})
    if b.dtype is BOOL:
        array[...] = rng.integers(0, 2, array.shape)
    elif b.dtype.is_integer:
        array[...] = rng.integers(low if b.dtype.is_signed else 0, high, array.shape)
    else:
        array[...] = encode(rng.standard_normal(array.shape), b.dtype)
    return array


def copies(memory: Mapping[str, Array]) -> dict[str, Array]:
    """Copy arrays with their strides."""
    result = {}
    for name, array in memory.items():
        if 0 in array.shape:
            result[name] = array.copy()
            continue
        base = storage(array).copy()
        result[name] = np.ndarray(array.shape, array.dtype, base, 0, array.strides)
    return result


def check(
    template: Template,
    k: Kernel,
    memory: Mapping[str, Array],
    tolerance: float = 2e-6,
    only: Sequence[Params] | None = None,
    on: Target | None = None,
) -> list[Source]:
    """Run every variant and compare all buffers with the interpreter's; returns the sources."""
    on = on or target()
    expected = copies(memory)
    interpret_nest(k.nest, expected)
    chosen = variants_of(template, k, on) if only is None else tuple(Variant(k.name, template.name, p) for p in only)
    assert chosen
    sources = []
    with ThreadPoolExecutor(4) as pool:
        binaries = list(pool.map(lambda variant: build(template, k, variant, on), chosen))
    for variant, binary in zip(chosen, binaries, strict=True):
        actual = copies(memory)
        assert call(entry_of(binary), binary.source, k, actual) == 0
        for parameter in k.parameters:
            b = parameter.buffer
            compare(
                decode(actual[b.name], b.dtype),
                decode(expected[b.name], b.dtype),
                tolerance,
                f"{variant.label} {b.name}",
            )
        sources.append(binary.source)
    return sources


def compare(actual: Array, expected: Array, tolerance: float, what: str) -> None:
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=what)
    else:
        np.testing.assert_array_equal(actual, expected, err_msg=what)
