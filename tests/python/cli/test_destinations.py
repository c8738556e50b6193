"""Where nothing may be written, because something else than a file is there, is said before the work: all of it stays."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import mkwrap
from mkwrap.errors import CacheError, TuningRecordError
from mkwrap.tune.measure import Referee
from tests.python.cli.conftest import Made

pytestmark = pytest.mark.toolchain
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("option", "what", "ends_with"),
    [("-o", "the library", 3), ("--header", "the header", 3), ("--save-tuning", "the tuning record", 2)],
)
def test_compile_refuses_a_fifo_before_it_compiles(
    option: str, what: str, ends_with: int, run: Run, made: Made, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mkwrap, "compile", lambda *_, **__: pytest.fail("compiled"))
    output = () if option == "-o" else ("-o", fifo.parent / "o.so")
    code, out, errors = run("compile", f"{made.programs}:fn", *output, option, fifo, "--cache-dir", made.cache)
    assert (code, out) == (ends_with, "")
    assert f"cannot write {what} to {fifo}: it is a FIFO; name a regular file" in errors
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_tune_refuses_a_fifo_before_it_measures(
    run: Run, made: Made, fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = fifo.parent / "open.so"
    words = ("--input", "64x1024:float32", "--tune", "later", "--threads", 2, "--cache-dir", made.cache)
    assert run("compile", f"{made.programs}:fn", "-o", opened, *words)[0] == 0
    before = opened.read_bytes()
    monkeypatch.setattr(Referee, "hold", lambda *_: pytest.fail("measured"))
    for option, ends_with in (("-o", 3), ("--save-tuning", 2)):
        code, _, errors = run("tune", opened, option, fifo, "--cache-dir", fifo.parent / "cache")
        assert (code, "it is a FIFO; name a regular file" in errors) == (ends_with, True)
    assert (stat.S_ISFIFO(fifo.stat().st_mode), opened.read_bytes() == before) == (True, True)


def test_records_are_not_merged_into_a_fifo(run: Run, made: Made, fifo: Path) -> None:
    code, _, errors = run("record", "merge", made.record, "-o", fifo)
    assert (code, "it is a FIFO" in errors, stat.S_ISFIFO(fifo.stat().st_mode)) == (2, True, True)


def test_what_saves_from_python_refuses_a_fifo(made: Made, fifo: Path) -> None:
    model = mkwrap.load(made.library)
    writes: tuple[tuple[Callable[[Path], object], type[Exception]], ...] = (
        (model.save, CacheError),
        (model.save_tuning, TuningRecordError),
        (lambda path: mkwrap.write_header(model, path), CacheError),
        (lambda path: mkwrap.tune_library(made.library, path), CacheError),
    )
    for write, error in writes:
        with pytest.raises(error, match=f"to {fifo}: it is a FIFO; name a regular file"):
            write(fifo)
        assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_device_is_refused(made: Made, tmp_path: Path) -> None:
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(CacheError, match="it is a device; name a regular file"):
        mkwrap.load(made.library).save(node)
    assert stat.S_ISCHR(node.stat().st_mode)


def test_a_link_to_a_file_is_replaced_as_ever(made: Made, tmp_path: Path) -> None:
    aim, link = tmp_path / "aim.so", tmp_path / "link.so"
    aim.write_bytes(b"aim")
    link.symlink_to(aim)
    mkwrap.load(made.library).save(link)
    assert (link.is_symlink(), aim.read_bytes()) == (False, b"aim")
    assert link.read_bytes() == made.library.read_bytes()
