"""`mkwrap compile`: every way to name a program and its inputs; what cannot be read is said, with the exit code."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap.cli.examples import example
from mkwrap.errors import OptionError
from tests.python.cli.conftest import Made

pytestmark = pytest.mark.toolchain

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compiled(run: Run, made: Made, tmp_path: Path) -> Callable[..., mkwrap.Model]:
    """Compile with default variants and load what came out."""

    def compiled(*words: object) -> mkwrap.Model:
        output = tmp_path / "out.so"
        fixed = ["-o", output, "--tune", "off", "--threads", "2", "--cache-dir", made.cache]
        code, _, errors = run("compile", *words, *fixed)
        assert (code, errors) == (0, "")
        return mkwrap.load(output)

    return compiled


def test_a_function_of_a_file(made: Made, x: torch.Tensor) -> None:
    model = mkwrap.load(made.library)
    torch.testing.assert_close(model(x), torch.softmax(x, -1))
    assert made.record.read_text().count("\n") == 1


def test_what_is_printed_for_people_and_for_programs(run: Run, made: Made, tmp_path: Path) -> None:
    words = ["compile", f"{made.programs}:fn", "--input", "64x1024:float32", "-o", tmp_path / "o.so", "--tune", "quick"]
    words += ["--threads", 2, "--cache-dir", made.cache]
    code, out, _ = run(*words)
    assert code == 0
    assert all(text in out for text in ("reduction_0 ×1", "aten._softmax", "►", "float32[64, 1024]", "o.so"))
    code, out, _ = run(*words, "--json")
    printed = json.loads(out)
    assert (code, printed["path"], printed["choices"]) == (0, str(tmp_path / "o.so"), {"reduction_0": "cache"})
    assert printed["bytes"] == (tmp_path / "o.so").stat().st_size
    assert {"capture", "build", "tune", "link"} <= set(printed["seconds"])
    assert (tmp_path / "o.so").read_bytes() == made.library.read_bytes()


def test_an_exported_program_brings_its_inputs(compiled: Callable[..., mkwrap.Model], tmp_path: Path) -> None:
    linear = torch.nn.Linear(8, 4)
    path = tmp_path / "linear.pt2"
    torch.export.save(torch.export.export(linear, (torch.randn(3, 8),)), path)
    x = torch.randn(3, 8)
    torch.testing.assert_close(compiled(path)(x), linear(x))


def test_inputs_beside_the_program_from_a_function_and_by_keyword(
    compiled: Callable[..., mkwrap.Model], made: Made
) -> None:
    x, y = torch.randn(4, 8), torch.randn(8)
    torch.testing.assert_close(compiled(f"{made.programs}:fn")(x), torch.softmax(x, -1))
    torch.testing.assert_close(compiled(f"{made.programs}:Double")(x), x * 2)
    expected = torch.softmax(x, -1) + y
    torch.testing.assert_close(compiled(f"{made.programs}:fn", "--inputs", f"{made.programs}:pair")(x, y=y), expected)
    model = compiled(f"{made.programs}:fn", "--input", "4x8:float32", "--input", "y=8:float32")
    torch.testing.assert_close(model(x, y=y), expected)


def test_a_module_where_the_user_stands(
    compiled: Callable[..., mkwrap.Model], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.programs.parent)
    x = torch.randn(4, 8)
    torch.testing.assert_close(compiled("programs:Double")(x), x * 2)


def test_integers_stay_below_their_bound(compiled: Callable[..., mkwrap.Model], made: Made) -> None:
    model = compiled(f"{made.programs}:table", "--input", "16:int64:5", "--input", "5x3:float32")
    i, w = torch.randint(5, (16,)), torch.randn(5, 3)
    assert torch.equal(model(i, w), w[i])


def test_inputs_are_as_they_are_described() -> None:
    mask = example("mask=2x3:bool")
    assert (mask.keyword, mask.tensor.shape, mask.tensor.dtype) == ("mask", (2, 3), torch.bool)
    numbers = example("1000:int32:7")
    assert (numbers.keyword, numbers.tensor.dtype) == ("", torch.int32)
    assert (int(numbers.tensor.min()), int(numbers.tensor.max())) == (0, 6)
    assert example("scalar:bfloat16").tensor.shape == ()
    assert torch.equal(example("5:float32").tensor, example("5:float32").tensor)
    for spec in (
        "",
        "8",
        "8x:float32",
        "8:float99",
        "8:randn",
        "-1:float32",
        "8:float32:3",
        "a b=8:int64",
        "@8:int8",
        "a@:int8",
    ):
        with pytest.raises(OptionError, match="--input is"):
            example(spec)


WRONG: dict[str, tuple[list[str], str]] = {
    "neither": (["nothing"], "neither a .pt2 file nor module:function"),
    "no file": (["none.py:fn"], "there is no file none.py"),
    "no module": (["no_such_module:fn"], "importing no_such_module fails: ModuleNotFoundError"),
    "no attribute": (["{}:nothing"], "programs.py has no nothing"),
    "no function": (["{}:number"], "is a int; expected a function"),
    "arguments": (["{}:Needy"], "is a class that needs arguments"),
    "no inputs": (["json:dumps"], "json:dumps needs example inputs: give each tensor argument as --input"),
    "both": (["{}:fn", "--input", "8:float32", "--inputs", "{}:pair"], "exclude each other"),
    "a number": (["{}:fn", "--inputs", "{}:number"], "gives a int; expected a tuple"),
    "spec": (["{}:fn", "--input", "8"], "expected [name=]SHAPE:DTYPE[:BELOW]"),
    "too large": (
        ["{}:fn", "--input", "9999999x9999999:float32"],
        "--input is '9999999x9999999:float32'; torch cannot",
    ),
    "no size": (["{}:fn", "--input", f"{10**30}:int64"], "torch cannot make a tensor of"),
    "no export": (["none.pt2"], "cannot be read as a program of torch.export.save"),
    "dims of no input": (
        ["{}:fn", "--dim", "rows=1..4"],
        "the sizes that --input names are: none (as rows@8x128:float32)",
    ),
    "export and inputs": (["none.pt2", "--input", "8:float32"], "brings its example inputs"),
    "tune": (["{}:fn", "--tune", "fast"], "Options.tune is 'fast'"),
    "force": (["{}:fn", "--force", "reduction_0"], "--force is 'reduction_0'; expected KERNEL=VARIANT"),
    "record": (["{}:fn", "--tuning", "none.jsonl"], "none.jsonl cannot be read"),
    "target": (["{}:fn", "--target", "tpu"], "unknown target 'tpu'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_the_user_can_change_is_said_and_ends_with_2(what: str, run: Run, made: Made, tmp_path: Path) -> None:
    words, message = WRONG[what]
    words = [word.replace("{}", str(made.programs)) for word in words]
    code, out, errors = run("compile", *words, "-o", tmp_path / "o.so", "--cache-dir", made.cache)
    assert (code, out) == (2, "")
    assert message in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "o.so").exists()


def test_an_output_that_is_read_is_refused(run: Run, made: Made) -> None:
    for words in (("{}:fn",), ("json:dumps", "--inputs", "{}:pair")):
        before = made.programs.read_text()
        spelled = [word.replace("{}", str(made.programs)) for word in words]
        code, _, errors = run("compile", *spelled, "-o", made.programs, "--cache-dir", made.cache, "--tune", "off")
        assert (code, "name another file" in errors) == (2, True)
        assert made.programs.read_text() == before


def test_a_missing_compiler_ends_with_3(run: Run, made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    code, _, errors = run("compile", f"{made.programs}:fn", "-o", tmp_path / "o.so", "--cache-dir", tmp_path / "cache")
    assert code == 3
    assert "no working C++ compiler at '/nonexistent/g++'" in errors


@pytest.mark.filterwarnings("default:results are not cached")
def test_a_full_cache_is_said_and_the_library_is_written(
    run: Run, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x: torch.Tensor
) -> None:
    cache, output = tmp_path / "cache", tmp_path / "o.so"
    move = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).is_relative_to(cache):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return move(self, target)

    monkeypatch.setattr(Path, "replace", full)
    words = ("--input", "64x1024:float32", "--tune", "off", "--threads", 2, "--cache-dir", cache)
    code, _, errors = run("compile", f"{made.programs}:fn", "-o", output, *words)
    said = f"mkwrap: warning: results are not cached: the cache directory {cache} cannot be written: No space left on device; "
    assert (code, errors) == (0, f"{said}set Options.cache_dir (--cache-dir) to another\n")
    torch.testing.assert_close(mkwrap.load(output)(x), torch.softmax(x, -1))


def test_a_library_that_cannot_be_written_ends_with_3(run: Run, made: Made, tmp_path: Path) -> None:
    words = ["--tune", "off", "--threads", 2, "--cache-dir", made.cache]
    code, _, errors = run("compile", f"{made.programs}:fn", "-o", tmp_path / "no" / "o.so", *words)
    assert code == 3
    assert "cannot write the library to" in errors
