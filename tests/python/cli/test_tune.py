"""`mkwrap tune`: what a library was compiled without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mkwrap
from tests.python.cli.conftest import Made

pytestmark = pytest.mark.toolchain

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def opened(run: Run, made: Made, tmp_path: Path) -> Path:
    path = tmp_path / "open.so"
    words = ("--input", "64x1024:float32", "--tune", "later", "--threads", 2, "--cache-dir", made.cache)
    code, out, _ = run("compile", f"{made.programs}:fn", "-o", path, *words)
    assert (code, "open: left for later" in out) == (0, True)
    return path


def test_inspect_says_that_nothing_is_tuned_yet(run: Run, opened: Path) -> None:
    code, out, _ = run("inspect", opened)
    assert (code, "not tuned: " in out, "tuned for" in out) == (0, True, False)


def test_tune_writes_the_winners_library(run: Run, opened: Path, tmp_path: Path, x: torch.Tensor) -> None:
    words = ("--tune", "quick", "--threads", 2, "--cache-dir", tmp_path / "cache")
    record = tmp_path / "rows.jsonl"
    code, out, _ = run("tune", opened, "-o", tmp_path / "tuned.so", *words, "--save-tuning", record, "--json")
    assert code == 0
    said = json.loads(out)
    assert said["bytes"] == (tmp_path / "tuned.so").stat().st_size < said["bytes_before"] == opened.stat().st_size
    model = mkwrap.load(tmp_path / "tuned.so")
    assert said["winners"] == {kernel.name: kernel.winner for kernel in model.report.kernels}
    assert said["open"] == []
    torch.testing.assert_close(model(x), torch.softmax(x, -1))
    assert len(record.read_text().splitlines()) == 1
    code, out, _ = run("tune", opened, *words)
    assert (code, "►" in out, "before" in out) == (0, True, True)
    assert opened.read_bytes() == (tmp_path / "tuned.so").read_bytes()


def test_tune_says_what_is_wrong(run: Run, opened: Path, tmp_path: Path) -> None:
    for words, message in (
        ((opened, "--tune", "off"), "'full' or 'quick'"),
        ((tmp_path / "missing.so",), "cannot be read"),
    ):
        code, _, errors = run("tune", *words)
        assert (code, message in errors) == (2, True)
