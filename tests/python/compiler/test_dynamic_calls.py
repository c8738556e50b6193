"""A model of dynamic sizes in Python: calls of any size in range, errors outside, and what it says of itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

import mkwrap
from mkwrap.errors import InputError, OptionError

pytestmark = pytest.mark.toolchain

SIZES = ((64, 100), (3, 7), (1, 1), (0, 5), (9, 512), (300, 3), (8, 8), (64, 512))


def _program(x: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.softmax(x + bias, -1), x.sum(0), x[:, 1:], x.t()


def _arguments(rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, cols), torch.randn(cols)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> mkwrap.Model:
    """A model of two symbols, tuned at two points of each."""
    rows, cols = Dim("rows", min=0, max=300), Dim("cols", min=1, max=512)
    hints = {"rows": [8, 64], "cols": [100, 512]}
    options = mkwrap.Options(tune="off", hints=hints, cache_dir=tmp_path_factory.mktemp("cache"))
    shapes = ({0: rows, 1: cols}, {0: cols})
    return mkwrap.compile(_program, _arguments(64, 100), dynamic_shapes=shapes, target="cpu", options=options)


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_c21_any_size_in_range_gives_what_eager_gives(model: mkwrap.Model, rows: int, cols: int) -> None:
    x, bias = _arguments(rows, cols)
    for _ in range(2):
        for got, expected in zip(model(x, bias), _program(x, bias), strict=True):
            assert got.shape == expected.shape
            torch.testing.assert_close(got, expected)
    assert model(x, bias)[2].data_ptr() == x[:, 1:].data_ptr() or x[:, 1:].numel() == 0


@pytest.mark.parametrize(("rows", "cols"), SIZES)
def test_c22_explain_says_what_runs(model: mkwrap.Model, rows: int, cols: int) -> None:
    said = mkwrap.explain(model, rows=rows, cols=cols)
    assert tuple(kernel.alternative for kernel in said.kernels) == model.elected(_arguments(rows, cols))
    assert str(said).startswith(f"rows = {rows}, cols = {cols}\n")


def test_errors_name_the_symbol_the_bound_and_the_argument(model: mkwrap.Model) -> None:
    for arguments, message in (
        (_arguments(301, 5), r"args\[0\]: .* dimension 0 to be rows with rows in 0..300, got 301"),
        (_arguments(5, 513), r"args\[0\]: .* dimension 1 to be cols with cols in 1..512, got 513"),
        ((torch.randn(5, 6), torch.randn(7)), r"args\[1\]: .* expected 6 in dimension 0, which is cols, got 7"),
        (
            (torch.randn(5), torch.randn(5)),
            r"args\[0\]: wrong rank: expected 2 dimensions \[rows, cols\] with rows in 0\.\.300, cols in 1\.\.512, got 1 \[5\]",
        ),
        (
            (torch.randn(6, 5).t(), torch.randn(6)),
            r"args\[0\]: wrong strides: expected \[cols, 1\] for shape \[5, 6\], got",
        ),
        ((torch.randn(5, 6), torch.randn(6).double()), r"args\[1\]: wrong dtype"),
        (
            (torch.randn(5, 6).requires_grad_(), torch.randn(6)),
            r"args\[0\]: expected a tensor float32\[rows, cols\] on cpu with rows in 0\.\.300, cols in 1\.\.512, got a tensor",
        ),
    ):
        with pytest.raises(InputError, match=message):
            model(*arguments)
    model(*_arguments(5, 6))  # usable again


def test_what_a_model_says_of_its_sizes(model: mkwrap.Model) -> None:
    assert [(symbol.name, symbol.low, symbol.high) for symbol in model.symbols] == [("rows", 0, 300), ("cols", 1, 512)]
    assert str(model.signature).startswith("(args[0]: float32[rows, cols], args[1]: float32[cols]) → float32[")
    assert "?" not in str(model.signature)
    assert model.scratch_bytes(_arguments(300, 512)) <= model.workspace_bytes
    assert "arena" in str(model.report)
    with pytest.raises(InputError, match="the dynamic sizes of this model are: rows, cols; got rows"):
        mkwrap.explain(model, rows=3)
    with pytest.raises(InputError, match="rows is 301; its range is 0 to 300"):
        mkwrap.explain(model, rows=301, cols=3)
    with pytest.raises(InputError, match=r"explain takes a model, got '.*'; load a library first"):
        mkwrap.explain(str(model.path), rows=3, cols=3)  # type: ignore[arg-type]
    for wrong in ("3", 2.5, True, None, np.ones(2, np.int64)):
        with pytest.raises(InputError, match="a size is an integer"):
            mkwrap.explain(model, rows=wrong, cols=3)  # type: ignore[arg-type]


def test_c22_explain_refuses_what_calls_refuse_for_a_relation(tmp_path: Path) -> None:
    def program(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] > 4 * x.shape[1] or y.shape[0] % 4 else x - y.sum()

    dims = {"batch": Dim("batch", min=1, max=64), "seq": Dim("seq", min=1, max=64), "some": Dim("some", min=1, max=64)}
    options = mkwrap.Options(tune="off", max_points=1, cache_dir=tmp_path)
    shapes = ({0: dims["batch"], 1: dims["seq"]}, {0: dims["some"]})
    example = (torch.randn(3, 8), torch.randn(12))
    model = mkwrap.compile(program, example, dynamic_shapes=shapes, target="cpu", options=options)
    assert len(model.report.relations) == 2
    for batch, seq, some in ((5, 1, 8), (4, 1, 6), (64, 2, 7)):
        with pytest.raises(InputError, match=r"wrong shapes: expected .*, which is asked for at ") as called:
            model(torch.randn(batch, seq), torch.randn(some))
        with pytest.raises(InputError) as explained:
            mkwrap.explain(model, batch=batch, seq=seq, some=some)
        assert str(explained.value) == str(called.value)
    assert mkwrap.explain(model, batch=4, seq=1, some=8).kernels


def test_explain_takes_integers_of_any_type(model: mkwrap.Model) -> None:
    assert str(mkwrap.explain(model, rows=np.int64(3), cols=np.int32(7))) == str(mkwrap.explain(model, rows=3, cols=7))


def test_outputs_of_the_caller_are_checked_against_the_sizes(model: mkwrap.Model) -> None:
    x, bias = _arguments(5, 6)
    y, total = torch.empty(5, 6), torch.empty(6)
    model.run_into((x, bias), (y, total))
    torch.testing.assert_close(y, _program(x, bias)[0])
    with pytest.raises(InputError, match=r"output\[0\]: wrong shape: expected 6 in dimension 1, which is cols, got 7"):
        model.run_into((x, bias), (torch.empty(5, 7), total))
    with pytest.raises(InputError, match=r"output\[1\]: wrong rank: .* \[cols\] with cols in 1\.\.512, got 2 \[5, 6\]"):
        model.run_into((x, bias), (y, torch.empty(5, 6)))
    with pytest.raises(
        InputError, match=r"output\[1\]: expected a tensor float32\[cols\] on cpu with cols in .*, got a"
    ):
        model.run_into((x, bias), (y, 3))  # type: ignore[arg-type]


def test_a_saved_model_is_as_dynamic(model: mkwrap.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model.so")
    loaded = mkwrap.load(tmp_path / "model.so")
    x, bias = _arguments(17, 33)
    torch.testing.assert_close(cast(tuple[torch.Tensor, ...], loaded(x, bias))[0], _program(x, bias)[0])
    assert loaded.symbols == model.symbols
    without = mkwrap.Model(tmp_path / "model.so", exchange=False)
    for rows, cols in SIZES:
        x, bias = _arguments(rows, cols)
        for got, expected in zip(without(x, bias), _program(x, bias), strict=True):
            torch.testing.assert_close(got, expected)
            assert got.stride() == expected.stride()


def test_calls_of_different_sizes_from_threads(model: mkwrap.Model) -> None:
    def call(number: int) -> None:
        for rows, cols in SIZES[number:] + SIZES[:number]:
            x, bias = _arguments(rows, cols)
            torch.testing.assert_close(model(x, bias)[0], _program(x, bias)[0])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(len(SIZES))))


def test_c23_what_a_size_of_0_has_no_part_in_keeps_its_memory(tmp_path: Path) -> None:
    """Temporaries of 3072 bytes, placed where the rows were before: of none, they need their room all the same."""

    def fn(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        total = torch.cumsum(x, 1).sum(0)
        for _ in range(3):
            total = torch.cumsum(total.flip(0) / 384 + bias, 0)
        return total

    bias = torch.rand(384, dtype=torch.float64)
    options = mkwrap.Options(tune="off", cache_dir=tmp_path)
    shapes = ({0: Dim("n", min=0, max=512)}, None)
    example = (torch.randn(5, 384, dtype=torch.float64), bias)
    model = mkwrap.compile(fn, example, dynamic_shapes=shapes, target="cpu", options=options)
    for rows in (0, 1, 512):
        x = torch.randn(rows, 384, dtype=torch.float64)
        torch.testing.assert_close(model(x, bias), fn(x, bias))


def _masked(q: torch.Tensor, mask: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, ...]:
    attended = [F.scaled_dot_product_attention(q, q, q, attn_mask=each) for each in (mask, keep)]
    return q @ q.transpose(-1, -2) + mask, *attended


def _of_length(seq: int) -> tuple[torch.Tensor, ...]:
    keep = torch.rand(2, 1, 1, seq) > 0.3
    keep[..., 0] = True
    return torch.randn(2, 4, seq, 16), torch.randn(2, 1, 1, seq), keep


def test_c21_a_padding_mask_serves_a_sequence_of_one(tmp_path: Path) -> None:
    """The declared range is kept, and a hint of 1 is a point."""
    batch, seq = Dim("batch", min=1, max=16), Dim("seq", min=1, max=300)
    options = mkwrap.Options(tune="off", hints={"seq": [1, 64]}, cache_dir=tmp_path)
    shapes = ({0: batch, 2: seq}, {0: batch, 3: seq}, {0: batch, 3: seq})
    model = mkwrap.compile(_masked, _of_length(64), dynamic_shapes=shapes, target="cpu", options=options)
    assert [(symbol.name, symbol.low, symbol.high) for symbol in model.symbols] == [("batch", 1, 16), ("seq", 1, 300)]
    assert (model.report.notes, model.report.relations) == ((), ())
    for length in (1, 2, 64, 300):
        arguments = _of_length(length)
        for got, expected in zip(model(*arguments), _masked(*arguments), strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_hint_that_the_program_rules_out_is_refused_with_its_line() -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] != 1 else x

    options = mkwrap.Options(tune="off", hints={"rows": [1, 64]})
    message = r"rows=1; its range is 2 to 300: the program narrowed it \(rows is at least 2 instead of 1, .*x\.shape\[0\] != 1"
    with pytest.raises(OptionError, match=message):
        mkwrap.compile(
            program,
            (torch.randn(8),),
            dynamic_shapes=({0: Dim("rows", min=1, max=300)},),
            target="cpu",
            options=options,
        )
