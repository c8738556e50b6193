"""Commands on a library of dynamic sizes: inspect shows them and the tables, bench takes shapes, compile writes a header."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.export import Dim

import mkwrap

pytestmark = pytest.mark.toolchain
Run = Callable[..., tuple[int, str, str]]


def _program(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved library of two symbols, tuned at four points."""
    folder = tmp_path_factory.mktemp("dynamic")
    shapes = ({0: Dim("rows", min=1, max=64), 1: Dim("cols", min=1, max=4096)},)
    options = mkwrap.Options(tune="off", hints={"rows": [1, 64], "cols": [16, 4096]}, cache_dir=folder / "cache")
    model = mkwrap.compile(_program, (torch.randn(8, 64),), dynamic_shapes=shapes, target="cpu", options=options)
    model.save(folder / "model.so")
    return folder / "model.so"


def test_inspect_spells_what_a_size_is_read_from(run: Run, tmp_path: Path) -> None:
    half = Dim("half", min=2, max=8)
    options = mkwrap.Options(tune="off", cache_dir=tmp_path / "cache")
    for number, (offset, length) in enumerate({-1: "2·half - 1 long", 1: "2·half + 1 long", 0: "2·half long"}.items()):
        example = (torch.randn(2 * 4 + offset),)
        shapes = ({0: 2 * half + offset if offset else 2 * half},)
        model = mkwrap.compile(torch.exp, example, dynamic_shapes=shapes, target="cpu", options=options)
        path = tmp_path / f"{number}.so"
        model.save(path)
        _, out, _ = run("inspect", path)
        assert length in " ".join(out.split())


def test_inspect_shows_symbols_and_tables(run: Run, library: Path) -> None:
    code, out, _ = run("inspect", library)
    assert code == 0
    assert "rows: 1 to 64, read from dimension 0 of args[0]" in out
    assert "float32 rows×cols" in out
    code, out, _ = run("inspect", library, "--json")
    manifest = json.loads(out)
    assert [symbol["name"] for symbol in manifest["symbols"]] == ["rows", "cols"]
    (kernel,) = manifest["kernels"]
    code, out, _ = run("inspect", library, "--kernel", kernel["name"])
    assert code == 0
    rows = kernel["dispatch"]["rows"] if "dispatch" in kernel else []
    assert out.count("row  cols=") == len(rows) > 1


def test_bench_measures_every_combination_of_shapes(run: Run, library: Path) -> None:
    words = ("bench", library, "--shape", "rows=1,8", "--shape", "cols=16,700", "--seconds", 0.02)
    code, out, _ = run(*words, "--json")
    assert code == 0
    shapes = json.loads(out)["shapes"]
    assert [tuple(shape["sizes"].values()) for shape in shapes] == [(1, 16), (1, 700), (8, 16), (8, 700)]
    assert all(shape["median_us"] > 0 and shape["calls"] > 0 and shape["kernels"] for shape in shapes)
    code, out, _ = run(*words)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[-4:]] == [
        ["1", "16"],
        ["1", "700"],
        ["8", "16"],
        ["8", "700"],
    ]


@pytest.fixture(scope="module")
def related(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved library whose rows must be few where its columns are."""

    def program(x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[0] > 4 * x.shape[1] else x[:, 1:] + 1

    folder = tmp_path_factory.mktemp("related")
    shapes = ({0: Dim("rows", min=1, max=64), 1: Dim("cols", min=1, max=64)},)
    options = mkwrap.Options(tune="off", max_points=1, cache_dir=folder / "cache")
    model = mkwrap.compile(program, (torch.randn(3, 8),), dynamic_shapes=shapes, target="cpu", options=options)
    model.save(folder / "model.so")
    return folder / "model.so"


def test_bench_goes_on_behind_a_shape_that_calls_refuse(run: Run, related: Path) -> None:
    words = ("bench", related, "--shape", "rows=5", "--shape", "cols=1,8", "--seconds", 0.02)
    code, out, _ = run(*words, "--json")
    refused, measured = json.loads(out)["shapes"]
    assert (code, refused["sizes"], measured["sizes"]) == (0, {"rows": 5, "cols": 1}, {"rows": 5, "cols": 8})
    assert refused["refused"].startswith("wrong shapes: expected rows <= 4*cols, which is asked for at ")
    assert (measured["median_us"] > 0, "median_us" in refused, "refused" in measured) == (True, False, False)
    code, out, _ = run(*words)
    assert (code, "wrong shapes: expected rows <= 4*cols" in " ".join(out.split())) == (0, True)
    code, out, errors = run("bench", related, "--shape", "rows=5,6", "--shape", "cols=1", "--seconds", 0.02)
    assert (code, out, "expected rows <= 4*cols" in errors) == (2, "", True)


def test_bench_measures_a_shape_once(run: Run, library: Path) -> None:
    code, out, _ = run("bench", library, "--shape", "rows=4,4,2,4", "--seconds", 0.02, "--json")
    assert code == 0
    assert [shape["sizes"]["rows"] for shape in json.loads(out)["shapes"]] == [4, 2]


def test_bench_of_no_shape_takes_the_examples(run: Run, library: Path) -> None:
    code, out, _ = run("bench", library, "--shape", "rows=3", "--seconds", 0.02, "--json")
    assert code == 0
    assert [shape["sizes"] for shape in json.loads(out)["shapes"]] == [{"rows": 3, "cols": 64}]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("row=3", "the dynamic sizes are: rows, cols"),
        ("rows=x", "expected rows=1,8,64"),
        ("rows=", "expected rows=1,8,64"),
        ("rows=65", "the range of rows is 1 to 64"),
        ("rows=-5", "the range of rows is 1 to 64"),
        (f"rows={10**30}", "the range of rows is 1 to 64"),
    ],
)
def test_a_shape_that_is_none_ends_with_2(run: Run, library: Path, shape: str, message: str) -> None:
    code, _, errors = run("bench", library, "--shape", shape)
    assert code == 2
    assert message in errors


def test_a_size_named_twice_ends_with_2(run: Run, library: Path) -> None:
    code, _, errors = run("bench", library, "--shape", "rows=3", "--shape", "rows=4")
    assert code == 2
    assert "names rows twice" in errors


def test_compile_writes_a_header(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def double(x):\n    return x * 2\n")
    words = ("compile", f"{tmp_path}/model.py:double", "--input", "8:float32", "--target", "cpu", "--tune", "off")
    code, _, errors = run(*words, "-o", tmp_path / "m.so", "--header", tmp_path / "m.hpp")
    assert code == 0, errors
    text = (tmp_path / "m.hpp").read_text()
    assert "namespace m {" in text
    assert "const float* x = nullptr;  // float32 8" in text
