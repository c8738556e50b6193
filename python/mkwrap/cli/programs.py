"""The program a command line names, and its example inputs: from a .pt2 file, a module, or a Python file."""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mkwrap.errors import DynamicShapeError, OptionError
from mkwrap.report import spell_bytes

_SPEC = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>scalar|\d+(?:x\d+)*):(?P<dtype>\w+)(?::(?P<below>\d+))?")
_EXAMPLES = "example_inputs"
_HOW = (
    "give each tensor argument as --input SHAPE:DTYPE (8x128:float32, name=8:int64:100 for a keyword and values below 100), "
    f"or name a function that returns them (--inputs module:function), or define {_EXAMPLES}() beside the program"
)


@dataclass(frozen=True)
class Named:
    """A program with example arguments."""

    callee: Callable[..., object]
    args: tuple[object, ...]
    kwargs: dict[str, object] = field(default_factory=dict)
    stem: str = "model"
    """What to call its library by default."""


def load_program(name: str, specs: Sequence[str], maker: str | None) -> Named:
    """Load `model.pt2`, `module:function` or `file.py:function` with its example inputs.

    A .pt2 file brings its own. Else they come from `specs` (see `example`), from the function `maker` names, or from
    `example_inputs()` of the same module, which return a tuple of arguments, or a pair of a tuple and a dict of keywords.
    Raises `OptionError` for what cannot be found or read, `DynamicShapeError` for a file with dynamic dimensions.
    """
    if name.endswith(".pt2"):
        if specs or maker is not None:
            raise OptionError(f"{name} brings its example inputs; leave --input and --inputs away")
        return _exported(Path(name))
    module, attribute = _found(name)
    callee = _callee(name, attribute)
    stem = name.rpartition(":")[2].rpartition(".")[2]
    if specs:
        if maker is not None:
            raise OptionError("--input and --inputs exclude each other")
        pairs = [example(spec) for spec in specs]
        return Named(callee, tuple(v for k, v in pairs if not k), {k: v for k, v in pairs if k}, stem)
    made_by = _found(maker)[1] if maker is not None else getattr(module, _EXAMPLES, None)
    if made_by is None:
        raise OptionError(f"{name} needs example inputs: {_HOW}")
    return Named(callee, *_made(made_by, maker or _EXAMPLES), stem)


def example(spec: str) -> tuple[str, torch.Tensor]:
    """Make the tensor that `[name=]SHAPE:DTYPE[:BELOW]` describes, and return its keyword (or "") with it.

    SHAPE is `8x128`, or `scalar` for no dimension. Floats are normal, bools at random, integers from 0 below BELOW (2 unless
    given): they may be indices, whose range is part of what is measured. Seeded: equal specs give equal tensors.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise OptionError(f"--input is {spec!r}; expected [name=]SHAPE:DTYPE[:BELOW], for example 8x128:float32")
    dtype = getattr(torch, match["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise OptionError(f"--input is {spec!r}; torch has no dtype {match['dtype']!r}")
    shape = () if match["shape"] == "scalar" else tuple(int(size) for size in match["shape"].split("x"))
    is_float = dtype.is_floating_point or dtype.is_complex
    if is_float and match["below"]:
        raise OptionError(f"--input is {spec!r}; a bound is for integers")
    below = 2 if dtype is torch.bool else max(1, int(match["below"] or 2))
    generator = torch.Generator().manual_seed(0)
    try:
        made = torch.randn(shape, generator=generator) if is_float else torch.randint(below, shape, generator=generator)
        return match["name"] or "", made.to(dtype)
    except (RuntimeError, TypeError, OverflowError) as error:
        size = spell_bytes(math.prod(shape) * dtype.itemsize)
        reason = str(error).partition("\n")[0]
        raise OptionError(f"--input is {spec!r}; torch cannot make a tensor of {size} like that: {reason}") from error


def _exported(path: Path) -> Named:
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise OptionError(f"{path} cannot be read as a program of torch.export.save: {error}") from error
    if program.range_constraints:
        sizes = ", ".join(str(symbol) for symbol in program.range_constraints)
        raise DynamicShapeError(f"{path} has dynamic sizes ({sizes}); export it with static shapes")
    if program.example_inputs is None:
        raise OptionError(f"{path} has no example inputs; export it with torch.export.export and save that")
    args, kwargs = program.example_inputs
    return Named(program.module(), tuple(args), dict(kwargs), path.stem)


def _found(name: str) -> tuple[object, object]:
    """Return a module and the attribute `module:attribute` or `file.py:attribute` names."""
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise OptionError(f"{name!r} is neither a .pt2 file nor module:function nor file.py:function")
    try:
        module = _imported_file(Path(place)) if place.endswith(".py") else _imported(place)
    except Exception as error:
        raise OptionError(f"importing {place} fails: {type(error).__name__}: {error}") from error
    value: object = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise OptionError(f"{place} has no {attribute}")
        value = getattr(value, part)
    return module, value


def _imported(name: str) -> object:
    # As `python -m` does: programs lie where the user stands.
    if "" not in sys.path:
        sys.path.insert(0, "")
    return importlib.import_module(name)


def _imported_file(path: Path) -> object:
    if not path.exists():
        raise OptionError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise OptionError(f"{path} is no Python file")
    sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _callee(name: str, value: object) -> Callable[..., object]:
    if isinstance(value, type) and issubclass(value, torch.nn.Module):
        try:
            return value().eval()
        except TypeError as error:
            raise OptionError(
                f"{name} is a class that needs arguments ({error}); name an instance, or a function of the inputs"
            ) from error
    if not callable(value):
        raise OptionError(f"{name} is a {type(value).__name__}; expected a function or an nn.Module")
    return value


def _made(maker: object, name: str) -> tuple[tuple[object, ...], dict[str, object]]:
    inputs: object = maker() if callable(maker) else maker
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if not isinstance(inputs, tuple | list):
        raise OptionError(f"{name} gives a {type(inputs).__name__}; expected a tuple of arguments")
    if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
        return inputs[0], inputs[1]
    return tuple(inputs), {}
