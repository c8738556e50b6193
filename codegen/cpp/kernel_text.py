"""The frame of every generated C++ kernel: header, arguments, units of work, threads, entry."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sympy

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.indexing import spell_index, variable
from mkwrap.codegen.cpp.spelling import CTYPES, header
from mkwrap.codegen.parameters import size_symbols
from mkwrap.codegen.writer import Writer
from mkwrap.ir.analysis import scans, sorts
from mkwrap.ir.nodes import Compute, Expr, Load, Nest, Reduce, Store
from mkwrap.stages import (
    Argument,
    BufferArgument,
    Device,
    Guard,
    Kernel,
    Launch,
    SizeArgument,
    Source,
    Variant,
    WorkspaceArgument,
)

LANGUAGE_NAME = "cpp"
_ENTRY = "entry"

Body = Callable[[Writer], None]


@dataclass(frozen=True)
class Frame:
    """What surrounds a kernel's body.

    The body is a function over units `first` … `last` − 1; threads share `units`. With `collective`, every thread runs all
    units together with the others (the body divides the work by `thread` and `threads` and puts up barriers).
    `streaming`: the body has streaming stores, which are ordered before the kernel's end.
    """

    kernel: Kernel
    variant: Variant
    device: Device
    nest: Nest
    units: Expr
    team: estimate.Team = estimate.Team(1)  # noqa: RUF009  frozen
    collective: bool = False
    workspace_bytes: Expr | int = 0
    streaming: bool = False
    guards: tuple[Guard, ...] = ()
    """What the nest takes for granted about dynamic sizes."""
    derived: tuple[tuple[str, str], ...] = ()
    """Names and text of what else `units` and the body take for constants."""

    def source(self, body: Body) -> Source:
        """Write the whole file around the body."""
        inner = self._inner(body)
        writer = Writer(indent="  ")
        self._write_entry(writer, _ENTRY)
        # The comment is left out: a kernel stays the same when lines move in the user's file.
        code = "\n".join((self._includes(), inner, writer.text()))
        entry = f"mkw_{self.variant.template}_{hashlib.sha256(code.encode()).hexdigest()[:12]}"
        writer = Writer(indent="  ")
        self._write_entry(writer, entry)
        text = "\n".join((self._comment() + self._includes(), inner, writer.text()))
        launches = (Launch(entry, self.arguments()),)
        return Source(self.variant, LANGUAGE_NAME, text, launches, self.workspace_bytes, guards=self.guards)

    def arguments(self) -> tuple[Argument, ...]:
        """Return the launch's arguments: the buffers the nest touches, the workspace if any, the sizes."""
        result: list[Argument] = [BufferArgument(k) for k in self._used_parameters()]
        if self.workspace_bytes != 0:
            result.append(WorkspaceArgument())
        result.extend(SizeArgument(symbol) for symbol in self._sizes())
        return tuple(result)

    # ── pieces ──

    def _comment(self) -> str:
        lines = [f"// {self.kernel.name}: {self.variant.label}"]
        for origin in self.nest.origins:
            lines.append(f"// {origin.op} at {_one_line(origin.location)}")
        return "\n".join(lines) + "\n"

    def _includes(self) -> str:
        lines = [f"#define MKW_VECTOR_BYTES {self.device.vector_bytes}"]
        lines.extend(f"#include <mkwrap/{name}>" for name in headers(self.nest))
        return "\n".join(lines) + "\n"

    def _inner(self, body: Body) -> str:
        writer = Writer(indent="  ")
        writer.line("namespace {")
        writer.line()
        with writer.block(f"int32_t run({_PARAMETERS}int64_t first, int64_t last)"):
            self._write_arguments(writer)
            writer.line("int32_t failed = 0;")
            body(writer)
            if self.streaming:
                writer.line("mkw::end_streaming();")
            writer.line("return failed;")
        writer.line()
        writer.line("}  // namespace")
        return writer.text()

    def _write_arguments(self, writer: Writer) -> None:
        stored = {i.buffer for i in self.nest.body if isinstance(i, Store)}
        position = 0
        for k in self._used_parameters():
            buffer = self.kernel.parameters[k].buffer
            ctype = CTYPES[buffer.dtype] if buffer.name in stored else f"const {CTYPES[buffer.dtype]}"
            writer.line(f"{ctype}* const {buffer.name} = ({ctype}*)args[{position}];")
            position += 1
        if self.workspace_bytes != 0:
            writer.line(f"char* const workspace = (char*)args[{position}];")
        for k, symbol in enumerate(self._sizes()):
            writer.line(f"[[maybe_unused]] const int64_t {variable(symbol)} = sizes[{k}];")
        self._write_derived(writer)

    def _write_derived(self, writer: Writer) -> None:
        writer.lines(f"[[maybe_unused]] const int64_t {name} = {text};" for name, text in self.derived)

    def _write_entry(self, writer: Writer, entry: str) -> None:
        units = self._units_text()
        signature = f"int32_t {entry}(void* const* args, const int64_t* sizes)"
        with writer.block(f'extern "C" __attribute__((visibility("default"))) {signature}'):
            for k, symbol in enumerate(self._sizes()):
                writer.line(f"[[maybe_unused]] const int64_t {variable(symbol)} = sizes[{k}];")
            self._write_derived(writer)
            if self.team.threads == 1:
                writer.line(f"return run(args, sizes, 0, {units});")
                return
            enough = self.team.condition
            # With room of its own, a thread's number must be that in this kernel's team.
            alone = bool(enough) and not self.collective and self.workspace_bytes == 0
            if alone:
                writer.line(f"if (!({enough})) return run(args, sizes, 0, {units});")
            clause = f" if ({enough})" if enough and not alone else ""
            writer.line("int32_t failed = 0;")
            writer.line(f"#pragma omp parallel num_threads({self.team.threads}){clause} reduction(| : failed)")
            with writer.block(""):
                if self.collective:
                    writer.line(f"failed |= run(args, sizes, 0, {units});")
                else:
                    writer.line(
                        f"const mkw::Share part = mkw::share({units}, 1, mkw::thread_index(), mkw::thread_count());"
                    )
                    writer.line("failed |= run(args, sizes, part.begin, part.end);")
            writer.line("return failed;")

    def _units_text(self) -> str:
        return spell_index(self.units, {})

    def _used_parameters(self) -> tuple[int, ...]:
        used = {i.buffer for i in self.nest.body if isinstance(i, Load | Store)}
        return tuple(k for k, parameter in enumerate(self.kernel.parameters) if parameter.buffer.name in used)

    def _sizes(self) -> tuple[sympy.Symbol, ...]:
        used = {i.buffer for i in self.nest.body if isinstance(i, Load | Store)}
        return size_symbols(self.nest, [p.buffer for p in self.kernel.parameters if p.buffer.name in used])


_PARAMETERS = "void* const* args, [[maybe_unused]] const int64_t* sizes, "


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip("\\")


def headers(nest: Nest) -> tuple[str, ...]:
    """Return the headers a nest's text needs, fewest that suffice."""
    names = {"simd.h", "simd_loops.h"}
    combines = [scan.combine.body for scan in scans(nest) if scan.combine is not None]
    names.update(header(i.op) for i in itertools.chain(nest.body, *combines) if isinstance(i, Compute))
    names.update("simd_scan_log.h" if scan.op == "logaddexp" else "simd_scan.h" for scan in scans(nest))
    if sorts(nest):
        names.add("simd_sort.h")
    if any(isinstance(i, Reduce) for i in nest.body):
        names.add("simd_reduce.h")
    return tuple(sorted(names))


@contextmanager
def each_unit(writer: Writer, parts: Sequence[tuple[str, Expr]]) -> Iterator[None]:
    """Open the loop over units, row-major over `parts` (variable, extent), outermost first.

    By numbers a unit is divided each time; a dynamic size costs a division, so that coordinates are counted instead.
    """
    counted = [(name, extent) for name, extent in parts if extent != 1]
    if not any(extent.free_symbols for _, extent in counted[1:]):
        with writer.block("for (int64_t unit = first; unit < last; ++unit)"):
            _write_unit(writer, parts)
            yield
        return
    writer.line("if (first >= last) return failed;")
    rest = "first"
    for name, extent in reversed(counted[1:]):
        size = spell_index(extent, {})
        writer.line(f"int64_t {name}_at = {rest} % ({size}), {name}_rest = {rest} / ({size});")
        rest = f"{name}_rest"
    writer.line(f"int64_t {counted[0][0]}_at = {rest};")
    with writer.block("for (int64_t unit = first; unit < last; ++unit)"):
        for name, extent in parts:
            writer.line(f"[[maybe_unused]] const int64_t {name} = {'0' if extent == 1 else f'{name}_at'};")
        yield
        for name, extent in reversed(counted[1:]):
            writer.line(f"if (++{name}_at < {spell_index(extent, {})}) continue;")
            writer.line(f"{name}_at = 0;")
        writer.line(f"++{counted[0][0]}_at;")


def _write_unit(writer: Writer, parts: Sequence[tuple[str, Expr]]) -> None:
    """Write the decoding of `unit`."""
    rest = "unit"
    for k in range(len(parts) - 1, 0, -1):
        name, extent = parts[k]
        if extent == 1:
            writer.line(f"const int64_t {name} = 0;")
            continue
        size = spell_index(extent, {})
        if all(other == 1 for _, other in parts[:k]):
            writer.line(f"const int64_t {name} = {rest};")
            rest = "0"
            continue
        writer.line(f"const int64_t {name} = {rest} % ({size});")
        writer.line(f"const int64_t rest{k} = {rest} / ({size});")
        rest = f"rest{k}"
    if parts:
        name, extent = parts[0]
        unused = "[[maybe_unused]] " if extent == 1 else ""
        writer.line(f"{unused}const int64_t {name} = {rest};")
