"""`mkwrap tune`: what a library was compiled without."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap import retune
from mkwrap.toolchain.seal import publish
from mkwrap.tune.measure import Referee
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
    assert (said["decided"], said["open"]) == (list(said["winners"]), [])
    torch.testing.assert_close(model(x), torch.softmax(x, -1))
    assert len(record.read_text().splitlines()) == 1
    code, out, _ = run("tune", opened, *words)
    assert (code, "►" in out, "before" in out, "nothing was open" in out) == (0, True, True, False)
    assert opened.read_bytes() == (tmp_path / "tuned.so").read_bytes()


def test_tune_says_that_nothing_was_open(run: Run, made: Made, tmp_path: Path) -> None:
    words = ("tune", made.library, "--cache-dir", tmp_path / "cache")
    before = made.library.read_bytes()
    code, out, _ = run(*words, "-o", tmp_path / "copy.so")
    assert (code, out.splitlines()[-1]) == (
        0,
        "nothing was open for this machine, nothing was measured: this is a copy",
    )
    assert (tmp_path / "copy.so").read_bytes() == before
    code, out, _ = run(*words, "--json")
    assert (code, json.loads(out)["decided"]) == (0, [])
    code, out, _ = run(*words)
    assert (code, out.splitlines()[-1].endswith("it stays as it is")) == (0, True)
    assert made.library.read_bytes() == before


def test_tune_says_what_is_wrong(run: Run, opened: Path, tmp_path: Path) -> None:
    for words, message in (
        ((opened, "--tune", "off"), "'full' or 'quick'"),
        ((tmp_path / "missing.so",), "cannot be read"),
    ):
        code, _, errors = run("tune", *words)
        assert (code, message in errors) == (2, True)


def test_where_nothing_can_be_written_nothing_is_measured(
    run: Run, opened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Referee, "hold", lambda *_: pytest.fail("measured"))
    words = ("--cache-dir", tmp_path / "cache")
    code, _, errors = run("tune", opened, "-o", tmp_path / "no" / "tuned.so", *words)
    assert (code, "there is no folder" in errors, (tmp_path / "no").exists()) == (3, True, False)
    code, _, errors = run("tune", opened, "-o", tmp_path, *words)
    assert (code, "it is a folder; name a file in it" in errors) == (3, True)


def test_what_could_not_be_written_is_not_measured_again(
    run: Run, opened: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--tune", "quick", "--threads", 2, "--cache-dir", tmp_path / "cache")
    output = tmp_path / "tuned.so"

    def full(image: bytes, path: Path) -> None:
        if path == output:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        publish(image, path)

    with monkeypatch.context() as disk:
        disk.setattr(retune, "publish", full)
        code, _, errors = run("tune", opened, "-o", output, *words)
    assert (code, "No space left on device" in errors, output.exists()) == (3, True, False)
    monkeypatch.setattr(Referee, "hold", lambda *_: pytest.fail("measured"))
    assert run("tune", opened, "-o", output, *words)[0] == 0
    assert mkwrap.load(output).report.kernels
