"""What a measuring process is told and what it answers: plain values, no expressions, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from mkwrap.ir.dtypes import DType

POISON = 0xFF


class Fill(Enum):
    """What a memory holds before a run."""

    NORMAL = "floats from the normal distribution N(0, 1)"
    UNIFORM = "integers in low … high − 1, bools at random"
    POISON = "bytes `POISON`: NaN in floats, so that an element nobody writes shows"
    GIVEN = "the bytes of `given`, repeated to the end"


@dataclass(frozen=True)
class Accuracy:
    """How far the results of right variants may lie apart."""

    precision: DType
    """The coarsest float type that values pass through on their way to the result."""
    slack: float = 1.0
    """Factor on the tolerance: grows with the length of the sums that values come from."""
    jumps: bool = False
    """A jump (rounding, comparison, cast to integer) of computed floats is on the way: a few elements may differ."""


@dataclass(frozen=True)
class Memory:
    """One pointer argument's memory: `elements` of dtype, flat from the first to the last that is addressed."""

    dtype: DType
    elements: int
    fill: Fill
    low: int = 0
    high: int = 1
    given: bytes = b""
    written: bool = False
    """Whether the kernel writes it: it is restored before, and compared after a run that is checked."""
    accuracy: Accuracy | None = None
    """Of what is written; None: exact."""
    cold: bool = False
    """Whether a model's kernel finds it out of the cache."""

    @property
    def nbytes(self) -> int:
        """Bytes of the memory."""
        return self.elements * self.dtype.itemsize

    @property
    def changed(self) -> bool:
        """Whether a run changes what the next one reads: read and written."""
        return self.written and self.fill is not Fill.POISON

    @property
    def rotated(self) -> bool:
        """Whether timing rotates over copies of it: cold ones, except those whose start would be restored in every copy."""
        return self.cold and not self.changed


@dataclass(frozen=True)
class MemoryArgument:
    """The address of memory number `memory`."""

    memory: int


@dataclass(frozen=True)
class ScratchArgument:
    """An address `offset` bytes into the candidate's workspace."""

    offset: int


@dataclass(frozen=True)
class NumberArgument:
    """A run-time size."""

    value: int
    type: Literal["i32", "i64"]


@dataclass(frozen=True)
class FaultArgument:
    """The address of the word that a kernel reports an index out of range in (CUDA)."""


Argument: TypeAlias = MemoryArgument | ScratchArgument | NumberArgument | FaultArgument


@dataclass(frozen=True)
class Call:
    """One launch of a candidate. `image` is the path of a shared object (CPU) or the bytes of a cubin (CUDA)."""

    entry: str
    image: str | bytes
    args: tuple[Argument, ...]
    grid: tuple[int, int, int] = (1, 1, 1)
    threads: int = 1
    shared_bytes: int = 0
    global_scratch_bytes: int = 0
    offset: int = 0
    """CPU: bytes from the code of `entry` to the candidate's own, which the object does not export."""


@dataclass(frozen=True)
class Candidate:
    """One variant, ready to run: its launches in order and its workspace."""

    calls: tuple[Call, ...]
    workspace_bytes: int = 0
    zero_workspace: bool = False


@dataclass(frozen=True)
class Limits:
    """How long to measure. Seconds, unless it says microseconds."""

    budget: float
    """No round of measuring begins later than this after the first; every right candidate has one sample at least."""
    rounds: int
    """Rounds to come to a median; more, within the budget, where they are disturbed."""
    batch_us: float
    """A sample is the best of some batches, each a mean over about so many microseconds."""
    hang: float = 20.0
    """A candidate that takes longer for a few runs is given up."""
    drop: float = 1.5
    """A candidate slower than this times the best after the first round is not measured further."""
    check: float = 60.0
    """After this only as many candidates are checked as it takes to have two that are right."""


@dataclass(frozen=True)
class Contest:
    """One kernel's candidates over common memories; `expected`: the right bytes of each written memory, if known."""

    kind: Literal["cpu", "cuda"]
    memories: tuple[Memory, ...]
    candidates: tuple[Candidate, ...]
    limits: Limits
    expected: tuple[bytes, ...] | None = None
    cache_bytes: int = 0
    """Size of the device's last cache."""


@dataclass(frozen=True)
class Prepare:
    """A word before the first contest: open what the device needs, which takes a moment."""

    kind: Literal["cpu", "cuda"]


OUT_OF_RANGE = "an index was out of range"
"""The fault of a candidate whose bounds check failed on the contest's inputs."""


@dataclass(frozen=True)
class At:
    """Candidate `number` is about to run; −1: several in turn. The process is silent for at most `limit` seconds."""

    number: int
    limit: float


@dataclass(frozen=True)
class Fault:
    """Candidate `number` is out of the race, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Samples:
    """Microseconds per run of candidate `number`, one per round so far."""

    number: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class Done:
    """The contest is over; `remark` says what memory was short for, where that is why nothing was measured."""

    remark: str = ""


Answer: TypeAlias = At | Fault | Samples | Done
