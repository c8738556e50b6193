"""Blocks of real networks, float32 and bfloat16: equal eager on the CPU target, compile for a GPU that is not there."""

from __future__ import annotations

import json

import pytest
import torch
from tests.python.models import BertEncoder, blocks

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


def bert_base(dtype: torch.dtype) -> tuple[BertEncoder, tuple[torch.Tensor, torch.Tensor]]:
    """Return BERT-base's encoder at its real size, and one padded sequence of 64 embeddings."""
    torch.manual_seed(0)
    mask = torch.ones(1, 64, dtype=torch.bool)
    mask[0, 50:] = False
    return BertEncoder(12, 768, 12, 3072).to(dtype).eval(), (torch.randn(1, 64, 768).to(dtype), mask)


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_bert_base_equals_eager_on_the_cpu(dtype: torch.dtype, quick: Options) -> None:
    module, inputs = bert_base(dtype)
    with torch.no_grad():
        expected = module(*inputs)
    model = mkwrap.compile(module, inputs, target="cpu", options=quick)
    difference = (model(*inputs).double() - expected.double()).norm() / expected.double().norm()
    assert difference <= (1e-5 if dtype is torch.float32 else 3e-2)
    kernels = model.manifest["kernels"]
    assert len(kernels) <= 12, "twelve equal layers share their kernels"


@pytest.mark.toolchain
@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
def test_bert_base_compiles_for_a_gpu_without_one(dtype: torch.dtype, quick: Options) -> None:
    module, inputs = bert_base(dtype)
    model = mkwrap.compile(module, inputs, target="cuda:sm_90", options=quick)
    assert len(model.manifest["kernels"]) <= 12


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
