"""Kernels of dynamic sizes for the Triton templates: points their templates are asked at, and sizes they are run at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product as pairs

import sympy

from mkwrap.codegen.triton import LANGUAGE
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import size_symbol
from mkwrap.points import kernel_at
from mkwrap.stages import Device, Kernel, Source, Variant
from tests.python.nests import Size
from tests.python.triton import nests
from tests.python.triton.nests import BF16, F64
from tests.python.triton.oracle import Memory, fill

SYMBOLS = tuple(size_symbol(name) for name in ("s0", "s1", "s2"))
Sizes = tuple[int, ...]
# Of results in bfloat16.
ROUNDED = 3e-2


@dataclass(frozen=True)
class Case:
    """A kernel as a function of its sizes, the points its templates are asked at, sizes to run at, the templates met."""

    build: Callable[..., Kernel]
    points: tuple[Sizes, ...]
    sizes: tuple[Sizes, ...]
    templates: frozenset[str]
    tolerance: float = 1e-5
    fill: Callable[[Kernel], Memory] = fill
    limits: Sizes = ()
    """Upper ends of the first sizes that the forms are asked for; the rest have none."""

    @property
    def kernel(self) -> Kernel:
        return self.build(*SYMBOLS[: len(self.points[0])])


def case(
    build: Callable[..., Kernel],
    points: Sequence[Sizes],
    sizes: Sequence[Sizes],
    templates: str,
    tolerance: float = 1e-5,
) -> Case:
    return Case(build, tuple(points), tuple(sizes), frozenset(templates.split()), tolerance)


def indices(kernel: Kernel) -> Memory:
    """Integers in 0 … 6."""
    memory = fill(kernel)
    return {k: flat if flat.is_floating_point() else flat % 7 for k, flat in memory.items()}


def gather(rows: Size) -> Kernel:
    return nests.padded_gather(rows, 40)


def flat(rows: Size, length: Size) -> Kernel:
    return nests.scalar_op("exp", DType.FLOAT32, rows * length)


def derived(rows: Size, length: Size) -> Kernel:
    return nests.softmax(rows + 1, 4 * length)


def larger(rows: Size, length: Size) -> Kernel:
    return nests.softmax(rows, sympy.Max(length, 40))


def columns(rows: Size, length: Size) -> Kernel:
    return nests.reduction("sum", rows, length, outer=True)


def matmul(m: Size, n: Size, k: Size) -> Kernel:
    return nests.product(m, n, k, BF16)


def batched(batch: Size, m: Size, k: Size) -> Kernel:
    return nests.product(m, 48, k, BF16, batch=batch, transposed=False)


# Rows and lengths: none, one, whole blocks (64 = the block of 60), multiples of 16 and not.
SHORT = ((0, 8), (2, 0), (1, 1), (5, 64), (3, 33), (2, 80))
FULL = ((0, 8), (1, 1), (5, 64), (3, 33), (2, 80))
ROWS = ((4, 60), (2, 20_000))
COLUMNS = ((60, 60), (64, 3000))
CASES = {
    "softmax": case(nests.softmax, ROWS, SHORT, "persistent looped split"),
    "softmax_columns": case(lambda n, m: nests.softmax(n, m, outer=True), COLUMNS, SHORT, "persistent looped split"),
    "layer_norm": case(lambda n, m: nests.layer_norm(n, m, BF16), ROWS, FULL, "persistent looped split"),
    "welford": case(nests.normalized, ROWS, SHORT, "persistent looped split"),
    "spread": case(lambda n, m: nests.spread(n, m, "value"), ROWS, FULL, "persistent looped split"),
    "renormalized": case(lambda n, m: nests.renormalized(n, m, softmax_too=False), ROWS, FULL, "persistent looped split"),
    "sum": case(lambda n, m: nests.reduction("sum", n, m), ROWS, SHORT, "persistent looped split"),
    "column_sum": case(columns, COLUMNS, SHORT, "persistent looped split"),
    "argmax": case(lambda n, m: nests.reduction("argmax", n, m), ROWS, FULL, "persistent looped split"),
    "two_axes": case(lambda n, m: nests.group_norm_sums(2, 3, n, m), ((4, 60), (80, 1000)), SHORT, "persistent looped split"),
    "cumsum": case(lambda n, m: nests.scan("sum", n, m), ROWS, SHORT, "persistent looped scan_chunks split_scan"),
    "cumsum_columns": case(
        lambda n, m: nests.scan("sum", n, m, F64, outer=True), COLUMNS, SHORT, "persistent looped scan_chunks split_scan"
    ),
    "cummax": case(lambda n, m: nests.scan("cummax", n, m), ROWS, SHORT, "persistent looped scan_chunks split_scan"),
    "linear": case(nests.associative, ROWS, SHORT, "persistent looped scan_chunks split_scan"),
    "sort": replace(case(nests.sort, ((4, 60),), (*SHORT, (3, 100)), "persistent"), limits=(2**20, 100)),
    "matmul": case(matmul, ((100, 100, 100),), ((0, 8, 8), (1, 1, 1), (17, 33, 65), (48, 32, 64)), "matmul", ROUNDED),
    "thin": case(matmul, ((4, 64, 64),), ((0, 8, 8), (1, 1, 1), (3, 9, 65), (2, 16, 64)), "matmul persistent looped", ROUNDED),
    "batched": case(batched, ((3, 40, 100),), ((1, 8, 8), (2, 0, 8), (2, 5, 0), (3, 17, 33), (2, 16, 32)), "matmul", ROUNDED),
    "integers": case(lambda m, n: nests.product(m, n, 20, DType.INT8), ((40, 40),), ((0, 3), (1, 1), (17, 33)), "dot_loop"),
    "transpose": case(nests.transpose, ((64, 64), (300, 500)), ((0, 5), (1, 1), (33, 20), (64, 16)), "plane pointwise"),
    "pointwise": case(
        flat, ((8, 9), (600, 5000)), ((0, 5), (1, 1), (3, 1000), (16, 48)), "pointwise"
    ),
    "gather": replace(case(gather, ((7,), (3000,)), ((0,), (1,), (33,)), "pointwise"), fill=indices),
    "larger": case(larger, ROWS, SHORT, "persistent looped split"),
    "derived": case(derived, ((3, 15), (3, 5000)), ((0, 1), (4, 0), (2, 16), (1, 20)), "persistent looped split"),
}  # fmt: skip


def offered(case: Case, device: Device, most: int = 99) -> Iterator[Source]:
    """Texts of the symbolic kernel with the params of every template at every point, in every form, each once."""
    kernel, seen = case.kernel, set[str]()
    for template, point in pairs(LANGUAGE.templates, case.points):
        if not template.takes(kernel.nest):
            continue
        found = template.space(kernel_at(kernel, values(point)), device)[:most]
        for params, form in pairs(found, LANGUAGE.forms(kernel, values(case.limits))):
            variant = Variant(kernel.name, template.name, (*params, *form))
            if variant.label not in seen:
                seen.add(variant.label)
                yield template.render(kernel, variant, device)


def values(sizes: Sizes) -> dict[sympy.Symbol, int]:
    return dict(zip(SYMBOLS, sizes, strict=False))
