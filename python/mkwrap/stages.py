"""Every value handed from stage to stage up to the choice, in pipeline order; `artifact.py` has the rest. No logic.

capture → lower → fuse → variants → render → recall → build → tune
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from mkwrap.evidence import Hints as Hints  # noqa: PLC0414  a value of the stages, too
from mkwrap.evidence import Key as Key  # noqa: PLC0414  a value of the stages, too
from mkwrap.evidence import Provenance as Provenance  # noqa: PLC0414  a value of the stages, too
from mkwrap.evidence import Tuned as Tuned  # noqa: PLC0414  a value of the stages, too
from mkwrap.evidence import Versions as Versions  # noqa: PLC0414  a value of the stages, too
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Buffer, Expr, Nest
from mkwrap.ir.signature import Guard as Guard  # noqa: PLC0414  a value of the stages, too
from mkwrap.ir.signature import InputSpec as InputSpec  # noqa: PLC0414  a value of the stages, too
from mkwrap.ir.signature import OutputKind as OutputKind  # noqa: PLC0414  a value of the stages, too
from mkwrap.ir.signature import OutputSpec as OutputSpec  # noqa: PLC0414  a value of the stages, too
from mkwrap.ir.signature import Relation as Relation  # noqa: PLC0414  a value of the stages, too
from mkwrap.ir.signature import SymbolSpec as SymbolSpec  # noqa: PLC0414  a value of the stages, too

if TYPE_CHECKING:
    import sympy
    import torch
    from torch.utils._pytree import TreeSpec

Bytes: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CapturedGraph:
    """A functional ATen graph: parameters lifted, mutation and aliasing written down, every op with a lowering.

    `graph_module`'s placeholders are named after inputs or constants; its output node holds, first, the new values of
    the mutated inputs (in the order of `mutations`), then the leaves of the result (Python values stand for themselves).
    """

    graph_module: torch.fx.GraphModule
    inputs: tuple[InputSpec, ...]
    constants: Mapping[str, torch.Tensor]
    """Parameters, module buffers and tensors made from them alone, by placeholder name."""
    mutations: tuple[str, ...]
    """Names of the inputs that the first outputs are written back to."""
    in_spec: TreeSpec
    """Structure of (args, kwargs) as the user passes them."""
    out_spec: TreeSpec
    """Structure of the result."""
    constant_args: Mapping[int, bool | int | float | str | None]
    """Flattened arguments that are not tensors, by position; every call must pass equal ones."""
    samples: Mapping[str, torch.Tensor]
    """The example tensors, by input name."""
    symbols: tuple[SymbolSpec, ...] = ()
    relations: tuple[Relation, ...] = ()
    sizes: Mapping[str, Expr] = field(default_factory=dict)
    """Graph nodes that are numbers made of sizes, by name."""
    layouts: Mapping[str, tuple[Expr, ...]] = field(default_factory=dict)
    """Strides that eager gives the leaves of the result, by graph node; without those that no expression tells."""
    notes: tuple[str, ...] = ()
    """What became of declared dimensions, a line each: those that are constants, ranges that became narrower."""


@dataclass(frozen=True)
class ConstantData:
    """The bytes of a constant buffer, dense in the buffer's strides, little endian."""

    name: str
    data: Bytes


@dataclass(frozen=True)
class Program:
    """Loop nests in topological order; each temporary and output is written by one nest; indices are in bounds.

    A mutated input is written by one nest, after which no nest reads its old value (the writing nest may, at the
    very index it writes).
    """

    buffers: Mapping[str, Buffer]
    nests: tuple[Nest, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    constants: Mapping[str, ConstantData]
    symbols: tuple[SymbolSpec, ...] = ()
    relations: tuple[Relation, ...] = ()
    notes: tuple[str, ...] = ()
    """Of capture, and of what lowering adds to them."""


class Access(Enum):
    """How a kernel uses a parameter."""

    READ = "read"
    WRITE = "write"
    READ_WRITE = "read-write"


@dataclass(frozen=True)
class Parameter:
    """One pointer argument of a kernel: the buffer's geometry under the parameter's name (`arg0`, `arg1`, …)."""

    buffer: Buffer
    access: Access
    constant: bool = False
    """Bound to a constant in every step, so its layout may be changed at compile time (see `Packing`)."""


@dataclass(frozen=True)
class Kernel:
    """What one variant implements: a nest over parameters. Steps that do the same work share one kernel."""

    name: str
    nest: Nest
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Step:
    """One use of a kernel: the buffer bound to each parameter, and where this use comes from."""

    kernel: str
    buffers: tuple[str, ...]
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """Ordered steps over distinct kernels, with the arena planned.

    `placements` maps each temporary to its byte offset in the arena (a multiple of 64); buffers whose live ranges overlap
    share no bytes, except an input of a step that dies there and that the step overwrites in place element for element.
    """

    program: Program
    kernels: Mapping[str, Kernel]
    steps: tuple[Step, ...]
    placements: Mapping[str, Expr]
    arena_bytes: Expr


# ── variants ───────────────────────────────────────────────────────────────────────────────────────────────────────────

Params: TypeAlias = tuple[tuple[str, int | str | bool], ...]


@dataclass(frozen=True)
class Variant:
    """kernel × template × params; no text."""

    kernel: str
    template: str
    params: Params = ()

    @property
    def label(self) -> str:
        """Return `template[key=value,…]`: how reports print it and `Options.force` names it."""
        inner = ",".join(f"{key}={value}" for key, value in self.params)
        return f"{self.template}[{inner}]" if inner else self.template


@dataclass(frozen=True)
class Device:
    """What a variant is written for. Sizes in bytes."""

    kind: str
    """"cpu" or "cuda"."""
    arch: str
    """"x86-64-v3", "x86-64-v4", "aarch64", "sm_90", …"""
    vector_bytes: int = 0
    units: int = 1
    """Streaming multiprocessors, or CPU threads."""
    shared_bytes: int = 0
    """Shared memory a block may ask for (CUDA)."""
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 1024 * 1024
    l3_bytes: int = 32 * 1024 * 1024
    name: str = ""
    """The device as its driver or kernel names it."""
    driver: str = ""
    """CUDA: the version of the driver."""


Point: TypeAlias = tuple[int, ...]
"""Values of a kernel's symbols, in the order of their names; () for a static kernel."""


@dataclass(frozen=True)
class Candidates:
    """The open choice: at least one variant per kernel; the first is the safe default."""

    schedule: Schedule
    variants: Mapping[str, tuple[Variant, ...]]
    points: Mapping[str, Mapping[Point, tuple[Variant, ...]]] = field(default_factory=dict)
    """Of each kernel with dynamic sizes: the points it is tuned at, and the variants worth trying there."""
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True)
class Packing:
    """A compile-time layout of a constant: element [p0, p1, …] of the packed array is source[index], 0 outside the source.

    `axes` are the symbols p0, p1, …; `index` has one expression per source dimension, and may run past its extent.
    """

    dtype: DType
    shape: tuple[int, ...]
    axes: tuple[sympy.Symbol, ...]
    index: tuple[Expr, ...]


@dataclass(frozen=True)
class BufferArgument:
    """A pointer to parameter number `parameter`, or to its packed copy."""

    parameter: int
    packing: Packing | None = None


@dataclass(frozen=True)
class WorkspaceArgument:
    """A pointer `offset` bytes into this variant's workspace."""

    offset: Expr | int = 0


@dataclass(frozen=True)
class SizeArgument:
    """A run-time size, int64 or int32."""

    expr: Expr
    dtype: DType = DType.INT64


@dataclass(frozen=True)
class FaultArgument:
    """A pointer to an int32 that the kernel sets to 1 where it meets an index out of range, and never else writes (CUDA)."""


Argument: TypeAlias = BufferArgument | WorkspaceArgument | SizeArgument | FaultArgument


@dataclass(frozen=True)
class Launch:
    """One kernel call. CUDA: `grid` in blocks; CPU: a plain call, grid unused."""

    entry: str
    args: tuple[Argument, ...]
    grid: tuple[Expr | int, Expr | int, Expr | int] = (1, 1, 1)
    options: Mapping[str, int | bool] = field(default_factory=dict)
    """Compiler settings of this launch (Triton: num_warps, num_stages), sorted by name."""
    signature: tuple[tuple[str, str], ...] = ()
    """Triton: per argument its name and type (`*fp32`, `i32`), in order."""
    divisible_by_16: tuple[int, ...] = ()
    """Triton: arguments whose address or value is a multiple of 16."""


@dataclass(frozen=True)
class Source:
    """One variant as text. Equal variant, kernel and device give equal text."""

    variant: Variant
    language: str
    """"cpp" or "triton"."""
    text: str
    launches: tuple[Launch, ...]
    workspace_bytes: Expr | int = 0
    zero_workspace: bool = False
    """The workspace must be all zero before every run of the kernel."""
    guards: tuple[Guard, ...] = ()
    """What dynamic sizes must fulfil for this text to be right; none hold it back where sizes are in their ranges."""


@dataclass(frozen=True)
class Image:
    """Compiled bytes of one launch: an object file (CPU) or a cubin (CUDA), and what its compiler said of it."""

    entry: str
    blob: bytes
    digest: str
    """sha256 of blob, hexadecimal."""
    threads: int = 1
    """Threads per block (CUDA)."""
    shared_bytes: int = 0
    registers: int = 0
    spilled_bytes: int = 0
    global_scratch_bytes: int = 0
    global_scratch_alignment: int = 1


@dataclass(frozen=True)
class Binary:
    """The images of a source. A CPU source has one image for all its launches, a CUDA source one per launch."""

    source: Source
    images: tuple[Image, ...]


@dataclass(frozen=True)
class Rejected:
    """A variant that is out of the race, and why."""

    variant: Variant
    reason: str
    transient: bool = False
    """The reason may be gone another time (a compiler ran out of time or memory): no choice without it is kept."""


@dataclass(frozen=True, kw_only=True)
class Pruned(Rejected):
    """A variant that is not built because others promise to be faster; it is built after all if all of those are rejected."""

    source: Source
    rivals: tuple[Variant, ...]
    """The variants that rule it out, at least one."""


@dataclass(frozen=True)
class Timing:
    """What was measured of one variant, in microseconds."""

    variant: Variant
    median_us: float
    spread_us: float
    """Half the distance between the quartiles."""
    runs: int
    """Rounds behind the median."""


@dataclass(frozen=True)
class DispatchRow:
    """A binary and the point it was elected at.

    `handicap`, in 2⁻¹⁶ doublings, is added to its distance: what stands in for a faster binary whose guards may fail does so
    only where no better row is near.
    """

    point: Point
    binary: Binary
    handicap: int = 0


@dataclass(frozen=True)
class Dispatch:
    """From sizes to binaries: the nearest row whose binary's guards hold runs (`ir/nearest.py` has the rule).

    A static kernel, and one that a single binary without guards serves everywhere, has one row and no symbols. For sizes in
    their ranges there is always a row whose guards hold.
    """

    rows: tuple[DispatchRow, ...]
    symbols: tuple[sympy.Symbol, ...] = ()
    """What points are values of, in the order of their names."""
    left_out: int = 0
    """Rows that a library's table has no room for."""

    @property
    def only(self) -> Binary:
        """Return the binary of a kernel without dispatch."""
        return self.rows[0].binary


@dataclass(frozen=True)
class PointChoice:
    """The choice at one point of a kernel with dynamic sizes, and its evidence."""

    at: Mapping[str, int]
    """Name of each of the kernel's symbols → size."""
    winner: Variant
    reason: str
    timings: tuple[Timing, ...] = ()
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The closed choice: winners right within tolerance; the bytes timed are the bytes shipped."""

    schedule: Schedule
    winners: Mapping[str, Dispatch]
    timings: Mapping[str, tuple[Timing, ...]]
    rejected: Mapping[str, tuple[Rejected, ...]]
    reasons: Mapping[str, str]
    """Per kernel: why the winner won ("measured", "within noise of the default", "forced", "not measured: …")."""
    keys: Mapping[str, Key] = field(default_factory=dict)
    """Per kernel: what its rows in a tuning record are found by."""
    tuned: Mapping[str, Tuned] = field(default_factory=dict)
    """Per kernel that was measured, by this compile or an earlier one: what the record says beyond times."""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    """Per kernel; no part of the library, which is the same whoever measured."""
    points: Mapping[str, tuple[PointChoice, ...]] = field(default_factory=dict)
    """Of each kernel with dynamic sizes: the choice at each of its points, of which its dispatch is made."""
    hints: Hints = field(default_factory=Hints)
