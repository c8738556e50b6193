"""What host code computes once for new sizes: the expressions, the binary of each kernel, the scratch memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mkwrap.codegen.wrapper.checks import write_query
from mkwrap.codegen.wrapper.contents import Contents
from mkwrap.codegen.wrapper.launcher import Layout, input_number, write_checked
from mkwrap.codegen.wrapper.sizes import ARRAY, Values
from mkwrap.codegen.wrapper.tables import guards_of, points_of, rows_of, symbols_of
from mkwrap.codegen.wrapper.text import spell_comment, spell_string
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.nearest import MOST_SYMBOLS
from mkwrap.ir.relations import relation_text
from mkwrap.stages import Guard, Program, Relation


def write_derive_shapes(writer: Writer, program: Program, values: Values) -> None:
    """Write `derive_shapes`: evaluates what the shapes of tensors are, and checks the relations.

    It comes after everything that the checks spell, and stands before it in the text.
    """
    if not program.symbols:
        return
    relations = [_relation(relation, program, values) for relation in program.relations]
    writer.line()
    with writer.block(f"mkw_status derive_shapes([[maybe_unused]] int64_t* {ARRAY}, mkw_error* error)"):
        writer.line("bool wide = false;")
        values.write(writer, len(program.symbols))
        writer.line(f'if (wide) return runtime::too_large(kSizes, {ARRAY}, "a shape does not fit 64 bits", error);')
        writer.lines(relations)
        writer.line("return MKW_OK;")


def _relation(relation: Relation, program: Program, values: Values) -> str:
    left, right = values.spell(relation.left), values.spell(relation.right)
    named = [spec for spec in program.symbols if spec.symbol in (relation.left - relation.right).free_symbols]
    argument = input_number(program, named[0].input_name) if named else -1
    text = spell_string(relation_text(relation))
    failed = f"runtime::unfulfilled(kSizes, {ARRAY}, {argument}, {text}, {spell_string(relation.origin)}, error)"
    return f"if (!({left} {relation.op} {right})) return {failed};"


def write_tables(writer: Writer, contents: Contents) -> None:
    """Write the constant table of each kernel that chooses by size, one per target; open ones are parts."""
    targets = range(len(contents.selections))
    for place, name in enumerate(contents.dispatched):
        closed = [target for target in targets if (name, target) not in contents.open_tables]
        if not closed:
            continue
        writer.line()
        symbols = dict.fromkeys(symbol for target in closed for symbol in symbols_of(contents, name, target))
        writer.line(spell_comment(f"{name} by {', '.join(map(str, symbols))}"))
        entries = dict.fromkeys(targets, "{},")
        for target in closed:
            rows = rows_of(contents, name, target)
            with writer.block(f"constexpr runtime::DispatchRow kRows{place}On{target}[] =", "};"):
                for row in rows:
                    label = contents.kernels[name][row.alternative].binary.source.variant.label
                    said = spell_comment(f"{row.point}: {label}", 60)
                    writer.line(f"{{{row.guards:#x}u, {row.handicap}, {row.alternative}}},  {said}")
            points = points_of(rows)
            first = ", ".join(map(str, points.first))
            writer.line(f"constexpr uint16_t kFirst{place}On{target}[] = {{{first}}};")
            hints = ", ".join(map(str, points.hints))
            writer.line(f"constexpr uint32_t kHints{place}On{target}[] = {{{hints or 0}}};")
            if points.axes:
                axes = ", ".join(map(str, points.axes))
                writer.line(f"constexpr uint16_t kAxes{place}On{target}[] = {{{axes}}};")
            arrays = ", ".join(f"{array}{place}On{target}" for array in ("kRows", "kFirst", "kHints"))
            counts = f"kAxes{place}On{target}" if points.axes else "nullptr"
            entries[target] = f"{{{arrays}, {counts}, {points.count}, {len(rows[0].point)}}},"
        with writer.block(f"constexpr runtime::DispatchTable kTables{place}[] =", "};"):
            writer.lines(entries.values())


def write_size_up(writer: Writer, contents: Contents, layout: Layout, first: int) -> None:
    """Write `size_up`: evaluates the values from number `first` on, elects binaries, and says how much scratch they need.

    It comes after everything that `run` spells, and stands before it in the text.
    """
    program = contents.schedule.program
    if not program.symbols:
        return
    rest = Writer("  ")
    _write_elections(rest, contents, layout.values, layout.parts.tables)
    _write_scratch(rest, contents, layout)
    writer.line()
    arguments = "[[maybe_unused]] const mkw_model& model, runtime::Shape& shape, [[maybe_unused]] mkw_error* error"
    with writer.block(f"mkw_status size_up({arguments})"):
        writer.line(f"[[maybe_unused]] int64_t* const {ARRAY} = shape.values;")
        writer.line("bool wide = false;")
        layout.values.write(writer, first)
        writer.lines(rest.text().splitlines())


def _write_elections(writer: Writer, contents: Contents, values: Values, tables: Mapping[tuple[str, int], int]) -> None:
    """Write the election of each kernel's binary; the logarithm of a size is computed once for all kernels.

    Each target's table has its own sizes and guards. `tables` are the parts that are open ones.
    """
    targets = range(len(contents.selections))
    pairs = [(name, target) for name in contents.dispatched for target in targets]
    symbols = dict.fromkeys(symbol for pair in pairs for symbol in symbols_of(contents, *pair))
    order = [spec.symbol for spec in contents.schedule.program.symbols]
    for symbol in symbols:
        if symbol not in order:
            raise InternalError(f"a table is over the size {symbol}, which no input binds")
        number = order.index(symbol)
        writer.line(f"const uint32_t log{number} = runtime::log2_fixed({ARRAY}[{number}]);")
    for name, target in pairs:
        place = contents.dispatched.index(name)
        with writer.block(f"if (model.target == {target})" if len(targets) > 1 else ""):
            logs = ", ".join(f"log{order.index(symbol)}" for symbol in symbols_of(contents, name, target))
            is_open = (name, target) in contents.open_tables
            # A grid's search takes it that there may be as many.
            room = max(len(symbols), MOST_SYMBOLS)
            writer.line(f"{'' if is_open else 'const '}uint32_t logs[{room}] = {{{logs or 0}}};")
            writer.line("uint64_t holds = 0;")
            for bit, guard in enumerate(guards_of(contents, name, target)):
                writer.line(f"if ({_condition(guard, values)}) holds |= UINT64_C(1) << {bit};")
            table = f"mkw_parts, {tables[name, target]}" if is_open else f"kTables{place}[model.target]"
            writer.line(f"shape.elected[{place}] = runtime::elect({table}, logs, holds);")
            failed = f"runtime::no_binary(kSizes, {ARRAY}, {spell_string(name)}, error)"
            writer.line(f"if (shape.elected[{place}] == runtime::kNoRow) return {failed};")


def _condition(guard: Guard, values: Values) -> str:
    size = values.spell(guard.expr)
    parts = [] if guard.most is None else [f"{size} <= {guard.most}"]
    parts += [] if guard.multiple == 1 else [f"{size} % {guard.multiple} == 0"]
    return " && ".join(parts) or "true"


def _write_scratch(writer: Writer, contents: Contents, layout: Layout) -> None:
    values = layout.values
    arena = values.spell(layout.arena_bytes)
    writer.line("int64_t workspace = 0;")
    for name, sizes in layout.scratch.items():
        if all(size == 0 for size in sizes):
            continue
        if len(sizes) == 1:
            writer.line(f"workspace = runtime::larger(workspace, {values.spell(sizes[0])});")
            continue
        with writer.block(f"switch ({chosen(contents, name, 'model')})"):
            for size in dict.fromkeys(sizes):
                if size != 0:
                    cases = " ".join(f"case {number}:" for number, other in enumerate(sizes) if other == size)
                    writer.line(f"{cases} workspace = runtime::larger(workspace, {values.spell(size)}); break;")
            writer.line("default: break;")
    writer.line(f"shape.arena_bytes = static_cast<uint64_t>({arena});")
    writer.line(f"shape.scratch_bytes = static_cast<uint64_t>(runtime::plus({arena}, workspace, wide));")
    failed = f'runtime::too_large(kSizes, {ARRAY}, "a launch or its memory does not fit 64 bits", error)'
    writer.line(f"if (wide) return {failed};")
    writer.line("shape.known = true;")
    writer.line("return MKW_OK;")


def chosen(contents: Contents, kernel: str, model: str) -> str:
    """Spell the number of the alternative of a kernel that runs; `model` is the expression for the model."""
    if kernel in contents.dispatched:
        return f"shape.elected[{contents.dispatched.index(kernel)}]"
    return f"{model}.choices[{contents.number(kernel)}]"


def write_shape_queries(writer: Writer, contents: Contents) -> None:
    """Write what a library answers of a run before it: `scratch_bytes` and `elected_for`."""
    head = "const mkw_model* model, const mkw_tensor* inputs"
    needed = (
        "static_cast<int64_t>(shape.scratch_bytes)" if contents.schedule.program.symbols else "model->scratch_bytes"
    )
    with _query(writer, contents, f"mkw_status scratch_bytes({head}, int64_t* bytes, mkw_error* error)"):
        writer.line(f"*bytes = {needed};")
    with _query(writer, contents, f"mkw_status elected_for({head}, uint32_t* numbers, mkw_error* error)"):
        for number, name in enumerate(contents.kernels):
            writer.line(f"numbers[{number}] = {chosen(contents, name, '(*model)')};")
        writer.line("static_cast<void>(numbers);")


@contextmanager
def _query(writer: Writer, contents: Contents, head: str) -> Iterator[None]:
    """Write a function around its answer: inputs checked, and for dynamic sizes sized up."""
    writer.line()
    with writer.block(head):
        writer.line("if (model == nullptr) return runtime::null_model(error);")
        write_query(writer, contents.schedule.program)
        if contents.schedule.program.symbols:
            write_checked(writer, "size_up(*model, shape, error)")
        yield
        writer.line("return MKW_OK;")
