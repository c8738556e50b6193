"""Example tensors from the words of a command line, and the dynamic sizes that these name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.export import Dim, ShapesCollection

from mkwrap.errors import OptionError
from mkwrap.ir.signature import UNBOUNDED
from mkwrap.report import spell_bytes

_AXIS = r"(?:[A-Za-z_]\w*@)?\d+"
_SPEC = re.compile(
    rf"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>scalar|{_AXIS}(?:x{_AXIS})*):(?P<dtype>\w+)(?::(?P<below>\d+))?"
)
_RANGE = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<low>\d*)\.\.(?P<high>\d*)")


@dataclass(frozen=True)
class Example:
    """One tensor argument."""

    keyword: str
    """Empty for one by position."""
    tensor: torch.Tensor
    sizes: Mapping[int, str] = field(default_factory=dict)
    """The names of its dynamic sizes, by dimension."""


def example(spec: str) -> Example:
    """Make the tensor that `[name=]SHAPE:DTYPE[:BELOW]` describes.

    SHAPE is `8x128`, or `scalar` for no dimension; `batch@8x128` has a first dimension that is dynamic and called `batch`.
    Floats are normal, bools at random, integers from 0 below BELOW (2 unless given): they may be indices, whose range is part
    of what is measured. Seeded: equal specs give equal tensors.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise OptionError(
            f"--input is {spec!r}; expected [name=]SHAPE:DTYPE[:BELOW], for example 8x128:float32, or batch@8x128:float32 where "
            "the first dimension is dynamic"
        )
    dtype = getattr(torch, match["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise OptionError(f"--input is {spec!r}; torch has no dtype {match['dtype']!r}")
    axes = [] if match["shape"] == "scalar" else re.findall(rf"(?:^|x)({_AXIS})", match["shape"])
    named = [axis.rpartition("@") for axis in axes]
    shape = tuple(int(size) for _, _, size in named)
    is_float = dtype.is_floating_point or dtype.is_complex
    if is_float and match["below"]:
        raise OptionError(f"--input is {spec!r}; a bound is for integers")
    below = 2 if dtype is torch.bool else max(1, int(match["below"] or 2))
    generator = torch.Generator().manual_seed(0)
    try:
        made = torch.randn(shape, generator=generator) if is_float else torch.randint(below, shape, generator=generator)
        tensor = made.to(dtype)
    except (RuntimeError, TypeError, OverflowError) as error:
        size = spell_bytes(math.prod(shape) * dtype.itemsize)
        reason = str(error).partition("\n")[0]
        raise OptionError(f"--input is {spec!r}; torch cannot make a tensor of {size} like that: {reason}") from error
    return Example(match["name"] or "", tensor, {dim: name for dim, (name, _, _) in enumerate(named) if name})


def dynamic_shapes_of(examples: Sequence[Example], ranges: Sequence[str]) -> ShapesCollection | None:
    """Return the dynamic sizes that examples name, each in its range of `ranges` (`NAME=LOW..HIGH`); None where there are none.

    A size without a range is any number from 0 on. Raises `OptionError` for a range that is none, or of no size.
    """
    names = dict.fromkeys(name for each in examples for name in each.sizes.values())
    given: dict[str, Dim] = {}
    for text in ranges:
        match = _RANGE.fullmatch(text)
        if match is None or not (match["low"] or match["high"]):
            raise OptionError(f"--dim is {text!r}; expected NAME=LOW..HIGH, for example batch=1..64, or batch=1..")
        name, low, high = match["name"], int(match["low"] or 0), int(match["high"]) if match["high"] else None
        if name not in names:
            there = ", ".join(names) or "none"
            raise OptionError(f"--dim is {text!r}; the sizes that --input names are: {there} (as {name}@8x128:float32)")
        if name in given:
            raise OptionError(f"--dim names {name} twice")
        if high is not None and high <= low:
            raise OptionError(f"--dim is {text!r}; a range ends above where it begins")
        if max(low, high or 0) > UNBOUNDED:
            raise OptionError(
                f"--dim is {text!r}; a size is at most {UNBOUNDED}; {name}={low}.. is any size from {low} on"
            )
        given[name] = Dim(name, min=low, max=high)
    if not names:
        return None
    dims = {name: given.get(name) or Dim(name, min=0) for name in names}
    found = ShapesCollection()  # type: ignore[no-untyped-call]
    for each in examples:
        found[each.tensor] = {dim: dims[name] for dim, name in each.sizes.items()}
    return found
