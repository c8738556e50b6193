"""Selections built by hand, with kernels written out: what the wrapper is given, without the compiler above it."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sympy

from mkwrap.codegen.wrapper import Description
from mkwrap.ir.dtypes import DType
from mkwrap.ir.index import contiguous_strides
from mkwrap.ir.nodes import Buffer, Expr, Nest, Role
from mkwrap.stages import (
    Access,
    Argument,
    Binary,
    BufferArgument,
    ConstantData,
    Device,
    Dispatch,
    DispatchRow,
    Guard,
    Image,
    InputSpec,
    Kernel,
    Launch,
    OutputKind,
    OutputSpec,
    Parameter,
    Program,
    Rejected,
    Relation,
    Schedule,
    Selection,
    Source,
    Step,
    SymbolSpec,
    Timing,
    Variant,
)
from mkwrap.toolchain import cxx
from mkwrap.toolchain.headers import include_dir

CPU = Device("cpu", "x86-64-v2", units=2, name="test machine")
HEAD = '#include <stdint.h>\nextern "C" __attribute__((visibility("default"))) int32_t '


def sizes(*values: int | Expr) -> tuple[Expr, ...]:
    """Make size expressions."""
    return tuple(sympy.sympify(value) for value in values)


def cpu_description(features: tuple[str, ...] = ()) -> Description:
    """Describe a CPU library that this machine runs."""
    return Description(CPU, features, "0.0.test", {"in": "flat"})


@dataclass
class Hand:
    """Collects what a selection consists of."""

    buffers: dict[str, Buffer] = field(default_factory=dict)
    inputs: list[InputSpec] = field(default_factory=list)
    outputs: list[OutputSpec] = field(default_factory=list)
    constants: dict[str, ConstantData] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    binaries: dict[str, Binary] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    placements: dict[str, Expr] = field(default_factory=dict)
    arena_bytes: int | Expr = 0
    symbols: tuple[SymbolSpec, ...] = ()
    relations: tuple[Relation, ...] = ()
    tables: dict[str, Dispatch] = field(default_factory=dict)

    def buffer(self, name: str, role: Role, shape: Sequence[int | Expr], dtype: DType = DType.FLOAT32) -> Buffer:
        """Add a row-major buffer."""
        made = Buffer(name, dtype, sizes(*shape), contiguous_strides(sizes(*shape)), role)
        self.buffers[name] = made
        return made

    def input(
        self, name: str, *shape: int | Expr, dtype: DType = DType.FLOAT32, alignment: int = 4, mutated: bool = False
    ) -> None:
        """Add an input."""
        buffer = self.buffer(name, Role.INPUT, shape, dtype)
        path = f"args[{len(self.inputs)}]"
        self.inputs.append(InputSpec(name, path, dtype, buffer.shape, buffer.strides, alignment, mutated))

    def output(self, name: str, *shape: int | Expr, dtype: DType = DType.FLOAT32) -> None:
        """Add an output buffer."""
        buffer = self.buffer(name, Role.OUTPUT, shape, dtype)
        self.outputs.append(OutputSpec(OutputKind.BUFFER, name, dtype, buffer.shape, buffer.strides))

    def temporary(self, name: str, offset: int | Expr, *shape: int | Expr) -> None:
        """Add a temporary at an offset of the arena."""
        self.buffer(name, Role.TEMPORARY, shape)
        self.placements[name] = sympy.sympify(offset)

    def constant(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """Add a constant."""
        self.buffer(name, Role.CONSTANT, values.shape)
        self.constants[name] = ConstantData(name, np.ascontiguousarray(values).reshape(-1).view(np.uint8))

    def kernel(self, name: str, accesses: Sequence[Access], binary: Binary) -> None:
        """Add a kernel whose parameters take any buffer."""
        parameters = tuple(
            Parameter(Buffer(f"arg{k}", DType.FLOAT32, sizes(8), sizes(1), Role.INPUT), access)
            for k, access in enumerate(accesses)
        )
        self.kernels[name] = Kernel(name, Nest(name, (), (), ()), parameters)
        self.binaries[name] = binary

    def table(self, name: str, accesses: Sequence[Access], table: Dispatch) -> None:
        """Add a kernel that chooses its binary by size."""
        self.kernel(name, accesses, table.only)
        self.tables[name] = table

    def step(self, kernel: str, *buffers: str, origin: str = "aten.op (model.py:1: y = f(x))") -> None:
        """Add a use of a kernel."""
        self.steps.append(Step(kernel, buffers, (origin,) if origin else ()))

    def selection(
        self,
        timings: Mapping[str, tuple[Timing, ...]] | None = None,
        rejected: Mapping[str, tuple[Rejected, ...]] | None = None,
    ) -> Selection:
        """Close the choice."""
        program = Program(
            self.buffers, (), tuple(self.inputs), tuple(self.outputs), self.constants, self.symbols, self.relations
        )
        schedule = Schedule(program, self.kernels, tuple(self.steps), self.placements, sympy.sympify(self.arena_bytes))
        winners = {name: Dispatch((DispatchRow((), binary),)) for name, binary in self.binaries.items()} | self.tables
        return Selection(schedule, winners, timings or {}, rejected or {}, dict.fromkeys(winners, "measured"))


def cpu_binary(
    entry: str,
    body: str,
    args: int | Sequence[Argument],
    workspace_bytes: int | Expr = 0,
    *,
    zero_workspace: bool = False,
    guards: tuple[Guard, ...] = (),
) -> Binary:
    """Compile a kernel whose body sees `args` and `sizes`."""
    if isinstance(args, int):
        args = [BufferArgument(k) for k in range(args)]
    text = f"{HEAD}{entry}(void* const* args, const int64_t* sizes) {{ (void)args; (void)sizes;\n{body}\n}}\n"
    launch = Launch(entry, tuple(args))
    source = Source(Variant(entry, "hand"), "cpp", text, (launch,), workspace_bytes, zero_workspace, guards)
    flags = (*cxx.KERNEL_FLAGS, "-O1")
    binary = cxx.compile_source(source, "g++", flags, include_dir())
    assert isinstance(binary, Binary), binary
    return binary


def add_one(count: int, entry: str = "mkw_add_one", addend: float = 1.0) -> Hand:
    """x + 1 over `count` floats."""
    hand = Hand()
    hand.input("x", count)
    hand.output("y", count)
    body = f"""const float* x = (const float*)args[0]; float* y = (float*)args[1];
    for (int64_t i = 0; i < {count}; ++i) y[i] = x[i] + {addend}f;
    return 0;"""
    hand.kernel("add_one", (Access.READ, Access.WRITE), cpu_binary(entry, body, 2))
    hand.step("add_one", "x", "y")
    return hand


PTX = """.version 8.0
.target {arch}
.address_size 64
.visible .entry {entry}({parameters})
{{
  .reg .pred %p<2>;
  .reg .b32 %r<4>;
  .reg .b64 %rd<6>;
  .reg .f32 %f<3>;
  mov.u32 %r1, %tid.x;
  ld.param.u64 %rd1, [p0];
  ld.param.u64 %rd2, [p1];
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd1, %rd3;
  add.s64 %rd5, %rd2, %rd3;
  ld.global.f32 %f1, [%rd4];
  add.f32 %f2, %f1, 0f3F800000;
  st.global.f32 [%rd5], %f2;
  ret;
}}
"""


def cuda_image(entry: str, ptxas: Path, pointers: int = 2, arch: str = "sm_90", **facts: int) -> Image:
    """Assemble a kernel y = x + 1 with `pointers` pointers, then Triton's two scratch pointers."""
    parameters = ", ".join(f".param .u64 p{k}" for k in range(pointers + 2))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(PTX.format(arch=arch, entry=entry, parameters=parameters))
        output = Path(folder) / "kernel.cubin"
        subprocess.run([ptxas, f"-arch={arch}", path, "-o", output], check=True)
        blob = output.read_bytes()
    return Image(entry, blob, hashlib.sha256(blob).hexdigest(), **{"threads": 128, **facts})


def many_steps(count: int) -> Hand:
    """Make x + 1 done `count` times through the arena, with ten kernels in turn."""
    hand = add_one(8)
    hand.temporary("t0", 0, 8)
    hand.temporary("t1", 64, 8)
    hand.arena_bytes = 128
    hand.steps = []
    template = hand.binaries["add_one"]
    for k in range(10):
        entry = f"mkw_add_one_{k}"
        binary = cpu_binary(entry, "return 0;", 2) if k else template
        hand.kernel(f"add_{k}", (Access.READ, Access.WRITE), binary)
    for k in range(count):
        source = "x" if k == 0 else f"t{(k + 1) % 2}"
        target = "y" if k == count - 1 else f"t{k % 2}"
        hand.step(f"add_{k % 10}", source, target, origin=f"aten.add.Tensor (model.py:{k}: y = x + {k})")
    return hand
