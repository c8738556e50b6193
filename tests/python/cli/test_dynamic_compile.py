"""`mkwrap compile` of dynamic sizes: named by --input, from functions, from an exported program; points to tune at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.export import Dim, ShapesCollection

import mkwrap
from mkwrap.cli.examples import dynamic_shapes_of, example

pytestmark = pytest.mark.toolchain

Run = Callable[..., tuple[int, str, str]]
Compiled = Callable[..., mkwrap.Model]

PROGRAMS = """
import torch
from torch.export import Dim

def fn(x, mask=None):
    y = torch.softmax(x, -1)
    return y if mask is None else y * mask

def several(*tensors):
    return sum(tensors)

def example_inputs():
    return torch.ones(4, 8)

def dynamic_shapes():
    return ({0: Dim("batch", min=1, max=9)},)

def pair():
    return (torch.ones(4, 8),), {"mask": torch.ones(4, 1)}

of_none = {"x": {0: None}}
of_pair = {"x": {0: Dim("n")}, "mask": {0: Dim("n")}}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dynamic") / "dynamic_programs.py"
    path.write_text(PROGRAMS)
    return path


@pytest.fixture
def compiled(run: Run, tmp_path: Path, programs: Path) -> Compiled:
    """Compile with default variants at few points, and load what came out."""

    def compiled(*words: object) -> mkwrap.Model:
        output = tmp_path / "out.so"
        fixed = ["-o", output, "--tune", "off", "--threads", 2, "--cache-dir", programs.parent / "cache"]
        code, _, errors = run("compile", *words, *fixed)
        assert (code, errors) == (0, "")
        return mkwrap.load(output)

    return compiled


def symbols(model: mkwrap.Model) -> list[tuple[str, int, int]]:
    return [(symbol.name, symbol.low, symbol.high) for symbol in model.symbols]


def test_sizes_that_inputs_name_are_dynamic(compiled: Compiled, programs: Path) -> None:
    inputs = ["--input", "rows@4xcols@8:float32", "--input", "mask=rows@4x1:float32"]
    model = compiled(f"{programs}:fn", *inputs, "--dim", "rows=1..64", "--dim", "cols=..512", "--hint", "rows=1,64")
    assert symbols(model) == [("rows", 1, 64), ("cols", 0, 512)]
    assert {point.partition("rows=")[2] for point in model.report.points} == {"4", "1", "64"}
    for rows, cols in ((1, 3), (64, 512), (5, 8)):
        x, mask = torch.randn(rows, cols), torch.randn(rows, 1)
        torch.testing.assert_close(model(x, mask=mask), torch.softmax(x, -1) * mask)


def test_points_are_as_many_as_asked_for(compiled: Compiled, programs: Path) -> None:
    words = ["--input", "rows@4x8:float32", "--hint", "rows=1,16,4096", "--max-points", 2]
    model = compiled(f"{programs}:fn", *words)
    assert symbols(model) == [("rows", 0, 2**63 - 1)]
    assert (len(model.report.points), len(model.report.left_out)) == (2, 2)


def test_functions_of_any_arguments_take_named_sizes(compiled: Compiled, programs: Path) -> None:
    model = compiled(f"{programs}:several", *["--input", "n@4:float32"] * 3)
    assert symbols(model) == [("n", 0, 2**63 - 1)]
    torch.testing.assert_close(model(*[torch.ones(7)] * 3), torch.full((7,), 3.0))
    # Without a signature in Python.
    assert symbols(compiled("torch:exp", "--input", "n@4:float32")) == [("n", 0, 2**63 - 1)]


def test_dynamic_shapes_come_from_functions(compiled: Compiled, programs: Path) -> None:
    assert symbols(compiled(f"{programs}:fn")) == [("batch", 1, 9)]
    words = (f"{programs}:fn", "--inputs", f"{programs}:pair")
    assert symbols(compiled(*words)) == []
    assert [name for name, _, _ in symbols(compiled(*words, "--dynamic-shapes", f"{programs}:of_pair"))] == ["n"]


WRONG: dict[str, tuple[list[str], str]] = {
    "range": (["--input", "n@4:float32", "--dim", "n=4"], "--dim is 'n=4'; expected NAME=LOW..HIGH"),
    "no range": (["--input", "n@4:float32", "--dim", "n=.."], "expected NAME=LOW..HIGH"),
    "empty range": (["--input", "n@4:float32", "--dim", "n=4..4"], "a range ends above where it begins"),
    "negative": (["--input", "n@4:float32", "--dim", "n=-4..4"], "expected NAME=LOW..HIGH"),
    "beyond 64 bits": (
        ["--input", "n@4:float32", "--dim", f"n=1..{2**63}"],
        "a size is at most 9223372036854775807; n=1.. is any size from 1 on",
    ),
    "begins beyond 64 bits": (["--input", "n@4:float32", "--dim", f"n={10**20}.."], "a size is at most"),
    "unknown": (["--input", "n@4:float32", "--dim", "m=1..4"], "the sizes that --input names are: n"),
    "twice": (["--input", "n@4:float32", "--dim", "n=1..4", "--dim", "n=1..8"], "--dim names n twice"),
    "outside": (["--input", "n@4:float32", "--dim", "n=5..8"], "is 4 in the example, but must be n, with n in 5 … 8"),
    "taken": (["--input", "p0@4:float32"], "the Dim is called 'p0', which names something else"),
    "keyword": (["--input", "for@4:float32"], "the Dim is called 'for', which names something else"),
    "two sizes": (
        ["--input", "n@4x8:float32", "--input", "mask=n@5x1:float32"],
        "n is 4 at args[0].shape[0] in the example, and 5 at kwargs['mask'].shape[0]",
    ),
    "hint": (["--input", "n@4:float32", "--hint", "n"], "--hint is 'n'; expected NAME=SIZES"),
    "hint twice": (["--input", "n@4:float32", "--hint", "n=1", "--hint", "n=2"], "--hint names n twice"),
    "unknown hint": (["--input", "n@4:float32", "--hint", "m=1"], "names the symbol 'm'; the program's dynamic sizes"),
    "hint outside": (["--input", "n@4:float32", "--dim", "n=1..8", "--hint", "n=9"], "has n=9; its range is 1 to 8"),
    "negative hint": (["--input", "n@4:float32", "--hint", "n=-1"], "Options.hints is {'n': [-1]}"),
    "points": (["--input", "n@4:float32", "--max-points", "0"], "Options.max_points is 0"),
    "idle hint": (
        ["--input", "4:float32", "--hint", "n=1,8"],
        "has no dynamic sizes to tune at; name one in --input, as rows@64x1024:float32 with --dim rows=1..4096, or give "
        "--dynamic-shapes, or leave --hint away",
    ),
    "idle points": (["--inputs", "{}:pair", "--max-points", "4"], "or leave --max-points away"),
    "idle both": (["--input", "4:float32", "--hint", "n=1", "--max-points", "4"], "--hint and --max-points: "),
    "none dynamic": (
        ["--input", "4:float32", "--dynamic-shapes", "{}:of_none", "--hint", "n=1"],
        "has no dynamic sizes to tune at",
    ),
    "both": (["--input", "n@4:float32", "--dynamic-shapes", "{}:of_pair"], "exclude each other"),
}


@pytest.mark.parametrize("what", WRONG)
def test_sizes_that_are_none_end_with_2(what: str, run: Run, programs: Path, tmp_path: Path) -> None:
    words, message = WRONG[what]
    spelled = [word.replace("{}", str(programs)) for word in words]
    fixed = ["-o", tmp_path / "o.so", "--cache-dir", tmp_path / "cache", "--tune", "off", "--target", "cpu"]
    code, out, errors = run("compile", f"{programs}:fn", *spelled, *fixed)
    assert (code, out) == (2, "")
    assert message in " ".join(errors.split())
    assert "Traceback" not in errors


def test_a_collection_of_other_tensors_is_refused() -> None:
    other, tensor = ShapesCollection(), torch.ones(4)  # type: ignore[no-untyped-call]
    other[tensor] = {0: Dim("n")}
    with pytest.raises(mkwrap.errors.DynamicShapeError, match="no arguments of the example call"):
        mkwrap.compile(torch.exp, (torch.ones(4),), dynamic_shapes=other, options=mkwrap.Options(tune="off"))
    assert dynamic_shapes_of([example("4:float32")], []) is None


class Exported(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 4)

    def forward(
        self, x: torch.Tensor, parts: list[torch.Tensor], *, z: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x) + parts[0], z * 2


def test_an_exported_program_brings_its_dynamic_sizes(run: Run, compiled: Compiled, tmp_path: Path) -> None:
    batch, seq = Dim("batch", min=1, max=64), Dim("seq", min=0, max=512)
    args, kwargs = (torch.randn(4, 6, 8), [torch.randn(6, 4)]), {"z": torch.randn(13)}
    shapes = {"x": {0: batch, 1: seq}, "parts": [{0: seq}], "z": {0: 2 * seq + 1}}
    module = Exported()
    path = tmp_path / "exported.pt2"
    torch.export.save(torch.export.export(module, args, kwargs, dynamic_shapes=shapes), path)
    names = [str(symbol) for symbol in torch.export.load(path).range_constraints if symbol.is_Symbol]
    model = compiled(path, "--hint", f"{names[0]}=1,64")
    assert symbols(model) == [(names[0], 1, 64), (names[1], 0, 512)]
    for b, s in ((1, 1), (64, 3), (5, 512)):
        x, part, z = torch.randn(b, s, 8), torch.randn(s, 4), torch.randn(2 * s + 1)
        for got, wanted in zip(model(x, [part], z=z), module(x, [part], z=z), strict=True):  # type: ignore[call-overload]
            torch.testing.assert_close(got, wanted)
    code, out, _ = run("inspect", tmp_path / "out.so")
    assert code == 0
    assert f"{names[0]}: 1 to 64, read from dimension 0 of args[0]" in " ".join(out.split())
    code, out, _ = run("bench", tmp_path / "out.so", "--shape", f"{names[0]}=1,3", "--seconds", 0.02, "--json")
    assert code == 0
    assert out.count('"median_us"') == 2
    code, _, errors = run("compile", path, "--dim", f"{names[0]}=1..4")
    assert (code, "brings its example inputs and dynamic sizes" in errors) == (2, True)
    torch.export.save(torch.export.export(module, args, kwargs), tmp_path / "static.pt2")
    code, _, errors = run("compile", tmp_path / "static.pt2", "--hint", "batch=1,64")
    assert (code, "export it with dynamic_shapes, or leave --hint away" in " ".join(errors.split())) == (2, True)


def test_what_an_exported_program_checks_of_its_sizes_is_checked(compiled: Compiled, tmp_path: Path) -> None:
    class Even(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, 4) + y[0] if x.shape[0] % 4 == 0 else x

    path = tmp_path / "even.pt2"
    shapes = ({0: Dim.AUTO}, {0: Dim.AUTO})
    torch.export.save(torch.export.export(Even(), (torch.randn(8), torch.randn(3)), dynamic_shapes=shapes), path)
    model = compiled(path)
    assert model(torch.randn(16), torch.randn(5)).shape == (4, 4)
    assert any(" % " in relation for relation in model.report.relations)
    assert not any("<string>" in relation for relation in model.report.relations)
    with pytest.raises(mkwrap.errors.InputError, match=" % "):
        model(torch.randn(6), torch.randn(5))
