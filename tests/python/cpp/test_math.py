"""The elementary functions over the whole range of float32, in units in the last place against float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tests.python.cpp.running import F32, I, build, call, entry_of, target, whole
from tests.python.nests import buffer, kernel

from mkwrap.codegen.cpp import pointwise
from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.numeric import Array
from mkwrap.stages import Variant

pytestmark = pytest.mark.toolchain

Reference = Callable[[torch.Tensor], torch.Tensor]
VECTORISED: dict[str, Reference] = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "sin": torch.sin,
    "cos": torch.cos,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
}
BOUND = 3.0
WIDER = {"erf": 5.0}
"""docs/numerics.md says why."""


def sampled(count: int) -> Array:
    """Float32 numbers of every exponent and sign, subnormals, infinities and NaN among them."""
    step = 2**32 // count | 1
    bits = (np.arange(count, dtype=np.uint64) * step % 2**32).astype(np.uint32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 88.72284, -103.97, 1e-45, 3e38], np.float32)
    return np.concatenate([special, bits.view(np.float32)])


def applied(op: str, x: Array, name: str) -> Array:
    body = BodyBuilder()
    body.store("arg1", (I,), body.compute(op, body.load("arg0", F32, (I,))))
    n = x.size
    k = kernel(whole(op, (I, n), body=body), [buffer("arg0", F32, [n])], [buffer("arg1", F32, [n])])
    params = (("axis", "p0"), ("unroll", 1), ("threads", 1))
    binary = build(pointwise.TEMPLATE, k, Variant(op, "pointwise", params), target(name))
    memory = {"arg0": x, "arg1": np.zeros_like(x)}
    call(entry_of(binary), binary.source, k, memory)
    return memory["arg1"]


# Without fused multiply-add instructions they are emulated, hence fewer numbers.
@pytest.mark.parametrize(("name", "count"), [("cpu", 1 << 18), ("cpu:x86-64-v3", 1 << 16), ("cpu:x86-64-v2", 1 << 13)])
@pytest.mark.parametrize("op", sorted(VECTORISED))
def test_float32_function_is_within_its_units_in_the_last_place(op: str, name: str, count: int) -> None:
    if not target(name).present:
        pytest.skip(f"this machine cannot run {name}")
    x = sampled(count)
    actual = applied(op, x, name)
    exact = VECTORISED[op](torch.from_numpy(x).double()).numpy()
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(rounded))
    finite = np.isfinite(rounded) & np.isfinite(actual)
    # Next to the largest float, one neighbour may be infinite and the other not.
    beside = ~finite & ~np.isnan(rounded) & (actual != rounded)
    assert np.all(np.abs(exact[beside]) > 3.4e38)
    unit = np.spacing(np.maximum(np.abs(rounded[finite]), np.float32(1.2e-38))).astype(np.float64)
    error = np.abs(actual[finite].astype(np.float64) - exact[finite]) / unit
    assert error.max() <= WIDER.get(op, BOUND), f"{op}({x[finite][error.argmax()]!r}): {error.max():.2f} units"


@pytest.mark.parametrize("op", ["expm1", "log1p", "tanh", "erf", "sin", "sqrt"])
def test_negative_zero_stays(op: str) -> None:
    x = np.full(20, -0.0, np.float32)
    assert np.signbit(applied(op, x, "cpu")).all()


def test_erf_never_passes_one() -> None:
    x = np.arange(np.float32(3.0).view(np.uint32), np.float32(5.0).view(np.uint32), 7, np.uint32).view(np.float32)
    assert np.abs(applied("erf", x, "cpu")).max() == 1
    assert applied("erf", np.full(20, -np.inf, np.float32), "cpu").max() == -1
