"""Blocks of real networks, float32 and bfloat16: equal eager on the CPU target, compile for a GPU that is not there."""

from __future__ import annotations

import json

import pytest
import torch
from tests.python.models import blocks

import mkwrap
from mkwrap import Options

DTYPES = (torch.float32, torch.bfloat16)
NAMES = ("bert", "gpt2", "vit", "mixer")
# bfloat16 keeps 8 bits: products of different order round apart by an ulp or two of the largest terms, layer after layer.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-2}


@pytest.mark.toolchain
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_block_equals_eager_on_the_cpu(name: str, dtype: torch.dtype, quick: Options) -> None:
    module, inputs = blocks(dtype)[name]
    with torch.no_grad():
        expected = module(*inputs)
    actual = mkwrap.compile(module, inputs, target="cpu", options=quick)(*inputs)
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_block_compiles_for_a_gpu_without_one(name: str, dtype: torch.dtype, quick: Options) -> None:
    module, inputs = blocks(dtype)[name]
    model = mkwrap.compile(module, inputs, target="cuda:sm_90", options=quick)
    manifest = model.manifest
    assert manifest["target"]["arch"] == "sm_90"
    assert all(kernel["winner"] for kernel in manifest["kernels"]), json.dumps(manifest["kernels"])


@pytest.mark.cuda
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_block_equals_eager_on_the_gpu(name: str, dtype: torch.dtype, quick: Options) -> None:
    module, inputs = blocks(dtype)[name]
    module, inputs = module.cuda(), tuple(t.cuda() for t in inputs)
    with torch.no_grad():
        expected = module(*inputs)
    actual = mkwrap.compile(module, inputs, options=quick)(*inputs)
    tolerance = 1e-3 if dtype is torch.float32 else TOLERANCE[dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
