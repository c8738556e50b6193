"""Compiles generated C++ with the host compiler: text in, the bytes of an object file out.

Flags that decide numbers: no -ffast-math. `-ffp-contract=off`, because eager rounds after every operation and
`x*y - x*y` must be 0 (a contracted one is the rounding error of the product); the math functions of simd.h ask for fused
multiply-adds explicitly. `-fwrapv`, because integers wrap in torch. `-fno-trapping-math -fno-math-errno`, because nobody
reads the floating-point flags or errno.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from mkwrap.errors import CompilerError
from mkwrap.fresh import clear_on_fresh_cache
from mkwrap.stages import Binary, Image, Rejected, Source
from mkwrap.toolchain.rejection import rejection

KERNEL_FLAGS: tuple[str, ...] = (
    "-std=c++20",
    "-O3",
    "-fopenmp",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fwrapv",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-ident",
    "-fno-asynchronous-unwind-tables",
    "-fvisibility=hidden",
    "-frandom-seed=mkwrap",
)
"""Flags of every kernel, whatever the instruction set."""

_TIMEOUT_S = 120


def compile_source(source: Source, cxx: str, flags: tuple[str, ...], include: Path) -> Binary | Rejected:
    """Compile a C++ source to one object; equal text, compiler and flags give equal bytes.

    The text goes in by standard input, so that no path enters the object. What the compiler refuses is `Rejected` with its
    output; a compiler that cannot be started raises `CompilerError`.
    """
    with tempfile.TemporaryDirectory(prefix="mkwrap-") as folder:
        output = Path(folder) / "kernel.o"
        command = [
            cxx,
            *flags,
            "-I",
            str(include),
            f"-ffile-prefix-map={include}=include",
            "-x",
            "c++",
            "-c",
            "-",
            "-o",
        ]
        try:
            done = subprocess.run(
                [*command, str(output)],
                input=source.text.encode(),
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return rejection(source.variant, f"{cxx} ran for more than {_TIMEOUT_S} s")
        except OSError as error:
            raise CompilerError(f"cannot start the C++ compiler {cxx!r}: {error.strerror}") from error
        if done.returncode != 0:
            return rejection(source.variant, f"{cxx} failed:\n{done.stderr.decode(errors='replace')[:4000]}")
        blob = output.read_bytes()
    return Binary(source, (Image(source.launches[0].entry, blob, hashlib.sha256(blob).hexdigest()),))


@clear_on_fresh_cache
@cache
def compiler_version(cxx: str) -> str:
    """Return the first line of `cxx --version`; raises `CompilerError` where there is no such compiler."""
    try:
        done = subprocess.run([cxx, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerError(
            f"no working C++ compiler at {cxx!r} ({error}); install g++ (Debian: apt-get install g++) or set Options.cxx"
        ) from error
    return done.stdout.splitlines()[0]
