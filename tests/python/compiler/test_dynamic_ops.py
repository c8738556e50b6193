"""What every op makes of sizes it does not know, compiled for the CPU: equals eager in range, refused outside, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.utils._pytree as pytree
from tests.python.dynamic.programs import CASES, Case
from tests.python.lower.differential import same
from torch.export import Dim

import mkwrap
from mkwrap.errors import IndexRangeError, InputError

pytestmark = [pytest.mark.toolchain, pytest.mark.slow]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> mkwrap.Options:
    return mkwrap.Options(tune="off", max_points=2, cache_dir=tmp_path_factory.mktemp("cache"))


def _taken(case: Case, sizes: Mapping[str, int]) -> bool:
    """Whether eager takes some sizes."""
    try:
        case.fn(*case.make(sizes))
    except (RuntimeError, IndexError, ValueError, ArithmeticError):
        return False
    return True


@pytest.mark.filterwarnings("ignore:.*degrees of freedom:UserWarning")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_r1_sizes_in_range_equal_eager(case: Case, options: mkwrap.Options) -> None:
    letters = case.letters
    example = dict(zip(letters, (case.example, 5, 7, 4, 3), strict=False))
    shapes = case.dynamic_shapes(lambda _: Dim.AUTO)
    model = mkwrap.compile(case.fn, tuple(case.make(example)), dynamic_shapes=shapes, target="cpu", options=options)
    drawn = (
        example,
        dict.fromkeys(letters, 1),
        dict.fromkeys(letters, 0),
        {c: 9 + 8 * k for k, c in enumerate(letters)},
    )
    for sizes in drawn:
        args = case.make(sizes)
        try:
            got = model(*args)
        except InputError:
            assert sizes is not example
            assert case.refused(sizes) or not _taken(case, sizes), f"{sizes} is refused, and eager takes it"
            continue
        try:
            expected = case.fn(*case.make(sizes))
        except RuntimeError:
            # Eager refuses some tensors without elements that have a result without elements.
            assert 0 in sizes.values()
            continue
        for number, pair in enumerate(zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True)):
            same(*pair, f"result {number} for {sizes}")


def test_sorts_of_dynamic_rows_on_the_cpu(tmp_path: Path) -> None:
    def program(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *x.sort(-1, descending=True), x.argsort(0), *x.topk(3)

    options = mkwrap.Options(tune="off", max_points=2, cache_dir=tmp_path)
    shapes = ({0: Dim("rows", min=0), 1: Dim("cols", min=0)},)
    model = mkwrap.compile(program, (torch.randn(4, 8),), dynamic_shapes=shapes, target="cpu", options=options)
    assert [(symbol.low, symbol.high) for symbol in model.symbols] == [(0, 4096), (3, 4096)]
    for rows, cols in ((1, 3), (0, 5), (7, 130), (40, 4096)):
        # No two are equal: eager's order of such is its own.
        x = torch.randperm(rows * cols).reshape(rows, cols).float()
        for got, expected in zip(model(x), program(x), strict=True):
            assert torch.equal(got, expected)


def test_a_divisor_that_is_0_only_where_the_program_has_no_shapes_is_planned_for(tmp_path: Path) -> None:
    """Memory is planned, and templates are asked, at sizes of which some make `m - k` 0."""

    def program(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x.view(y.shape[0] - z.shape[0], -1).softmax(1).t().contiguous().softmax(1).sum()

    def make(n: int, m: int, k: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(n), torch.randn(m), torch.randn(k)

    options = mkwrap.Options(tune="off", hints=[{"m": 20, "k": 9, "n": 22}], cache_dir=tmp_path)
    shapes = ({0: Dim("n", max=4096)}, {0: Dim("m", max=4096)}, {0: Dim("k", max=4096)})
    model = mkwrap.compile(program, make(32, 5, 3), dynamic_shapes=shapes, target="cpu", options=options)
    for sizes in ((32, 5, 3), (22, 20, 9), (24, 7, 1)):
        args = make(*sizes)
        same(model(*args), program(*args), str(sizes))
    with pytest.raises(InputError, match=r"m != k|k != m"):
        model(*make(32, 3, 3))


INDEXED: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "index": lambda x, i: x[i],
    "index of rows": lambda x, i: x.t()[:, i],
    "index of both": lambda x, i: x[i, i],
    "embedding": lambda x, i: torch.nn.functional.embedding(i, x).softmax(-1),
    "select": lambda x, i: torch.index_select(x, 0, i).sum(0),
    "gather": lambda x, i: torch.gather(x, 0, i[:, None].expand(2, 8)),
    "take": torch.take,
    "product": lambda x, i: x[i] @ x.new_ones(8, 5),
    "of a temporary": lambda x, i: x.softmax(0)[i],
    "one half": lambda x, i: torch.cat([x[i], x]),
}


@pytest.mark.parametrize("fn", INDEXED.values(), ids=INDEXED)
def test_an_index_into_a_dim_that_is_0_is_out_of_range_and_reads_nothing(
    fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], options: mkwrap.Options
) -> None:
    index = torch.tensor([0, 2])
    shapes = ({0: Dim("rows", min=0, max=16)}, None)
    model = mkwrap.compile(fn, (torch.randn(6, 8), index), dynamic_shapes=shapes, target="cpu", options=options)
    x = torch.randn(7, 8)
    same(model(x, index), fn(x, index), "7 rows")
    for rows in (0, 2 if fn is not torch.take else 0):
        with pytest.raises(IndexRangeError):
            model(torch.randn(rows, 8), index)
