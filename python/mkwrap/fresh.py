"""A cache that is empty and goes away again: for tests, cold measurements, and doubts about what a cache did.

The registry below is process-wide on purpose, as are the memos it knows: a memo that lives in a module is state of the
process, and the one thing its module cannot know is when to forget. The directories are switched by environment variables,
which child processes and Triton read, too; `options.py`, their only reader, also is who sets them.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from mkwrap.options import redirected


@runtime_checkable
class _Cached(Protocol):
    def cache_clear(self) -> object: ...


@runtime_checkable
class _Container(Protocol):
    def clear(self) -> object: ...


Memo = TypeVar("Memo", bound=_Cached | _Container)

_registered: list[Callable[[], object]] = []


def clear_on_fresh_cache(memo: Memo) -> Memo:
    """Register a memo that `fresh_cache` clears on entry and on exit, and return it; usable as a decorator.

    `memo` has `cache_clear()` (what functools.cache makes) or `clear()` (a dict, an object of yours). Objects that can be
    referred to weakly are: registering one does not keep it alive.
    """
    try:
        _registered.append(weakref.ref(memo))
    except TypeError:
        _registered.append(lambda: memo)
    return memo


def clear_memos() -> None:
    """Clear every registered memo; if some raise, the others are cleared all the same and the last error is raised."""
    with contextlib.ExitStack() as stack:
        for reference in list(_registered):
            memo = reference()
            if memo is None:
                _registered.remove(reference)
            elif isinstance(memo, _Cached):
                stack.callback(memo.cache_clear)
            elif isinstance(memo, _Container):
                stack.callback(memo.clear)


@contextlib.contextmanager
def fresh_cache(folder: Path | None = None) -> Iterator[Path]:
    """Run a block with an empty cache: memos are cleared, mkwrap's and Triton's cache directories lie in a new folder.

    Yields the folder: `folder`, which is kept, or a temporary one, which is removed. On leaving, also by an exception, memos
    are cleared and the directories restored; blocks may be nested. Options made inside the block have the new directory;
    options made before, or with a `cache_dir` of their own, keep theirs. The switch holds for the whole process: not for
    use by several threads at a time.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="mkwrap-fresh-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
        clear_memos()
        triton = str(folder / "triton")
        stack.enter_context(redirected(MKWRAP_CACHE_DIR=str(folder / "mkwrap"), TRITON_CACHE_DIR=triton))
        knobs = sys.modules.get("triton.knobs")
        if knobs is not None:
            # A directory that somebody set there goes before the variable.
            stack.enter_context(knobs.cache.scope())
            knobs.cache.dir = triton
        stack.callback(clear_memos)
        yield folder
