"""The plain matrix product: one sum per element of the result, for every number type and any index; the safe default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sympy

from mkwrap.codegen.cpp import estimate
from mkwrap.codegen.cpp.indexing import AtLeastOne, spell_factor
from mkwrap.codegen.cpp.matmul_body import Body, buffers_in
from mkwrap.codegen.cpp.matmul_problem import COLUMN, DEPTH, Problem, is_multiple, problem_of, quotient_up
from mkwrap.codegen.cpp.matmul_source import Text, declare_sizes, headers, pointers, source_of, team
from mkwrap.codegen.cpp.spelling import CTYPES
from mkwrap.codegen.template import Template
from mkwrap.codegen.writer import Writer
from mkwrap.errors import VerifyError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Device, Kernel, Params, Source, Variant

# Multiply-adds below which threads cannot pay for being started.
_SERIAL = 100_000
# Multiply-adds from which on they do, whatever was faster at the point of a choice.
_SHARED = 500_000
# Multiply-adds above which only one variant is offered.
_LARGE = 4_000_000
# Depth that is summed in one go, as in gemm.h.
_RUN = 256
# Tasks per thread where rows alone give too few.
_TASKS = 4


@dataclass(frozen=True)
class _Form:
    """A variant: which symbol the vectors lie along ("none": scalars), their lanes, and the number of threads.

    Of a dynamic number of multiply-adds there are threads from `least` on.
    """

    problem: Problem
    axis: str
    width: int
    threads: int
    least: int = 0

    @property
    def blocks(self) -> Expr:
        """Parts that the columns are cut into."""
        lines = AtLeastOne(self.problem.batch * self.problem.m)
        wanted = quotient_up(_TASKS * self.threads, lines) if self.threads > 1 else sympy.Integer(1)
        return sympy.Min(wanted, quotient_up(self.problem.n, self.grain))

    @property
    def grain(self) -> int:
        """Columns that stay together."""
        return self.width if self.axis == "column" else 1


def space(kernel: Kernel, device: Device) -> tuple[Params, ...]:
    """Vectors along the columns or the depth where they fit, else none; () where the kernel is no product.

    One variant where the product is large: it is there to be safe, not to be measured beside the blocked ones.
    """
    problem = problem_of(kernel)
    if problem is None or problem.dtype is DType.BOOL:
        return ()
    axes = [axis for axis in ("column", "depth") if _lanes(problem, axis, device) > 1]
    if problem.b.contiguous == DEPTH:
        axes.reverse()
    axes = axes or ["none"]
    counts = (device.units, 1) if problem.products >= _SERIAL and device.units > 1 else (1,)
    found = tuple((("vector", axis), ("threads", count)) for axis in axes for count in counts)
    return found[:1] if problem.products >= _LARGE else found


def _lanes(problem: Problem, axis: str, device: Device) -> int:
    """Lanes of a vector along an axis; 1 where it would not be filled once, and where indices are checked."""
    lanes = device.vector_bytes // problem.dtype.itemsize
    extent = estimate.number(problem.n if axis == "column" else problem.k)
    return lanes if extent >= lanes > 1 and not problem.checks else 1


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write a kernel that `space` has accepted; raises `VerifyError` for another."""
    problem = problem_of(kernel)
    if problem is None:
        raise VerifyError(f"kernel {kernel.name} is no matrix product")
    params = dict(variant.params)
    axis = str(params["vector"])
    width = 1 if axis == "none" else device.vector_bytes // problem.dtype.itemsize
    threads = int(params["threads"])
    dynamic = (problem.batch * problem.m * problem.n * problem.k).free_symbols
    form = _Form(problem, axis, width, threads, _SERIAL)
    if dynamic and threads == 1:
        form = _Form(problem, axis, width, device.units, _SHARED)
    body = (*problem.a.body, *problem.b.body, *problem.epilogue)
    members = pointers(kernel, buffers_in(body))
    empty = problem.batch * problem.m * problem.n == 0
    functions = "" if empty else _functions(form)
    entry = "  return 0;\n" if empty else _entry(form)
    text = Text(device.vector_bytes, headers(body, ("gemm.h", "simd.h")), members, problem.sizes, functions, entry)
    return source_of(kernel, variant, text, 0)


def _functions(form: _Form) -> str:
    writer = Writer("  ")
    checks = form.problem.checks
    head = "(const Pointers& arg, int64_t batch, int64_t row, mkw::Share columns)"
    with writer.block(f"{'int32_t' if checks else 'void'} compute{head}"), declare_sizes(writer, form.problem.sizes):
        if checks:
            writer.line("int32_t failed = 0;")
        _write_columns(writer, form)
        if checks:
            writer.line("return failed;")
    writer.line()
    return writer.text()


def _write_columns(writer: Writer, form: _Form) -> None:
    """Write a part of one row of the result."""
    problem = form.problem
    result, zero = problem.roles.result, f"{CTYPES[problem.dtype]}{{}}"
    if form.axis == "column":
        span = ("columns.begin, columns.end", problem.n)
        with _sweep(writer, f"{form.width}, 1, false", span, "column"):
            _write_sum(writer, form, f"mkw::splat<{form.width}>({zero})")
            writer.line(f"const auto {result} = sum;")
            _epilogue(writer, form)
        return
    with writer.block("for (int64_t column = columns.begin; column < columns.end; ++column)"):
        if form.axis == "depth":
            # Four sums: additions to a single one would wait for each other.
            writer.line(f"mkw::Vec<{CTYPES[problem.dtype]}, {form.width}> sums[4] = {{}};")
            with _sweep(
                writer, f"{form.width}, 4, true", (f"0, {spell_factor(problem.k)}", problem.k), "depth", "which"
            ):
                _accumulate(writer, form, "sums[which]", "mkw::active(lanes)")
            writer.line(f"const {CTYPES[problem.dtype]} {result} = mkw::gemm::total(sums);")
        else:
            _write_sum(writer, form, zero)
            writer.line(f"const {CTYPES[problem.dtype]} {result} = sum;")
        _epilogue(writer, form)


def _write_sum(writer: Writer, form: _Form, zero: str) -> None:
    """Write the sum over the depth; a long one as a sum of sums, so that its error does not grow with its length."""
    depth, k = form.problem.k, spell_factor(form.problem.k)
    writer.line(f"auto sum = {zero};")
    if depth.is_Integer and depth <= _RUN:
        with writer.block(f"for (int64_t depth = 0; depth < {k}; ++depth)"):
            _accumulate(writer, form, "sum")
        return
    with writer.block(f"for (int64_t start = 0; start < {k}; start += {_RUN})"):
        writer.line(f"auto part = {zero};")
        with writer.block(f"for (int64_t depth = start; depth < mkw::smaller(start + {_RUN}, {k}); ++depth)"):
            _accumulate(writer, form, "part")
        writer.line("sum = mkw::add(sum, part);")


@contextmanager
def _sweep(writer: Writer, shape: str, span: tuple[str, Expr], position: str, which: str = "") -> Iterator[None]:
    """Write a loop of vectors; `span` is the range's text and its length."""
    width = int(shape.partition(",")[0])
    tail = "false" if is_multiple(span[1], width) else "true"
    head = f"mkw::sweep<{shape}, {tail}>({span[0]}, [&](auto lanes, int64_t {position}, auto {which}".rstrip()
    with writer.block(f"{head}) MKW_BODY", "});"):
        yield


def _body(writer: Writer, form: _Form, axis: str) -> Body:
    symbol = {"column": COLUMN, "depth": DEPTH}.get(axis)
    return Body(writer, form.problem.ranges, symbol, form.width if symbol is not None else 1)


def _accumulate(writer: Writer, form: _Form, sum_: str, active: str = "") -> None:
    """Write the product of both operands, added to a sum; lanes that are not active keep theirs."""
    problem = form.problem
    body = _body(writer, form, form.axis)
    values = []
    for side in (problem.a, problem.b):
        body.emit(side.body)
        values.append(body.value(side.operand.value, problem.dtype))
    added = f"mkw::gemm::multiply_add({values[0]}, {values[1]}, {sum_})"
    writer.line(f"{sum_} = {f'mkw::where({active}, {added}, {sum_})' if active else added};")


def _epilogue(writer: Writer, form: _Form) -> None:
    body = _body(writer, form, "column" if form.axis == "column" else "none")
    body.give(form.problem.roles.result, form.problem.dtype)
    body.emit(form.problem.epilogue)


def _entry(form: _Form) -> str:
    problem, blocks, m = form.problem, spell_factor(form.blocks), spell_factor(form.problem.m)
    writer = Writer("  ")
    with writer.indented():
        if problem.checks:
            writer.line("int32_t failed = 0;")
        if form.threads > 1:
            reduction = " reduction(|:failed)" if problem.checks else ""
            threads = team(form.threads, problem.batch * problem.m * problem.n * problem.k, form.least)
            writer.line(f"#pragma omp parallel for {threads} schedule(static){reduction}")
        tasks = spell_factor(problem.batch * problem.m * form.blocks)
        with writer.block(f"for (int64_t task = 0; task < {tasks}; ++task)"):
            writer.line(f"const int64_t line = task / {blocks};")
            share = f"mkw::share({spell_factor(problem.n)}, {form.grain}, task % {blocks}, {blocks})"
            call = f"compute(arg, line / {m}, line % {m}, {share});"
            writer.line(f"failed |= {call}" if problem.checks else call)
        writer.line("return failed;" if problem.checks else "return 0;")
    return writer.text()


TEMPLATE = Template("dot", space, render)
"""Any dtype but bool, sizes of zero included, data-dependent indices included."""
