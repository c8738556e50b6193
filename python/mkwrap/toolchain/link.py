"""Makes one shared library of host code, embedded bytes and kernel objects."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from mkwrap.artifact import Blob, EmbeddedConstant, HostCode, Library
from mkwrap.codegen.wrapper.host import PARTS
from mkwrap.errors import CompilerError, LibrarySizeError
from mkwrap.stages import Program
from mkwrap.toolchain.headers import cuda_include, include_dir
from mkwrap.toolchain.packing import pack
from mkwrap.toolchain.parts import Lazy, write_parts
from mkwrap.toolchain.seal import publish

HOST_FLAGS: tuple[str, ...] = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-fwrapv",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-ident",
    "-fno-asynchronous-unwind-tables",
    "-fvisibility=hidden",
    "-frandom-seed=mkwrap",
)
"""Flags of every model source. No -march: the host code must be able to refuse a CPU that the kernels do not run on."""

LINK_FLAGS: tuple[str, ...] = (
    "-shared",
    "-static-libgcc",
    "-Wl,--as-needed",
    "-Wl,-z,defs",
    "-Wl,-z,relro",
    "-Wl,-z,now",
    "-Wl,-z,text",
    "-Wl,--build-id=none",
    "-Wl,--version-script=exports.map",
    "-Wl,-T,layout.ld",
)
"""Flags of the link of every model."""
_EXPORTS = "{ global: mkw_get_api; local: *; };\n"
LAYOUT = """SECTIONS {{
  .interp : {{ *(.interp) }}
  .note.gnu.property : {{ *(.note.gnu.property) }}
}} INSERT BEFORE .dynsym;
SECTIONS {{
{sections}
}} INSERT AFTER .bss;
"""
"""The linker script of every model; INSERT keeps the linker's own for the rest.

Behind everything else, each in a segment of its own (a page is skipped before it): the code that may be dropped, then the parts.
GNU ld's script for shared libraries names no notes (compilers that default to -fcf-protection write one) and would put them into
the parts' segment: they go to the front, where it looks for `.interp` to put them behind; there is none in a library.
"""
_SECTION = """  . = ALIGN(CONSTANT(MAXPAGESIZE)) + CONSTANT(MAXPAGESIZE);
  {name} : ALIGN(CONSTANT(MAXPAGESIZE)) {{ {inputs} }}"""
_CODE = "{file}(.text .text.* .rodata .rodata.*)"
PARTS_SECTION = ".mkwrap"
_TIMEOUT_S = 300
# Code reaches embedded bytes by 32-bit relative addresses.
_LARGEST_BYTES = 2**31 - 2**26


def link(host: HostCode, program: Program, cxx: str, output: Path) -> Library:
    """Compile and link a library and publish it at `output` in one step, as `linked` does."""
    publish(linked(host, program, cxx), output)
    return Library(output, host.manifest)


def linked(host: HostCode, program: Program, cxx: str) -> bytes:
    """Compile and link a library and return its ELF image; equal host code gives equal bytes.

    Raises `CompilerError` with the compiler's output, `LibrarySizeError` for more constants than a library can hold, `OSError`
    where the files of the work cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="mkwrap-") as name:
        folder = Path(name)
        _write_inputs(host, program, folder)
        _run(_command(host, cxx), folder)
        return (folder / "model.so").read_bytes()


def _write_inputs(host: HostCode, program: Program, folder: Path) -> None:
    (folder / "model.cpp").write_text(host.text)
    (folder / "exports.map").write_text(_EXPORTS)
    (folder / "layout.ld").write_text(_layout(host))
    with (folder / PARTS).open("wb") as file:
        try:
            write_parts(file, [_lazy(blob, program) for blob in host.parts], host.rows, _LARGEST_BYTES)
        except ValueError as error:
            raise LibrarySizeError(
                f"the constants of this program take more than {_LARGEST_BYTES >> 20} MiB"
            ) from error
    for number, image in enumerate(host.objects):
        (folder / _object(number)).write_bytes(image.blob)


def _lazy(blob: Blob, program: Program) -> Lazy:
    if isinstance(blob, bytes):
        return lambda: blob
    return lambda: _packed(blob, program)


def _packed(blob: EmbeddedConstant, program: Program) -> memoryview:
    data = pack(program.constants[blob.constant], program.buffers[blob.constant], blob.packing)
    return np.ascontiguousarray(data).data


def _layout(host: HostCode) -> str:
    objects = {image.entry: _object(number) for number, image in enumerate(host.objects)}
    sections = [(f".mkwrap.code{k}", _CODE.format(file=objects[entry])) for k, entry in enumerate(host.apart)]
    sections.append((PARTS_SECTION, f"*({PARTS_SECTION})"))
    return LAYOUT.format(sections="\n".join(_SECTION.format(name=name, inputs=inputs) for name, inputs in sections))


def _command(host: HostCode, cxx: str) -> list[str]:
    includes = ["-I", str(include_dir())]
    if host.kind == "cuda":
        includes += ["-I", str(cuda_include())]
    libraries = ["-fopenmp"] if host.objects else []
    objects = [_object(number) for number in range(len(host.objects))]
    flags = [*HOST_FLAGS, *LINK_FLAGS, "-Wa,-I,."]
    return [cxx, *flags, *includes, *libraries, "model.cpp", *objects, "-lm", "-ldl", "-o", "model.so"]


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CompilerError(f"linking with {command[0]} took more than {_TIMEOUT_S} s") from error
    except OSError as error:
        raise CompilerError(f"cannot start the C++ compiler {command[0]!r}: {error.strerror}") from error
    if done.returncode != 0:
        text = done.stderr.decode(errors="replace")
        raise CompilerError(f"{command[0]} failed on generated host code:\n{text[:8000]}")


def _object(number: int) -> str:
    return f"kernel_{number}.o"
