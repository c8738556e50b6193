"""Typed C++ header of one library: its arguments by name, for programs that open it through mkwrap.hpp."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mkwrap.codegen.wrapper.cpp_names import GLOBALS, KEYWORDS, MACROS
from mkwrap.codegen.wrapper.manifest_kernel import Json
from mkwrap.codegen.wrapper.text import spell_comment, spell_dtype, spell_shape, spell_string
from mkwrap.codegen.writer import Writer
from mkwrap.errors import LibraryFormatError
from mkwrap.ir.dtypes import DType
from mkwrap.ir.signature import UNBOUNDED

_ELEMENTS: Mapping[str, str] = {
    "bool": "bool",
    "float32": "float",
    "float64": "double",
    **{f"{sign}int{bits}": f"std::{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_OTHER_ELEMENT = "void"
"""C++17 has no type for it: bfloat16, float16, …"""
_RESERVED = (
    KEYWORDS
    | MACROS
    | frozenset(("data", "device", "sizes", "inputs", "outputs", "mkwrap", "std"))
    | frozenset(("Sizes", "Inputs", "Outputs", "Shapes", "Model"))
)
"""What no part of the header can be called; the last are its own names."""
_STRIDES = "_strides"
"""What the function of a tensor's strides adds to the name of the tensor."""
_CALLS = {"FloorDiv": "mkwrap::runtime::floor_div", "Mod": "mkwrap::runtime::floor_mod"}
_CALLS |= {"Min": "mkwrap::runtime::smaller", "Max": "mkwrap::runtime::larger"}
_DIVISIONS = {ast.FloorDiv: "FloorDiv", ast.Mod: "Mod"}
_SUMS = {ast.Add: "mkwrap::runtime::plus", ast.Mult: "mkwrap::runtime::times"}


@dataclass(frozen=True)
class _Tensor:
    """One tensor of the header: its C++ name, and its entry in the manifest."""

    name: str
    dtype: str
    shape: tuple[object, ...]
    strides: tuple[object, ...]
    written: bool
    said: str
    """What the library calls it."""

    @property
    def element(self) -> str:
        """The C++ type of the memory behind it."""
        return ("" if self.written else "const ") + _ELEMENTS.get(self.dtype, _OTHER_ELEMENT)


def render_header(manifest: Mapping[str, object], name: str) -> str:
    """Return a header that has a namespace `name`: sizes, inputs and outputs by the names of the user's parameters, a model.

    `manifest` is the library's (docs/manifest.md). The header fits every library of the same signature; another is refused when
    it is opened.
    """
    namespace = _namespace(name)
    symbols = [str(_entry(symbol)["name"]) for symbol in _list(manifest["symbols"])]
    fields = dict(zip(symbols, _names(symbols), strict=True))
    call = _entry(manifest["call"])
    taken: set[str] = set()
    inputs = _tensors(
        [_entry(tensor) for tensor in _list(manifest["inputs"])],
        [str(name) for name in _list(call.get("parameters", []))],
        taken,
        written="mutated",
    )
    buffers = [_entry(output) for output in _list(manifest["outputs"]) if _entry(output)["kind"] == "buffer"]
    outputs = _tensors(buffers, [], taken, written=None)
    writer = Writer("  ")
    guard = f"MKWRAP_MODEL_{namespace.strip('_').upper()}_HPP_"
    writer.line(
        f"// The library {spell_comment(name)[3:]}: its arguments by name. Written by mkwrap; see mkwrap/mkwrap.hpp."
    )
    writer.line("// clang-format off")
    writer.lines((f"#ifndef {guard}", f"#define {guard}", "", "#include <cstdint>", "#include <cstring>"))
    writer.lines(
        ("#include <string>", "#include <vector>", "", '#include "mkwrap/mkwrap.hpp"', '#include "mkwrap/sizes.h"')
    )
    writer.lines(("", f"namespace {namespace} {{", ""))
    _write_sizes(writer, manifest, fields)
    _write_struct(writer, "Inputs", "What a run reads; mutable memory is written to as well.", inputs)
    _write_struct(writer, "Outputs", "The caller's memory for what a run writes.", outputs)
    _write_shapes(writer, inputs, outputs, fields)
    _write_model(writer, inputs, outputs)
    _write_checks(writer, inputs, outputs, symbols)
    writer.lines(("", f"}}  // namespace {namespace}", "", f"#endif  // {guard}"))
    return writer.text()


def _write_sizes(writer: Writer, manifest: Mapping[str, object], fields: Mapping[str, str]) -> None:
    writer.line("// The dynamic sizes." if fields else "// All sizes are static.")
    with writer.block("struct Sizes", "};"):
        for symbol in map(_entry, _list(manifest["symbols"])):
            high = "no bound" if symbol["high"] == UNBOUNDED else symbol["high"]
            said = f"{symbol['low']} to {high}"
            writer.line(f"std::int64_t {fields[str(symbol['name'])]} = 0;  {spell_comment(said)}")
    writer.line()


def _write_struct(writer: Writer, name: str, what: str, tensors: Sequence[_Tensor]) -> None:
    writer.line(spell_comment(what))
    with writer.block(f"struct {name}", "};"):
        for tensor in tensors:
            said = spell_comment(f"{tensor.dtype} {spell_shape(tensor.shape)}")
            writer.line(f"{tensor.element}* {tensor.name} = nullptr;  {said}")
    writer.line()


def _write_shapes(
    writer: Writer, inputs: Sequence[_Tensor], outputs: Sequence[_Tensor], fields: Mapping[str, str]
) -> None:
    """Write two functions per tensor: its shape, and its strides in elements."""
    writer.line(
        "// Shapes, and strides in elements, for given sizes. Throw mkwrap::Error (MKW_ERROR_SIZE) for what does"
    )
    writer.line("// not fit 64 bits.")
    with writer.block("struct Shapes", "};"):
        for tensor in (*inputs, *outputs):
            for what, sizes in (("", tensor.shape), (_STRIDES, tensor.strides)):
                spelled = ", ".join(_spell(size, fields) for size in sizes)
                head = f"static std::vector<std::int64_t> {tensor.name}{what}([[maybe_unused]] const Sizes& sizes)"
                with writer.block(head):
                    if "wide" not in spelled:
                        writer.line(f"return {{{spelled}}};")
                        continue
                    writer.line("bool wide = false;")
                    writer.line(f"std::vector<std::int64_t> result = {{{spelled}}};")
                    message = f'"a size of {tensor.name} does not fit 64 bits"'
                    writer.line(f"if (wide) throw mkwrap::Error(MKW_ERROR_SIZE, -1, {message});")
                    writer.line("return result;")
    writer.line()


_MODEL = """\
// The model on one device, with the scratch memory of one call in flight: not for two threads at
// once. For another thread: a copy, which shares the model and has scratch memory of its own.
class Model {
 public:
  // Open a library file. Throws mkwrap::Error: MKW_ERROR_FILE, MKW_ERROR_VERSION (another
  // signature), and what mkwrap::Model throws.
  explicit Model(const std::string& path, std::int32_t device = 0)
      : Model(mkwrap::Library::open(path), device) {}
  // Use a library this program is linked with: mkwrap::Library::from(mkw_get_api).
  explicit Model(const mkwrap::Library& library, std::int32_t device = 0)
      : device_(device), model_(checked(library), device), context_(model_) {}
  Model(const Model& other) : device_(other.device_), model_(other.model_), context_(model_) {}
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const mkwrap::Model& model() const { return model_; }

  // Run once, on row-major memory or that of the strides in Shapes. Throws what
  // mkwrap::Context::run does.
  void run(const Sizes& sizes, const Inputs& inputs, const Outputs& outputs,
           void* stream = nullptr) {
    context_.run(tensors(sizes, inputs), tensors(sizes, outputs), stream);
  }
  // Bytes of scratch memory that such a run needs.
  [[nodiscard]] std::int64_t scratch_bytes(const Sizes& sizes, const Inputs& inputs) const {
    return model_.scratch_bytes(tensors(sizes, inputs));
  }
  void synchronize() { context_.synchronize(); }

 private:
  [[nodiscard]] mkwrap::Tensor at(const void* data, mkw_dtype dtype,
                                  const std::vector<std::int64_t>& shape,
                                  const std::vector<std::int64_t>& strides) const {
    return {data, dtype, shape, strides, {model_.library().api().device_type, device_}};
  }
"""


def _write_model(writer: Writer, inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> None:
    """Write the class up to its checks."""
    writer.lines(_MODEL.splitlines())
    with writer.indented():
        for struct, tensors in (("Inputs", inputs), ("Outputs", outputs)):
            arguments = f"[[maybe_unused]] const Sizes& sizes, [[maybe_unused]] const {struct}& given"
            head = f"[[nodiscard]] std::vector<mkwrap::Tensor> tensors({arguments}) const"
            with writer.block(head), writer.block("return", "};"):
                for tensor in tensors:
                    shape = f"Shapes::{tensor.name}(sizes), Shapes::{tensor.name}{_STRIDES}(sizes)"
                    writer.line(f"at(given.{tensor.name}, {spell_dtype(DType(tensor.dtype))}, {shape}),")


def _write_checks(
    writer: Writer, inputs: Sequence[_Tensor], outputs: Sequence[_Tensor], symbols: Sequence[str]
) -> None:
    """Write the comparison of a library's signature with the header's, and the end of the class."""
    with writer.indented():
        writer.line("// The library, if it has this header's signature.")
        with writer.block("static const mkwrap::Library& checked(const mkwrap::Library& library)"):
            writer.line("const mkw_api& api = library.api();")
            counts = f"api.input_count == {len(inputs)} && api.output_count == {len(outputs)}"
            writer.line(f"bool same = {counts} && api.symbol_count == {len(symbols)};")
            for number, symbol in enumerate(symbols):
                writer.line(f"same = same && std::strcmp(api.symbols[{number}].name, {spell_string(symbol)}) == 0;")
            for table, tensors in (("inputs", inputs), ("outputs", outputs)):
                for number, tensor in enumerate(tensors):
                    dtype = spell_dtype(DType(tensor.dtype))
                    wanted = f"{spell_string(tensor.said)}, {dtype}, {len(tensor.shape)}"
                    writer.line(f"same = same && is(api.{table}[{number}], {wanted});")
            with writer.block("if (!same)"):
                writer.line("throw mkwrap::Error(MKW_ERROR_VERSION, -1,")
                writer.line('                    "the library has another signature than this header; write it anew");')
            writer.line("return library;")
        head = (
            "[[maybe_unused]] static bool is(const mkw_tensor_info& info, const char* name, mkw_dtype dtype, int rank)"
        )
        with writer.block(head):
            writer.line("return std::strcmp(info.name, name) == 0 && info.dtype.code == dtype.code &&")
            writer.line("       info.dtype.bits == dtype.bits && info.ndim == rank;")
        writer.lines(("", "std::int32_t device_;", "mkwrap::Model model_;", "mkwrap::Context context_;"))
    writer.line("};")


def _tensors(
    entries: Sequence[Mapping[str, Json]], parameters: Sequence[str], taken: set[str], written: str | None
) -> list[_Tensor]:
    """Name tensors. `taken` are the members of `Shapes`, which inputs and outputs share: a shape and strides of each."""
    names = [_identifier(_user_name(entry, parameters), taken, ("", _STRIDES)) for entry in entries]
    return [
        _Tensor(
            name,
            str(entry["dtype"]),
            tuple(_list(entry["shape"])),
            tuple(_list(entry["strides"])),
            written is None or bool(entry[written]),
            str(entry["name"]),
        )
        for name, entry in zip(names, entries, strict=True)
    ]


def _user_name(entry: Mapping[str, Json], parameters: Sequence[str]) -> str:
    """Return what the user calls a tensor: `args[1]['mask']` of a function of `(x, batch)` is `batch['mask']`."""
    argument = re.fullmatch(r"args\[(\d+)\](.*)", str(entry.get("path", "")))
    if argument is not None and int(argument[1]) < len(parameters):
        return parameters[int(argument[1])] + argument[2]
    named = re.fullmatch(r"kwargs\['(.*?)'\](.*)", str(entry.get("path", "")))
    return named[1] + named[2] if named is not None else str(entry["name"])


def _names(wanted: Sequence[str]) -> list[str]:
    taken: set[str] = set()
    return [_identifier(name, taken) for name in wanted]


def _namespace(name: str) -> str:
    """Make a name for the namespace, which stands beside C's names and those of mkwrap/abi.h."""
    found = _identifier(name, set())
    return f"{found}_" if found in GLOBALS or found.startswith("mkw_") or found.endswith("_t") else found


def _identifier(name: str, taken: set[str], endings: Sequence[str] = ("",)) -> str:
    """Make a C++ identifier of a name that with none of the endings is one of `taken`, and add it with each there."""
    plain = re.sub(r"_+", "_", re.sub(r"\W", "_", name, flags=re.ASCII)).strip("_") or "model"
    if plain[0].isdigit() or plain in _RESERVED:
        plain = f"{plain}_" if not plain[0].isdigit() else f"m{plain}"
    found, number = plain, 2
    while not taken.isdisjoint(found + ending for ending in endings):
        found, number = f"{plain}_{number}", number + 1
    taken.update(found + ending for ending in endings)
    return found


def _spell(size: object, fields: Mapping[str, str]) -> str:
    """Spell a size of the manifest in C++, over the fields of `sizes`."""
    if isinstance(size, int):
        return str(size)
    try:
        parsed = ast.parse(str(size), mode="eval")
    except (SyntaxError, ValueError) as error:  # ValueError: a null character
        raise LibraryFormatError(f"the manifest has {size!r} where a size belongs") from error
    return _spell_node(parsed.body, fields)


def _spell_node(node: ast.expr, fields: Mapping[str, str]) -> str:
    match node:
        case ast.Constant(value=int(value)):
            return str(value)
        case ast.Name(id=name) if name in fields:
            return f"sizes.{fields[name]}"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"mkwrap::runtime::times(-1, {_spell_node(operand, fields)}, wide)"
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if power > 0:
            return _nest(_SUMS[ast.Mult], [_spell_node(left, fields)] * power, ", wide")
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            negated = f"mkwrap::runtime::times(-1, {_spell_node(right, fields)}, wide)"
            return _nest(_SUMS[ast.Add], [_spell_node(left, fields), negated], ", wide")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SUMS:
            return _nest(_SUMS[type(op)], [_spell_node(left, fields), _spell_node(right, fields)], ", wide")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _DIVISIONS:
            return _nest(_CALLS[_DIVISIONS[type(op)]], [_spell_node(left, fields), _spell_node(right, fields)])
        case ast.Call(func=ast.Name(id=name), args=args) if name in _CALLS:
            return _nest(_CALLS[name], [_spell_node(arg, fields) for arg in args])
    raise LibraryFormatError(f"the manifest has a size {ast.unparse(node)!r}, which has no spelling in C++")


def _nest(call: str, args: Sequence[str], tail: str = "") -> str:
    text = args[0]
    for arg in args[1:]:
        text = f"{call}({text}, {arg}{tail})"
    return text


def _entry(value: object) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise LibraryFormatError(f"the manifest has {value!r} where an object belongs")
    return value


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise LibraryFormatError(f"the manifest has {value!r} where a list belongs")
    return value
