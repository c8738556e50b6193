"""Compiles generated Triton to cubins, on a machine with or without a GPU: text in, images out.

Line information is left out, so that no path enters the bytes and equal sources give equal cubins.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import triton
from mkwrap.errors import CompilerError
from mkwrap.stages import Binary, Device, Image, Launch, Rejected, Source
from mkwrap.toolchain.cubin_elf import read_resources
from mkwrap.toolchain.rejection import rejection
from triton import knobs

WARP = 32
_REASON_CHARACTERS = 4000

# Triton keeps its settings per process: one source is compiled at a time.
_SETTINGS = threading.Lock()


def compile_source(source: Source, device: Device) -> Binary | Rejected:
    """Compile every launch of a Triton source to a cubin for `device.arch`.

    Touches no driver, no environment variable and no file outside a temporary folder. What Triton or ptxas refuses, and
    what asks for more shared memory than `device.shared_bytes`, is `Rejected` with the reason. Picklable in and out.
    """
    target = GPUTarget("cuda", int(device.arch.removeprefix("sm_")), WARP)
    with _SETTINGS, tempfile.TemporaryDirectory(prefix="mkwrap-") as folder:
        try:
            with _settings(Path(folder)):
                functions = _functions(source.text, Path(folder) / "kernel.py")
                images = tuple(_image(functions[launch.entry], launch, target) for launch in source.launches)
        except CompilerError:
            raise
        except Exception as error:
            # Triton raises many types, from its front end to ptxas: each means that this text has no image.
            return rejection(source.variant, _reason(error))
    for image in images:
        if image.shared_bytes > device.shared_bytes:
            reason = f"needs {image.shared_bytes} bytes of shared memory, the device has {device.shared_bytes}"
            return rejection(source.variant, reason)
    return Binary(source, images)


@contextlib.contextmanager
def _settings(folder: Path) -> Iterator[None]:
    """Point Triton's cache into a folder, leave line information out, swallow what it prints; restore on leaving."""
    with knobs.cache.scope(), knobs.compilation.scope(), contextlib.redirect_stdout(io.StringIO()):
        knobs.cache.dir = str(folder / "cache")
        knobs.compilation.disable_line_info = True
        knobs.compilation.store_binary_only = True
        yield


def _functions(text: str, path: Path) -> dict[str, triton.JITFunction]:
    """Execute the module's text in a namespace of its own; Triton reads the functions' lines back from the file."""
    path.write_text(text)
    code: CodeType = compile(text, str(path), "exec")
    namespace: dict[str, triton.JITFunction] = {"__name__": "mkwrap_generated"}
    exec(code, namespace)
    return namespace


def _image(function: triton.JITFunction, launch: Launch, target: GPUTarget) -> Image:
    attributes = {(k,): [["tt.divisibility", 16]] for k in launch.divisible_by_16}
    ast = ASTSource(function, dict(launch.signature), {}, attributes)
    # Triton 3.10 changes the default of enable_fp_fusion: it is always given.
    options = {"enable_fp_fusion": False, **launch.options}
    compiled = triton.compile(ast, target=target, options=options)
    blob: bytes = compiled.asm["cubin"]
    metadata = compiled.metadata
    resources = read_resources(blob)
    if metadata.name != launch.entry:
        raise CompilerError(f"Triton named the kernel {metadata.name!r}; expected {launch.entry!r}")
    return Image(
        entry=launch.entry,
        blob=blob,
        digest=hashlib.sha256(blob).hexdigest(),
        threads=metadata.num_warps * WARP,
        shared_bytes=metadata.shared,
        registers=resources.registers,
        spilled_bytes=resources.stack_bytes,
        global_scratch_bytes=metadata.global_scratch_size or 0,
        global_scratch_alignment=metadata.global_scratch_align or 1,
    )


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: " + "\n".join(lines)[:_REASON_CHARACTERS]
