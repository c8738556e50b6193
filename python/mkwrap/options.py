"""The options of a compile and the only place that touches the environment."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, SupportsIndex, TypeAlias, TypeGuard, TypeVar

from mkwrap.errors import OptionError

TuneMode = Literal["full", "quick", "off", "later"]
_TUNE_MODES = ("full", "quick", "off", "later")
MOST_POINTS = 256
Read = TypeVar("Read")
HintSet: TypeAlias = 'Literal["auto"] | Mapping[str, int | Sequence[int]] | Sequence[Mapping[str, int]]'


def default_cache_dir() -> Path:
    """Return $MKWRAP_CACHE_DIR, else $XDG_CACHE_HOME/mkwrap, else ~/.cache/mkwrap."""
    if explicit := os.environ.get("MKWRAP_CACHE_DIR"):
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mkwrap"


def default_cache_bytes() -> int:
    """Return $MKWRAP_CACHE_BYTES, else 10 GiB; raises `OptionError` where the variable holds no number."""
    text = os.environ.get("MKWRAP_CACHE_BYTES")
    if not text:
        return 10 * 2**30
    if not text.isdecimal():
        raise OptionError(f"the environment variable MKWRAP_CACHE_BYTES is {text!r}; expected a number of bytes")
    return int(text)


@contextlib.contextmanager
def redirected(**variables: str) -> Iterator[None]:
    """Set environment variables for a block, and restore what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def default_cxx() -> str:
    """Return $CXX, else g++."""
    return os.environ.get("CXX") or "g++"


def default_jobs() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Options:
    """How to compile. All fields have defaults; values are checked at construction (`OptionError`)."""

    tune: TuneMode = "full"
    """"full" measures each distinct kernel for at most 3 s, "quick" for at most 1 s (less where the winner is clear before), at
    each of its points if its sizes are dynamic; "off" takes entry 0.

    Where the target's device is not there, or with "later", the choice is left open: the library holds every variant that may
    win, and `mkwrap tune` on the target machine makes it (docs/open-choice.md)."""
    deterministic: bool = False
    """Take entry 0 of every kernel and measure nothing: two cold compiles give the same bits."""
    force: Mapping[str, str] = field(default_factory=dict)
    """Kernel name → variant label (as the report prints them); forced kernels are not measured."""
    hints: HintSet = "auto"
    """Sizes that kernels of dynamic shapes are tuned at; what runs for other sizes is chosen by similarity (docs/dynamic.md).

    By symbol, `{"batch": [1, 8, 64], "seq": [128, 512]}`: the product is taken. Or a list of points,
    `[{"batch": 1, "seq": 512}, …]`. A symbol that is not named keeps the example's size. "auto" spreads powers of two over each
    symbol's range. The example's own sizes are always among the points. Static shapes have none: hints change nothing there."""
    max_points: int = 16
    """The most points that a program is tuned at; of more, those that lie farthest apart are taken, and the report says which
    were left out; 256 at most. Where a kernel's winner changes between two, a few further ones are measured."""
    cache_dir: Path = field(default_factory=default_cache_dir)
    """Where compiled images, choices and libraries are kept; created on first use."""
    cache_bytes: int = field(default_factory=default_cache_bytes)
    """What the cache may hold; beyond that, what was not used for the longest time is removed."""
    jobs: int = field(default_factory=default_jobs)
    """How many compiler processes run at once."""
    progress: bool | None = None
    """Show a progress bar on stderr; None: only if stderr is a terminal."""
    dump_dir: Path | None = None
    """Write every stage's value as text into this folder."""
    cxx: str = field(default_factory=default_cxx)
    """The host C++ compiler."""
    threads: int | None = None
    """CPU target: threads that parallel kernels are tuned for; None: as many as `default_jobs` says, or, for a library whose
    choice was left open, as many as it was compiled for."""
    tuning: Path | None = None
    """A tuning record (`Model.save_tuning`, docs/record.md) whose rows decide the kernels they fit, unmeasured."""
    require_tuning: bool = False
    """Measure nothing: a kernel with a choice that `tuning` has no row for is an error (`MissingTuningError`)."""

    def __post_init__(self) -> None:
        if self.tune not in _TUNE_MODES:
            raise OptionError(f"Options.tune is {self.tune!r}; expected one of {', '.join(_TUNE_MODES)}")
        for name in ("jobs", "threads", "cache_bytes", "max_points"):
            value = getattr(self, name)
            if name == "threads" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise OptionError(f"Options.{name} is {value!r}; expected an integer of at least 1")
        if self.max_points > MOST_POINTS:
            raise OptionError(
                f"Options.max_points is {self.max_points}; a table of more than {MOST_POINTS} points is no use"
            )
        if not isinstance(self.force, Mapping) or not all(
            isinstance(x, str) for pair in self.force.items() for x in pair
        ):
            raise OptionError(
                f"Options.force is {self.force!r}; expected a mapping from a kernel's name to a variant's label"
            )
        if self.require_tuning and self.tuning is None:
            raise OptionError("Options.require_tuning needs Options.tuning, the record that has to have the rows")
        if self.deterministic and self.tuning is not None:
            raise OptionError(
                "Options.deterministic takes the default variants and Options.tuning the recorded: drop one"
            )
        object.__setattr__(self, "hints", _checked_hints(self.hints))
        self._refuse_wrong_paths()
        object.__setattr__(self, "cache_dir", Path(self.cache_dir).expanduser())
        if self.tuning is not None:
            object.__setattr__(self, "tuning", Path(self.tuning).expanduser())
        if self.dump_dir is not None:
            object.__setattr__(self, "dump_dir", Path(self.dump_dir))

    def _refuse_wrong_paths(self) -> None:
        if not isinstance(self.cxx, str) or not self.cxx:
            raise OptionError(f"Options.cxx is {self.cxx!r}; expected the name of a compiler")
        for name, optional in (("cache_dir", False), ("tuning", True), ("dump_dir", True)):
            value = getattr(self, name)
            if (optional and value is None) or (isinstance(value, str | os.PathLike) and value != ""):
                continue
            raise OptionError(f"Options.{name} is {value!r}; expected a path{' or None' if optional else ''}")


def integer(value: object) -> int | None:
    """Return an integer of any type (numpy's, too) as an int; None for what is none, which a bool is not."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array has the method, too
        return None


def _checked_hints(hints: object) -> HintSet:
    """Return hints with sizes that are ints; raises `OptionError` for what is no set of hints."""
    if isinstance(hints, str) and hints == "auto":
        return "auto"
    read: Mapping[str, Sequence[int]] | Sequence[Mapping[str, int]] | None = None
    if isinstance(hints, Mapping):
        read = _checked(hints, lambda sizes: _sizes(sizes if _is_list(sizes) else (sizes,)) or None)
    elif _is_list(hints):
        points = [_checked(point, _size) for point in hints if isinstance(point, Mapping)]
        if 0 < len(points) == len(hints):
            full = [point for point in points if point is not None]
            read = full if len(full) == len(points) else None
    if read is None:
        raise OptionError(
            f"Options.hints is {hints!r}; expected 'auto', integers from 0 on by symbol as "
            "{'batch': [1, 8]}, or a list of points as [{'batch': 1}, {'batch': 8}]"
        )
    return read


def _checked(given: Mapping[object, object], read: Callable[[object], Read | None]) -> dict[str, Read] | None:
    """Return what is given by name, read; None where a key is no name or a value cannot be read."""
    pairs = [(name, read(value)) for name, value in given.items()]
    found = {name: value for name, value in pairs if isinstance(name, str) and value is not None}
    return found if len(found) == len(pairs) else None


def _sizes(listed: Sequence[object]) -> list[int] | None:
    sizes = [size for size in map(_size, listed) if size is not None]
    return sizes if len(sizes) == len(listed) else None


def _size(value: object) -> int | None:
    number = integer(value)
    return number if number is not None and number >= 0 else None


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def given_or_default(options: Options | None) -> Options:
    """Return the options of a call, the defaults for None; raises `OptionError` for anything else (a dict)."""
    if options is None:
        return Options()
    if not isinstance(options, Options):
        raise OptionError(f'options is {options!r}; expected a mkwrap.Options, as mkwrap.Options(tune="off")')
    return options
