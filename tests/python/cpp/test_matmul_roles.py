"""Which axes of a nest are batch, rows, columns and depth."""

from __future__ import annotations

import sympy

from mkwrap.codegen.matmul_roles import affine, matmul_roles, split_axes
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod, axis_symbol, contiguous_strides
from mkwrap.ir.nodes import Axis, Buffer, Compute, Load, Nest, Role

F32 = DType.FLOAT32


def _axis(name: str, extent: int) -> Axis:
    return Axis(axis_symbol(name), sympy.Integer(extent))


def _buffer(name: str, *shape: int) -> Buffer:
    sizes = tuple(sympy.Integer(n) for n in shape)
    return Buffer(name, F32, sizes, contiguous_strides(sizes), Role.TEMPORARY)


def _names(axes: tuple[Axis, ...]) -> list[str]:
    return [axis.symbol.name for axis in axes]


def _linear(transposed_output: bool = False) -> tuple[Nest, dict[str, Buffer]]:
    b, s, n, k = _axis("b", 2), _axis("s", 3), _axis("n", 5), _axis("k", 7)
    body = BodyBuilder()
    x = body.load("x", F32, (b.symbol, s.symbol, k.symbol))
    w = body.load("w", F32, (n.symbol, k.symbol))
    (dot,) = body.reduce("dot", x, w)
    total = body.compute("add", dot, body.load("bias", F32, (n.symbol,)))
    index = (n.symbol, b.symbol, s.symbol) if transposed_output else (b.symbol, s.symbol, n.symbol)
    body.store("y", index, total)
    shape = (5, 2, 3) if transposed_output else (2, 3, 5)
    buffers = [_buffer("x", 2, 3, 7), _buffer("w", 5, 7), _buffer("bias", 5), _buffer("y", *shape)]
    return Nest("linear", (b, s, n), (k,), body.body()), {buffer.name: buffer for buffer in buffers}


def test_linear_has_rows_and_columns() -> None:
    nest, buffers = _linear()
    roles = matmul_roles(nest, buffers)
    assert roles is not None
    assert (_names(roles.batch), _names(roles.m), _names(roles.n), _names(roles.k)) == ([], ["b", "s"], ["n"], ["k"])
    assert roles.a.plain_load is not None
    assert roles.a.plain_load.buffer == "x"
    assert [type(i).__name__ for i in roles.epilogue] == ["Load", "Compute", "Store"]
    assert isinstance(roles.epilogue[1], Compute)
    assert roles.result in roles.epilogue[1].args


def test_the_contiguous_axis_of_the_store_is_a_column() -> None:
    nest, buffers = _linear(transposed_output=True)
    roles = matmul_roles(nest, buffers)
    assert roles is not None
    assert (_names(roles.m), _names(roles.n)) == (["n"], ["b", "s"])
    assert roles.b.plain_load is not None
    assert roles.b.plain_load.buffer == "x"


def test_axes_of_both_operands_are_batch() -> None:
    b, h, s, t, d = _axis("b", 2), _axis("h", 3), _axis("s", 4), _axis("t", 4), _axis("d", 8)
    body = BodyBuilder()
    q = body.load("q", F32, (b.symbol, s.symbol, h.symbol * 8 + d.symbol))
    k = body.load("k", F32, (b.symbol, t.symbol, h.symbol * 8 + d.symbol))
    body.store("y", (b.symbol, h.symbol, s.symbol, t.symbol), body.reduce("dot", q, k)[0])
    buffers = {x.name: x for x in (_buffer("q", 2, 4, 24), _buffer("k", 2, 4, 24), _buffer("y", 2, 3, 4, 4))}
    roles = matmul_roles(Nest("scores", (b, h, s, t), (d,), body.body()), buffers)
    assert roles is not None
    assert (_names(roles.batch), _names(roles.m), _names(roles.n)) == (["b", "h"], ["s"], ["t"])


def test_another_reduction_is_no_matrix_product() -> None:
    n, k = _axis("n", 5), _axis("k", 7)
    body = BodyBuilder()
    x = body.load("x", F32, (n.symbol, k.symbol))
    body.store("y", (n.symbol,), body.compute("add", body.reduce("dot", x, x)[0], body.reduce("sum", x)[0]))
    nest = Nest("two", (n,), (k,), body.body())
    assert matmul_roles(nest, {b.name: b for b in (_buffer("x", 5, 7), _buffer("y", 5))}) is None


def test_divided_axes_are_split_until_operands_are_affine() -> None:
    s, n, k = _axis("s", 4), _axis("n", 5), _axis("k", 24)
    body = BodyBuilder()
    x = body.load("x", F32, (FloorDiv(k.symbol, 8), s.symbol, Mod(k.symbol, 8)))
    w = body.load("w", F32, (n.symbol, k.symbol))
    body.store("y", (s.symbol, n.symbol), body.reduce("dot", x, w)[0])
    nest = split_axes(Nest("merged", (s, n), (k,), body.body()))
    assert [(axis.symbol.name, int(axis.extent)) for axis in nest.reduction_axes] == [("k_0", 3), ("k_1", 8)]
    load = nest.body[0]
    assert isinstance(load, Load)
    symbols = [axis.symbol for axis in (*nest.axes, *nest.reduction_axes)]
    split = affine(_buffer("x", 3, 4, 8).flat_index(load.index), symbols)
    assert split is not None
    assert [int(split[0][symbol]) for symbol in symbols] == [8, 0, 32, 1]


def test_affine_refuses_a_product_of_axes() -> None:
    i, j = axis_symbol("i"), axis_symbol("j")
    assert affine(i * j, (i, j)) is None
    assert affine(Mod(i + j, 5), (i, j)) is None
