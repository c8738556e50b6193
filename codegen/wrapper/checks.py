"""Checks of host code: tables for what is static, straight-line comparisons for dynamic sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mkwrap.codegen.wrapper.launcher import input_number, write_checked
from mkwrap.codegen.wrapper.signature import SIZE_TEXTS, Signature, input_signatures, output_signatures
from mkwrap.codegen.wrapper.sizes import ARRAY, Values, is_static
from mkwrap.codegen.wrapper.text import spell_string
from mkwrap.codegen.writer import Writer
from mkwrap.ir.nodes import Expr
from mkwrap.ir.spelled import spelled
from mkwrap.stages import Program

_ERROR = "mkw_error* error"


def write_checks(writer: Writer, program: Program, values: Values) -> None:
    """Write `check_inputs` and `check_outputs`; with dynamic sizes they call `derive_shapes`.

    With dynamic sizes `check_inputs` takes a shape: it reads the sizes into it, unless it knows them already.
    """
    inputs, outputs = input_signatures(program), output_signatures(program)
    writer.line()
    shape = "runtime::Shape& shape, " if program.symbols else ""
    arguments = f"mkw_device device, const mkw_tensor* inputs, {shape}{_ERROR}"
    with writer.block(f"[[maybe_unused]] mkw_status check_inputs({arguments})"):
        _write_table_check(writer, program, "inputs", len(inputs), 0)
        if program.symbols:
            writer.line(f"[[maybe_unused]] int64_t* const {ARRAY} = shape.values;")
            with writer.block("if (!runtime::same_sizes(kSizes, inputs, shape))"):
                writer.line("shape.known = false;")
                write_checked(writer, f"runtime::bind_sizes(kSizes, inputs, {ARRAY}, error)")
                write_checked(writer, f"derive_shapes({ARRAY}, error)")
        binding = {(input_number(program, spec.input_name), spec.dim) for spec in program.symbols}
        for number, signature in enumerate(inputs):
            dims = [dim for dim in range(len(signature.shape)) if (number, dim) not in binding]
            _write_dynamic(writer, "inputs", number, number, signature, dims, values)
        writer.line("return MKW_OK;")
    writer.line()
    array = f"[[maybe_unused]] const int64_t* {ARRAY}, " if program.symbols else ""
    arguments = f"mkw_device device, const mkw_tensor* inputs, const mkw_tensor* outputs, {array}{_ERROR}"
    with writer.block(f"mkw_status check_outputs({arguments})"):
        _write_table_check(writer, program, "outputs", len(outputs), len(inputs))
        for number, signature in enumerate(outputs):
            dims = list(range(len(signature.shape)))
            _write_dynamic(writer, "outputs", number, len(inputs) + number, signature, dims, values)
        tables = f"inputs, {_table('inputs', len(inputs))}, outputs, {_table('outputs', len(outputs))}"
        writer.line(f"return runtime::check_apart<{len(inputs)}, {len(outputs)}>({tables}, error);")


def write_output_shapes(writer: Writer, program: Program, values: Values, device_type: str) -> None:
    """Write `check_query`, which checks the inputs that a query without a run is given, and two queries.

    `output_shapes` fills in the sizes of the outputs, `bind_symbols` the values of the symbols.
    """
    writer.line()
    shape = "runtime::Shape& shape, " if program.symbols else ""
    with writer.block(f"mkw_status check_query(const mkw_tensor* inputs, {shape}{_ERROR})"):
        ordinal = "inputs != nullptr ? inputs[0].device.id : 0" if program.inputs else "0"
        writer.line(f"const mkw_device device = {{{device_type}, {ordinal}}};")
        writer.line(f"return check_inputs(device, inputs, {'shape, ' if program.symbols else ''}error);")
    writer.line()
    arguments = f"const mkw_tensor* inputs, int64_t* const* shapes, int64_t* const* strides, {_ERROR}"
    with writer.block(f"mkw_status output_shapes({arguments})"):
        write_query(writer, program)
        for array, number, dim, value in _sizes_of(output_signatures(program)):
            writer.line(f"if ({array} != nullptr) {array}[{number}][{dim}] = {values.spell(value)};")
        writer.line("static_cast<void>(shapes);")
        writer.line("static_cast<void>(strides);")
        writer.line("return MKW_OK;")
    writer.line()
    with writer.block(f"mkw_status bind_symbols(const mkw_tensor* inputs, int64_t* values, {_ERROR})"):
        write_query(writer, program)
        writer.lines(f"values[{number}] = {ARRAY}[{number}];" for number in range(len(program.symbols)))
        writer.line("static_cast<void>(values);")
        writer.line("return MKW_OK;")


def write_query(writer: Writer, program: Program) -> None:
    """Write the start of a function that only asks: check the inputs, with a shape of its own for dynamic sizes."""
    if program.symbols:
        writer.line(f"int64_t {ARRAY}[kValueCount] = {{}};")
        writer.line("uint32_t elected[kElectedCount + 1] = {};")
        writer.line(f"runtime::Shape shape = {{{ARRAY}, elected, false, 0, 0}};")
        write_checked(writer, "check_query(inputs, shape, error)")
    else:
        write_checked(writer, "check_query(inputs, error)")


def _write_table_check(writer: Writer, program: Program, array: str, count: int, first: int) -> None:
    texts = f", {SIZE_TEXTS}" if program.symbols else ""
    write_checked(writer, f"runtime::check({array}, {_table(array, count)}, {count}, {first}, device, error{texts})")


def _table(array: str, count: int) -> str:
    return f"k{array.capitalize()}" if count else "nullptr"


def _write_dynamic(
    writer: Writer, array: str, number: int, argument: int, signature: Signature, dims: Sequence[int], values: Values
) -> None:
    """Write the comparisons of a tensor's dynamic sizes, in `dims`, and strides."""
    tensor = f"{array}[{number}]"
    for what, sizes in (("shape", signature.shape), ("strides", signature.strides)):
        for dim, expected in enumerate(sizes):
            if is_static(expected) or (what == "shape" and dim not in dims):
                continue
            got = f"{tensor}.shape[{dim}]" if what == "shape" else f"runtime::stride({tensor}, {dim})"
            ignored = "" if what == "shape" else f" && {tensor}.shape[{dim}] != 1 && !runtime::is_empty({tensor})"
            with writer.block(f"if ({got} != {values.spell(expected)}{ignored})"):
                place = f'k{array.capitalize()}[{number}], {argument}, "{what}", {dim}'
                expression = f"{spell_string(spelled(expected))}, {values.spell(expected)}"
                writer.line(f"return runtime::wrong_extent(kSizes, {ARRAY}, {place}, {expression}, {got}, error);")


def _sizes_of(signatures: Sequence[Signature]) -> Iterator[tuple[str, int, int, Expr]]:
    for number, signature in enumerate(signatures):
        for array, sizes in (("shapes", signature.shape), ("strides", signature.strides)):
            for dim, value in enumerate(sizes):
                yield array, number, dim, value
