"""Finds the headers that host code is compiled against."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from mkwrap import _C
from mkwrap.errors import CompilerError
from mkwrap.fresh import clear_on_fresh_cache


def include_dir() -> Path:
    """Return the folder that holds `mkwrap/abi.h`: inside the installed package, or linked there in the source tree."""
    folder = Path(__file__).resolve().parents[1] / "include"
    if (folder / "mkwrap" / "abi.h").exists():
        return folder
    raise CompilerError(f"mkwrap's headers are missing from {folder}; reinstall mkwrap")


def cmake_dir() -> Path:
    """Return the folder of the CMake package, for `find_package(mkwrap)`: pass it as `mkwrap_DIR`."""
    # Beside the binding: in an editable install that is not where the Python files are.
    folder = Path(_C.__file__).resolve().parent / "lib" / "cmake" / "mkwrap"
    if (folder / "mkwrap-config.cmake").exists():
        return folder
    raise CompilerError(f"mkwrap's CMake package is missing from {folder}; reinstall mkwrap")


@clear_on_fresh_cache
@cache
def headers_digest() -> str:
    """Return the sha256 of all of mkwrap's headers: part of the key of whatever is compiled against them."""
    found = hashlib.sha256()
    for path in sorted(include_dir().rglob("*.h*")):
        found.update(path.name.encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def cuda_include() -> Path:
    """Return the folder that holds `cuda.h`, which the triton package brings; raises `CompilerError` without it."""
    # find_spec, not an import: importing triton takes a second and looks for a driver.
    spec = importlib.util.find_spec("triton")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(root) / "backends" / "nvidia" / "include"
        if (folder / "cuda.h").exists():
            return folder
    raise CompilerError("cuda.h is missing: compiling for a CUDA target needs the triton package (pip install triton)")
