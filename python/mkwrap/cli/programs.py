"""The program a command line names, and its example inputs: from a .pt2 file, a module, or a Python file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mkwrap.cli import exported
from mkwrap.cli.examples import dynamic_shapes_of, example
from mkwrap.dims import dynamic_dims
from mkwrap.errors import OptionError

_EXAMPLES, _SHAPES = "example_inputs", "dynamic_shapes"
_HOW = (
    "give each tensor argument as --input SHAPE:DTYPE (8x128:float32, name=8:int64:100 for a keyword and values below 100), "
    f"or name a function that returns them (--inputs module:function), or define {_EXAMPLES}() beside the program"
)


@dataclass(frozen=True)
class Named:
    """A program with example arguments."""

    callee: Callable[..., object]
    args: tuple[object, ...]
    kwargs: Mapping[str, object] = field(default_factory=dict)
    stem: str = "model"
    """What to call its library by default."""
    dynamic_shapes: object = None
    """As torch.export takes it."""

    @property
    def is_dynamic(self) -> bool:
        """Whether a dimension of its arguments may vary; raises `DynamicShapeError` where `dynamic_shapes` does not fit them."""
        return any(dynamic_dims(self.callee, self.args, self.kwargs, self.dynamic_shapes))


def load_program(
    name: str, specs: Sequence[str], maker: str | None, ranges: Sequence[str], shapes: str | None
) -> Named:
    """Load `model.pt2`, `module:function` or `file.py:function` with its example inputs and dynamic shapes.

    A .pt2 file brings its own. Else inputs come from `specs` (see `example`), from the function `maker` names, or from
    `example_inputs()` of the same module, which return a tuple of arguments, or a pair of a tuple and a dict of keywords.
    Dynamic shapes are those that `specs` name, within `ranges`, what the function `shapes` names returns, or what
    `dynamic_shapes()` beside `example_inputs()` does. Raises `OptionError` for what cannot be found or read.
    """
    if name.endswith(".pt2"):
        if specs or maker is not None or ranges or shapes is not None:
            raise OptionError(
                f"{name} brings its example inputs and dynamic sizes; leave --input, --inputs, --dim and --dynamic-shapes away"
            )
        return _exported(Path(name))
    module, attribute = _found(name)
    callee = _callee(name, attribute)
    stem = name.rpartition(":")[2].rpartition(".")[2]
    if specs and maker is not None:
        raise OptionError("--input and --inputs exclude each other")
    examples = [example(spec) for spec in specs]
    dynamic: object = dynamic_shapes_of(examples, ranges)
    if dynamic is not None and shapes is not None:
        raise OptionError("--dynamic-shapes and sizes that --input names exclude each other")
    if shapes is not None:
        dynamic = _given(_found(shapes)[1])
    if specs:
        args = tuple(each.tensor for each in examples if not each.keyword)
        return Named(callee, args, {each.keyword: each.tensor for each in examples if each.keyword}, stem, dynamic)
    made_by = _found(maker)[1] if maker is not None else getattr(module, _EXAMPLES, None)
    if made_by is None:
        raise OptionError(f"{name} needs example inputs: {_HOW}")
    if shapes is None and maker is None:
        dynamic = _given(getattr(module, _SHAPES, None))
    return Named(callee, *_made(made_by, maker or _EXAMPLES), stem, dynamic)


def _exported(path: Path) -> Named:
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise OptionError(f"{path} cannot be read as a program of torch.export.save: {error}") from error
    if program.example_inputs is None:
        raise OptionError(f"{path} has no example inputs; export it with torch.export.export and save that")
    args, kwargs = program.example_inputs
    module = program.module()
    return Named(module, tuple(args), dict(kwargs), path.stem, exported.dynamic_shapes_of(program, module))


def _given(value: object) -> object:
    return value() if callable(value) else value


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
    inputs = _given(maker)
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}
    if not isinstance(inputs, tuple | list):
        raise OptionError(f"{name} gives a {type(inputs).__name__}; expected a tuple of arguments")
    if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
        return inputs[0], inputs[1]
    return tuple(inputs), {}
