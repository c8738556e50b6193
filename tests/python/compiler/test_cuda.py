"""On a real GPU: whole programs equal eager, every forced variant equals eager, capture and streams work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from tests.python.fuse.test_fuse import PROGRAMS
from tests.python.lower.differential import same

import mkwrap
from mkwrap import Options

pytestmark = pytest.mark.cuda


def on_gpu(value: object) -> object:
    return value.cuda() if isinstance(value, torch.Tensor) else value


def agree(actual: object, expected: object, tolerance: float) -> None:
    for k, (a, e) in enumerate(zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True)):
        exact = not (isinstance(e, torch.Tensor) and e.is_floating_point())
        same(a, e, f"result {k}", 0.0 if exact else tolerance, 0.0 if exact else tolerance)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_equals_eager(name: str, quick: Options) -> None:
    fn, args = PROGRAMS[name]
    inputs = tuple(on_gpu(a) for a in args)
    model = mkwrap.compile(fn, inputs, options=quick)
    agree(model(*inputs), fn(*inputs), 1e-4)


def norm(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.layer_norm(x + r, (x.shape[-1],))) + r


VARIED: dict[str, tuple[Callable[..., object], tuple[torch.Size, ...]]] = {
    "softmax": (lambda x: torch.softmax(x, -1), (torch.Size([300, 1000]),)),
    "layer norm, gelu, residual": (norm, (torch.Size([65, 768]), torch.Size([65, 768]))),
    "column sum": (lambda x: (x.float() * x.float()).sum(0), (torch.Size([5000, 130]),)),
    "whole sum": (lambda x: x.float().sum(), (torch.Size([700, 1001]),)),
    "few long rows": (lambda x: torch.var_mean(x.float(), -1), (torch.Size([3, 100_003]),)),
    "argmax": (lambda x: x.max(1), (torch.Size([77, 515]),)),
    "argmin of columns": (lambda x: x.argmin(0), (torch.Size([515, 77]),)),
    "transpose and add": (lambda x: (x.t() + 1).contiguous(), (torch.Size([515, 1027]),)),
    "product with epilogue": (lambda x, w: F.gelu(x @ w), (torch.Size([130, 96]), torch.Size([96, 200]))),
    "batched product": (lambda x, w: x @ w.transpose(1, 2), (torch.Size([6, 50, 33]), torch.Size([6, 70, 33]))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", VARIED)
def test_c1_every_forced_variant_equals_eager(name: str, dtype: torch.dtype, quick: Options) -> None:
    fn, shapes = VARIED[name]
    torch.manual_seed(0)
    inputs = tuple(torch.randn(shape, device="cuda").to(dtype) for shape in shapes)
    expected = fn(*inputs)
    measured = mkwrap.compile(fn, inputs, options=replace(quick, tune="quick"))
    tolerance = 1e-3 if dtype is torch.float32 else 3e-2
    agree(measured(*inputs), expected, tolerance)
    for kernel in measured.manifest["kernels"]:
        pruned = [r["variant"] for r in kernel["rejected"] if r["reason"].startswith("pruned:")]
        refused = [r for r in kernel["rejected"] if r["variant"] not in pruned]
        assert all("resources" in r["reason"] for r in refused), refused
        labels = [*(timing["variant"] for timing in kernel["timings"]), *pruned]
        assert len(labels) >= 2, kernel
        for label in labels:
            forced = mkwrap.compile(fn, inputs, options=replace(quick, force={kernel["name"]: label}))
            agree(forced(*inputs), expected, tolerance)


def test_runs_on_the_current_stream_and_in_a_graph(quick: Options) -> None:
    x = torch.randn(256, 512, device="cuda")
    model = mkwrap.compile(lambda x: torch.softmax(x * 3, -1), (x,), options=quick)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        y = model(x.mul(2))
    stream.synchronize()
    torch.testing.assert_close(y, torch.softmax(x * 6, -1))
    static = x.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = model(static)
    static.copy_(x + 1)
    graph.replay()
    torch.testing.assert_close(captured, torch.softmax((x + 1) * 3, -1))


def test_an_index_out_of_range_reads_nothing_outside(quick: Options) -> None:
    table, ids = torch.randn(10, 64, device="cuda"), torch.tensor([0, 9, 3], device="cuda")
    model = mkwrap.compile(F.embedding, (ids, table), options=quick)
    torch.testing.assert_close(model(ids, table), table[ids])
    wild = torch.tensor([2**40, -4, 10], device="cuda")
    torch.testing.assert_close(model(wild, table), table[torch.tensor([9, 0, 9])])


def test_an_unaligned_view_runs_where_it_was_compiled_for_and_is_refused_elsewhere(quick: Options) -> None:
    base = torch.randn(4097, device="cuda")
    unaligned, aligned = base[1:], base[:-1]
    model = mkwrap.compile(lambda x: x * 2, (unaligned,), options=quick)
    torch.testing.assert_close(model(unaligned), unaligned * 2)
    strict = mkwrap.compile(lambda x: x * 2, (aligned,), options=quick)
    with pytest.raises(mkwrap.errors.InputError, match="align"):
        strict(unaligned)


def test_wrong_device_is_named(quick: Options) -> None:
    x = torch.randn(8, device="cuda")
    model = mkwrap.compile(lambda x: x + 1, (x,), options=quick)
    with pytest.raises(mkwrap.errors.InputError, match=r"args\[0\].*cuda.*cpu"):
        model(x.cpu())
