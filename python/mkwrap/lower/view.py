"""Views and layout: index maps only, no nest. What joins several tensors is in `join.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy
import torch

from mkwrap.ir.index import FloorDiv, Mod, delinearize
from mkwrap.ir.nodes import Expr, Role
from mkwrap.lower import join
from mkwrap.lower.dims import slice_range, wrap_dim, wrap_index
from mkwrap.lower.lowering import Lowering, Rule, Unsupported
from mkwrap.lower.tensor import ZERO, TensorValue, view_axes

aten = torch.ops.aten


# ── shape ────────────────────────────────────────────────────────────────────────────────────────────────


def _view(low: Lowering, x: TensorValue, size: Sequence[Expr]) -> TensorValue:
    """Lower view and reshape; one size may be −1."""
    shape = [sympy.sympify(n) for n in size]
    if -1 in shape:
        known = sympy.Mul(*[n for n in shape if n != -1])
        if not known.is_Integer:
            # Eager cannot tell the size where the others leave no elements.
            low.need_elements([known])
        shape[shape.index(-1)] = _quotient(low, sympy.Mul(*x.shape), known) if known != 0 else ZERO
    return x.reshape(shape)


def _quotient(low: Lowering, total: Expr, known: Expr) -> Expr:
    """Return total / known, which is a whole number in every call."""
    exact = {
        FloorDiv(*r.left.args): r.left.args[0] / r.left.args[1]
        for r in low.known
        if r.op == "==" and r.right == 0 and isinstance(r.left, Mod)
    }
    ratio = sympy.cancel(total / known.xreplace(exact))
    whole, below = ratio.as_numer_denom()
    if below == 1:
        return ratio
    return FloorDiv(total, known) if below.free_symbols else FloorDiv(whole, below)


def _permute(_low: Lowering, x: TensorValue, dims: Sequence[int]) -> TensorValue:
    order = [wrap_dim(d, x.rank) for d in dims]
    return x.through([x.shape[d] for d in order], lambda index: [index[order.index(k)] for k in range(x.rank)])


def _transpose(low: Lowering, x: TensorValue, dim0: int, dim1: int) -> TensorValue:
    order = list(range(x.rank))
    if x.rank:
        a, b = wrap_dim(dim0, x.rank), wrap_dim(dim1, x.rank)
        order[a], order[b] = order[b], order[a]
    return _permute(low, x, order)


def _t(low: Lowering, x: TensorValue) -> TensorValue:
    return x if x.rank < 2 else _transpose(low, x, 0, 1)


def _expand(_low: Lowering, x: TensorValue, size: Sequence[Expr], *, implicit: bool = False) -> TensorValue:  # noqa: ARG001
    """Lower expand; −1 keeps a dim."""
    lead = len(size) - x.rank
    shape = [x.shape[k - lead] if n == -1 else sympy.sympify(n) for k, n in enumerate(size)]
    return x.broadcast(shape)


def _squeeze(low: Lowering, x: TensorValue, dim: int | Sequence[int] | None = None) -> TensorValue:
    """Lower squeeze: drop the dims asked for (all by default) that have size 1; a dynamic one is kept, and never 1."""
    asked = range(x.rank) if dim is None else [dim] if isinstance(dim, int) else dim
    wanted = {wrap_dim(d, x.rank) for d in asked} if x.rank else set()
    for k in sorted(wanted):
        if not x.shape[k].is_Integer:
            low.need(x.shape[k], "!=", 1)
    kept = [k for k in range(x.rank) if k not in wanted or x.shape[k] != 1]
    return x.through(
        [x.shape[k] for k in kept], lambda index: [index[kept.index(k)] if k in kept else ZERO for k in range(x.rank)]
    )


def _unsqueeze(_low: Lowering, x: TensorValue, dim: int) -> TensorValue:
    at = wrap_dim(dim, x.rank + 1)
    shape = (*x.shape[:at], sympy.Integer(1), *x.shape[at:])
    return x.through(shape, lambda index: [*index[:at], *index[at + 1 :]])


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────


def _along(x: TensorValue, dim: int, extent: Expr, start: Expr, step: int = 1) -> TensorValue:
    """View every `step`-th of `extent` elements from `start` along one dim."""
    shape = (*x.shape[:dim], sympy.sympify(extent), *x.shape[dim + 1 :])
    return x.through(shape, lambda index: [*index[:dim], start + step * index[dim], *index[dim + 1 :]])


def _select(low: Lowering, x: TensorValue, dim: int, index: int) -> TensorValue:
    at = wrap_dim(dim, x.rank)
    position = wrap_index(low, index, x.shape[at])
    shape = (*x.shape[:at], *x.shape[at + 1 :])
    return x.through(shape, lambda i: [*i[:at], position, *i[at:]])


def _slice(
    low: Lowering, x: TensorValue, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> TensorValue:
    at = wrap_dim(dim, x.rank)
    first, extent = slice_range(low, x.shape[at], start, end, step)
    return _along(x, at, extent, first, step)


def _split_with_sizes(
    low: Lowering, x: TensorValue, split_sizes: Sequence[Expr], dim: int = 0
) -> tuple[TensorValue, ...]:
    at = wrap_dim(dim, x.rank)
    parts: list[TensorValue] = []
    start: Expr = ZERO
    for size in split_sizes:
        low.need(0, "<=", size)
        parts.append(_along(x, at, size, start))
        start = start + size
    return tuple(parts)


def _split(low: Lowering, x: TensorValue, split_size: int | Expr, dim: int = 0) -> tuple[TensorValue, ...]:
    """Lower split into equal parts, the last one smaller."""
    extent, size = x.shape[wrap_dim(dim, x.rank)], sympy.sympify(split_size)
    if extent == 0 or size == 0:
        return (x,)
    if extent.is_Integer and size.is_Integer:
        sizes = [sympy.Integer(min(int(size), int(extent) - start)) for start in range(0, int(extent), int(size))]
        return _split_with_sizes(low, x, sizes, dim)
    last = sympy.expand(extent - size * (low.count - 1))
    low.need(0 if low.count == 1 else 1, "<=", last)
    low.need(last, "<=", size)
    return _split_with_sizes(low, x, [*[size] * (low.count - 1), last], dim)


def _unbind(low: Lowering, x: TensorValue, dim: int = 0) -> tuple[TensorValue, ...]:
    extent = x.shape[wrap_dim(dim, x.rank)]
    if not extent.is_Integer:
        low.need(extent, "==", low.count)
    return tuple(_select(low, x, dim, k) for k in range(int(extent) if extent.is_Integer else low.count))


def _diagonal(low: Lowering, x: TensorValue, offset: int = 0, dim1: int = 0, dim2: int = 1) -> TensorValue:
    """Lower diagonal: element k is at (k − min(offset, 0), k + max(offset, 0)); the diagonal becomes the last dim."""
    a, b = wrap_dim(dim1, x.rank), wrap_dim(dim2, x.rank)
    down, right = max(-offset, 0), max(offset, 0)
    length = low.larger(ZERO, low.smaller(x.shape[a] - down, x.shape[b] - right))
    rest = [k for k in range(x.rank) if k not in (a, b)]

    def source(index: tuple[Expr, ...]) -> list[Expr]:
        place = {a: index[-1] + down, b: index[-1] + right, **dict(zip(rest, index, strict=False))}
        return [place[k] for k in range(x.rank)]

    return x.through([*(x.shape[k] for k in rest), length], source)


def _unfold(_low: Lowering, x: TensorValue, dimension: int, size: int, step: int) -> TensorValue:
    """Lower unfold: windows of `size` every `step` along a dim; the place in the window becomes the last dim."""
    if x.rank == 0:
        return x.through([sympy.Integer(size)], lambda _: [])
    at = wrap_dim(dimension, x.rank)
    windows = FloorDiv(x.shape[at] - size, sympy.Integer(step)) + 1
    shape = (*x.shape[:at], windows, *x.shape[at + 1 :], sympy.Integer(size))
    return x.through(shape, lambda i: [*i[:at], step * i[at] + i[-1], *i[at + 1 : -1]])


def _as_strided(
    _low: Lowering,
    x: TensorValue,
    size: Sequence[Expr],
    stride: Sequence[Expr],
    storage_offset: Expr | int | None = None,
) -> TensorValue:
    """Lower as_strided of an input whose memory is dense: only there is the place of each element known."""
    buffer = x.buffer
    if buffer.role is not Role.INPUT or x.fresh or x.index != view_axes(len(buffer.shape)):
        raise Unsupported("as_strided of a value that is not an input itself: its memory layout is not defined")
    if storage_offset is not None:
        raise Unsupported(
            "as_strided with a storage offset: it counts from the storage's start, which a call does not tell"
        )
    order = sorted(range(x.rank), key=lambda k: -static(buffer.strides[k], "as_strided of a dynamic layout"))
    shape = [buffer.shape[k] for k in order]
    expected = 1
    for k in reversed(order):
        if buffer.shape[k] != 1 and buffer.strides[k] != expected:
            raise Unsupported("as_strided of an input that is not dense")
        expected *= static(buffer.shape[k], "as_strided of a dynamic layout")
    last = sum((static(n, "size") - 1) * static(s, "stride") for n, s in zip(size, stride, strict=True))
    if all(n != 0 for n in size) and last >= expected:
        raise Unsupported("as_strided beyond the input's elements")
    axes = view_axes(len(size))
    ranges = {symbol: (ZERO, sympy.sympify(n) - 1) for symbol, n in zip(axes, size, strict=True)}

    def source(index: tuple[Expr, ...]) -> list[Expr]:
        position = sympy.Add(*[i * s for i, s in zip(index, stride, strict=True)])
        placed = dict(zip(order, delinearize(position, shape, ranges), strict=True))
        return [placed[k] for k in range(x.rank)]

    return x.through([sympy.sympify(n) for n in size], source)


# ── copies that are index maps: fresh memory in eager, the same map here ─────────────────────────────────


def _flip(_low: Lowering, x: TensorValue, dims: Sequence[int]) -> TensorValue:
    turned = {wrap_dim(d, x.rank) for d in dims} if x.rank else set()
    flipped = x.through(x.shape, lambda index: [x.shape[k] - 1 - i if k in turned else i for k, i in enumerate(index)])
    return replace(flipped, fresh=True)


def _roll(low: Lowering, x: TensorValue, shifts: Sequence[int] | int, dims: Sequence[int] | int = ()) -> TensorValue:
    """Lower roll; without dims, over the flattened tensor."""
    by = [shifts] if isinstance(shifts, int) else list(shifts)
    over = [dims] if isinstance(dims, int) else list(dims)
    if not over:
        flat = _roll(low, x.reshape([sympy.Mul(*x.shape)]), by, [0])
        return flat.reshape(x.shape)
    shift: dict[int, int] = {}
    for amount, dim in zip(by, over, strict=True):
        at = wrap_dim(dim, x.rank)
        shift[at] = shift.get(at, 0) + amount
    if any(n == 0 for n in x.shape):
        return replace(x, fresh=True)

    def source(index: tuple[Expr, ...]) -> list[Expr]:
        return [
            Mod(i + Mod(sympy.Integer(-shift[k]), x.shape[k]), x.shape[k]) if k in shift else i
            for k, i in enumerate(index)
        ]

    return replace(x.through(x.shape, source), fresh=True)


def _repeat(_low: Lowering, x: TensorValue, repeats: Sequence[Expr]) -> TensorValue:
    lead = len(repeats) - x.rank
    inner = (*([sympy.Integer(1)] * lead), *x.shape)
    shape = [n * r for n, r in zip(inner, repeats, strict=True)]
    repeated = x.through(
        shape, lambda index: [ZERO if n in (0, 1) else Mod(i, n) for i, n in zip(index[lead:], x.shape, strict=True)]
    )
    return replace(repeated, fresh=True)


def _unsafe_view(low: Lowering, x: TensorValue, size: Sequence[Expr]) -> TensorValue:
    return _view(low, x, size)


def _reflection_pad(_low: Lowering, x: TensorValue, padding: Sequence[int]) -> TensorValue:
    """Lower reflection padding: with p = i − before and period 2(n − 1), q = p mod period is mirrored where q ≥ n."""
    before = {x.rank - 1 - k // 2: padding[k] for k in range(0, len(padding), 2)}
    after = {x.rank - 1 - k // 2: padding[k] for k in range(1, len(padding), 2)}
    shape = [n + before.get(k, 0) + after.get(k, 0) for k, n in enumerate(x.shape)]

    def source(index: tuple[Expr, ...]) -> list[Expr]:
        return [_mirror(i - before[k], x.shape[k]) if k in before else i for k, i in enumerate(index)]

    return replace(x.through(shape, source), fresh=True)


def _mirror(position: Expr, extent: Expr) -> Expr:
    if extent == 1:
        return ZERO
    period = 2 * (extent - 1)
    place = Mod(position + period, period)
    return place + FloorDiv(place, extent) * (period - 2 * place)


def static(size: Expr | int, what: str) -> int:
    """Take a size as an int; `Unsupported` where it is symbolic."""
    value = sympy.sympify(size)
    if not value.is_Integer:
        raise Unsupported(what)
    return int(value)


RULES: Mapping[torch._ops.OpOverload, Rule] = {
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten._unsafe_view.default: _unsafe_view,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _t,
    aten.expand.default: _expand,
    aten.squeeze.default: _squeeze,
    aten.squeeze.dim: _squeeze,
    aten.squeeze.dims: _squeeze,
    aten.unsqueeze.default: _unsqueeze,
    aten.select.int: _select,
    aten.slice.Tensor: _slice,
    aten.split_with_sizes.default: _split_with_sizes,
    aten.split.Tensor: _split,
    aten.unbind.int: _unbind,
    aten.diagonal.default: _diagonal,
    aten.unfold.default: _unfold,
    aten.as_strided.default: _as_strided,
    aten.flip.default: _flip,
    aten.roll.default: _roll,
    aten.repeat.default: _repeat,
    aten.reflection_pad1d.default: _reflection_pad,
    aten.reflection_pad2d.default: _reflection_pad,
    aten.reflection_pad3d.default: _reflection_pad,
    **join.RULES,
}
