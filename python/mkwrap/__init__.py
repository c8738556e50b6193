"""Compiles a PyTorch function ahead of time to one shared library, choosing kernels by measurement."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkwrap import errors as errors
    from mkwrap.compiler import compile as compile
    from mkwrap.explanation import explain as explain
    from mkwrap.fresh import clear_on_fresh_cache as clear_on_fresh_cache
    from mkwrap.fresh import fresh_cache as fresh_cache
    from mkwrap.header import write_header as write_header
    from mkwrap.model import Model as Model
    from mkwrap.model import load as load
    from mkwrap.model import tune_library as tune_library
    from mkwrap.options import Options as Options
    from mkwrap.targets.target import Target as Target
    from mkwrap.toolchain.headers import cmake_dir as cmake_dir
    from mkwrap.toolchain.headers import include_dir as include_dir

__all__ = [
    "Model",
    "Options",
    "Target",
    "clear_on_fresh_cache",
    "cmake_dir",
    "compile",
    "errors",
    "explain",
    "fresh_cache",
    "include_dir",
    "load",
    "tune_library",
    "write_header",
]

# Where each public name lives. Resolved on first use, so that `import mkwrap` stays light and a worker process that
# needs one submodule does not import torch. `load` lives in `model`: a submodule of its name would hide the function.
_HOMES = {
    "Model": ("mkwrap.model", "Model"),
    "Options": ("mkwrap.options", "Options"),
    "Target": ("mkwrap.targets.target", "Target"),
    "clear_on_fresh_cache": ("mkwrap.fresh", "clear_on_fresh_cache"),
    "cmake_dir": ("mkwrap.toolchain.headers", "cmake_dir"),
    "compile": ("mkwrap.compiler", "compile"),
    "errors": ("mkwrap.errors", None),
    "explain": ("mkwrap.explanation", "explain"),
    "fresh_cache": ("mkwrap.fresh", "fresh_cache"),
    "include_dir": ("mkwrap.toolchain.headers", "include_dir"),
    "load": ("mkwrap.model", "load"),
    "tune_library": ("mkwrap.model", "tune_library"),
    "write_header": ("mkwrap.header", "write_header"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'mkwrap' has no attribute {name!r}")
    module_name, attribute = _HOMES[name]
    module = importlib.import_module(module_name)
    return module if attribute is None else getattr(module, attribute)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
