"""Kernels built by hand for the Triton templates."""

from __future__ import annotations

import sympy

from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import FloorDiv, Mod, axis_symbol
from mkwrap.ir.nodes import Buffer, Combine, Compute, Nest, Origin
from mkwrap.ir.ops import ASSOCIATIVE, OPS, Kind
from mkwrap.stages import Device, Kernel
from tests.python.nests import Size, axes, buffer, kernel

I0, I1, I2, R0, R1 = (axis_symbol(name) for name in ("i0", "i1", "i2", "r0", "r1"))
F32, F64, F16, BF16 = DType.FLOAT32, DType.FLOAT64, DType.FLOAT16, DType.BFLOAT16
H100 = Device("cuda", "sm_90", vector_bytes=16, units=132, shared_bytes=227 * 1024, l2_bytes=50 * 2**20)


def scalar_op(op: str, dtype: DType, n: Size, result: DType | None = None) -> Kernel:
    """out = op(arg0, arg1, …) over n points; shifts and `where` get arguments of the dtypes they take."""
    row = OPS[op]
    sources = [dtype] * row.arity
    if row.kind is Kind.WHERE:
        sources[0] = DType.BOOL
    body = BodyBuilder()
    args = [body.load(f"arg{k}", source, (I0,)) for k, source in enumerate(sources)]
    value = body.compute(op, *args, dtype=result)
    out = f"arg{len(args)}"
    body.store(out, (I0,), value)
    reads = [buffer(f"arg{k}", source, [n]) for k, source in enumerate(sources)]
    return kernel(Nest(op, axes((I0, n)), (), body.body()), reads, [buffer(out, body.dtype(value), [n])])


def transpose(n: Size, m: Size, dtype: DType = F32) -> Kernel:
    """out[j, i] = exp(x[i, j] + bias[i])."""
    body = BodyBuilder()
    x = body.cast(body.load("arg0", dtype, (I0, I1)), F32)
    y = body.compute("exp", body.compute("add", x, body.load("arg1", F32, (I0,))))
    body.store("arg2", (I1, I0), body.cast(y, dtype))
    nest = Nest("transpose", axes((I0, n), (I1, m)), (), body.body(), (Origin("aten.t", "model.py:3: x.t().exp()"),))
    return kernel(nest, [buffer("arg0", dtype, [n, m]), buffer("arg1", F32, [n])], [buffer("arg2", dtype, [m, n])])


def padded_gather(n: Size, m: Size) -> Kernel:
    """out[i, j] = table[clamp(index[i])][j − 2] where 2 ≤ j < m − 1, else 0; plus j // 3 as a number."""
    body = BodyBuilder()
    checked = body.bounds_check(body.load("arg1", DType.INT64, (I0,)), sympy.Integer(7))
    place = body.index_value(I1)
    inside = body.compute(
        "bitand",
        body.compute("ge", place, body.constant(2, DType.INT64)),
        body.compute("lt", place, body.constant(m - 1, DType.INT64)),
    )
    value = body.load("arg0", F32, (checked, I1 - 2), inside)
    third = body.cast(body.compute("floordiv", place, body.constant(3, DType.INT64)), F32)
    body.store("arg2", (I0, I1), body.compute("add", value, third))
    nest = Nest("padded_gather", axes((I0, n), (I1, m)), (), body.body())
    reads = [buffer("arg0", F32, [7, m]), buffer("arg1", DType.INT64, [n])]
    return kernel(nest, reads, [buffer("arg2", F32, [n, m])])


def matrix(name: str, dtype: DType, rows: Size, length: Size, outer: bool = False) -> Buffer:
    return buffer(name, dtype, [rows, length], [1, rows] if outer else None)


def softmax(rows: Size, length: Size, dtype: DType = F32, outer: bool = False, in_place: bool = False) -> Kernel:
    body = BodyBuilder()
    x = body.cast(body.load("arg0", dtype, (I0, R0)), F32)
    (top,) = body.reduce("maximum", x)
    e = body.compute("exp", body.compute("sub", x, top))
    (total,) = body.reduce("sum", e)
    out = "arg0" if in_place else "arg1"
    body.store(out, (I0, R0), body.cast(body.compute("div", e, total), dtype))
    nest = Nest("softmax", axes((I0, rows)), axes((R0, length)), body.body())
    source = matrix("arg0", dtype, rows, length, outer)
    if in_place:
        return kernel(nest, [], [], [source])
    return kernel(nest, [source], [matrix("arg1", dtype, rows, length, outer)])


def spread(rows: Size, length: Size, store: str = "") -> Kernel:
    """Σ (v − max v)² per row of v = a + b + c; `store`: "value" stores v too, "result" stores v − max v."""
    body = BodyBuilder()
    a, b, c = (body.load(f"arg{k}", F32, (I0, R0)) for k in range(3))
    value = body.compute("add", body.compute("add", a, b), c)
    (top,) = body.reduce("maximum", value)
    apart = body.compute("sub", value, top)
    (total,) = body.reduce("sum", body.compute("mul", apart, apart))
    body.store("arg3", (I0,), total)
    if store:
        body.store("arg4", (I0, R0), value if store == "value" else apart)
    nest = Nest("spread", axes((I0, rows)), axes((R0, length)), body.body())
    writes = [buffer("arg3", F32, [rows]), *([matrix("arg4", F32, rows, length)] if store else [])]
    return kernel(nest, [matrix(f"arg{k}", F32, rows, length) for k in range(3)], writes)


def log_sum_exp(rows: Size, length: Size, outer: bool = False) -> Kernel:
    """As lowered: an infinite maximum is not taken off."""
    body = BodyBuilder()
    x = body.load("arg0", F32, (I0, R0))
    (top,) = body.reduce("maximum", x)
    shift = body.compute("where", body.compute("isinf", top), body.constant(0, F32), top)
    (total,) = body.reduce("sum", body.compute("exp", body.compute("sub", x, shift)))
    body.store("arg1", (I0,), body.compute("add", body.compute("log", total), shift))
    nest = Nest("log_sum_exp", axes((I0, rows)), axes((R0, length)), body.body())
    return kernel(nest, [matrix("arg0", F32, rows, length, outer)], [buffer("arg1", F32, [rows])])


def softmax_and_logs(rows: Size, length: Size, logsumexp_first: bool = False) -> Kernel:
    """softmax, log_softmax and logsumexp of a row: two sums of exponentials below one maximum."""
    body = BodyBuilder()
    x = body.load("arg0", F32, (I0, R0))
    (top,) = body.reduce("maximum", x)
    shift = body.compute("where", body.compute("isinf", top), body.constant(0, F32), top)
    apart, shifted = body.compute("sub", x, top), body.compute("sub", x, shift)
    e, e_shifted = body.compute("exp", apart), body.compute("exp", shifted)
    if logsumexp_first:
        (total_shifted,), (total,) = body.reduce("sum", e_shifted), body.reduce("sum", e)
    else:
        (total,), (total_shifted,) = body.reduce("sum", e), body.reduce("sum", e_shifted)
    body.store("arg1", (I0, R0), body.compute("div", e, total))
    body.store("arg2", (I0, R0), body.compute("sub", apart, body.compute("log", total)))
    body.store("arg3", (I0,), body.compute("add", body.compute("log", total_shifted), shift))
    nest = Nest("softmax_and_logs", axes((I0, rows)), axes((R0, length)), body.body())
    writes = [matrix("arg1", F32, rows, length), matrix("arg2", F32, rows, length), buffer("arg3", F32, [rows])]
    return kernel(nest, [matrix("arg0", F32, rows, length)], writes)


def reduction(op: str, rows: Size, length: Size, dtype: DType = F32, outer: bool = False) -> Kernel:
    body = BodyBuilder()
    results = body.reduce(op, body.load("arg0", dtype, (I0, R0)))
    for k, value in enumerate(results):
        body.store(f"arg{k + 1}", (I0,), value)
    writes = [buffer(f"arg{k + 1}", body.dtype(value), [rows]) for k, value in enumerate(results)]
    nest = Nest(op, axes((I0, rows)), axes((R0, length)), body.body())
    return kernel(nest, [matrix("arg0", dtype, rows, length, outer)], writes)


def _count(body: BodyBuilder, length: Size) -> str:
    """A number of elements as a float32."""
    if isinstance(length, int):
        return body.constant(length, F32)
    return body.cast(body.index_value(length), F32)


def layer_norm(rows: Size, length: Size, dtype: DType = F32) -> Kernel:
    """gelu(layer_norm(x + residual)) + (x + residual), and the mean: four inputs, one nest."""
    body = BodyBuilder()
    x, residual = (body.cast(body.load(name, dtype, (I0, R0)), F32) for name in ("arg0", "arg1"))
    x = body.compute("add", x, residual)
    mean, deviations = body.reduce("welford", x)
    variance = body.compute("div", deviations, _count(body, length))
    scale = body.compute("rsqrt", body.compute("add", variance, body.constant(1e-5, F32)))
    y = body.compute("mul", body.compute("sub", x, mean), scale)
    y = body.compute("mul", y, body.load("arg2", F32, (R0,)))
    y = body.compute("add", y, body.load("arg3", F32, (R0,)))
    half = body.compute("mul", y, body.constant(0.5, F32))
    bell = body.compute("erf", body.compute("mul", y, body.constant(0.7071067811865476, F32)))
    gelu = body.compute("mul", half, body.compute("add", bell, body.constant(1, F32)))
    body.store("arg4", (I0, R0), body.cast(body.compute("add", gelu, x), dtype))
    body.store("arg5", (I0,), mean)
    nest = Nest("layer_norm", axes((I0, rows)), axes((R0, length)), body.body())
    reads = [matrix("arg0", dtype, rows, length), matrix("arg1", dtype, rows, length)]
    reads += [buffer("arg2", F32, [length]), buffer("arg3", F32, [length])]
    return kernel(nest, reads, [matrix("arg4", dtype, rows, length), buffer("arg5", F32, [rows])])


def normalized(rows: Size, length: Size, dtype: DType = F32) -> Kernel:
    """(x − mean) / √(variance + 1e-5)."""
    body = BodyBuilder()
    x = body.cast(body.load("arg0", dtype, (I0, R0)), F32)
    mean, deviations = body.reduce("welford", x)
    variance = body.compute("div", deviations, _count(body, length))
    scale = body.compute("rsqrt", body.compute("add", variance, body.constant(1e-5, F32)))
    y = body.compute("mul", body.compute("sub", x, mean), scale)
    body.store("arg1", (I0, R0), body.cast(y, dtype))
    nest = Nest("normalized", axes((I0, rows)), axes((R0, length)), body.body())
    return kernel(nest, [matrix("arg0", dtype, rows, length)], [matrix("arg1", dtype, rows, length)])


def renormalized(rows: Size, length: Size, softmax_too: bool = True) -> Kernel:
    """n = (v − mean) / √(variance + 1e-5) of v = sin(gelu(x)), then softmax(n), or Σ exp(n − max n): three loops and more.

    v costs more than a load, and `arg1`, which n is stored to, is written before the last loop that needs v.
    """
    body = BodyBuilder()
    x = body.load("arg0", F32, (I0, R0))
    bell = body.compute("erf", body.compute("mul", x, body.constant(0.7071067811865476, F32)))
    half = body.compute("mul", x, body.constant(0.5, F32))
    v = body.compute("sin", body.compute("mul", half, body.compute("add", bell, body.constant(1, F32))))
    mean, deviations = body.reduce("welford", v)
    variance = body.compute("div", deviations, _count(body, length))
    scale = body.compute("rsqrt", body.compute("add", variance, body.constant(1e-5, F32)))
    n = body.compute("mul", body.compute("sub", v, mean), scale)
    body.store("arg1", (I0, R0), n)
    (top,) = body.reduce("maximum", n)
    e = body.compute("exp", body.compute("sub", n, top))
    (total,) = body.reduce("sum", e)
    if softmax_too:
        body.store("arg2", (I0, R0), body.compute("div", e, total))
    else:
        body.store("arg2", (I0,), total)
    nest = Nest("renormalized", axes((I0, rows)), axes((R0, length)), body.body())
    last = matrix("arg2", F32, rows, length) if softmax_too else buffer("arg2", F32, [rows])
    return kernel(nest, [matrix("arg0", F32, rows, length)], [matrix("arg1", F32, rows, length), last])


def group_norm_sums(batch: Size, groups: Size, channels: Size, pixels: Size) -> Kernel:
    """Sums over (channel, pixel) of x[n, c, g, p] in an order of dims that does not flatten: two reduction axes."""
    body = BodyBuilder()
    x = body.load("arg0", F32, (I0, R0, I1, R1))
    body.store("arg1", (I0, I1), body.reduce("sum", x)[0])
    nest = Nest("group_sums", axes((I0, batch), (I1, groups)), axes((R0, channels), (R1, pixels)), body.body())
    source = buffer("arg0", F32, [batch, channels, groups, pixels])
    return kernel(nest, [source], [buffer("arg1", F32, [batch, groups])])


def product(
    m: Size, n: Size, k: Size, dtype: DType = F32, batch: Size = 0, transposed: bool = True, activation: str = ""
) -> Kernel:
    """out = activation(a @ b + bias), b given as (n, k) where `transposed`, with a batch dim in front if asked for."""
    lead = (I2,) if batch else ()
    sizes = [batch] if batch else []
    body = BodyBuilder()
    a = body.load("arg0", dtype, (*lead, I0, R0))
    b = body.load("arg1", dtype, (*lead, *((I1, R0) if transposed else (R0, I1))))
    (total,) = body.reduce("dot", a, b)
    wide = body.dtype(total)
    total = body.compute("add", total, body.cast(body.load("arg2", dtype, (I1,)), wide))
    if activation:
        total = body.compute(activation, total)
    body.store("arg3", (*lead, I0, I1), body.cast(total, dtype))
    parallel = (*(axes((I2, batch)) if batch else ()), *axes((I0, m), (I1, n)))
    reads = [buffer("arg0", dtype, [*sizes, m, k])]
    reads.append(buffer("arg1", dtype, [*sizes, *((n, k) if transposed else (k, n))]))
    reads.append(buffer("arg2", dtype, [n]))
    nest = Nest("product", parallel, axes((R0, k)), body.body())
    return kernel(nest, reads, [buffer("arg3", dtype, [*sizes, m, n])])


def merged_heads(batch: Size, seq: Size) -> Kernel:
    """out = x @ wᵀ over rows of 12 heads that lie in memory head by head, as attention leaves them."""
    body = BodyBuilder()
    x = body.load("arg0", BF16, (FloorDiv(I0, seq), R0, Mod(I0, seq), R1))
    (total,) = body.reduce("dot", x, body.load("arg1", BF16, (I1, 64 * R0 + R1)))
    body.store("arg2", (I0, I1), body.cast(total, BF16))
    nest = Nest("merged_heads", axes((I0, batch * seq), (I1, 768)), axes((R0, 12), (R1, 64)), body.body())
    reads = [buffer("arg0", BF16, [batch, 12, seq, 64]), buffer("arg1", BF16, [768, 768])]
    return kernel(nest, reads, [buffer("arg2", BF16, [batch * seq, 768])])


def scan(op: str, rows: Size, length: Size, dtype: DType = F32, outer: bool = False) -> Kernel:
    """Every result of a scan of x + x."""
    body = BodyBuilder()
    x = body.load("arg0", dtype, (I0, R0))
    results = body.scan(op, body.compute("add", x, x))
    for k, value in enumerate(results):
        body.store(f"arg{k + 1}", (I0, R0), value)
    writes = [matrix(f"arg{k + 1}", body.dtype(value), rows, length, outer) for k, value in enumerate(results)]
    nest = Nest(f"scan_{op}", axes((I0, rows)), axes((R0, length)), body.body())
    return kernel(nest, [matrix("arg0", dtype, rows, length, outer)], writes)


def sort(rows: Size, length: Size, dtype: DType = F32, descending: bool = False, outer: bool = False) -> Kernel:
    """Values in order and the positions they had."""
    body = BodyBuilder()
    values, places = body.sort(body.load("arg0", dtype, (I0, R0)), descending=descending)
    body.store("arg1", (I0, R0), values)
    body.store("arg2", (I0, R0), places)
    nest = Nest("sort", axes((I0, rows)), axes((R0, length)), body.body())
    writes = [matrix("arg1", dtype, rows, length, outer), matrix("arg2", DType.INT64, rows, length, outer)]
    return kernel(nest, [matrix("arg0", dtype, rows, length, outer)], writes)


LINEAR = Combine(
    left=("a0", "b0"),
    right=("a1", "b1"),
    body=(
        Compute("a", F32, "mul", ("a0", "a1")),
        Compute("scaled", F32, "mul", ("b0", "a1")),
        Compute("b", F32, "add", ("scaled", "b1")),
    ),
    results=("a", "b"),
)
"""Of x → a·x + b, one after the other: associative, not commutative."""


def associative(rows: Size, length: Size, outer: bool = False) -> Kernel:
    body = BodyBuilder()
    a, b = (body.load(name, F32, (I0, R0)) for name in ("arg0", "arg1"))
    for k, value in enumerate(body.scan(ASSOCIATIVE, a, b, combine=LINEAR)):
        body.store(f"arg{k + 2}", (I0, R0), value)
    nest = Nest("linear", axes((I0, rows)), axes((R0, length)), body.body())
    reads, writes = ([matrix(f"arg{k}", F32, rows, length, outer) for k in pair] for pair in ((0, 1), (2, 3)))
    return kernel(nest, reads, writes)
