"""Compiled programs mean what eager means: mutation, aliasing, empty and awkwardly laid out tensors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.python.compiler.forced import forced_models
from tests.python.compiler.test_variants import agree

import mkwrap
from mkwrap import Model, Options
from mkwrap.errors import AliasingError, CaptureError, InputError, OptionError, TargetError, UserError

pytestmark = pytest.mark.toolchain


def compiled(fn: Callable[..., object], args: tuple[torch.Tensor, ...], options: Options) -> Model:
    return mkwrap.compile(fn, args, target="cpu", options=options)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_c11_compiling_changes_no_input_and_each_call_mutates_once(quick: Options, two_threads: Options) -> None:
    def accumulate(total: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        total.add_(torch.tanh(x))
        return total * 2

    total, x = random(40, 130), random(40, 130)
    before = total.clone(), x.clone()
    model = compiled(accumulate, (total, x), replace(quick, tune="quick"))
    assert torch.equal(total, before[0])
    assert torch.equal(x, before[1])
    models = [model, *[forced.model for forced in forced_models(accumulate, (total, x), two_threads)]]
    assert torch.equal(total, before[0])
    for each in models:
        mine, theirs = total.clone(), total.clone()
        for _ in range(3):
            agree(each(mine, x), accumulate(theirs, x), "result")
            agree(mine, theirs, "argument")
    assert torch.equal(x, before[1])


def test_c12_running_statistics_that_go_in_and_come_out(two_threads: Options) -> None:
    def step(running: torch.Tensor, scale: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        running.mul_(0.9).add_(x.mean(0), alpha=0.1)
        scale.copy_(torch.maximum(scale, running.abs().amax()))
        return running, (x - running) / scale

    args = random(70), torch.ones(()), random(33, 70)
    for forced in forced_models(step, args, two_threads):
        ours, theirs = (tuple(arg.clone() for arg in args) for _ in range(2))
        for _ in range(2):
            result = forced.model(*ours)
            agree(result, step(*theirs), forced.label)
            agree(ours, theirs, f"arguments of {forced.label}")
            assert result[0] is ours[0]


def test_c12_one_tensor_twice_is_refused_where_one_of_the_two_is_written(quick: Options) -> None:
    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.add_(y)

    x = random(8)
    with pytest.raises(AliasingError):
        compiled(add, (x, x), quick)
    model = compiled(add, (x, x.clone()), quick)
    with pytest.raises(AliasingError):
        model(x, x)


@pytest.mark.parametrize("shape", [(3, 4), (4, 4)], ids=str)
def test_c13_an_input_whose_elements_share_memory_is_refused_where_it_is_written(
    shape: tuple[int, int], quick: Options
) -> None:
    x = random(3, 1).expand(shape) if shape[0] == 3 else random(10).as_strided(shape, (2, 1))
    with pytest.raises(AliasingError, match=r"args\[0\].*share memory"):
        compiled(lambda x: x.add_(1), (x,), quick)
    agree(compiled(lambda x: x + 1, (x,), quick)(x), x + 1, "read only")


def test_c13_shifted_views_of_one_tensor_equal_eager(quick: Options) -> None:
    def shift(x: torch.Tensor) -> torch.Tensor:
        x[1:] = x[:-1].clone() + 1
        x[::2].mul_(-1)
        return x.sum()

    x = random(101)
    model, ours, theirs = compiled(shift, (x,), quick), x.clone(), x.clone()
    agree(model(ours), shift(theirs), "result")
    agree(ours, theirs, "argument")


REDUCTIONS = (
    torch.sum,
    torch.prod,
    lambda x: x.sum(1),
    lambda x: x.prod(1),
    lambda x: x.mean(1),
    lambda x: x.any(1),
    lambda x: x.all(1),
    lambda x: x.float().logsumexp(1),
    lambda x: torch.var_mean(x, 1),
    lambda x: x.softmax(1),
    lambda x: x @ x.mT,
)


def test_c19_reduced_extent_zero(quick: Options) -> None:
    def reductions(x: torch.Tensor) -> list[object]:
        return [reduction(x) for reduction in REDUCTIONS]

    with pytest.warns(UserWarning, match="degrees of freedom"):
        expected = reductions(torch.empty(3, 0))
    agree(compiled(reductions, (torch.empty(3, 0),), quick)(torch.empty(3, 0)), expected, "empty rows")
    integers = torch.empty(3, 0, dtype=torch.int32)
    model = compiled(lambda x: (x.sum(), x.sum(1), x.prod(1)), (integers,), quick)
    agree(model(integers), (integers.sum(), integers.sum(1), integers.prod(1)), "integers")
    for fn in (lambda x: x.amax(1), lambda x: x.argmin(1), lambda x: x.max(1)):
        with pytest.raises((RuntimeError, IndexError)):
            fn(torch.empty(3, 0))
        with pytest.raises(UserError):
            compiled(fn, (torch.empty(3, 0),), quick)


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (4, 0, 5)], ids=str)
def test_c20_outer_extent_zero_has_the_shape_and_no_elements(shape: tuple[int, ...], quick: Options) -> None:
    def results(x: torch.Tensor) -> list[object]:
        outer = [
            x.sum(-1),
            x.softmax(-1),
            x.argmax(0) if x.shape[0] else x * 2,
            x.std(-1, correction=0) if x.numel() else -x,
        ]
        return [*outer, x + 1, x.mT.contiguous(), x @ x.mT, -x, F.layer_norm(x, x.shape[-1:])]

    x = torch.empty(shape)
    model = compiled(results, (x,), quick)
    agree(model(x), results(x), "results")


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: random(7, 33, 20).permute(2, 0, 1),
    "channels last": lambda: random(3, 20, 5, 6).to(memory_format=torch.channels_last),
    "every second": lambda: random(40, 66)[::2, ::2],
    "stride 0": lambda: random(1, 33).expand(20, 33),
    "all strides 0": lambda: random(1).expand(20, 33),
    "4-byte aligned": lambda: random(20 * 33 + 1)[1:].view(20, 33),
    "a row of a matrix": lambda: random(33, 41)[:, 3],
    "scalar": lambda: random(5)[2],
}


def mixed(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.sigmoid(x) * x, x.sum(-1), x.softmax(0), (x - x.mean()).t() if x.dim() == 2 else x + x


@pytest.mark.parametrize("layout", LAYOUTS)
def test_c33_layouts_equal_eager_in_every_forced_variant(layout: str, two_threads: Options) -> None:
    x = LAYOUTS[layout]()
    for forced in forced_models(mixed, (x,), two_threads):
        actual = forced.model(x)
        agree(actual, mixed(x), forced.label)
        assert [a.stride() for a in actual] == [e.stride() for e in mixed(x)], forced.label


def test_c33_a_build_for_aligned_memory_never_runs_on_another(quick: Options) -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    base = random(4097)
    aligned, unaligned = base[:-1], base[1:]
    assert aligned.data_ptr() % 16 == 0
    strict, loose = compiled(double, (aligned,), quick), compiled(double, (unaligned,), quick)
    with pytest.raises(InputError, match=r"args\[0\].*align"):
        strict(unaligned)
    for x in (aligned, unaligned, unaligned.clone()):
        agree(loose(x), double(x), "made for 4 bytes")
    agree(strict(aligned), double(aligned), "made for 16 bytes")


def test_strided_inputs_of_other_strides_are_refused(quick: Options) -> None:
    model = compiled(mixed, (random(20, 33).t(),), quick)
    with pytest.raises(InputError, match=r"args\[0\].*stride"):
        model(random(33, 20))
    with pytest.raises(CaptureError):
        mkwrap.compile(mixed, random(20, 33), target="cpu", options=quick)  # type: ignore[arg-type]


def test_threads_compile_side_by_side(quick: Options) -> None:
    x = torch.randn(5, 40)

    def compiled(factor: int) -> torch.Tensor:
        result = mkwrap.compile(lambda x: torch.softmax(x * factor, -1), (x,), target="cpu", options=quick)(x)
        assert isinstance(result, torch.Tensor)
        return result

    with ThreadPoolExecutor(4) as threads:
        for factor, result in enumerate(threads.map(compiled, range(4))):
            torch.testing.assert_close(result, torch.softmax(x * factor, -1))


def test_sparse_inputs_are_refused_by_name(quick: Options) -> None:
    with pytest.raises(CaptureError, match=r"args\[1\] has layout torch.sparse_coo"):
        compiled(torch.add, (random(4, 4), random(4, 4).to_sparse()), quick)


@pytest.mark.parametrize("target", [3, torch.device("cpu"), [3], ["cuda:sm_90", None], b"cpu"], ids=repr)
def test_a_target_is_a_name(target: object, quick: Options) -> None:
    with pytest.raises(TargetError, match=r"target is .*; expected a name"):
        mkwrap.compile(torch.neg, (random(4),), target=target, options=quick)  # type: ignore[arg-type]


def test_options_are_no_dict() -> None:
    with pytest.raises(OptionError, match=r"options is .*; expected a mkwrap\.Options"):
        mkwrap.compile(torch.neg, (random(4),), options={"tune": "off"})  # type: ignore[arg-type]
