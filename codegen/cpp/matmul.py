"""The blocked matrix product: panels of B, rows of A, register tiles, the epilogue on each tile while it is hot."""

from __future__ import annotations

from collections.abc import Iterator

from mkwrap.codegen.cpp.indexing import spell_factor
from mkwrap.codegen.cpp.matmul_body import Body, buffers_in
from mkwrap.codegen.cpp.matmul_plan import Plan
from mkwrap.codegen.cpp.matmul_problem import COLUMN, problem_of, quotient_up
from mkwrap.codegen.cpp.matmul_source import Pointer, Text, declare_sizes, headers, pointers, source_of, team
from mkwrap.codegen.cpp.matmul_stage import (
    address,
    constant_batches,
    constant_packing,
    plain_load,
    sweep,
    write_stage_a,
    write_stage_b,
)
from mkwrap.codegen.cpp.matmul_tiles import lanes
from mkwrap.codegen.cpp.matmul_variants import SERIAL, SHARED, Layout, applied, choice_of, shared, space
from mkwrap.codegen.cpp.spelling import CTYPES
from mkwrap.codegen.template import Template
from mkwrap.codegen.writer import Writer
from mkwrap.errors import VerifyError
from mkwrap.ir.nodes import Expr
from mkwrap.stages import BufferArgument, Device, Kernel, Source, Variant

_CONSTANT_B = "packed_b"


def render(kernel: Kernel, variant: Variant, device: Device) -> Source:
    """Write a kernel that `space` has accepted; raises `VerifyError` for another."""
    problem = problem_of(kernel)
    if problem is None:
        raise VerifyError(f"kernel {kernel.name} is no matrix product")
    choice = choice_of(variant.params)
    least = SERIAL if choice.blocking.threads > 1 else SHARED
    choice = shared(applied(choice, problem, kernel), problem, device)
    plan = Plan(kernel, problem, choice, lanes(problem, device), least)
    writer = Writer("  ")
    if plan.packs_a:
        write_stage_a(writer, plan)
    if plan.packs_b or plan.pads_b:
        write_stage_b(writer, plan)
    _write_finish(writer, plan)
    _write_multiply(writer, plan)
    body = (*problem.a.body, *problem.b.body, *problem.epilogue)
    includes = headers(body, ("gemm.h", "simd.h"))
    text = Text(device.vector_bytes, includes, _members(plan), problem.sizes, writer.text(), _entry(plan))
    return source_of(kernel, variant, text, plan.workspace_bytes)


def _members(plan: Plan) -> tuple[Pointer, ...]:
    problem = plan.problem
    names = [*buffers_in(problem.a.body), *buffers_in(problem.epilogue)]
    if plan.choice.b is not Layout.CONSTANT:
        return pointers(plan.kernel, [*names, *buffers_in(problem.b.body)])
    load = plain_load(problem.b)
    number = next(n for n, p in enumerate(plan.kernel.parameters) if p.buffer.name == load.buffer)
    packed = Pointer(_CONSTANT_B, problem.dtype, False, BufferArgument(number, constant_packing(plan)))
    return (*pointers(plan.kernel, names), packed)


def _write_finish(writer: Writer, plan: Plan) -> None:
    """Write finish: the epilogue of one tile, whose sums lie row by row at `sums`."""
    problem, width = plan.problem, plan.width
    ctype = CTYPES[problem.dtype]
    writer.line("MKW_INLINE void finish(const Pointers& arg, int64_t batch, int64_t first_row, int64_t rows,")
    head = f"                       int64_t first_column, int64_t columns, const {ctype}* sums)"
    with writer.block(head), declare_sizes(writer, problem.sizes), writer.block("for (int64_t r = 0; r < rows; ++r)"):
        writer.line("const int64_t row = first_row + r;")
        with sweep(writer, width, problem.n, "columns", "c"):
            writer.line("const int64_t column = first_column + c;")
            result = problem.roles.result
            source = f"sums + r * {plan.columns} + c"
            writer.line(f"const auto {result} = mkw::load(mkw::Full<{width}>{{}}, {source});")
            body = Body(writer, problem.ranges, COLUMN, width)
            body.give(result, problem.dtype)
            body.emit(problem.epilogue)
    writer.line()


def _write_multiply(writer: Writer, plan: Plan) -> None:
    """Write multiply: a part of the tiles of one batch, panel by panel."""
    ctype = CTYPES[plan.problem.dtype]
    params = ["const Pointers& arg, int64_t batch", "int64_t tile_begin, int64_t tile_end"]
    params += ["int64_t panel_begin, int64_t panel_end"]
    params += [f"const {ctype}* packed_a"] * plan.packs_a + [f"const {ctype}* packed_b"] * plan.packs_b
    params += [f"{ctype}* sums"] * plan.cuts_depth + [f"{ctype}* padded"] * plan.pads_b
    panels = "for (int64_t panel = panel_begin; panel < panel_end; ++panel)"
    head = writer.block(f"void multiply({', '.join(params)})")
    with head, declare_sizes(writer, plan.problem.sizes), writer.block(panels):
        writer.line(f"const int64_t column = panel * {plan.columns};")
        writer.line(f"const int64_t columns = mkw::smaller({plan.columns}, {spell_factor(plan.problem.n)} - column);")
        _write_panel(writer, plan)
        if plan.cuts_depth:
            _cut_depth(writer, plan)
        else:
            with writer.block("for (int64_t tile = tile_begin; tile < tile_end; ++tile)"):
                writer.line(f"alignas(64) {ctype} sums[{plan.cut.rows * plan.columns}];")
                _write_rows(writer, plan)
                _write_tile(writer, plan, "", f"b, {_ldb(plan)}, {spell_factor(plan.problem.k)}, sums, false")
                writer.line("finish(arg, batch, first, rows, column, columns, sums);")
    writer.line()


def _write_panel(writer: Writer, plan: Plan) -> None:
    """Write where the panel is, and how far apart its rows are."""
    ctype = CTYPES[plan.problem.dtype]
    if not plan.pads_b:
        writer.line(f"const {ctype}* const b = {_panel_address(plan)};")
        return
    writer.line(f"const bool whole = columns == {plan.columns};")
    writer.line("if (!whole) stage_b(arg, batch, panel, padded);")
    writer.line(f"const {ctype}* const b = whole ? {_panel_address(plan)} : padded;")
    writer.line(f"const int64_t ldb = whole ? {spell_factor(plan.problem.b.depth)} : {plan.columns};")


def _cut_depth(writer: Writer, plan: Plan) -> None:
    """Write the products of one panel in parts of the depth, so that each part of the panel stays in the cache."""
    k, depth = spell_factor(plan.problem.k), plan.cut.depth
    size = plan.cut.rows * plan.columns
    # Of no depth at all, the sums are 0.
    more = f"start < {k}" if plan.problem.k.is_Integer else f"start == 0 || start < {k}"
    tiles = "for (int64_t tile = tile_begin; tile < tile_end; ++tile)"
    with writer.block(f"for (int64_t start = 0; {more}; start += {depth})"):
        writer.line(f"const int64_t count = mkw::smaller({depth}, {k} - start);")
        with writer.block(tiles):
            part = f"b + start * {_ldb(plan)}, {_ldb(plan)}, count, sums + (tile - tile_begin) * {size}, start > 0"
            step = _step_a(plan)
            _write_rows(writer, plan, counted=plan.fits or not plan.whole_rows)
            _write_tile(writer, plan, " + start" if step == "1" else f" + start * {step}", part)
    with writer.block(tiles):
        _write_rows(writer, plan)
        writer.line(f"finish(arg, batch, first, rows, column, columns, sums + (tile - tile_begin) * {size});")


def _write_rows(writer: Writer, plan: Plan, counted: bool = True) -> None:
    writer.line(f"const int64_t first = tile * {plan.cut.rows};")
    if counted:
        writer.line(f"const int64_t rows = mkw::smaller({plan.cut.rows}, {spell_factor(plan.problem.m)} - first);")


def _write_tile(writer: Writer, plan: Plan, shift: str, rest: str) -> None:
    """Write one call of the microkernel. Rows past the last read the last one again; their sums are never stored."""
    problem, cut = plan.problem, plan.cut
    writer.line(f"const {CTYPES[problem.dtype]}* lines[{cut.rows}];")
    with writer.block(f"for (int r = 0; r < {cut.rows}; ++r)"):
        last = "r" if plan.whole_rows else "mkw::smaller(r, rows - 1)"
        writer.line(f"const int64_t row = first + {last};")
        local = "row" if plan.shared else f"(row - tile_begin * {cut.rows})"
        place = f"packed_a + {local} * {spell_factor(problem.k)}" if plan.packs_a else address(plan, problem.a)
        writer.line(f"lines[r] = {place}{shift};")
    shape = f"{cut.rows}, {cut.vectors}, {plan.width}"
    if plan.fits:
        writer.line(f"mkw::gemm::fitted_tile<{shape}>(rows, columns, lines, {_step_a(plan)}, {rest});")
    else:
        writer.line(f"mkw::gemm::tile<{shape}>(lines, {_step_a(plan)}, {rest});")


def _step_a(plan: Plan) -> str:
    depth = plan.problem.a.depth
    return spell_factor(1 if plan.packs_a or depth is None else depth)


def _ldb(plan: Plan) -> str:
    if plan.pads_b:
        return "ldb"
    depth = plan.problem.b.depth
    return spell_factor(depth if plan.choice.b is Layout.IN_PLACE and depth is not None else plan.columns)


def _panel_address(plan: Plan) -> str:
    size = spell_factor(plan.problem.k * plan.columns)
    if plan.packs_b:
        return f"packed_b + {'panel' if plan.shared else '(panel - panel_begin)'} * {size}"
    if plan.choice.b is Layout.IN_PLACE:
        return address(plan, plan.problem.b)
    panel = f"(batch * {spell_factor(plan.panels)} + panel)" if constant_batches(plan) else "panel"
    return f"arg.{_CONSTANT_B} + {panel} * {size}"


def _entry(plan: Plan) -> str:
    writer = Writer("  ")
    with writer.indented():
        if plan.shared:
            _write_shared(writer, plan)
        else:
            _write_loop(writer, plan, plan.tasks, "task", "parallel for")
            with writer.indented():
                _write_task(writer, plan)
            writer.line("}")
        writer.line("return 0;")
    return writer.text()


def _write_shared(writer: Writer, plan: Plan) -> None:
    """Write packing by all threads, then the products."""
    problem, ctype = plan.problem, CTYPES[plan.problem.dtype]
    if plan.packs_a:
        writer.line(f"{ctype}* const all_a = ({ctype}*)workspace;")
    if plan.packs_b:
        writer.line(f"{ctype}* const all_b = ({ctype}*)(workspace + {spell_factor(plan.a_bytes)});")
    parallel = plan.cut.threads > 1
    if parallel:
        writer.line(f"#pragma omp parallel {_team(plan)}")
    with writer.block(""):
        if plan.packs_a:
            rows, m = plan.width, spell_factor(problem.m)
            chunks = quotient_up(problem.m, rows)
            _write_loop(writer, plan, problem.batch * chunks, "task", "for")
            with writer.indented():
                count = spell_factor(chunks)
                writer.line(f"const int64_t batch = task / {count}, row = task % {count} * {rows};")
                out = f"all_a + (batch * {m} + row) * {spell_factor(problem.k)}"
                writer.line(f"stage_a(arg, batch, row, mkw::smaller({rows}, {m} - row), {out});")
            writer.line("}")
        if plan.packs_b:
            _write_loop(writer, plan, problem.batch * plan.panels, "task", "for")
            with writer.indented():
                _write_scratch(writer, plan)
                out = f"all_b + task * {spell_factor(problem.k * plan.columns)}"
                scratch = ", scratch" if plan.stages_b else ""
                panels = spell_factor(plan.panels)
                writer.line(f"stage_b(arg, task / {panels}, task % {panels}, {out}{scratch});")
            writer.line("}")
        _write_loop(writer, plan, plan.tasks, "task", "for")
        with writer.indented():
            _write_task(writer, plan)
        writer.line("}")


def _team(plan: Plan) -> str:
    problem = plan.problem
    return team(plan.cut.threads, problem.batch * problem.m * problem.n * problem.k, plan.least)


def _write_loop(writer: Writer, plan: Plan, count: Expr, name: str, directive: str) -> None:
    """Open a loop over tasks, shared among the threads where there are several."""
    if plan.cut.threads > 1:
        threads = f" {_team(plan)}" if directive.startswith("parallel") else ""
        writer.line(f"#pragma omp {directive}{threads} schedule(static)")
    writer.line(f"for (int64_t {name} = 0; {name} < {spell_factor(count)}; ++{name}) {{")


def _write_scratch(writer: Writer, plan: Plan) -> None:
    """Write the pointers into this thread's part of the workspace."""
    ctype = CTYPES[plan.problem.dtype]
    own_a, own_b = (0, 0) if plan.shared else (plan.a_bytes, plan.b_bytes)
    parts = [("scratch", plan.stage_bytes), ("padded", plan.pad_bytes), ("sums", plan.sum_bytes)]
    parts += [("own_a", own_a), ("own_b", own_b)]
    offset = plan.thread_offset
    # A serial kernel has no team: there, the thread's number would be that in the caller's.
    own = f" + mkw::thread_index() * {spell_factor(plan.thread_bytes)}" if plan.cut.threads > 1 else ""
    for name, size in parts:
        if size != 0:
            place = f"workspace + {spell_factor(offset)}{own}"
            writer.line(f"[[maybe_unused]] {ctype}* const {name} = ({ctype}*)({place});")
            offset += size


def _write_task(writer: Writer, plan: Plan) -> None:
    """Write one task: its part of the tiles and panels, packed by itself where packing is not shared."""
    cut = plan.cut
    parts = cut.row_parts * cut.column_parts
    writer.line(f"const int64_t batch = task / {parts};")
    writer.line(f"const int64_t i = task % {parts} / {cut.column_parts}, j = task % {cut.column_parts};")
    ways = (("tile", "i", cut.row_parts, plan.row_tiles), ("panel", "j", cut.column_parts, plan.panels))
    for name, at, count, size in ways:
        total = spell_factor(size)
        begin, end = f"{total} * {at} / {count}", f"{total} * ({at} + 1) / {count}"
        writer.line(f"const int64_t {name}_begin = {begin}, {name}_end = {end};")
    _write_scratch(writer, plan)
    arguments = ["arg, batch, tile_begin, tile_end, panel_begin, panel_end", *_packed(writer, plan)]
    if plan.cuts_depth:
        arguments.append("sums")
    if plan.pads_b:
        arguments.append("padded")
    writer.line(f"multiply({', '.join(arguments)});")


def _packed(writer: Writer, plan: Plan) -> Iterator[str]:
    """Write a task's own packing; yields the packed operands: of the batch where shared, else of the task."""
    problem, cut = plan.problem, plan.cut
    panel = spell_factor(problem.k * plan.columns)
    if plan.packs_a and plan.shared:
        yield f"all_a + batch * {spell_factor(problem.m * problem.k)}"
    elif plan.packs_a:
        writer.line(f"const int64_t row = tile_begin * {cut.rows};")
        count = f"mkw::smaller({spell_factor(problem.m)}, tile_end * {cut.rows}) - row"
        writer.line(f"stage_a(arg, batch, row, {count}, own_a);")
        yield "own_a"
    if plan.packs_b and plan.shared:
        yield f"all_b + batch * {spell_factor(plan.panels * plan.columns * problem.k)}"
    elif plan.packs_b:
        scratch = ", scratch" if plan.stages_b else ""
        with writer.block("for (int64_t panel = panel_begin; panel < panel_end; ++panel)"):
            writer.line(f"stage_b(arg, batch, panel, own_b + (panel - panel_begin) * {panel}{scratch});")
        yield "own_b"


TEMPLATE = Template("matmul", space, render)
"""For float32, float64 and the 16-bit floats."""
