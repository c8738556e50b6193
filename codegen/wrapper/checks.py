"""Checks of host code: tables for what is static, straight-line comparisons for dynamic sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mkwrap.codegen.wrapper.launcher import input_number
from mkwrap.codegen.wrapper.signature import Signature, input_signatures, output_signatures, symbols_read
from mkwrap.codegen.wrapper.sizes import is_static, size_name, spell_size
from mkwrap.codegen.writer import Writer
from mkwrap.ir.nodes import Expr
from mkwrap.stages import Program

_ERROR = "mkw_error* error"


def write_checks(writer: Writer, program: Program) -> None:
    """Write `check_inputs` and `check_outputs`."""
    inputs, outputs = input_signatures(program), output_signatures(program)
    writer.line()
    arguments = f"mkw_device device, const mkw_tensor* inputs, {_ERROR}"
    with writer.block(f"[[maybe_unused]] mkw_status check_inputs({arguments})"):
        _write_table_check(writer, "inputs", len(inputs), 0)
        symbols_read(writer, program)
        for spec in program.symbols:
            number, name = input_number(program, spec.input_name), size_name(spec.symbol)
            with writer.block(f"if ({name} < {spec.low} || {name} > {spec.high})"):
                place = f"kInputs[{number}], {number}, {spec.dim}"
                writer.line(f"return runtime::size_out_of_range({place}, {name}, {spec.low}, {spec.high}, error);")
        _write_dynamic(writer, inputs, "inputs", "kInputs", 0)
        writer.line("return MKW_OK;")
    writer.line()
    arguments = f"mkw_device device, const mkw_tensor* inputs, const mkw_tensor* outputs, {_ERROR}"
    with writer.block(f"mkw_status check_outputs({arguments})"):
        _write_table_check(writer, "outputs", len(outputs), len(inputs))
        symbols_read(writer, program)
        _write_dynamic(writer, outputs, "outputs", "kOutputs", len(inputs))
        tables = f"inputs, {_table('inputs', len(inputs))}, outputs, {_table('outputs', len(outputs))}"
        writer.line(f"return runtime::check_apart<{len(inputs)}, {len(outputs)}>({tables}, error);")


def write_output_shapes(writer: Writer, program: Program, device_type: str) -> None:
    """Write `output_shapes`: checks the inputs, then fills in the sizes of the outputs."""
    writer.line()
    arguments = f"const mkw_tensor* inputs, int64_t* const* shapes, int64_t* const* strides, {_ERROR}"
    with writer.block(f"mkw_status output_shapes({arguments})"):
        if program.inputs:
            writer.line(f"const mkw_device device = {{{device_type}, inputs != nullptr ? inputs[0].device.id : 0}};")
        else:
            writer.line(f"const mkw_device device = {{{device_type}, 0}};")
        writer.line("if (const mkw_status status = check_inputs(device, inputs, error)) return status;")
        symbols_read(writer, program)
        for array, number, dim, value in _sizes_of(output_signatures(program)):
            writer.line(f"if ({array} != nullptr) {array}[{number}][{dim}] = {spell_size(value)};")
        writer.line("static_cast<void>(shapes);")
        writer.line("static_cast<void>(strides);")
        writer.line("return MKW_OK;")


def _write_table_check(writer: Writer, array: str, count: int, first: int) -> None:
    call = f"runtime::check({array}, {_table(array, count)}, {count}, {first}, device, error)"
    writer.line(f"if (const mkw_status status = {call}) return status;")


def _table(array: str, count: int) -> str:
    return f"k{array.capitalize()}" if count else "nullptr"


def _write_dynamic(writer: Writer, signatures: Sequence[Signature], array: str, table: str, first: int) -> None:
    for number, signature in enumerate(signatures):
        for what, sizes in (("shape", signature.shape), ("strides", signature.strides)):
            for dim, expected in enumerate(sizes):
                if is_static(expected):
                    continue
                tensor = f"{array}[{number}]"
                got = f"{tensor}.shape[{dim}]" if what == "shape" else f"runtime::stride({tensor}, {dim})"
                ignored = "" if what == "shape" else f" && {tensor}.shape[{dim}] != 1 && !runtime::is_empty({tensor})"
                with writer.block(f"if ({got} != {spell_size(expected)}{ignored})"):
                    place = f'{table}[{number}], {first + number}, "{what}", {dim}'
                    writer.line(f"return runtime::wrong_extent({place}, {spell_size(expected)}, {got}, error);")


def _sizes_of(signatures: Sequence[Signature]) -> Iterator[tuple[str, int, int, Expr]]:
    for number, signature in enumerate(signatures):
        for array, sizes in (("shapes", signature.shape), ("strides", signature.strides)):
            for dim, value in enumerate(sizes):
                yield array, number, dim, value
