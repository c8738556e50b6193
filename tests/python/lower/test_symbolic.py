"""Rules on tensors with a dynamic size: lowered once with a symbol, run at several sizes."""

from __future__ import annotations

import pytest
import sympy
import torch
from tests.python.lower.single_op import to_memory, to_tensor

from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import contiguous_strides, size_symbol
from mkwrap.ir.interpret import allocate, interpret_nest
from mkwrap.ir.nodes import Buffer, Role
from mkwrap.ir.verify import verify
from mkwrap.lower import RULES
from mkwrap.lower.lowering import Lowering
from mkwrap.lower.tensor import whole

aten = torch.ops.aten
S = size_symbol("s0")
END = 9223372036854775807

# Sizes in arguments are spelled with S, which becomes a number for eager.
CASES = [
    (aten.add.Tensor, [(S, 3), (1, 3)], ()),
    (aten.add.Tensor, [(S, 3), (S, 1)], ()),
    (aten.mul.Scalar, [(S,)], (2.5,)),
    (aten.view.default, [(S, 2, 3)], ([S, 6],)),
    (aten.view.default, [(S, 2, 3)], ([-1],)),
    (aten.view.default, [(6 * S,)], ([S, -1],)),
    (aten.permute.default, [(S, 2, 3)], ([1, 2, 0],)),
    (aten.expand.default, [(1, 3)], ([S, 3],)),
    (aten.slice.Tensor, [(S, 3)], (0, 1)),
    (aten.slice.Tensor, [(S, 3)], (0, 0, END, 2)),
    (aten.slice.Tensor, [(S, 3)], (0, 0, -1)),
    (aten.slice.Tensor, [(S, 3)], (0, 0, 2)),
    (aten.slice.Tensor, [(S, 3)], (0, -2, END)),
    (aten.diagonal.default, [(S, 3)], (1,)),
    (aten.arange.start_step, [], (1, 2 * S, 2)),
    (aten.select.int, [(S, 3)], (0, -1)),
    (aten.flip.default, [(S, 3)], ([0],)),
    (aten.roll.default, [(S, 3)], ([1], [0])),
    (aten.repeat.default, [(S, 3)], ([2, 1],)),
    (aten.unfold.default, [(S + 4, 3)], (0, 3, 2)),
    (aten.constant_pad_nd.default, [(3, S)], ([2, 1], 0.5)),
    (aten.tril.default, [(S, S)], (1,)),
    (aten.full.default, [], ([S, 2], 1.5)),
]


def at_size(value: object, n: int) -> object:
    if isinstance(value, sympy.Expr):
        return int(value.subs(S, n))
    return [at_size(v, n) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")
def test_one_lowering_serves_every_size(case: tuple[torch._ops.OpOverload, list[tuple[object, ...]], tuple]) -> None:
    op, shapes, rest = case
    low = Lowering()
    for k, shape in enumerate(shapes):
        dims = tuple(sympy.sympify(n) for n in shape)
        low.buffers[f"x{k}"] = Buffer(f"x{k}", DType.FLOAT32, dims, contiguous_strides(dims), Role.INPUT)
    value = RULES[op](low, *[whole(b) for b in tuple(low.buffers.values())], *rest)
    out = Buffer("out", value.dtype, value.shape, contiguous_strides(value.shape), Role.OUTPUT)
    low.buffers["out"] = out
    low.write_into(out, value)
    for nest in low.nests:
        verify(nest, low.buffers, {S})
    for n in (1, 2, 5):
        tensors = [torch.randn(at_size(shape, n)) for shape in shapes]
        memory = {f"x{k}": to_memory(x) for k, x in enumerate(tensors)}
        memory |= {name: allocate(b, {S: n}) for name, b in low.buffers.items() if name not in memory}
        for nest in low.nests:
            interpret_nest(nest, memory, {S: n})
        expected = op(*tensors, *at_size(list(rest), n))
        torch.testing.assert_close(to_tensor(memory["out"], out.dtype), expected, rtol=0, atol=0)
