"""The pool: parallel, cached, equal sources once; a crash rejects its own source only."""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mkwrap.errors import CompilerError
from mkwrap.stages import Binary, Image, Launch, Rejected, Source, Variant
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.pool import Children, Compiler, build


def _source(text: str, language: str = "cpp", label: str = "t") -> Source:
    return Source(Variant("k", label), language, text, (Launch("entry", ()),))


def _compile(source: Source) -> Binary | Rejected:
    return Binary(source, (Image("entry", source.text.encode(), hashlib.sha256(source.text.encode()).hexdigest()),))


# A module of its own on disk, because a child process must find the function by name.
_CHILD_COMPILER = """
import hashlib, os, signal, sys
from mkwrap.errors import CompilerError
from mkwrap.stages import Binary, Image, Rejected

def compile_source(source):
    print("noise on standard output")
    if source.text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if source.text.startswith("crash once "):
        # The next process finds the mark.
        try:
            os.close(os.open(source.text.removeprefix("crash once "), os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGSEGV)
        except FileExistsError:
            pass
    if source.text == "exit":
        sys.exit("I leave")
    if source.text == "raise":
        raise ValueError("no such thing")
    if source.text == "missing":
        raise CompilerError("there is no ptxas")
    if source.text == "refuse":
        return Rejected(source.variant, "too much shared memory")
    blob = str(os.getpid()).encode()
    return Binary(source, (Image("entry", blob, hashlib.sha256(blob).hexdigest()),))
"""


@pytest.fixture
def child_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    (tmp_path / "child_compiler.py").write_text(_CHILD_COMPILER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Compiler(importlib.import_module("child_compiler").compile_source, "triton 0", 2)


def test_results_come_in_order_and_equal_sources_are_compiled_once() -> None:
    seen: list[str] = []

    def counted(source: Source) -> Binary | Rejected:
        seen.append(source.text)
        return _compile(source)

    sources = [_source("a"), _source("b"), _source("a", label="u")]
    results = build(sources, Compiler(counted, "id", 2))
    assert sorted(seen) == ["a", "b"]
    assert [r.source for r in results if isinstance(r, Binary)] == sources


def test_sources_are_compiled_at_once() -> None:
    both = threading.Barrier(2, timeout=10)

    def together(source: Source) -> Binary | Rejected:
        both.wait()
        return _compile(source)

    assert all(isinstance(r, Binary) for r in build([_source("a"), _source("b")], Compiler(together, "id", 2)))


def test_no_source_compiles_to_nothing() -> None:
    assert build([], Compiler(_compile, "id", 1)) == ()


def test_progress_ends_at_the_total() -> None:
    steps: list[tuple[str, int, int]] = []
    build([_source("a"), _source("b")], Compiler(_compile, "id", 1), lambda *step: steps.append(step))
    assert steps[0] == ("build", 0, 2)
    assert steps[-1] == ("build", 2, 2)


def test_a_second_build_compiles_nothing(tmp_path: Path) -> None:
    compiler = Compiler(_compile, "id", 1, Cache(tmp_path))
    first = build([_source("a")], compiler)

    def never(source: Source) -> Binary | Rejected:
        raise AssertionError(source.text)

    assert build([_source("a")], Compiler(never, "id", 1, Cache(tmp_path))) == first
    (other,) = build([_source("a")], Compiler(never, "another compiler", 1, Cache(tmp_path)))
    assert isinstance(other, Rejected)


def test_a_rejection_is_not_kept(tmp_path: Path) -> None:
    def refuse(source: Source) -> Binary | Rejected:
        return Rejected(source.variant, "killed for memory")

    cache = Cache(tmp_path)
    (result,) = build([_source("a")], Compiler(refuse, "id", 1, cache))
    assert isinstance(result, Rejected)
    (result,) = build([_source("a")], Compiler(_compile, "id", 1, cache))
    assert isinstance(result, Binary)


def test_no_compiler_at_all_is_an_error() -> None:
    def missing(_: Source) -> Binary | Rejected:
        raise CompilerError("there is no g++")

    with pytest.raises(CompilerError, match="no g"):
        build([_source("a"), _source("b")], Compiler(missing, "id", 1))


def test_c35_a_compiler_that_crashes_rejects_its_own_source_only(child_compiler: Compiler) -> None:
    texts = ["fine", "crash", "also fine", "exit", "raise", "refuse", "fine again"]
    results = build([_source(text, "triton") for text in texts], child_compiler)
    reasons = {text: r.reason for text, r in zip(texts, results, strict=True) if isinstance(r, Rejected)}
    assert set(reasons) == {"crash", "exit", "raise", "refuse"}
    assert signal.SIGSEGV.name in reasons["crash"]
    assert "I leave" in reasons["exit"]
    assert reasons["raise"] == "ValueError: no such thing"
    assert reasons["refuse"] == "too much shared memory"


def test_children_are_kept_for_the_next_source_and_end_with_the_build(child_compiler: Compiler) -> None:
    results = build([_source(str(i), "triton") for i in range(6)], child_compiler)
    pids = {int(r.images[0].blob) for r in results if isinstance(r, Binary)}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_missing_tool_in_a_child_is_an_error_here(child_compiler: Compiler) -> None:
    with pytest.raises(CompilerError, match="no ptxas"):
        build([_source("missing", "triton")], child_compiler)


def test_processes_started_early_do_the_work_and_end_with_their_owner(child_compiler: Compiler) -> None:
    with Children() as children:
        children.start(1, child_compiler.compile, _source("raise", "triton"))
        compiler = replace(child_compiler, jobs=1, children=children)
        first, second = build([_source("a", "triton")], compiler), build([_source("b", "triton")], compiler)
        pids = {int(binary.images[0].blob) for binary in (*first, *second) if isinstance(binary, Binary)}
        (pid,) = pids
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_c35_a_child_that_died_of_its_warming_up_rejects_nothing(child_compiler: Compiler) -> None:
    """Whether it is dead already when it is taken, or dies with the request in its pipe."""
    for waits in (False, True):
        with Children() as children:
            children.start(1, child_compiler.compile, _source("crash", "triton"))
            early = children.take()
            children.put(early)
            deadline = time.monotonic() + 10
            while waits and not early.ended:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            compiler = replace(child_compiler, jobs=1, children=children)
            (result,) = build([_source("innocent", "triton")], compiler)
        assert isinstance(result, Binary)


def test_c35_a_child_that_has_answered_is_not_given_a_second_try(child_compiler: Compiler, tmp_path: Path) -> None:
    compiler = replace(child_compiler, jobs=1)
    fine, once = build([_source("fine", "triton"), _source(f"crash once {tmp_path / 'mark'}", "triton")], compiler)
    assert isinstance(fine, Binary)
    assert isinstance(once, Rejected)
