"""Ops that put parts of tensors side by side: cat, stack, pad, and the scatter of a slice. One nest each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy
import torch

from mkwrap.ir.index import FloorDiv, Mod
from mkwrap.ir.nodes import Expr
from mkwrap.lower.dims import slice_range, wrap_dim, wrap_index
from mkwrap.lower.elementwise import DEFAULT, promote, round_scalar
from mkwrap.lower.lowering import Index, Lowering, NestWriter, Rule, Scalar
from mkwrap.lower.tensor import ZERO, TensorValue
from mkwrap.lower.term import Term

aten = torch.ops.aten


def _cat(low: Lowering, tensors: Sequence[TensorValue], dim: int = 0) -> TensorValue:
    """Lower cat: each element is loaded from the tensor it comes from. Empty 1-d tensors are ignored, as in eager."""
    dtype = promote(tensors, DEFAULT)
    parts = [t for t in tensors if not (t.rank == 1 and t.shape[0] == 0)] or list(tensors[:1])
    at = wrap_dim(dim, parts[0].rank)
    parts = [t for t in parts if t.shape[at] != 0] or parts[:1]
    extent = sympy.Add(*[t.shape[at] for t in parts])
    shape = (*parts[0].shape[:at], extent, *parts[0].shape[at + 1 :])

    def write(writer: NestWriter, index: Index) -> list[str]:
        place = Place(writer, index[at])
        start: Expr = ZERO
        pieces: list[tuple[Term | None, Term]] = []
        for k, part in enumerate(parts):
            end = start + part.shape[at]
            mask = place.within(start if k else None, end if k + 1 < len(parts) else None)
            local = (*index[:at], index[at] - start, *index[at + 1 :])
            pieces.append((mask, load_where(writer, part, local, mask).cast(dtype)))
            start = end
        return [_choose(pieces).name]

    return low.pointwise(shape, [dtype], write)[0]


def _choose(pieces: Sequence[tuple[Term | None, Term]]) -> Term:
    """Take the piece whose mask holds; exactly one does."""
    result = pieces[-1][1]
    for mask, piece in reversed(pieces[:-1]):
        assert mask is not None
        result = mask.where(piece, result)
    return result


class Place:
    """Comparisons of one index with bounds."""

    def __init__(self, writer: NestWriter, index: Expr) -> None:
        self._writer = writer
        self._index = index

    def within(self, start: Expr | None, end: Expr | None) -> Term | None:
        """Whether start ≤ index < end; None for a bound that always holds, and for a result that always holds."""
        tests: list[Term] = []
        if start is not None:
            tests.append(self._value() >= self._bound(start))
        if end is not None:
            tests.append(self._value() < self._bound(end))
        return all_of(tests)

    def _value(self) -> Term:
        return Term(self._writer, self._writer.index_value(self._index))

    def _bound(self, bound: Expr) -> Term:
        return Term(self._writer, self._writer.index_value(bound))


def all_of(tests: Sequence[Term]) -> Term | None:
    """Conjunction; None for no test at all."""
    result: Term | None = None
    for test in tests:
        result = test if result is None else result & test
    return result


def load_where(writer: NestWriter, x: TensorValue, index: Index, mask: Term | None) -> Term:
    """Load an element where the mask holds, 0 elsewhere."""
    return Term(writer, writer.read(x, index, None if mask is None else mask.name))


def _stack(low: Lowering, tensors: Sequence[TensorValue], dim: int = 0) -> TensorValue:
    at = wrap_dim(dim, tensors[0].rank + 1)

    def lifted(x: TensorValue) -> TensorValue:
        shape = (*x.shape[:at], sympy.Integer(1), *x.shape[at:])
        return x.through(shape, lambda index: [*index[:at], *index[at + 1 :]])

    return _cat(low, [lifted(x) for x in tensors], at)


def _constant_pad(low: Lowering, x: TensorValue, pad: Sequence[Expr | int], value: Scalar = 0) -> TensorValue:
    """Lower constant_pad_nd; negative amounts cut off."""
    before: list[Expr] = [ZERO] * x.rank
    after: list[Expr] = [ZERO] * x.rank
    for k in range(0, len(pad), 2):
        before[x.rank - 1 - k // 2] = sympy.sympify(pad[k])
        after[x.rank - 1 - k // 2] = sympy.sympify(pad[k + 1])
    shape = tuple(n + b + a for n, b, a in zip(x.shape, before, after, strict=True))
    filler = round_scalar(value, x.dtype)

    def write(writer: NestWriter, index: Index) -> list[str]:
        tests: list[Term] = []
        for i, n, b, a in zip(index, x.shape, before, after, strict=True):
            mask = Place(writer, i).within(None if b.is_nonpositive else b, None if a.is_nonpositive else b + n)
            tests.extend([] if mask is None else [mask])
        inside = all_of(tests)
        element = load_where(writer, x, tuple(i - b for i, b in zip(index, before, strict=True)), inside)
        if inside is None or (not filler and not _negative_zero(filler)):
            return [element.name]
        return [inside.where(element, element.like(filler)).name]

    if any(n == 0 for n in x.shape):
        return low.pointwise(shape, [x.dtype], lambda writer, _: [writer.constant(filler, x.dtype)])[0]
    return low.pointwise(shape, [x.dtype], write)[0]


def _negative_zero(value: Scalar) -> bool:
    return isinstance(value, float) and str(value) == "-0.0"


def _slice_scatter(
    low: Lowering,
    x: TensorValue,
    src: TensorValue,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> TensorValue:
    """Lower slice_scatter: x with the slice replaced by src."""
    at = wrap_dim(dim, x.rank)
    first, extent = slice_range(low, x.shape[at], start, end, step)
    shape = (*x.shape[:at], extent, *x.shape[at + 1 :])
    return _scatter(low, x, src.broadcast(shape), Section(at, first, extent, step))


def _select_scatter(low: Lowering, x: TensorValue, src: TensorValue, dim: int, index: int) -> TensorValue:
    """Lower select_scatter: x with one position of a dim replaced by src."""
    at = wrap_dim(dim, x.rank)
    position = wrap_index(low, index, x.shape[at])
    shape = (*x.shape[:at], sympy.Integer(1), *x.shape[at + 1 :])
    expanded = src.broadcast((*x.shape[:at], *x.shape[at + 1 :]))
    lifted = expanded.through(shape, lambda i: [*i[:at], *i[at + 1 :]])
    return _scatter(low, x, lifted, Section(at, position, sympy.Integer(1)))


@dataclass(frozen=True)
class Section:
    """Every `step`-th of `extent` positions along one dim, from `first`."""

    dim: int
    first: Expr
    extent: Expr
    step: int = 1


def _scatter(low: Lowering, x: TensorValue, src: TensorValue, section: Section) -> TensorValue:
    """Make x with a section replaced by src, whose shape is the section's."""
    if section.extent == 0:
        return replace(x, fresh=True)
    dim, first, stride = section.dim, section.first, sympy.Integer(section.step)
    last = first + (section.extent - 1) * stride + 1

    def write(writer: NestWriter, index: Index) -> list[str]:
        offset = index[dim] - first
        inside = Place(writer, index[dim]).within(None if first == 0 else first, None if last == x.shape[dim] else last)
        tests = [] if inside is None else [inside]
        if stride != 1:
            tests.append(Term(writer, writer.index_value(Mod(offset, stride))).equals(0))
        mask = all_of(tests)
        source = load_where(writer, src, (*index[:dim], FloorDiv(offset, stride), *index[dim + 1 :]), mask)
        source = source.cast(x.dtype)
        return [source.name if mask is None else mask.where(source, Term(writer, writer.read(x, index))).name]

    return low.pointwise(x.shape, [x.dtype], write)[0]


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.constant_pad_nd.default: _constant_pad,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
}
