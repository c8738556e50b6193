"""Signature tables of host code: one `mkw_tensor_info` per input and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy

from mkwrap.codegen.wrapper.launcher import input_number, output_buffers
from mkwrap.codegen.wrapper.sizes import is_static
from mkwrap.codegen.wrapper.text import spell_dtype, spell_string
from mkwrap.codegen.writer import Writer
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Expr
from mkwrap.ir.signature import UNBOUNDED
from mkwrap.ir.spelled import spelled
from mkwrap.stages import OutputKind, Program, SymbolSpec

SIZE_TEXTS = "kSizeTexts"
"""The C++ table of how messages write the sizes of inputs and outputs."""
_LINE = 100
"""Characters of a shape with its ranges in a message."""


@dataclass(frozen=True)
class Signature:
    """One tensor of the C ABI; sizes in elements, alignment in bytes."""

    name: str
    path: str
    dtype: DType
    shape: tuple[Expr, ...]
    strides: tuple[Expr, ...]
    alignment: int
    mutated: bool


def input_signatures(program: Program) -> tuple[Signature, ...]:
    """Return the signatures of the inputs, in order."""
    return tuple(Signature(s.name, s.path, s.dtype, s.shape, s.strides, s.alignment, s.mutated) for s in program.inputs)


def output_signatures(program: Program) -> tuple[Signature, ...]:
    """Return the signatures of the outputs that callers provide, in order; paths number the leaves of the result."""
    leaves = [leaf for leaf, spec in enumerate(program.outputs) if spec.kind is OutputKind.BUFFER]
    return tuple(
        Signature(
            spec.buffer,
            f"output[{leaf}]",
            spec.dtype,
            spec.shape,
            spec.strides,
            program.buffers[spec.buffer].alignment,
            mutated=False,
        )
        for leaf, spec in zip(leaves, output_buffers(program), strict=True)
    )


def write_signature(writer: Writer, program: Program) -> None:
    """Write `kInputs` and `kOutputs`."""
    for table, signatures in (("kInputs", input_signatures(program)), ("kOutputs", output_signatures(program))):
        if not signatures:
            continue
        writer.line()
        prefix = table[1:-1]
        for number, signature in enumerate(signatures):
            if signature.shape:
                writer.line(_sizes(f"k{prefix}{number}Shape", signature.shape))
                writer.line(_sizes(f"k{prefix}{number}Strides", signature.strides))
        with writer.block(f"constexpr mkw_tensor_info {table}[] =", "};"):
            for number, signature in enumerate(signatures):
                writer.line(_info(signature, f"k{prefix}{number}"))


def write_symbols(writer: Writer, program: Program) -> None:
    """Write `kSymbols`, `kSizes` and `kSizeTexts`, which every function that reads or names dynamic sizes refers to."""
    if not program.symbols:
        return
    writer.line()
    with writer.block("constexpr mkw_symbol_info kSymbols[] =", "};"):
        for spec in program.symbols:
            place = f"{input_number(program, spec.input_name)}, {spec.dim}, {spec.scale}, {spec.offset}"
            writer.line(f"{{{spell_string(spec.symbol.name)}, {spec.low}, {_bound(spec.high)}, {place}}},")
    writer.line(f"constexpr runtime::Symbols kSizes = {{kSymbols, {len(program.symbols)}, kInputs}};")
    with writer.block(f"constexpr mkw_size_text {SIZE_TEXTS}[] =", "};"):
        for signature in (*input_signatures(program), *output_signatures(program)):
            shape, strides = (f"[{', '.join(map(spelled, sizes))}]" for sizes in (signature.shape, signature.strides))
            texts = (shape, strides, _ranges(program.symbols, signature.shape, _LINE - len(shape)))
            writer.line(f"{{{', '.join(map(spell_string, texts))}}},")


def _ranges(symbols: Sequence[SymbolSpec], shape: Sequence[Expr], room: int) -> str:
    """Say what the symbols of a shape may be, "" where that takes more characters than there is room for."""
    found = [spec for spec in symbols if any(spec.symbol in sympy.sympify(size).free_symbols for size in shape)]
    texts = [
        f"{s.symbol.name} in {s.low}..{s.high}" if s.high < UNBOUNDED else f"{s.symbol.name} >= {s.low}" for s in found
    ]
    text = f" with {', '.join(texts)}" if texts else ""
    return text if len(text) <= room else ""


def _bound(high: int) -> str:
    return "INT64_MAX" if high >= UNBOUNDED else str(high)


def _sizes(name: str, sizes: Sequence[Expr]) -> str:
    texts = [str(int(size)) if is_static(size) else "MKW_DYNAMIC" for size in sizes]
    return f"constexpr int64_t {name}[] = {{{', '.join(texts)}}};"


def _info(signature: Signature, prefix: str) -> str:
    shape, strides = (f"{prefix}Shape", f"{prefix}Strides") if signature.shape else ("nullptr", "nullptr")
    names = f"{spell_string(signature.name)}, {spell_string(signature.path)}"
    head = f"{names}, {spell_dtype(signature.dtype)}, {len(signature.shape)}"
    return f"{{{head}, {shape}, {strides}, {signature.alignment}, {int(signature.mutated)}}},"
