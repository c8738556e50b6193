"""Full disks, read-only caches and clocks that jump: each ends in a right library or a typed error, and spoils no cache."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mkwrap
from mkwrap import Model, Options
from mkwrap.errors import CacheError, ToolchainError
from mkwrap.stages import Provenance
from mkwrap.toolchain import libraries
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.seal import publish

pytestmark = pytest.mark.toolchain


def fn(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(64, 512, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a file system in memory with the given options; skip where that is not allowed."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("this user may not mount a file system")
        return folder

    yield mount
    # Lazily: a model that was loaded from it still holds its file.
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def quick(cache: Path) -> Options:
    return Options(tune="quick", cache_dir=cache, threads=2, jobs=2, progress=False)


def compiled(x: torch.Tensor, options: Options) -> Model | ToolchainError:
    """Compile; a typed error is a result, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "results are not cached"
        try:
            return mkwrap.compile(fn, (x,), target="cpu", options=options)
        except ToolchainError as error:
            return error


def provenance(model: Model) -> Provenance:
    assert model.compilation is not None
    (found,) = model.compilation.choices.values()
    return found


@pytest.mark.parametrize("size", ["16k", "96k"])
def test_a_full_disk_under_the_cache(x: torch.Tensor, mounted: Callable[[str], Path], size: str) -> None:
    cache = mounted(f"size={size}")
    result = compiled(x, quick(cache))
    assert isinstance(result, Model)
    torch.testing.assert_close(result(x), fn(x))
    assert Cache(cache).verify() == ()
    leftovers = [path for path in cache.rglob("*") if path.is_file() and path.parent.name in ("incoming", "libraries")]
    assert [path.suffix for path in leftovers] in ([], [".so"])


def test_a_library_that_the_cache_cannot_take_is_a_model_all_the_same(
    x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"

    def full(image: bytes, output: Path) -> None:
        if output.is_relative_to(cache):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        publish(image, output)

    monkeypatch.setattr(libraries, "publish", full)
    said = (
        f"the cache directory {re.escape(str(cache))} cannot be written: No space left on device; set Options.cache_dir"
    )
    with pytest.warns(RuntimeWarning, match=said):
        model = mkwrap.compile(fn, (x,), target="cpu", options=replace(quick(cache), tune="off"))
    folder = model.path.parent
    assert [entry.name for entry in folder.iterdir()] == [model.path.name]
    torch.testing.assert_close(model(x), fn(x))
    model.save(tmp_path / "saved.so")
    del model
    assert not folder.exists()
    torch.testing.assert_close(mkwrap.load(tmp_path / "saved.so")(x), fn(x))


_LIMITED = """
import resource, signal, sys, warnings
from pathlib import Path
import torch
import mkwrap
from mkwrap.errors import MkwrapError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
warnings.simplefilter("ignore")
x = torch.randn(64, 512)
fn = lambda x: torch.softmax(x, -1)
options = mkwrap.Options(tune="quick", cache_dir=Path(sys.argv[1]), threads=2, jobs=2, progress=False)
try:
    torch.testing.assert_close(mkwrap.compile(fn, (x,), target="cpu", options=options)(x), fn(x))
    print("right")
except MkwrapError as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [5000, 40000])
def test_files_that_cannot_grow(x: torch.Tensor, tmp_path: Path, limit: int) -> None:
    """What a full disk is to everyone: compilers, linker and cache may write so many bytes to a file and no more."""
    command = [sys.executable, "-c", _LIMITED, str(tmp_path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("right", "NoVariantError", "CompilerError", "CacheError")
    assert Cache(tmp_path).verify() == ()
    # No variant that failed for want of room stays out of the race.
    model = compiled(x, quick(tmp_path))
    assert isinstance(model, Model)
    torch.testing.assert_close(model(x), fn(x))
    assert [row.rejected for row in model.report.kernels[0].variants if "large" in row.rejected] == []


def test_a_read_only_cache_serves_what_it_has(x: torch.Tensor, mounted: Callable[[str], Path]) -> None:
    cache = mounted("size=8m")
    first = compiled(x, quick(cache))
    assert isinstance(first, Model)
    subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
    again = compiled(x, quick(cache))
    assert isinstance(again, Model)
    assert provenance(again) is Provenance.CACHE
    torch.testing.assert_close(again(x), fn(x))
    other = compiled(torch.randn(3, 5), quick(cache))
    assert isinstance(other, Model)
    assert not other.path.is_relative_to(cache)
    subprocess.run(["mount", "-o", "remount,rw", str(cache)], check=True)
    assert Cache(cache).verify() == ()


def test_a_cache_directory_that_cannot_be_is_an_error(x: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "cache"):
        result = compiled(x, quick(place))
        assert isinstance(result, CacheError)
        assert "Options.cache_dir" in str(result)


def test_a_cache_that_turns_read_only_in_the_middle(
    x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For users who may not mount: every rename into the cache fails."""
    move = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if Path(target).is_relative_to(tmp_path):
            raise OSError(30, "Read-only file system")
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        result = compiled(x, quick(tmp_path))
    assert isinstance(result, Model)
    torch.testing.assert_close(result(x), fn(x))
    assert list(Cache(tmp_path).entries()) == []
    model = compiled(x, quick(tmp_path))
    assert isinstance(model, Model)
    assert provenance(model) is Provenance.MEASURED


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps(x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """Before, while and after a compile the clock is off by decades: no measurement and no entry depends on it."""
    now, calls = time.time, [0]

    def wild() -> float:
        calls[0] += 1
        return now() + (jump if calls[0] % 2 else 0.0)

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", wild)
        first = compiled(x, quick(tmp_path))
        assert isinstance(first, Model)
        for entry in Cache(tmp_path).entries():
            os.utime(entry.path, (now() + jump, now() + jump))
        again = compiled(x, quick(tmp_path))
        assert isinstance(again, Model)
    assert provenance(first) is Provenance.MEASURED
    assert provenance(again) is Provenance.CACHE
    torch.testing.assert_close(again(x), fn(x))
    assert Cache(tmp_path).verify() == ()
    later = compiled(x, replace(quick(tmp_path), cache_bytes=10**9))
    assert isinstance(later, Model)
    assert provenance(later) is Provenance.CACHE
