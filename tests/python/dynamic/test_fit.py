"""A program takes the example it was traced with, or is refused with what to do."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from mkwrap.capture import Callee
from mkwrap.errors import CaptureError, DynamicShapeError
from tests.python.dynamic.everysize import OutOfRangeError, dynamic

AUTO = {0: Dim.AUTO}
HERE = "test_fit.py"


def rows(*counts: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(count, 4) for count in counts)


def added(*tensors: torch.Tensor) -> torch.Tensor:
    return sum(tensors[1:], tensors[0])


def multiplied(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.matmul(x[:, None], y[:, :, None])


def chosen(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(y > 0, x, 0.0)


@pytest.mark.parametrize(
    ("fn", "counts"),
    [(added, (1, 5)), (added, (5, 1)), (added, (1, 5, 1)), (added, (1, 1, 5))]
    + [(fn, counts) for fn in (multiplied, chosen) for counts in ((1, 5), (5, 1))],
)
def test_c20_a_size_of_1_that_is_broadcast_becomes_static_and_is_told(fn: Callee, counts: tuple[int, ...]) -> None:
    example = rows(*counts)
    shapes = (AUTO,) * len(counts) if fn is not added else ((AUTO,) * len(counts),)
    compiled = dynamic(fn, example, shapes)
    ones = [k for k, count in enumerate(counts) if count == 1]
    assert len(compiled.captured.notes) == len(ones)
    for k, note in zip(ones, compiled.captured.notes, strict=True):
        assert note.startswith(f"args[{k}].shape[0] is always 1")
        assert HERE in note
    compiled.check(*example)
    compiled.check(*rows(*(count if count == 1 else 9 for count in counts)))
    with pytest.raises(OutOfRangeError):
        compiled.run(*rows(*(3 if count == 1 else 9 for count in counts)))


def test_a_size_of_1_stays_dynamic_where_nothing_is_broadcast() -> None:
    compiled = dynamic(added, rows(1, 1), ((AUTO, AUTO),))
    assert not compiled.captured.notes
    compiled.check(*rows(7, 7))


def test_a_size_of_1_that_torch_cannot_trace_as_another_becomes_static() -> None:
    """Beside a static size of 5, torch's tracing ends in an error of its own."""
    compiled = dynamic(added, rows(1, 5), ((AUTO, None),))
    (note,) = compiled.captured.notes
    assert note == "args[0].shape[0] is always 1, as in the example: torch cannot trace it as another size"
    compiled.check(*rows(1, 5))


def test_what_cannot_be_traced_either_way_is_told_as_torch_does() -> None:
    with pytest.raises(CaptureError, match="could not trace the function: nothing to be done"):
        dynamic(_raising, rows(1), (AUTO,))


def _raising(_x: torch.Tensor) -> torch.Tensor:
    raise ValueError("nothing to be done")


@pytest.mark.parametrize(
    ("first", "second"),
    [(Dim("x"), Dim("y")), (Dim("x"), Dim.AUTO), (Dim.DYNAMIC, Dim.DYNAMIC), (Dim("x"), None)],
)
def test_a_declared_size_of_1_that_is_broadcast_is_refused_with_what_helps(first: object, second: object) -> None:
    message = r"args\[0\].shape\[0\] is 1 in the example and declared to be dynamic, but .*; make this dimension static \(None"
    with pytest.raises(DynamicShapeError, match=message):
        dynamic(added, rows(1, 5), (({0: first}, {0: second}),))
    helped = dynamic(added, rows(1, 5), ((None, {0: Dim("y")}),))
    helped.check(*rows(1, 8))


@pytest.mark.parametrize("counts", [(1, 5), (5, 1)])
def test_one_dim_for_1_and_another_size_says_what_helps(counts: tuple[int, int]) -> None:
    x = {0: Dim("x")}
    with pytest.raises(DynamicShapeError, match=r"one Dim is one size; leave a dimension static \(None\) that is 1"):
        dynamic(added, rows(*counts), ((x, x),))


@pytest.mark.parametrize(
    ("fn", "example", "message"),
    [
        (lambda x: x.amax(0), rows(0), rf"where s0 is 0: it needs 1 <= s0; .*{HERE}"),
        (lambda x: x.sum(0) / (x.shape[0] or 1), rows(0), rf"where s0 is 0: it needs 1 <= s0; .*{HERE}"),
        (
            lambda x, y: x @ y.t() @ x,
            rows(3, 4),
            r"it needs args\[1\].shape\[0\], which is 4, to be s0; give an example",
        ),
    ],
)
def test_an_example_that_a_program_would_refuse_is_refused(
    fn: Callee, example: tuple[torch.Tensor, ...], message: str
) -> None:
    with pytest.raises(DynamicShapeError, match=message):
        dynamic(fn, example, (AUTO,) * len(example))
