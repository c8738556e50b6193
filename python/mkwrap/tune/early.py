"""What tuning works with; starts the processes that a compile needs early, so that they are ready after the trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mkwrap.errors import ProcessError
from mkwrap.options import Options
from mkwrap.targets.target import Target
from mkwrap.toolchain.cache import Cache
from mkwrap.toolchain.pool import Advance, Children, silent
from mkwrap.tune.measure import Referee
from mkwrap.tune.samples import Read, unknown

# A kernel has about so many variants that are worth a compiling process each.
_MOST = 4


@dataclass(frozen=True)
class Means:
    """What tuning works with beside the kernels; all may be missing."""

    cache: Cache | None = None
    """Where choices are kept."""
    advance: Advance = silent
    referee: Referee | None = None
    """A measuring process that was started early, the caller's to end."""
    read: Read = unknown
    """The example values of the program's inputs."""


@dataclass(frozen=True)
class Early:
    """Processes that wait for work."""

    children: Children
    referee: Referee


def measured(target: Target, options: Options) -> bool:
    """Whether kernels are measured whose choices are neither recorded nor forced."""
    return options.tune in ("full", "quick") and not options.deterministic and target.present


@contextmanager
def started_early(target: Target, options: Options) -> Iterator[Early]:
    """Start compiling and measuring processes, which import what they need; end them on leaving.

    One processor is left to this process. No measuring process is started where all is said to be recorded, and one
    compiling process where first variants are enough.
    """
    expected = measured(target, options) and options.tuning is None
    every = options.tune != "off" and not options.deterministic and options.tuning is None
    spare = options.jobs - 1
    with Children() as children, Referee(target.kind) as referee:
        # What cannot be started now is asked for again when it is needed.
        with suppress(ProcessError):
            if target.warm_up is not None:
                children.start(min(spare, _MOST if every else 1), target.compile, target.warm_up)
            if spare > 0 and expected:
                referee.start()
        yield Early(children, referee)
