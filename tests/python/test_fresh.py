"""A fresh cache is empty inside, gone afterwards, and everything is as before: also after an error, also nested."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap import Options, clear_on_fresh_cache, fresh_cache
from mkwrap.errors import UserError
from mkwrap.stages import Provenance
from mkwrap.toolchain.cache import Cache
from tests.python.test_house import MODULES

VARIABLES = ("MKWRAP_CACHE_DIR", "TRITON_CACHE_DIR")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MKWRAP_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    return tmp_path / "own"


def surroundings() -> tuple[object, ...]:
    return (Options().cache_dir, *[os.environ.get(name) for name in VARIABLES])


def test_c40_directories_are_new_inside_and_the_old_ones_afterwards(own_cache: Path) -> None:
    before = surroundings()
    with fresh_cache() as folder:
        assert Options().cache_dir == folder / "mkwrap" != own_cache
        assert os.environ["TRITON_CACHE_DIR"] == str(folder / "triton")
        Cache(Options().cache_dir).put("kind", "0" * 64, b"payload")
        with fresh_cache() as inner:
            assert Options().cache_dir == inner / "mkwrap"
            assert Cache(Options().cache_dir).get("kind", "0" * 64) is None
        assert not inner.exists()
        assert Cache(Options().cache_dir).get("kind", "0" * 64) == b"payload"
    assert not folder.exists()
    assert surroundings() == before


def test_c40_all_is_restored_after_an_exception() -> None:
    before, calls = surroundings(), []

    @clear_on_fresh_cache
    @cache
    def memo() -> int:
        calls.append(1)
        return len(calls)

    def fail() -> None:
        assert not Options().cache_dir.exists()
        memo()
        raise UserError("inside")

    memo()
    with pytest.raises(UserError, match="inside"), fresh_cache():
        fail()
    memo()
    assert len(calls) == 3
    assert surroundings() == before


def test_c40_a_registered_memo_is_cleared_on_entry_and_on_exit() -> None:
    @clear_on_fresh_cache
    @cache
    def place() -> Path:
        return Options().cache_dir

    table: dict[str, int] = clear_on_fresh_cache({})
    outside = place()
    table["outside"] = 1
    with fresh_cache() as folder:
        assert (place(), table) == (folder / "mkwrap", {})
        table["inside"] = 1
        with fresh_cache() as inner:
            assert (place(), table) == (inner / "mkwrap", {})
        assert place() == folder / "mkwrap"
    assert (place(), table) == (outside, {})


class Stubborn:
    def __init__(self) -> None:
        self.cleared = 0

    def clear(self) -> None:
        self.cleared += 1
        if self.cleared == 2:
            raise RuntimeError("not now")


def test_c40_a_memo_that_cannot_be_cleared_keeps_nothing_else_from_being_restored() -> None:
    before = surroundings()
    first: dict[int, int] = clear_on_fresh_cache({})
    stubborn = clear_on_fresh_cache(Stubborn())
    last: dict[int, int] = clear_on_fresh_cache({})
    with pytest.raises(RuntimeError, match="not now"), fresh_cache():
        first[0] = last[0] = 1
    assert (first, last, stubborn.cleared) == ({}, {}, 2)
    assert surroundings() == before


def test_a_folder_that_is_named_is_kept(tmp_path: Path) -> None:
    with fresh_cache(tmp_path / "kept") as folder:
        Cache(Options().cache_dir).put("kind", "0" * 64, b"payload")
    assert Cache(folder / "mkwrap").get("kind", "0" * 64) == b"payload"


def test_registering_does_not_keep_a_memo_alive() -> None:
    cleared = []

    class Memo:
        def clear(self) -> None:
            cleared.append(1)

    clear_on_fresh_cache(Memo())
    with fresh_cache():
        pass
    assert cleared == []


def test_c40_child_processes_see_the_fresh_directory() -> None:
    code = "from mkwrap import Options; print(Options().cache_dir)"
    with fresh_cache() as folder:
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(folder / "mkwrap")


def test_c40_a_directory_that_triton_was_told_is_switched_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = pytest.importorskip("triton.knobs")
    with knobs.cache.scope():
        knobs.cache.dir = "/somewhere"
        with fresh_cache() as folder:
            assert knobs.cache.dir == str(folder / "triton")
        assert knobs.cache.dir == "/somewhere"
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)


@pytest.mark.toolchain
def test_c40_choices_and_images_are_isolated() -> None:
    x = torch.randn(64, 1024)

    def provenance(fn: Callable[[torch.Tensor], torch.Tensor]) -> Provenance:
        model = mkwrap.compile(fn, (x,), options=Options(tune="quick", threads=1))
        torch.testing.assert_close(model(x), fn(x))
        assert model.compilation is not None
        return model.compilation.choices["reduction_0"]

    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, -1)

    assert [provenance(fn), provenance(fn)] == [Provenance.MEASURED, Provenance.CACHE]
    with fresh_cache():
        assert [provenance(fn), provenance(fn)] == [Provenance.MEASURED, Provenance.CACHE]
    assert provenance(fn) == Provenance.CACHE


def test_every_memo_of_mkwrap_is_registered() -> None:
    forgotten = [
        f"{name}.{function.name}"
        for name, tree in MODULES.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and {"cache", "lru_cache"} & {ast.unparse(d).split("(")[0].split(".")[-1] for d in function.decorator_list}
        and "clear_on_fresh_cache" not in {ast.unparse(d) for d in function.decorator_list}
    ]
    assert forgotten == []
