"""Matrix products built by hand, and every variant of theirs run against the interpreter and float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tests.python.cpp.running import F32, I, J, K, R, build, call, copies, entry_of, fill, target, whole
from tests.python.nests import buffer
from tests.python.nests import kernel as make_kernel

from mkwrap.codegen.template import Template
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.interpret import interpret_nest
from mkwrap.ir.numeric import Array, decode
from mkwrap.stages import Kernel, Params, Source, Variant
from mkwrap.targets.target import Target


@dataclass(frozen=True)
class Product:
    """C[z, i, j] = (Σ A[z, i, r] · B[z, r, j] + bias[j], then relu) in one dtype; strides of each buffer in elements."""

    batch: int
    m: int
    n: int
    k: int
    dtype: DType = F32
    a: tuple[int, int, int] | None = None
    b: tuple[int, int, int] | None = None
    c: tuple[int, int, int] | None = None
    epilogue: bool = True
    cast: bool = False
    constant: bool = False

    @property
    def kernel(self) -> Kernel:
        """The nest and its parameters a, b, bias, c."""
        wide = self.dtype.compute
        body = BodyBuilder()
        a, b = body.load("a", self.dtype, (K, I, R)), body.load("b", self.dtype, (K, R, J))
        if self.cast:
            a, b = body.cast(a, wide), body.cast(b, wide)
        (value,) = body.reduce("dot", a, b)
        if self.epilogue:
            value = body.compute("add", value, body.cast(body.load("bias", self.dtype, (J,)), wide))
            value = body.compute("maximum", value, body.constant(0, wide))
        body.store("c", (K, I, J), body.cast(value, self.dtype))
        nest = whole("matmul_0", (K, self.batch), (I, self.m), (J, self.n), (R, self.k), body=body, reduce=1)
        reads = [
            buffer("a", self.dtype, (self.batch, self.m, self.k), self.a),
            buffer("b", self.dtype, (self.batch, self.k, self.n), self.b),
        ]
        reads += [buffer("bias", self.dtype, (self.n,))] if self.epilogue else []
        made = make_kernel(nest, reads, [buffer("c", self.dtype, (self.batch, self.m, self.n), self.c)])
        if not self.constant:
            return made
        parameters = tuple(replace(p, constant=p.buffer.name in ("b", "bias")) for p in made.parameters)
        return replace(made, parameters=parameters)


def check(
    template: Template, kernel: Kernel, tolerance: float, on: Target | None = None,
    memory: Mapping[str, Array] | None = None,
) -> list[Source]:  # fmt: skip
    """Run the distinct variants on random data and compare all written buffers with the interpreter's."""
    on = on or target()
    if memory is None:
        rng = np.random.default_rng(0)
        memory = {p.buffer.name: fill(p.buffer, rng, -5, 5) for p in kernel.parameters}
    expected = copies(memory)
    interpret_nest(kernel.nest, expected)
    sources = []
    for params in distinct(template.space(kernel, on.device)):
        variant = Variant(kernel.name, template.name, params)
        binary = build(template, kernel, variant, on)
        actual = copies(memory)
        assert call(entry_of(binary), binary.source, kernel, actual) == 0
        for parameter in kernel.parameters:
            b = parameter.buffer
            pair = [decode(values[b.name], b.dtype) for values in (actual, expected)]
            compare(*pair, tolerance, f"{variant.label} {b.name}")
        sources.append(binary.source)
    return sources


def distinct(space: Sequence[Params]) -> list[Params]:
    """Leave out variants that differ from an earlier one in the sizes of tiles and parts alone."""
    kept: dict[tuple[object, ...], Params] = {}
    for params in space:
        values = dict(params)
        kept.setdefault((values.get("a"), values.get("b"), values.get("vector"), values["threads"]), params)
    return list(kept.values())


def compare(actual: Array, expected: Array, tolerance: float, what: str) -> None:
    """Equal integers; floats within `tolerance` of the largest magnitude, NaN and infinities alike."""
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale, err_msg=what)
