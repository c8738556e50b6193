"""The choice for dynamic shapes as a compile makes it: points, tables, records. Times are made up, results are real."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.python.compiler.forced import kernels_of
from torch.export import Dim

import mkwrap
from mkwrap import Model, Options, spaces
from mkwrap.errors import MissingTuningError, OptionError
from mkwrap.stages import Provenance
from mkwrap.tune import capacity
from mkwrap.tune.contest import Contest
from mkwrap.tune.measure import Outcome, Referee

pytestmark = pytest.mark.toolchain

ROWS = Dim("rows", min=1, max=4096)
COLS = Dim("cols", min=1, max=4096)


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build little more than each point's first guess."""
    monkeypatch.setattr(spaces, "MOST", 4)


@pytest.fixture
def options(quick: Options, tmp_path: Path) -> Options:
    return replace(quick, tune="quick", threads=2, cache_dir=tmp_path / "cache")


def softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


def matmul(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


def compiled(
    fn: Callable[..., torch.Tensor],
    args: Sequence[torch.Tensor],
    dims: Sequence[Mapping[int, object] | None],
    options: Options,
) -> Model:
    return mkwrap.compile(fn, tuple(args), dynamic_shapes=tuple(dims), target="cpu", options=options)


def points_of(kernel: Mapping[str, Any]) -> dict[tuple[int, ...], str]:
    """Return each point's winner, by the manifest."""
    return {tuple(point["at"].values()): point["winner"] for point in kernel["points"]}


def by_the_rule(points: Mapping[tuple[int, ...], str], sizes: Sequence[int]) -> str:
    """Return the winner of the nearest point; where none has guards that is the documented rule."""

    def far(point: tuple[int, ...]) -> float:
        return sum(abs(math.log2(size) - math.log2(hint)) for size, hint in zip(sizes, point, strict=True))

    least = min(map(far, points))
    return points[min(point for point in points if far(point) <= least + 1e-9)]


def elected(model: Model, **sizes: int) -> list[str]:
    return [kernel.variant for kernel in mkwrap.explain(model, **sizes).kernels]


@pytest.mark.usefixtures("contests")
def test_c21_around_hints_results_are_right_and_the_rule_elects(options: Options) -> None:
    hints = {"rows": [1, 16, 500], "cols": [8, 200]}
    model = compiled(softmax, [torch.randn(16, 24)], [{0: ROWS, 1: COLS}], replace(options, hints=hints))
    (kernel,) = kernels_of(model)
    points = points_of(kernel)
    assert {(8, 1), (8, 16), (8, 500), (200, 1), (200, 16), (200, 500), (24, 16)} <= points.keys()
    assert len(set(points.values())) > 1
    for rows in (1, 2, 15, 16, 17, 89, 90, 499, 500, 501, 4096):
        for cols in (1, 7, 8, 9, 40, 199, 200, 201):
            x = torch.randn(rows, cols)
            torch.testing.assert_close(model(x), softmax(x))
            assert elected(model, rows=rows, cols=cols) == [by_the_rule(points, (cols, rows))]


@pytest.mark.usefixtures("contests")
def test_c22_hints_in_either_order_make_one_library_and_a_tie_goes_to_the_smaller(options: Options) -> None:
    x = torch.randn(4, 32)
    first = compiled(softmax, [x], [{0: ROWS}], replace(options, hints={"rows": [4, 16, 1024]}))
    fresh = replace(options, cache_dir=options.cache_dir / "other")
    second = compiled(softmax, [x], [{0: ROWS}], replace(fresh, hints={"rows": [1024, 4, 16]}))
    names = ("dispatch", "winner")
    for one, other in zip(kernels_of(first), kernels_of(second), strict=True):
        assert [one.get(name) for name in names] == [other.get(name) for name in names]
    for pair in ((4, 16), (16, 1024)):
        tie = math.isqrt(pair[0] * pair[1])
        points = points_of(kernels_of(first)[0])
        if not any(pair[0] < size < pair[1] for (size,) in points):
            assert elected(first, rows=tie) == [points[pair[:1]]]


def test_c23_contests_are_held_at_evaluated_sizes(options: Options, contests: list[Contest]) -> None:
    def derived(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return (x.reshape(-1) * 2, torch.nn.functional.pad(x[:, 0], (0, 1)) + 1, (x[:, :1] * y).reshape(-1))

    asked = [{"rows": 3, "cols": 5}, {"rows": 100, "cols": 7}]
    compiled(derived, [torch.randn(6, 64), torch.randn(9)], [{0: ROWS}, {0: COLS}], replace(options, hints=asked))  # type: ignore[arg-type]
    written = {memory.elements for contest in contests for memory in contest.memories if memory.written}
    for rows, cols in ((6, 9), (3, 5), (100, 7)):
        assert {rows * 64, rows + 1, rows * cols} <= written


def test_c24_what_surrounds_a_product_changes_nothing_of_its_key(quick: Options) -> None:
    hints = replace(quick, hints={"rows": [4, 64]}, threads=2)
    bias, x, w = torch.randn(48), torch.randn(16, 32), torch.randn(32, 48)

    def epilogue(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ w + b)

    def transposed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x.t() @ w

    def square(x: torch.Tensor) -> torch.Tensor:
        return x @ x

    models = [
        compiled(matmul, [x, w], [{0: ROWS}, None], hints),
        compiled(epilogue, [x, w, bias], [{0: ROWS}, None, None], hints),
        compiled(transposed, [x.t().contiguous(), w], [{1: ROWS}, None], hints),
        compiled(square, [torch.randn(16, 16)], [{0: ROWS, 1: ROWS}], hints),
    ]
    for model in models:
        product = max(kernels_of(model), key=lambda kernel: "mm" in str(kernel["origins"]))
        points = points_of(product)
        assert {(4,), (16,), (64,)} <= points.keys()
        for row in mkwrap.explain(model, rows=5).kernels:
            assert set(row.symbols) <= {"rows"}


def test_c25_large_static_dimensions_do_not_outvote_the_dynamic_one(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold(_self: Referee, contest: Contest) -> Outcome:
        """Let the best guess win, which is another for many rows than for few."""
        return Outcome({k: (3.0 if k else 1.0,) * 20 for k in range(len(contest.candidates))}, {})

    monkeypatch.setattr(Referee, "hold", hold)
    args = [torch.empty(16, 8192), torch.empty(8192, 8192)]
    model = compiled(matmul, args, [{0: ROWS}, None], replace(options, hints={"rows": [16, 4096]}))
    (kernel,) = kernels_of(model)
    points = points_of(kernel)
    assert points[16,] != points[4096,]
    assert elected(model, rows=8) == elected(model, rows=16) == elected(model, rows=20) == [points[16,]]
    assert elected(model, rows=4000) == [points[4096,]]


def test_c26_the_cap_bounds_the_points_and_the_report_says_what_was_left_out(
    options: Options, contests: list[Contest]
) -> None:
    hints = {"rows": [1, 16, 512], "cols": [8, 64, 512]}
    few = replace(options, hints=hints, max_points=4)
    model = compiled(softmax, [torch.randn(16, 64)], [{0: ROWS, 1: COLS}], few)
    assert len(model.report.points) == 4
    assert len(model.report.left_out) == 5
    assert model.report.points[0] == "cols=64 rows=16"
    text = " ".join(str(model.report).split())
    assert "left out, beyond Options.max_points: " + ", ".join(model.report.left_out) in text
    asked = {tuple(int(part.partition("=")[2]) for part in point.split()) for point in model.report.points}
    (kernel,) = kernels_of(model)
    measured = {tuple(point["at"].values()) for point in kernel["points"]}  # type: ignore[attr-defined]
    assert asked <= measured
    assert len(contests) == len(measured) <= 4 + 2 * 2


def test_c27_static_shapes_with_hints_have_no_dispatch(quick: Options) -> None:
    x = torch.randn(16, 24)
    plain = mkwrap.compile(softmax, (x,), target="cpu", options=quick)
    hinted = mkwrap.compile(softmax, (x,), target="cpu", options=replace(quick, hints={"rows": [1, 64]}))
    assert Path(plain.path).read_bytes() == Path(hinted.path).read_bytes()
    assert all("dispatch" not in kernel and "points" not in kernel for kernel in kernels_of(hinted))


def test_one_winner_everywhere_leaves_no_dispatch(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Referee, "hold", lambda _, contest: Outcome(dict.fromkeys(range(len(contest.candidates)), (1.0,) * 20), {})
    )
    model = compiled(lambda x: x + 1, [torch.randn(64)], [{0: ROWS}], options)
    (kernel,) = kernels_of(model)
    assert "dispatch" not in kernel
    assert set(points_of(kernel).values()) == {kernel["winner"]}


def test_a_record_with_points_makes_the_same_library(options: Options, contests: list[Contest], tmp_path: Path) -> None:
    x = torch.randn(16, 32)
    first = compiled(softmax, [x], [{0: ROWS}], replace(options, hints={"rows": [1, 512]}))
    assert len({winner for kernel in kernels_of(first) for winner in points_of(kernel).values()}) > 1
    first.save_tuning(tmp_path / "tuning.jsonl")
    contests.clear()
    recorded = replace(
        options,
        cache_dir=tmp_path / "fresh",
        tuning=tmp_path / "tuning.jsonl",
        require_tuning=True,
        hints={"rows": [1, 512]},
    )
    second = compiled(softmax, [x], [{0: ROWS}], recorded)
    assert contests == []
    assert second.compilation is not None
    assert set(second.compilation.choices.values()) == {Provenance.RECORD}
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    again = compiled(softmax, [x], [{0: ROWS}], replace(options, hints={"rows": [1, 512]}))
    assert again.path == first.path
    assert contests == []


def test_a_record_that_lacks_points_is_completed_or_refused(
    options: Options, contests: list[Contest], tmp_path: Path
) -> None:
    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    args, dims = [torch.randn(64)], [{0: ROWS}]
    first = compiled(add, args, dims, replace(options, hints={"rows": [512, 4096]}))
    first.save_tuning(tmp_path / "tuning.jsonl")
    more = replace(
        options,
        cache_dir=tmp_path / "fresh",
        tuning=tmp_path / "tuning.jsonl",
        hints={"rows": [512, 2048, 4096]},
    )
    contests.clear()
    with pytest.raises(MissingTuningError, match="its row lacks rows=2048"):
        compiled(add, args, dims, replace(more, require_tuning=True))
    assert contests == []
    known, completed = (points_of(kernels_of(model)[0]) for model in (first, compiled(add, args, dims, more)))
    measured = {memory.elements for contest in contests for memory in contest.memories if memory.written}
    assert 2048 in measured
    assert not measured & {size for (size,) in known}
    assert {*known, (2048,)} <= completed.keys()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"tune": "off"}, "not measured: tune is off"),
        ({"deterministic": True}, "not measured: deterministic"),
        ({"tune": "later"}, "open: left for later"),
    ],
)
def test_without_measuring_each_point_takes_its_best_guess(
    options: Options, contests: list[Contest], changed: Mapping[str, Any], reason: str
) -> None:
    x = torch.randn(16, 32)
    model = compiled(softmax, [x], [{0: ROWS, 1: COLS}], replace(options, **changed))
    (kernel,) = kernels_of(model)
    assert contests == []
    assert kernel["reason"] == reason
    assert ("open" in kernel) == reason.startswith("open")
    # Three numbers of rows by as many lengths as leave `max_points` room for.
    assert len(points_of(kernel)) == 15
    for shape in ((1, 1), (7, 300), (300, 7), (4096, 5)):
        y = torch.randn(shape)
        torch.testing.assert_close(model(y), softmax(y))


@pytest.mark.usefixtures("contests")
def test_what_is_left_for_later_is_built_for_a_later_compile(options: Options) -> None:
    x, hints = torch.randn(16, 32), {"rows": [1, 512]}
    compiled(softmax, [x], [{0: ROWS}], replace(options, tune="later", hints=hints))
    kept = {path for path in options.cache_dir.rglob("*") if path.is_file() and "binary" in str(path)}
    assert kept
    compiled(softmax, [x], [{0: ROWS}], replace(options, hints=hints))
    later = {path for path in options.cache_dir.rglob("*") if path.is_file() and "binary" in str(path)}
    assert later == kept


@pytest.mark.usefixtures("contests")
def test_a_forced_variant_runs_at_all_points(options: Options) -> None:
    x, hints = torch.randn(16, 32), {"rows": [1, 512]}
    model = compiled(softmax, [x], [{0: ROWS}], replace(options, hints=hints))
    (kernel,) = kernels_of(model)
    for label in sorted(set(points_of(kernel).values())):
        forced = compiled(softmax, [x], [{0: ROWS}], replace(options, hints=hints, force={str(kernel["name"]): label}))
        (own,) = kernels_of(forced)
        assert (own["winner"], own["reason"]) == (label, "forced")
        assert "dispatch" not in own
        y = torch.randn(77, 32)
        torch.testing.assert_close(forced(y), softmax(y))
    with pytest.raises(OptionError, match="names the variant 'nothing'"):
        compiled(softmax, [x], [{0: ROWS}], replace(options, hints=hints, force={str(kernel["name"]): "nothing"}))


def test_unknown_hints_are_refused(options: Options) -> None:
    with pytest.raises(OptionError, match="the symbol 'batch'; the program's dynamic sizes are: rows"):
        compiled(softmax, [torch.randn(4, 4)], [{0: ROWS}], replace(options, hints={"batch": 4}))


@pytest.mark.slow
def test_measured_for_real_the_library_is_right(options: Options) -> None:
    model = compiled(
        softmax,
        [torch.randn(16, 64)],
        [{0: ROWS, 1: COLS}],
        replace(options, hints={"rows": [1, 64], "cols": [8, 256]}),
    )
    assert "measured at" in str(kernels_of(model)[0]["reason"]) or kernels_of(model)[0]["reason"] == "measured"
    for shape in ((1, 1), (3, 9), (64, 256), (100, 1000)):
        x = torch.randn(shape)
        torch.testing.assert_close(model(x), softmax(x))


@pytest.mark.usefixtures("contests")
def test_a_table_too_large_for_a_library_is_cut_and_the_report_says_so(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    args, hints = [torch.randn(16, 24)], {"rows": [1, 16, 500], "cols": [8, 24, 200]}
    whole = compiled(softmax, args, [{0: ROWS, 1: COLS}], replace(options, hints=hints))
    rows = kernels_of(whole)[0]["dispatch"]["rows"]  # type: ignore[index]
    assert len(rows) > 4
    monkeypatch.setattr(capacity, "MOST_ROWS", 4)
    model = compiled(softmax, args, [{0: ROWS, 1: COLS}], replace(options, hints=hints))
    assert len(kernels_of(model)[0]["dispatch"]["rows"]) <= 4  # type: ignore[index]
    gone = len(rows) - len(kernels_of(model)[0]["dispatch"]["rows"])  # type: ignore[index]
    assert model.report.kernels[0].left_out == gone
    assert f"a table has no room for {gone} rows more, which were left out" in str(model.report)
    for shape in ((1, 1), (7, 300), (500, 8), (4096, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(model(x), softmax(x))
