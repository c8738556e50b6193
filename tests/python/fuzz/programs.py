"""A hypothesis strategy of random programs over the supported ops: short texts that are run eagerly while they are drawn.

A program is a list of inputs and of expressions over `v`, the list of all values so far, so that a failing example
prints as code to paste. A step that eager refuses, or whose values grow too large, is left out.

Every value is known to be *exact* (eager and mkwrap must agree in every bit) or not; steps that jump (rounding,
comparisons, positions of extrema) or that amplify errors (logarithms, divisions, normalisations) take exact values only.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from tests.python.fuzz.rows import Pick, Step, reduction, scan

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPES = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
LIMIT = 100.0
"""No float value of a program is larger, infinities apart: errors stay comparable with the tolerance."""


@dataclass(frozen=True)
class Input:
    """How one input is made: `dense` elements in a layout that gives `shape`."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    layout: str
    """"dense", "transposed", "strided", "expanded" or "offset"."""
    seed: int

    def make(self) -> torch.Tensor:
        """Make the tensor; equal inputs give equal tensors."""
        shape = self.shape
        if self.layout == "transposed":
            return self._fill(shape[::-1]).permute(tuple(reversed(range(len(shape)))))
        if self.layout == "strided":
            return self._fill(tuple(2 * n for n in shape))[tuple(slice(0, 2 * n, 2) for n in shape)]
        if self.layout == "expanded" and shape:
            return self._fill((1, *shape[1:])).expand(shape)
        if self.layout == "offset":
            flat = self._fill((math.prod(shape) + 1,))
            return flat[1:].view(shape)
        return self._fill(shape)

    def _fill(self, shape: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        low = 0 if self.dtype in (torch.uint8, torch.bool) else -8
        quarters = torch.randint(low, 9, shape, generator=generator)
        if self.dtype is torch.bool:
            return quarters > 4
        if not self.dtype.is_floating_point:
            return quarters.to(self.dtype)
        values = quarters / 4
        if self.seed % 4 == 0:
            for quarter, special in ((8, math.inf), (-8, -math.inf), (7, math.nan)):
                values[quarters == quarter] = special
        return values.to(self.dtype)


@dataclass
class RandomProgram:
    """Inputs, expressions, and the positions in `v` that are returned."""

    inputs: list[Input] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    scale: float = 1.0
    """The largest finite size of any float value, at least 1."""

    def run(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Evaluate the expressions on the inputs."""
        v = list(tensors)
        for text in self.steps:
            v.append(evaluate(text, v))
        return [v[k] for k in self.results]

    def __repr__(self) -> str:
        lines = [f"v{k} = {i.make().stride()} {i!r}" for k, i in enumerate(self.inputs)]
        lines += [f"v.append({text})  # v[{len(self.inputs) + k}]" for k, text in enumerate(self.steps)]
        return "\n".join(["RandomProgram:", *lines, f"return {self.results}"])


def evaluate(text: str, v: Sequence[torch.Tensor]) -> torch.Tensor:
    """Evaluate one expression over the values so far."""
    result: torch.Tensor = eval(text, {"torch": torch, "F": F, "v": v})
    return result


sizes = st.sampled_from((3, 4, 5, 2, 1, 8, 1, 6, 3, 2, 0))
shapes = st.one_of(*[st.lists(sizes, min_size=n, max_size=n).map(tuple) for n in (2, 3, 1, 4, 2, 3, 0)])
inputs = st.builds(
    Input,
    st.sampled_from((*FLOATS, *FLOATS, *DTYPES)),
    shapes,
    st.sampled_from(("dense", "dense", "transposed", "strided", "expanded", "offset")),
    st.integers(0, 1000),
)

# ── Kinds of steps. `a`, `b`, `c` are operands as text, `x` the value of the first; `pick(n)` draws from 0 … n − 1. ───────
UNARY_EXACT = [
    "neg",
    "abs",
    "relu",
    "sign",
    "clone",
    "square",
    "ceil",
    "floor",
    "trunc",
    "round",
    "logical_not",
    "isnan",
    "bitwise_not",
]
JUMPING = frozenset(["ceil", "floor", "trunc", "round", "sign", "logical_not"])
UNARY_ROUNDED = [
    "tanh",
    "sigmoid",
    "sin",
    "cos",
    "erf",
    "exp",
    "atan",
    "expm1",
    "F.gelu",
    "F.silu",
    "F.softplus",
    "F.elu",
    "F.hardswish",
    "sinh",
]
AMPLIFYING = ["log", "log1p", "sqrt", "rsqrt", "reciprocal", "asin", "acos", "tan", "log2", "exp2", "lgamma"]
BINARY_EXACT = [
    "add",
    "sub",
    "mul",
    "minimum",
    "maximum",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "logical_and",
    "logical_or",
]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
DIVISIONS = ["div", "atan2", "fmod", "remainder", "floor_divide"]
SCALARS = ("2", "-3", "0.5", "1.25", "True")


def _spelled(name: str) -> str:
    return name if name.startswith("F.") else f"torch.{name}"


def _unary(a: str, pick: Pick) -> Step:
    which = pick(3)
    if which == 0:
        name = UNARY_EXACT[pick(len(UNARY_EXACT))]
        return Step(f"torch.{name}({a})", wants_exact=name in JUMPING)
    names = UNARY_ROUNDED if which == 1 else AMPLIFYING
    name = names[pick(len(names))]
    # Eager's gelu of +inf is NaN or inf, by the vector it happens to lie in.
    operand = f"{a}.clamp(max=99)" if name == "F.gelu" else a
    return Step(f"{_spelled(name)}({operand})", wants_exact=which == 2, gives_exact=False)


def _binary(a: str, b: str, c: str, pick: Pick) -> Step:
    which = pick(6)
    other = SCALARS[pick(len(SCALARS))] if pick(3) == 0 else b
    if which <= 1:
        return Step(f"torch.{BINARY_EXACT[pick(len(BINARY_EXACT))]}({a}, {other if which else b})")
    if which == 2:
        return Step(f"torch.{COMPARISONS[pick(len(COMPARISONS))]}({a}, {other})", wants_exact=True)
    if which == 3:
        return Step(f"torch.{DIVISIONS[pick(len(DIVISIONS))]}({a}, {other})", wants_exact=True, gives_exact=False)
    if which == 4:
        return Step(f"torch.where({a} != 0, {b}, {c})", wants_exact=True)
    return Step(f"torch.clamp({a}, -1, 2)" if pick(2) else f"torch.add({a}, {b}, alpha=2)")


def _cast(a: str, x: torch.Tensor, pick: Pick) -> Step:
    target = DTYPES[pick(len(DTYPES))]
    source = a
    if x.dtype.is_floating_point and target not in (*FLOATS, torch.bool):
        # What does not fit an integer has no defined value there; uint8 has no negative values either.
        source = f"torch.where(torch.isfinite({a}), {a}, 1)" + (".abs()" if target is torch.uint8 else "")
    return Step(f"{source}.to({target})", wants_exact=True)


def _view(a: str, x: torch.Tensor, pick: Pick) -> Step:
    rank = x.dim()
    d, e = (pick(max(rank, 1)) for _ in range(2))
    n = x.shape[d] if rank else 1
    texts = [
        f"{a}.reshape(-1)",
        f"{a}.unsqueeze({pick(rank + 1)})",
        f"{a}.squeeze()",
        f"{a}.transpose({d}, {e})",
        f"{a}.movedim({d}, {e})",
        f"{a}.flatten({min(d, e)}, {max(d, e)})",
        f"{a}.unflatten({d}, (-1, {max(k for k in (1, 2, 3) if n % k == 0)}))",
        f"{a}.narrow({d}, {n // 3}, {n - n // 3})",
        f"{a}.select({d}, {n // 2})",
        f"torch.ops.aten.slice.Tensor({a}, {d}, {pick(3)}, {n}, {1 + pick(3)})",
        f"{a}.expand(2, *{a}.shape)",
        f"{a}.flip({d})",
        f"{a}.roll({pick(4) - 1}, {d})",
        f"{a}.repeat({', '.join(['2'] + ['1'] * max(rank - 1, 0))})",
        f"{a}.repeat_interleave(2, {d})",
        f"F.pad({a}, (1, {pick(3)}))",
        f"{a}.chunk(2, {d})[0]",
        f"{a}.diagonal(0, {d}, {e})",
        f"{a}.contiguous()",
        f"{a}.unfold({d}, {min(n, 2)}, 1).clone()",
    ]
    return Step(texts[pick(len(texts))])


def _join(a: str, b: str, x: torch.Tensor, pick: Pick) -> Step:
    d = pick(max(x.dim(), 1))
    n = x.shape[d] if x.dim() else 1
    texts = [
        f"torch.cat([{a}, {b}], {d})",
        f"torch.cat([{a}, {a} * 2], {d})",
        f"torch.stack([{a}, {b}], {d})",
        f"torch.stack([{a}, {a}], -1)",
        f"{a}.masked_fill({b} == 1, 3)",
        f"torch.tril({a}, {pick(3) - 1})",
        f"torch.triu({a})",
        f"{a}.index_select({d}, torch.arange({2 * n}) // 2)",
        f"torch.gather({a}, {d}, ({a} > 0).long() * {n - 1})",
        f"F.embedding(torch.arange({n}) // 2, {a})",
        f"{a}[torch.arange({n}) // 2 - {n // 2}]",
        f"{a} + torch.arange({x.shape[-1] if x.dim() else 1})",
        f"torch.zeros_like({a}) + {b}",
    ]
    return Step(texts[pick(len(texts))], wants_exact=True)


def _product(a: str, b: str, x: torch.Tensor, pick: Pick) -> Step:
    texts = [
        f"{a} @ {a}.mT",
        f"{a}.mT @ {a}",
        f"{a} @ {b}",
        f"F.linear({a}, {a}.reshape(-1, {x.shape[-1] if x.dim() else 1}))",
        f"torch.einsum('...i,...i->...', {a}, {a})",
        f"torch.baddbmm({a}, {a}, {a}.mT @ {a}, beta=2)",
        f"torch.outer({a}.reshape(-1), {b}.reshape(-1))",
    ]
    if x.dtype.is_floating_point:
        # Eager's fused attention loses NaN and infinities of masked keys.
        finite = f"torch.where(torch.isfinite({a}), {a}, 1)"
        texts += [
            f"F.scaled_dot_product_attention({finite}, {finite}, {finite}{causal})"
            for causal in ("", ", is_causal=True")
        ]
    return Step(texts[pick(len(texts))], gives_exact=False)


def _mutation(a: str, b: str, x: torch.Tensor, pick: Pick) -> Step:
    d = pick(max(x.dim(), 1))
    texts = [
        f"{a}.neg_()",
        f"{a}.clamp_(-1, 2)",
        f"{a}.copy_({b} + 0)",
        f"{a}.masked_fill_({b} == 1, 2)",
        f"{a}.select({d}, {x.shape[d] // 2 if x.dim() else 0}).fill_(1)",
    ]
    # Of elements that share memory nobody says which is written last. What is written is exact, as aliases may be.
    return Step(texts[pick(5)] if torch._debug_has_internal_overlap(x) == 0 else f"{a}.clone()", wants_exact=True)


def _draw_step(pick: Pick, v: Sequence[torch.Tensor]) -> tuple[Step, list[int]]:
    # The newest values are the likeliest operands, so that programs are chains rather than stars.
    at = [len(v) - 1 - min(pick(len(v)), pick(len(v))) for _ in range(3)]
    a, b, c = (f"v[{k}]" for k in at)
    x = v[at[0]]
    kind = pick(14)
    if kind <= 1:
        return _unary(a, pick), at[:1]
    if kind <= 4:
        return _binary(a, b, c, pick), at
    if kind == 5:
        return _cast(a, x, pick), at[:1]
    if kind <= 7:
        return _view(a, x, pick), at[:1]
    if kind == 8:
        return _join(a, b, x, pick), at[:2]
    if kind <= 10:
        return reduction(a, x, pick), at[:1]
    if kind == 11:
        return _mutation(a, b, x, pick), at[:2]
    if kind == 12:
        return scan(a, x, pick), at[:1]
    return _product(a, b, x, pick), at[:2]


def _size(value: torch.Tensor) -> float:
    finite = value[torch.isfinite(value)]
    return float(finite.abs().max()) if value.dtype.is_floating_point and finite.numel() else 0.0


def _attempt(text: str, v: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Evaluate eagerly; None where eager refuses, or the result is too large to be interesting."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("error")
            value = evaluate(text, v)
    except (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError, NotImplementedError, UserWarning):
        return None
    if not isinstance(value, torch.Tensor) or value.numel() > 3000 or value.dtype.is_complex or _size(value) > LIMIT:
        return None
    return value


@st.composite
def programs(draw: st.DrawFn, max_steps: int = 10) -> RandomProgram:
    """Draw a program of at most `max_steps` steps with one to three inputs."""
    program = RandomProgram(inputs=draw(st.lists(inputs, min_size=1, max_size=3)))
    v = [i.make() for i in program.inputs]
    exact = [True] * len(v)
    used: set[int] = set()

    # Not one draw per choice: hypothesis prefers small numbers, and would rarely reach the end of a list. With a seed
    # alone, a failing example shrinks to a prefix of itself.
    pick = random.Random(f"{draw(st.integers(0, 2**24 - 1))} {program.inputs}").randrange
    wanted = draw(st.integers(1, max_steps))
    for _ in range(3 * wanted):
        if len(program.steps) == wanted:
            break
        step, operands = _draw_step(pick, v)
        known = all(exact[k] for k in operands)
        if step.wants_exact and not known:
            continue
        value = _attempt(step.text, v)
        if value is None:
            continue
        program.steps.append(step.text)
        v.append(value)
        exact.append(not value.dtype.is_floating_point or (known and step.gives_exact))
        used.update(operands)
        program.scale = max(program.scale, _size(value))
    program.results = [k for k in range(len(program.inputs), len(v)) if k not in used or pick(4) == 0]
    return program
