"""Compiles many sources at once: from the cache, in threads around compiler processes, or in child Python processes.

A source that crashes its compiler is rejected alone; the others go on.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from mkwrap.errors import InternalError, ToolchainError
from mkwrap.stages import Binary, Rejected, Source
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.child import Child, Death
from mkwrap.toolchain.records import get_binary, put_binary, source_key
from mkwrap.toolchain.rejection import rejection

Compile: TypeAlias = Callable[[Source], Binary | Rejected]


class Advance(Protocol):
    """Shows progress."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Take note of a stage's pieces done and in all, and of what is at hand."""


# Triton compiles inside Python, holding its lock: it needs processes. C++ is compiled by processes of its own.
_IN_CHILDREN = frozenset({"triton"})
_TIMEOUT_S = 300.0
_WORKER = "mkwrap.toolchain.compile_worker"


@dataclass(frozen=True)
class Request:
    """What a compiling child is asked."""

    compile: Compile
    source: Source
    warm_up: bool = False
    """Nobody waits for an answer: what a compiler does once per process is done before the first that somebody waits for."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Show no progress."""


class Children:
    """Compiling processes that wait for work; a context manager that ends them. Safe to use from several threads."""

    def __init__(self) -> None:
        self._idle: queue.SimpleQueue[Child] = queue.SimpleQueue()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *exception: object) -> None:
        while not self._idle.empty():
            child = self._idle.get()
            # It has nothing to finish, and a compiler takes its time to end in good order.
            child.kill()
            child.close()

    def start(self, count: int, compile: Compile, source: Source) -> None:
        """Start processes that compile a source to warm up: while they do, the caller has other things to do."""
        for _ in range(count):
            child = Child(_WORKER)
            child.send(Request(compile, source, warm_up=True))
            self._idle.put(child)

    def take(self) -> Child:
        """Return an idle process, or a new one; those that died since they were started are left out."""
        while True:
            try:
                child = self._idle.get_nowait()
            except queue.Empty:
                return Child(_WORKER)
            if not child.ended:
                return child
            child.close()

    def put(self, child: Child) -> None:
        """Take back a process that waits for work."""
        self._idle.put(child)


@dataclass(frozen=True)
class Compiler:
    """How sources become binaries."""

    compile: Compile
    """Picklable."""
    identity: str
    """All that decides the bytes beside a source's text: compiler, version, flags, headers."""
    jobs: int
    """How many compiles run at once."""
    cache: Cache | None = None
    children: Children | None = None
    """Processes that were started early, the caller's to close."""


def build(sources: Sequence[Source], compiler: Compiler, advance: Advance = silent) -> tuple[Binary | Rejected, ...]:
    """Compile sources, equal ones once; results in the order of `sources`.

    A rejection is not cached: it may come from a machine short of memory, and the variant would be lost for good.
    Raises what `compile` raises of `ToolchainError` (there is no compiler); any other exception of it is a rejection.
    """
    keys = [source_key(source, compiler.identity) for source in sources]
    cache = compiler.cache
    distinct = dict(zip(reversed(keys), reversed(sources), strict=True))
    results: dict[str, Binary | Rejected] = {}
    advance("build", 0, len(distinct))
    for key in dict.fromkeys(keys):
        known = get_binary(cache, key, distinct[key]) if cache is not None else None
        if known is not None:
            results[key] = known
    missing = [key for key in dict.fromkeys(keys) if key not in results]
    with _Crew(compiler) as crew:
        for key, result in crew.run({key: distinct[key] for key in missing}):
            results[key] = result
            advance("build", len(results), len(distinct))
            if cache is not None and isinstance(result, Binary):
                put_binary(cache, key, result)
    advance("build", len(distinct), len(distinct))
    return tuple(_of(results[key], source) for key, source in zip(keys, sources, strict=True))


def _of(result: Binary | Rejected, source: Source) -> Binary | Rejected:
    if isinstance(result, Binary):
        return replace(result, source=source)
    return replace(result, variant=source.variant)


class _Crew:
    """Threads that compile; each that needs a child process takes an idle one or starts it."""

    def __init__(self, compiler: Compiler) -> None:
        self._compile = compiler.compile
        self._threads = ThreadPoolExecutor(compiler.jobs, "mkwrap-compile")
        self._own = Children()
        self._children = compiler.children or self._own

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        # After an error or Ctrl-C what has not begun is not begun any more.
        self._threads.shutdown(cancel_futures=True)
        self._own.__exit__()

    def run(self, sources: dict[str, Source]) -> Iterator[tuple[str, Binary | Rejected]]:
        """Yield each key with its result as it comes."""
        futures: dict[Future[Binary | Rejected], str] = {
            self._threads.submit(self._one, source): key for key, source in sources.items()
        }
        for future in as_completed(futures):
            yield futures[future], future.result()

    def _one(self, source: Source) -> Binary | Rejected:
        if source.language in _IN_CHILDREN:
            return self._in_child(source)
        try:
            return self._compile(source)
        except ToolchainError:
            raise
        except Exception as error:
            return rejection(source.variant, f"{type(error).__name__}: {error}")

    def _in_child(self, source: Source) -> Binary | Rejected:
        child = self._children.take()
        warming_up = child.busy
        child.send(Request(self._compile, source))
        answer = child.receive(_TIMEOUT_S)
        if warming_up and isinstance(answer, Death) and not answer.timeout:
            # It may have died of what it warmed up with, which is not this source's fault.
            child.close()
            child = Child(_WORKER)
            child.send(Request(self._compile, source))
            answer = child.receive(_TIMEOUT_S)
        match answer:
            case Death(reason=reason) as death:
                child.close()
                return rejection(source.variant, f"the compiling process {reason}", transient=death.timeout)
            case ToolchainError() as error:
                self._children.put(child)
                raise error
            case Binary() | Rejected() as result:
                self._children.put(child)
                return result
            case other:
                child.close()
                raise InternalError(f"a compiling process answered {type(other).__name__}")
