"""Writes what brings operands into the shape the microkernel reads: packing at run time, and packing of constants."""

from __future__ import annotations

from contextlib import AbstractContextManager

import sympy

from mkwrap.codegen.cpp.indexing import spell_factor, spell_index
from mkwrap.codegen.cpp.matmul_body import Body
from mkwrap.codegen.cpp.matmul_plan import Plan
from mkwrap.codegen.cpp.matmul_problem import COLUMN, DEPTH, Side, is_multiple
from mkwrap.codegen.cpp.matmul_source import declare_sizes
from mkwrap.codegen.cpp.spelling import CTYPES
from mkwrap.codegen.writer import Writer
from mkwrap.errors import VerifyError
from mkwrap.ir.index import Ranges, axis_symbol, delinearize, simplify
from mkwrap.ir.nodes import Expr, Load
from mkwrap.stages import Packing


def address(plan: Plan, side: Side) -> str:
    """Spell the address of a plain operand at `batch`, its line, and depth 0."""
    load = plain_load(side)
    return f"arg.{load.buffer} + ({spell_index(load.index[0].subs(DEPTH, 0), plan.problem.ranges)})"


def plain_load(side: Side) -> Load:
    """Return the load of an operand that is one."""
    if side.load is None:
        raise VerifyError("an operand is read in place, but is not a plain load")
    return side.load


def sweep(writer: Writer, width: int, total: Expr, end: str, position: str) -> AbstractContextManager[None]:
    """Open a loop of vectors over 0 … end − 1; the last is partial only where `width` does not divide `total`."""
    tail = "false" if is_multiple(total, width) else "true"
    head = f"mkw::sweep<{width}, 1, false, {tail}>(0, {end}, [&](auto lanes, int64_t {position}, auto) MKW_BODY"
    return writer.block(head, "});")


def write_stage_a(writer: Writer, plan: Plan) -> None:
    """Write stage_a: out[r·K + depth] = A[batch, first + r, depth] for r < count."""
    problem, side = plan.problem, plan.problem.a
    ctype = CTYPES[problem.dtype]
    head = f"void stage_a(const Pointers& arg, int64_t batch, int64_t first, int64_t count, {ctype}* out)"
    with writer.block(head), declare_sizes(writer, problem.sizes):
        if plan.plain(side) and side.line == 1:
            writer.line("const int64_t row = first;")
            k = spell_factor(problem.k)
            call = f"{address(plan, side)}, {spell_factor(side.depth)}, count, {k}, {k}, out"
            writer.line(f"mkw::gemm::pack_columns<{plan.width}>({call});")
        else:
            with writer.block("for (int64_t r = 0; r < count; ++r)"):
                writer.line("const int64_t row = first + r;")
                _along_depth(writer, plan, side, "out + r")
    writer.line()


def write_stage_b(writer: Writer, plan: Plan) -> None:
    """Write stage_b: out[depth·NR + c] = B[batch, depth, panel·NR + c], 0 past the last column."""
    problem, side, width = plan.problem, plan.problem.b, plan.columns
    ctype = CTYPES[problem.dtype]
    scratch = f", {ctype}* scratch" if plan.stages_b else ""
    head = f"void stage_b(const Pointers& arg, int64_t batch, int64_t panel, {ctype}* out{scratch})"
    with writer.block(head), declare_sizes(writer, problem.sizes):
        k = spell_factor(problem.k)
        writer.line(f"const int64_t first = panel * {width};")
        writer.line(f"const int64_t columns = mkw::smaller({width}, {spell_factor(problem.n)} - first);")
        sizes = f"{k}, columns, {width}, out"
        if plan.plain(side) and side.line == 1:
            writer.line("const int64_t column = first;")
            writer.line(f"mkw::gemm::pack_rows({address(plan, side)}, {spell_factor(side.depth)}, {sizes});")
        elif plan.plain(side) and side.depth == 1 and side.line is not None:
            writer.line("const int64_t column = first;")
            line = spell_factor(side.line)
            writer.line(f"mkw::gemm::pack_columns<{plan.width}>({address(plan, side)}, {line}, {sizes});")
        elif plan.stages_b:
            with writer.block("for (int64_t c = 0; c < columns; ++c)"):
                writer.line("const int64_t column = first + c;")
                _along_depth(writer, plan, side, "scratch + c")
            writer.line(f"mkw::gemm::pack_columns<{plan.width}>(scratch, {k}, {sizes});")
        else:
            _along_columns(writer, plan, side)
    writer.line()


def _along_depth(writer: Writer, plan: Plan, side: Side, line: str) -> None:
    """Write one line of an operand, vectors along the depth."""
    k, width = spell_factor(plan.problem.k), plan.width
    with sweep(writer, width, plan.problem.k, k, "depth"):
        body = Body(writer, plan.problem.ranges, DEPTH, width)
        body.emit(side.body)
        value = body.value(side.operand.value, plan.problem.dtype)
        writer.line(f"mkw::store(lanes, {line} * {k} + depth, {value});")


def _along_columns(writer: Writer, plan: Plan, side: Side) -> None:
    """Write a panel row by row, vectors along the columns; a panel's rows are whole vectors, so stores need no mask."""
    n, width, columns = plan.problem.n, plan.width, plan.columns
    with writer.block(f"for (int64_t depth = 0; depth < {spell_factor(plan.problem.k)}; ++depth)"):
        with sweep(writer, width, n, "columns", "c"):
            writer.line("const int64_t column = first + c;")
            body = Body(writer, plan.problem.ranges, COLUMN, width)
            body.emit(side.body)
            value = body.value(side.operand.value, plan.problem.dtype)
            writer.line(f"mkw::store(mkw::Full<{width}>{{}}, out + depth * {columns} + c, {value});")
        if not is_multiple(n, columns):
            zeros = f"mkw::store(mkw::Full<{width}>{{}}, out + depth * {columns} + c, mkw::splat<{width}>"
            writer.line(f"for (int64_t c = (columns + {width - 1}) / {width} * {width}; c < {columns}; c += {width})")
            writer.line(f"    {zeros}({CTYPES[plan.problem.dtype]}{{}}));")


def constant_packing(plan: Plan) -> Packing:
    """The layout of a constant B: [batch where it has one,] panel, depth, column of the panel."""
    roles, problem = plan.problem.roles, plan.problem
    load = roles.b.plain_load
    if load is None:
        raise VerifyError("a constant operand is packed, but is not a plain load")
    z, panel, depth, column = (axis_symbol(f"p{number}") for number in range(4))
    batched = constant_batches(plan)
    sizes = ((problem.batch,) if batched else ()) + (plan.panels, problem.k)
    shape = (*(int(size) for size in sizes), plan.columns)
    axes = ((z,) if batched else ()) + (panel, depth, column)
    limits = dict(zip(axes, shape, strict=True))
    ranges: Ranges = {symbol: (sympy.Integer(0), sympy.Integer(size - 1)) for symbol, size in limits.items()}
    places: dict[sympy.Symbol, Expr] = {}
    for group, position in ((roles.batch, z), (roles.n, panel * plan.columns + column), (roles.k, depth)):
        digits = delinearize(position, [axis.extent for axis in group], ranges)
        places.update({axis.symbol: digit for axis, digit in zip(group, digits, strict=True)})
    index = tuple(simplify(expr.subs(places, simultaneous=True), ranges) for expr in load.index)
    return Packing(problem.dtype, shape, axes, index)


def constant_batches(plan: Plan) -> bool:
    """Whether a constant B differs from batch to batch."""
    return any(axis.symbol in plan.problem.roles.b.axes for axis in plan.problem.roles.batch)
