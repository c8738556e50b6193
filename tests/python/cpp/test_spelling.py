"""Every op of the IR is spelled in C++ for every dtype it accepts, and computes what the interpreter computes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tests.python.cpp.running import I, call, copies, link, target
from tests.python.nests import axes, buffer, kernel

from mkwrap.codegen.cpp import pointwise
from mkwrap.codegen.cpp.spelling import header, literal, spell
from mkwrap.errors import VerifyError
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.nodes import Nest
from mkwrap.ir.numeric import Array, decode, encode
from mkwrap.ir.ops import OPS, Kind, Op
from mkwrap.stages import Binary, Kernel, Source, Variant

FLOATS = (DType.FLOAT32, DType.FLOAT64)
INTEGERS = tuple(d for d in DType if d.is_integer)
LENGTH = 67  # four vectors of 16 lanes and a tail

# Float division and remainder lose their meaning where a quotient has no unit digit; compared on moderate values only.
MODERATE = frozenset({"floordiv", "truncdiv", "mod", "fmod", "pow", "tan", "lgamma", "digamma", "sinh", "cosh"})
# Numpy, hence the interpreter, has no such arithmetic on bool; nor has torch.
NOT_OF_BOOL = frozenset({"floordiv", "truncdiv", "mod", "fmod", "neg", "sign", "sub"})
LOOSE = {"digamma": 3e-6, "lgamma": 3e-6, "erfinv": 1e-6}


def accepted(op: Op) -> Iterator[tuple[DType, DType]]:
    """Dtypes of the arguments and the result that an op is defined for."""
    match op.kind:
        case Kind.FLOAT:
            yield from ((d, d) for d in FLOATS)
        case Kind.TEST:
            yield from ((d, DType.BOOL) for d in FLOATS)
        case Kind.COMPARE:
            yield from ((d, DType.BOOL) for d in DType)
        case Kind.CAST:
            yield from ((a, b) for a in DType for b in DType)
        case Kind.SHIFT:
            yield from ((d, d) for d in INTEGERS)
        case Kind.BITS:
            yield from ((d, d) for d in (*INTEGERS, DType.BOOL))
        case _:
            yield from ((d, d) for d in DType)


def samples(dtype: DType, op: str, which: int, rng: np.random.Generator) -> Array:
    """Arguments of an op, special values among them where the op is defined there."""
    if dtype is DType.BOOL:
        return rng.integers(0, 2, LENGTH).astype(np.bool_)
    if dtype.is_integer:
        low = -100 if dtype.is_signed else 0
        values = rng.integers(low, 100, LENGTH)
        if op in ("shl", "shr") and which == 1:
            values = rng.integers(low // 50, 8 * dtype.itemsize + 3, LENGTH)
        elif op in ("floordiv", "truncdiv", "mod", "fmod") and which == 1:
            values = np.where(values == 0, 7, values)
        return values.astype(dtype.value)
    values = rng.standard_normal(LENGTH) * 3
    if op in ("erfinv",):
        values = np.tanh(values)
    if op in ("acosh", "log", "log2", "log10", "sqrt", "rsqrt", "pow", "lgamma"):
        values[: LENGTH - 8] = np.abs(values[: LENGTH - 8]) + (1 if op == "acosh" else 0)
    if op not in MODERATE and op != "cast":
        values[-8:] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-39]
    return encode(values, dtype)


def spelled(dtype: DType, result: DType, op: str) -> Kernel:
    body = BodyBuilder()
    row = OPS[op]
    kinds = [DType.BOOL if row.kind is Kind.WHERE and k == 0 else dtype for k in range(row.arity)]
    args = [body.load(f"arg{k}", kind, (I,)) for k, kind in enumerate(kinds)]
    value = body.compute(op, *args, dtype=result if row.kind is Kind.CAST else None)
    body.store(f"arg{row.arity}", (I,), value)
    reads = [buffer(f"arg{k}", kind, [LENGTH]) for k, kind in enumerate(kinds)]
    out = buffer(f"arg{row.arity}", result, [LENGTH])
    return kernel(Nest(f"{op}_{dtype.value}", axes((I, LENGTH)), (), body.body()), reads, [out])


def test_every_op_is_spelled_for_every_dtype_it_accepts() -> None:
    for op in OPS.values():
        assert header(op.name)
        for dtype, result in accepted(op):
            assert spell(op.name, dtype, result, ["a", "b", "c"][: op.arity]).startswith("mkw::")


def test_unknown_op_is_refused() -> None:
    with pytest.raises(VerifyError, match="no C\\+\\+ spelling"):
        header("bessel")


@pytest.mark.toolchain
@pytest.mark.parametrize("op", sorted(OPS))
def test_op_computes_what_the_interpreter_computes(op: str) -> None:
    rng = np.random.default_rng(len(op))
    pairs = list(accepted(OPS[op]))
    if op == "cast":
        pairs = [(a, b) for a, b in pairs if a is not b]
    elif op in NOT_OF_BOOL:
        pairs = [(a, b) for a, b in pairs if a is not DType.BOOL]
    kernels = [spelled(dtype, result, op) for dtype, result in pairs]
    for k, function, source in compiled(kernels):
        memory = {p.buffer.name: samples(p.buffer.dtype, op, n, rng) for n, p in enumerate(k.parameters)}
        expected, actual = copies(memory), copies(memory)
        interpret_nest(k.nest, expected)
        assert call(function, source, k, actual) == 0
        out = k.parameters[-1].buffer
        check(decode(actual[out.name], out.dtype), decode(expected[out.name], out.dtype), op, k.name)


def compiled(kernels: list[Kernel]) -> Iterator[tuple[Kernel, ctypes._CFuncPtr, Source]]:
    """Compile many kernels as one file, each in a namespace of its own: the headers are read once."""
    on = target()
    variants = [Variant(k.name, "pointwise", pointwise.TEMPLATE.space(k, on.device)[0]) for k in kernels]
    sources = [pointwise.TEMPLATE.render(k, v, on.device) for k, v in zip(kernels, variants, strict=True)]
    directives: dict[str, None] = {}
    bodies = []
    for n, source in enumerate(sources):
        lines = source.text.splitlines()
        directives.update(dict.fromkeys(line for line in lines if line.startswith("#")))
        bodies.append(f"namespace n{n} {{\n" + "\n".join(line for line in lines if not line.startswith("#")) + "\n}")
    whole = replace(sources[0], text="\n".join((*directives, *bodies)))
    binary = on.compile(whole)
    assert isinstance(binary, Binary), binary.reason
    library = ctypes.CDLL(str(link(binary)))
    for k, source in zip(kernels, sources, strict=True):
        function = getattr(library, source.launches[0].entry)
        function.restype = ctypes.c_int32
        yield k, function, source


def check(actual: Array, expected: Array, op: str, what: str) -> None:
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    half = "float16" in what
    tolerance = LOOSE.get(op, 1e-2 if half else 1e-6 if expected.dtype == np.float32 else 1e-13)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=1e-37 if op != "digamma" else 1e-6, err_msg=what)


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (-(2**63), DType.INT64, "(int64_t)((-9223372036854775807ll - 1))"),
        (2**64 - 1, DType.UINT64, "(uint64_t)18446744073709551615ull"),
        (0.1, DType.FLOAT32, "0.10000000149011612f"),
        (1e40, DType.FLOAT32, "__builtin_inff()"),
        (float("-inf"), DType.FLOAT64, "-__builtin_inf()"),
        (float("nan"), DType.FLOAT32, '__builtin_nanf("")'),
        (1.0, DType.BFLOAT16, "mkw::to<mkw::bf16>(1.0f)"),
        (True, DType.BOOL, "true"),
    ],
)
def test_literal(value: float, dtype: DType, text: str) -> None:
    assert literal(value, dtype) == text
