"""Sizes of 1 are served where torch only asks for them to lay out memory, and refused where an answer hangs on them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from tests.python.dynamic.everysize import OutOfRangeError, dynamic
from tests.python.lower.differential import Function

BATCH = Dim("batch", max=64)


def x34() -> torch.Tensor:
    return torch.randn(3, 4)


def test_a_size_of_one_is_served_where_it_only_lays_out_memory() -> None:
    compiled = dynamic(lambda x: x.t().contiguous() * 2, (x34(),), ({0: BATCH, 1: Dim("seq", min=2, max=512)},))
    assert not compiled.captured.relations
    compiled.check(torch.randn(1, 4))


def test_a_size_of_one_is_refused_where_memory_that_changes_would_be_another() -> None:
    """The contiguous copy of a tensor of one row is the tensor itself: eager changes the argument then."""
    compiled = dynamic(lambda x: x.t().contiguous().add_(1), (x34(),), ({0: BATCH},))
    with pytest.raises(OutOfRangeError, match="batch != 1"):
        compiled.run(torch.randn(1, 4))
    compiled.check(torch.randn(2, 4))


def test_a_branch_on_one_counts_though_layout_asked_before() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        y = x.t().contiguous()
        return y + 1 if x.shape[0] == 1 else y

    compiled = dynamic(fn, (x34(),), ({0: BATCH},))
    compiled.check(torch.randn(5, 4))
    with pytest.raises(OutOfRangeError, match="batch != 1"):
        compiled.run(torch.randn(1, 4))


def padded(length: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 3, length, 4), torch.randn(2, 1, 1, length)


def scores(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return q @ q.transpose(-1, -2) + mask


PADDED = ({0: BATCH, 2: Dim("length", max=300)}, {0: BATCH, 3: Dim("length", max=300)})


@pytest.mark.parametrize(
    "fn",
    [
        scores,
        lambda q, mask: F.scaled_dot_product_attention(q, q, q, attn_mask=mask),
        lambda q, mask: F.scaled_dot_product_attention(q, q, q, attn_mask=mask > 0),
    ],
)
def test_a_sequence_of_one_is_served_where_a_mask_gives_its_length_another_name(fn: Function) -> None:
    """Torch asks for the layout of q under one name of the length, and again under the other, once the mask is as long."""
    compiled = dynamic(fn, padded(), PADDED)
    symbols = [(spec.symbol.name, spec.low, spec.high) for spec in compiled.captured.symbols]
    assert symbols == [("batch", 0, 64), ("length", 0, 300)]
    assert not compiled.captured.relations
    for length in (0, 1, 2, 300):
        compiled.check(*padded(length))


def test_a_branch_on_one_counts_under_either_name_of_a_length() -> None:
    def before(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        doubled = mask * 2 if mask.shape[3] != 1 else mask
        return scores(q, doubled)

    def after(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        total = scores(q, mask)
        return total * 2 if mask.shape[3] != 1 else total

    def of_the_other(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        total = scores(q, mask)
        return total * 2 if q.shape[2] != 1 else total

    def without_question(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return scores(q, mask).squeeze(-1)

    def changed(q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        total = scores(q, mask)
        q.transpose(-1, -2).contiguous().add_(1)
        return total

    for fn in (before, after, of_the_other, without_question, changed):
        compiled = dynamic(fn, padded(), PADDED)
        compiled.check(*padded(2))
        with pytest.raises(OutOfRangeError, match=r"length != 1|1 != length"):
            compiled.run(*padded(1))
