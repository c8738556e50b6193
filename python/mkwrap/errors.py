"""Every exception mkwrap raises: one tree, three kinds of fault.

`UserError`: the user's program or call is at fault; the message says what to change.
`ToolchainError`: a compiler, linker, driver or file system is at fault.
`InternalError`: mkwrap is at fault; please report it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MkwrapError(Exception):
    """Base of all errors raised by mkwrap."""


class UserError(MkwrapError):
    """The user's program, options or call is at fault."""


class ToolchainError(MkwrapError):
    """A compiler, linker, driver or the file system is at fault."""


class InternalError(MkwrapError):
    """A defect in mkwrap itself."""

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}\nThis is a defect in mkwrap, not in your program.")


@dataclass(frozen=True)
class UnsupportedUse:
    """One use of an operation that has no lowering: its name, why, and the user's source line."""

    op: str
    reason: str
    location: str


class UnsupportedOpError(UserError):
    """The graph uses operations mkwrap cannot lower; lists all of them at once with counts and source lines."""

    def __init__(self, uses: Sequence[UnsupportedUse]) -> None:
        self.uses = tuple(uses)
        groups: dict[tuple[str, str], list[str]] = {}
        for use in self.uses:
            groups.setdefault((use.op, use.reason), []).append(use.location)
        lines = [f"{len(groups)} unsupported operation(s):"]
        for (op, reason), locations in groups.items():
            lines.append(f"  {op} ×{len(locations)}: {reason}")
            lines.extend(f"      at {place}" for place in dict.fromkeys(locations))
        super().__init__("\n".join(lines))


class CaptureError(UserError):
    """torch.export could not trace the function; carries its explanation."""


class DynamicShapeError(UserError):
    """A dynamic dimension was asked for where only static shapes are supported."""


class UnsupportedDtypeError(UserError):
    """A tensor has a dtype that mkwrap does not compile."""


class AliasingError(UserError):
    """An input is mutated that overlaps another, or itself, in memory; the result would depend on the order of writes."""


class OptionError(UserError):
    """An option or an environment setting has a value that cannot be used."""


class TuningRecordError(UserError):
    """A tuning record given by the user cannot be read or written; names the file, the line and what is wrong there."""


class MissingTuningError(UserError):
    """`Options.require_tuning` is set and the record has no row for some kernels; lists them with the reason."""


class TargetError(UserError):
    """The target's name is unknown, or this machine cannot run code for it."""


class InputError(UserError, TypeError):
    """A call's argument does not match the compiled signature; names argument, expected and got."""


class SizeError(UserError, ValueError):
    """Dynamic sizes are in their ranges, but what follows from them does not fit 64 bits, or is more than the device takes."""


class GraphCaptureError(UserError, RuntimeError):
    """A call under a CUDA graph's capture needs more scratch memory than there is; make one with such sizes before."""


class IndexRangeError(UserError, IndexError):
    """A data-dependent index (gather, embedding, index) was out of range during a run."""


class WeightsError(UserError, ValueError):
    """Weights were offered to a model of another program, or of other choices of kernels."""


class LibrarySizeError(UserError):
    """The constants of a program are larger than one library can hold."""


class LibraryFormatError(UserError):
    """A file is not a mkwrap library of a version this mkwrap can load, or it is damaged."""


class CompilerError(ToolchainError):
    """The host compiler, linker or Triton failed on generated code; carries its output."""


class ProcessError(ToolchainError):
    """The system refuses a child process, or the file for its messages."""


class NoVariantError(ToolchainError):
    """Every variant of a kernel was rejected; names the kernel and each reason."""


class MeasureError(ToolchainError):
    """An open choice could not be made: measuring failed, whatever the variants."""


class DriverError(ToolchainError):
    """The CUDA driver is missing, or a call to it failed; names the call and its error."""


class ArchitectureError(ToolchainError):
    """A library holds no code for this machine's device; names both architectures."""


class CacheError(ToolchainError):
    """The cache directory, or the file a library is to be written to, cannot be used (not writable, disk full)."""


class VerifyError(InternalError):
    """A stage produced an illegal value; names the stage and the rule."""
