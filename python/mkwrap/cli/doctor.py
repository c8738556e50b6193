"""`mkwrap doctor`: what of the toolchain, the driver and the libraries is here, and what for."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

from rich.table import Table
from rich.text import Text

from mkwrap import _C
from mkwrap.cli.output import AsJson, print_json, show
from mkwrap.errors import MkwrapError, ToolchainError
from mkwrap.options import Options
from mkwrap.report import spell_bytes
from mkwrap.targets import cpu
from mkwrap.toolchain.cache import Cache, digest, package_version
from mkwrap.toolchain.cxx import compiler_version
from mkwrap.toolchain.headers import cuda_include, include_dir


class Need(Enum):
    """What a part is needed for."""

    ALL = "every compile"
    CUDA = "compiling for CUDA"
    GPU = "running on and tuning for a GPU"


@dataclass(frozen=True)
class Finding:
    """One part: whether it is there, what was found or what to do."""

    part: str
    need: Need
    found: bool
    detail: str


class _MissingError(Exception):
    """A part is not there; says what to do."""


def _python() -> str:
    return f"{platform.python_version()}, {sys.executable}"


def _torch() -> str:
    try:
        import_module("torch")
    except Exception as error:
        raise _MissingError(f"import torch fails ({error}); pip install torch") from error
    return metadata.version("torch")


def _compiler() -> str:
    return compiler_version(Options().cxx)


def _openmp() -> str:
    program = b"#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n"
    with tempfile.TemporaryDirectory(prefix="mkwrap-") as folder:
        command = [Options().cxx, "-std=c++20", "-fopenmp", "-x", "c++", "-", "-o", str(Path(folder) / "program")]
        done = subprocess.run(command, input=program, capture_output=True, check=False)
        if done.returncode != 0:
            raise _MissingError(f"a program with OpenMP cannot be linked: {done.stderr.decode(errors='replace')[:200]}")
        subprocess.run([command[-1]], check=True)
    return "a program with OpenMP compiles, links and runs"


def _headers() -> str:
    return str(include_dir())


def _cache() -> str:
    options = Options()
    cache, key = Cache(options.cache_dir), digest(uuid.uuid4().bytes)
    cache.put("probe", key, b"probe")
    entry = next((entry for entry in cache.entries() if entry.key == key), None)
    if entry is None:
        raise _MissingError(f"{options.cache_dir} cannot be written; set MKWRAP_CACHE_DIR")
    cache.remove(entry)
    used = sum(entry.size for entry in cache.entries())
    return f"{options.cache_dir}, {spell_bytes(used)} of at most {spell_bytes(options.cache_bytes)}"


def _processor() -> str:
    device = cpu.resolve("cpu", Options())
    return f"{device.name}, {device.device.units} threads, {device.device.name}"


def _triton() -> str:
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError as error:
        raise _MissingError("pip install triton, in the version that belongs to torch") from error


def _ptxas() -> str:
    spec = find_spec("triton")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / "backends" / "nvidia" / "bin" / "ptxas"
        if path.exists():
            done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            return f"{done.stdout.strip().splitlines()[-1] if done.stdout else 'version unknown'}, {path}"
    raise _MissingError("the triton package brings it: pip install triton")


def _cuda_headers() -> str:
    return str(cuda_include())


def _driver() -> str:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise _MissingError("libcuda.so.1 is not installed: no NVIDIA driver on this machine") from error
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        raise _MissingError("libcuda.so.1 is installed but does not answer")
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _devices() -> str:
    devices = _C.cuda_devices()
    if not devices:
        raise _MissingError("no device; libraries for CUDA compile here, but run and are tuned elsewhere")
    return "; ".join(f"{d.name} (sm_{d.capability[0]}{d.capability[1]}, {d.multiprocessors} SMs)" for d in devices)


_PARTS: tuple[tuple[str, Need, Callable[[], str]], ...] = (
    ("mkwrap", Need.ALL, package_version),
    ("python", Need.ALL, _python),
    ("torch", Need.ALL, _torch),
    ("C++ compiler", Need.ALL, _compiler),
    ("OpenMP", Need.ALL, _openmp),
    ("headers", Need.ALL, _headers),
    ("cache", Need.ALL, _cache),
    ("processor", Need.ALL, _processor),
    ("triton", Need.CUDA, _triton),
    ("ptxas", Need.CUDA, _ptxas),
    ("cuda.h", Need.CUDA, _cuda_headers),
    ("driver", Need.GPU, _driver),
    ("devices", Need.GPU, _devices),
)


def doctor(as_json: AsJson = False) -> None:
    """Check what mkwrap needs on this machine. The exit code is 3 if something every compile needs is missing."""
    findings = [_examined(*part) for part in _PARTS]
    if as_json:
        print_json([{**asdict(finding), "need": finding.need.value} for finding in findings])
    else:
        table = Table("", "part", "found, or what to do", "needed for", box=None, pad_edge=False)
        table.columns[2].overflow = "fold"
        for finding in findings:
            table.add_row(_mark(finding), finding.part, Text(finding.detail), Text(finding.need.value, style="dim"))
        show(table)
    missing = [finding.part for finding in findings if finding.need is Need.ALL and not finding.found]
    if missing:
        raise ToolchainError(f"missing for every compile: {', '.join(missing)}")


def _examined(part: str, need: Need, look: Callable[[], str]) -> Finding:
    try:
        return Finding(part, need, True, look())
    except (_MissingError, MkwrapError, OSError, subprocess.SubprocessError) as error:
        return Finding(part, need, False, str(error))


def _mark(finding: Finding) -> Text:
    if finding.found:
        return Text("✓", style="green")
    return Text("✗", style="bold red") if finding.need is Need.ALL else Text("–", style="yellow")
