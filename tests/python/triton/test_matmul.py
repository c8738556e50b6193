"""Matrix products in Triton under Triton's interpreter against the numpy oracle, and which tiles are offered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mkwrap.ir.build import BodyBuilder
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Nest
from mkwrap.stages import Kernel
from tests.python.nests import axes, buffer, kernel
from tests.python.triton.nests import BF16, F16, F32, F64, H100, I0, I1, R0, product
from tests.python.triton.oracle import check, sources


@pytest.mark.parametrize("dtype", [BF16, F16, F32])
@pytest.mark.parametrize("transposed", [True, False])
def test_dot_tiles_with_bias_and_activation(dtype: DType, transposed: bool, tmp_path: Path) -> None:
    case = product(70, 50, 40, dtype, transposed=transposed, activation="tanh")
    assert check(case, tmp_path, rtol=2e-2, atol=2e-2) == {"matmul"}


def test_batches_share_one_launch(tmp_path: Path) -> None:
    case = product(20, 24, 33, F32, batch=3)
    assert check(case, tmp_path, rtol=1e-4, atol=1e-4, most=2) == {"matmul"}


@pytest.mark.parametrize("dtype", [F64, DType.INT64, DType.INT32, DType.INT8])
def test_dtypes_without_tensor_cores_add_outer_products(dtype: DType, tmp_path: Path) -> None:
    assert check(product(20, 36, 30, dtype), tmp_path, most=2) == {"dot_loop"}


@pytest.mark.parametrize("rows", [1, 6])
def test_thin_products_race_as_reductions(rows: int, tmp_path: Path) -> None:
    seen = check(product(rows, 24, 64, BF16), tmp_path, rtol=2e-2, atol=2e-2, most=1)
    assert {"persistent", "looped"} <= seen


def computed_operand(m: int, n: int, k: int) -> Kernel:
    """out = exp(a) @ b: what lies beyond the depth must not become exp(0)."""
    body = BodyBuilder()
    a = body.compute("exp", body.load("arg0", F32, (I0, R0)))
    body.store("arg2", (I0, I1), body.reduce("dot", a, body.load("arg1", F32, (R0, I1)))[0])
    nest = Nest("computed", axes((I0, m), (I1, n)), axes((R0, k)), body.body())
    return kernel(nest, [buffer("arg0", F32, [m, k]), buffer("arg1", F32, [k, n])], [buffer("arg2", F32, [m, n])])


def test_computed_operands_are_zero_beyond_the_depth(tmp_path: Path) -> None:
    assert check(computed_operand(20, 30, 37), tmp_path, rtol=1e-4, atol=1e-4) == {"matmul"}


@pytest.mark.parametrize("arch_bytes", [99 * 1024, 227 * 1024])
def test_tiles_fit_the_shared_memory_of_the_device(arch_bytes: int) -> None:
    device = replace(H100, shared_bytes=arch_bytes)
    for source in sources(product(4096, 4096, 4096, BF16), device):
        p = dict(source.variant.params)
        assert (int(p["m"]) + int(p["n"])) * int(p["k"]) * int(p["num_stages"]) * 2 <= arch_bytes


def test_large_products_start_with_large_tiles_and_small_ones_with_many() -> None:
    large = dict(next(sources(product(8192, 8192, 1024, BF16), H100)).variant.params)
    small = dict(next(sources(product(128, 1024, 1024, BF16), H100)).variant.params)
    assert int(large["m"]) * int(large["n"]) >= 128 * 256
    assert 128 // int(small["m"]) * (1024 // int(small["n"])) >= 32


def test_an_expensive_epilogue_keeps_tiles_small() -> None:
    def most(case: Kernel) -> int:
        params = [dict(s.variant.params) for s in sources(case, H100)]
        return max(int(p["m"]) * int(p["n"]) // int(p["num_warps"]) for p in params)

    assert most(product(8192, 8192, 1024, BF16, activation="tanh")) < most(product(8192, 8192, 1024, BF16))


def test_float32_is_exact_first_and_three_tf32_products_race() -> None:
    labels = [dict(s.variant.params)["precision"] for s in sources(product(512, 512, 512), H100)]
    assert labels == ["ieee"] * 3 + ["tf32x3"] * 3


def test_only_matrix_products_contract_multiply_and_add() -> None:
    (source,) = sources(product(64, 64, 64), H100, most=1)
    assert source.launches[0].options["enable_fp_fusion"] is True
