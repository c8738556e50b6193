"""Encoders and decoders with dynamic batch and length: values at any size, and an arena not much above a static one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch.export import Dim

from mkwrap.ir.interpret import evaluate_all
from tests.python.dynamic.everysize import Dynamic, dynamic
from tests.python.fuse.scheduled import schedule_of
from tests.python.models import BertEncoder, SelfAttention

BATCH, SEQ = Dim("batch", min=1, max=64), Dim("seq", min=1, max=512)
WIDTH = 32


def call(batch: int, seq: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch + 100 * seq)
    x = torch.randn(batch, seq, WIDTH, generator=generator)
    return x, torch.arange(seq)[None] < torch.randint(1, seq + 1, (batch, 1), generator=generator)


@pytest.fixture(scope="module")
def encoder() -> Dynamic:
    torch.manual_seed(0)
    model = BertEncoder(2, WIDTH, 4, 4 * WIDTH).eval()
    dims = {0: BATCH, 1: SEQ}
    return dynamic(model, call(2, 7), {"x": dims, "mask": dims})


def test_c21_an_encoder_is_right_at_every_batch_and_length(encoder: Dynamic) -> None:
    assert not encoder.captured.relations
    assert [(spec.low, spec.high) for spec in encoder.schedule.program.symbols] == [(1, 64), (1, 512)]
    for batch, seq in ((1, 1), (1, 8), (2, 7), (3, 16), (5, 33), (1, 130)):
        encoder.check(*call(batch, seq))


def test_an_encoder_shares_kernels_as_a_static_one_does(encoder: Dynamic) -> None:
    static, _ = schedule_of(encoder.fn, call(2, 7))
    assert len(encoder.schedule.kernels) == len(static.kernels)
    assert [step.kernel for step in encoder.schedule.steps] == [step.kernel for step in static.steps]


@pytest.mark.parametrize("sizes", [(1, 8), (16, 16), (4, 64), (5, 333), (64, 512)])
def test_the_arena_is_as_large_as_the_sizes_at_hand_ask_for(encoder: Dynamic, sizes: Sequence[int]) -> None:
    """Within a quarter of what planning at exactly these sizes needs."""
    static, _ = schedule_of(encoder.fn, call(*sizes))
    values = dict(zip([spec.symbol for spec in encoder.schedule.program.symbols], sizes, strict=True))
    (planned,) = evaluate_all((encoder.schedule.arena_bytes,), values)
    assert planned <= 1.25 * int(static.arena_bytes)


def test_a_causal_decoder_takes_one_token_and_many() -> None:
    torch.manual_seed(1)
    model = SelfAttention(WIDTH, 4, causal=True).eval()
    compiled = dynamic(model, (torch.randn(2, 5, WIDTH),), ({0: BATCH, 1: SEQ},))
    assert not compiled.captured.relations
    for batch, seq in ((1, 1), (2, 1), (1, 17), (3, 8)):
        compiled.check(torch.randn(batch, seq, WIDTH))
