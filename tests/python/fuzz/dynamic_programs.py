"""Random programs with dynamic sizes: expressions that hold at every shape, and shapes to call them with.

A program is texts over `v`, the list of values so far; dimensions are tracked by name ("a", "b" dynamic, numbers static), so that
a step is only drawn where eager takes it at every size in range; but a position may be beyond a dim that is small.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch.export import Dim

Dims = tuple[str, ...]
RANGES: Mapping[str, tuple[int, int]] = {"a": (0, 40), "b": (1, 24)}
HINTS: Mapping[str, tuple[int, ...]] = {"a": (2, 16), "b": (4, 20)}
EXAMPLE: Mapping[str, int] = {"a": 5, "b": 7}
_INPUTS: tuple[Dims, ...] = (
    ("a", "b"),
    ("b", "a"),
    ("a", "8"),
    ("b",),
    ("3", "a"),
    ("a", "3", "b"),
    ("8", "b"),
    ("a", "32"),
)


@dataclass
class DynamicProgram:
    """Inputs by their dims, and the expressions; all values are float32."""

    inputs: list[Dims]
    steps: list[str] = field(default_factory=list)
    dims: list[Dims] = field(default_factory=list)

    def run(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Evaluate; the last three values are the result."""
        return self.values(*tensors)[-3:]

    def values(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Evaluate; return the inputs and the value of every step."""
        v = list(tensors)
        for text in self.steps:
            v.append(eval(text, {"torch": torch, "F": F, "v": v}))
        return v

    def shapes(self, sizes: Mapping[str, int]) -> list[tuple[int, ...]]:
        """Return the inputs' shapes at some sizes."""
        return [tuple(sizes[d] if d in sizes else int(d) for d in dims) for dims in self.inputs]

    def dynamic_shapes(self) -> tuple[tuple[dict[int, object], ...]]:
        """Return the declaration that goes with `run(*tensors)`."""
        known = {name: Dim(name, min=low, max=high) for name, (low, high) in RANGES.items()}
        return (tuple({k: known[d] for k, d in enumerate(dims) if d in known} for dims in self.inputs),)

    @property
    def symbols(self) -> frozenset[str]:
        """The dynamic sizes that some input has."""
        return frozenset(d for dims in self.inputs for d in dims if d in RANGES)

    def __repr__(self) -> str:
        lines = [f"v{k}: {' × '.join(dims)}" for k, dims in enumerate(self.inputs)]
        lines += [f"v.append({text})  # v[{len(self.inputs) + k}]" for k, text in enumerate(self.steps)]
        return "\n".join(lines)


def draw_program(seed: int) -> DynamicProgram:
    """Draw a program; equal seeds give equal programs."""
    generator = random.Random(seed)
    program = DynamicProgram(generator.sample(_INPUTS, generator.randint(2, 3)))
    program.dims = list(program.inputs)
    while len(program.steps) < 8:
        kind = generator.choice(_KINDS)
        step = kind(program, generator)
        if step is not None:
            program.steps.append(step[0])
            program.dims.append(step[1])
    return program


Step = tuple[str, Dims] | None


def _some(program: DynamicProgram, generator: random.Random) -> tuple[int, Dims]:
    k = generator.randrange(len(program.dims))
    return k, program.dims[k]


def _unary(program: DynamicProgram, generator: random.Random) -> Step:
    k, dims = _some(program, generator)
    return generator.choice(_UNARY).format(x=f"v[{k}]"), dims


_UNARY = ("torch.tanh({x})", "F.gelu({x})", "F.relu({x})", "{x} * 0.5 + 1", "torch.sigmoid({x})", "{x}.clamp(-1, 1)")


def _binary(program: DynamicProgram, generator: random.Random) -> Step:
    """Two values of one shape, or one whose dims are the last of the other's."""
    k, dims = _some(program, generator)
    fits = [j for j, other in enumerate(program.dims) if other == dims[len(dims) - len(other) :]]
    j = generator.choice(fits)
    text = generator.choice(
        ("v[{k}] + v[{j}]", "torch.maximum(v[{k}], v[{j}])", "torch.where(v[{k}] > 0, v[{k}], v[{j}])")
    )
    return text.format(k=k, j=j), dims


def _reduce(program: DynamicProgram, generator: random.Random) -> Step:
    k, dims = _some(program, generator)
    if not dims:
        return None
    d = generator.randrange(len(dims))
    keep = generator.random() < 0.5
    left = (*dims[:d], "1", *dims[d + 1 :]) if keep else (*dims[:d], *dims[d + 1 :])
    # An extremum of nothing is an error in eager; a mean of nothing is NaN in both.
    names = ["sum", "mean"] if dims[d] == "a" else ["sum", "mean", "amax", "amin"]
    return f"v[{k}].{generator.choice(names)}({d}, keepdim={keep})", left


def _row(program: DynamicProgram, generator: random.Random) -> Step:
    k, dims = _some(program, generator)
    if not dims:
        return None
    d = generator.randrange(len(dims))
    return generator.choice((f"torch.softmax(v[{k}], {d})", f"v[{k}].cumsum({d})", f"v[{k}].flip({d})")), dims


def _view(program: DynamicProgram, generator: random.Random) -> Step:
    k, dims = _some(program, generator)
    if len(dims) < 2:
        return f"v[{k}].unsqueeze(0)", ("1", *dims)
    d = generator.randrange(len(dims) - 1)
    swapped = (*dims[:d], dims[d + 1], dims[d], *dims[d + 2 :])
    return generator.choice(
        (
            (f"v[{k}].transpose({d}, {d + 1})", swapped),
            (f"v[{k}].transpose({d}, {d + 1}).contiguous()", swapped),
            (f"v[{k}][:, :1]", (dims[0], "1", *dims[2:]))
            if dims[1] != "a"
            else (f"v[{k}].transpose({d}, {d + 1})", swapped),
        )
    )


def _join(program: DynamicProgram, generator: random.Random) -> Step:
    """Values that change no dim's name: joined and cut back, stacked and folded, padded and cut."""
    k, dims = _some(program, generator)
    if not dims:
        return None
    d = generator.randrange(len(dims))
    n = f"v[{k}].shape[{d}]"
    return (
        generator.choice(
            (
                f"torch.cat([v[{k}], v[{k}] * 2], {d}).narrow({d}, {n}, {n})",
                f"torch.stack([v[{k}], -v[{k}]], {d}).sum({d})",
                f"torch.cat([v[{k}], v[{k}] + 1], {d}).unflatten({d}, (2, {n})).amax({d})",
                f"v[{k}] + torch.arange({n}, dtype=torch.float32).reshape({n}, *[1] * {len(dims) - 1 - d})",
                f"v[{k}] / ({n} + 1)",
            )
        ),
        dims,
    )


def _product(program: DynamicProgram, generator: random.Random) -> Step:
    matrices = [(k, dims) for k, dims in enumerate(program.dims) if len(dims) == 2]
    pairs = [(k, j, (x[0], y[1])) for k, x in matrices for j, y in matrices if x[1] == y[0]]
    if not pairs:
        return None
    k, j, dims = generator.choice(pairs)
    return f"torch.tanh(v[{k}] @ v[{j}] * 0.1)", dims


def _flat(program: DynamicProgram, generator: random.Random) -> Step:
    k, dims = _some(program, generator)
    return f"v[{k}] + torch.tanh(v[{k}].reshape(-1).sum() * 0.01)", dims


def _settled(program: DynamicProgram, generator: random.Random) -> Step:
    """Several kernels over sizes that are static, from a value that is not: their memory is the same at any size."""
    k, dims = _some(program, generator)
    dynamic = [d for d, name in enumerate(dims) if name in RANGES]
    left = tuple(name for name in dims if name not in RANGES)
    if not dynamic or not left:
        return None
    return f"(v[{k}].mean({dynamic}).nan_to_num().cumsum(0).flip(0) * 0.5).cumsum(-1).flip(-1).softmax(0)", left


def _picked(program: DynamicProgram, generator: random.Random) -> Step:
    """Elements by position, which a dynamic dim may not have: eager raises there."""
    k, dims = _some(program, generator)
    if not dims or dims[-1] == "1":
        return None
    # What may be 0 has no element that could be read in the stead of one that is out of range.
    d = dims.index("a") if "a" in dims else generator.choice([d for d, name in enumerate(dims) if name != "1"])
    last = generator.choice((1, 2))
    at = f"torch.tensor([0, {last if dims[d] in RANGES else min(last, int(dims[d]) - 1)}])"
    text = generator.choice((f"v[{k}].index_select({d}, {at})", f"v[{k}][{':, ' * d}{at}]"))
    return text, (*dims[:d], "2", *dims[d + 1 :])


_KINDS: tuple[Callable[[DynamicProgram, random.Random], Step], ...] = (
    _unary,
    _unary,
    _binary,
    _binary,
    _reduce,
    _row,
    _view,
    _join,
    _product,
    _flat,
    _settled,
    _picked,
    _picked,
)


def draw_sizes(symbols: Sequence[str], generator: random.Random) -> dict[str, int]:
    """Draw sizes: 0, 1, the bounds, a hint and its neighbours, anywhere in the range, and now and then far outside."""
    sizes = {}
    for name in symbols:
        low, high = RANGES[name]
        hints = [h + d for h in HINTS[name] for d in (-1, 0, 1)]
        near = [0, 1, low, high, *hints]
        outside = [high + 1, 10 * high]
        pool = outside if generator.random() < 0.1 else near if generator.random() < 0.5 else range(low, high + 1)
        sizes[name] = generator.choice(pool)
    return sizes
