"""How each scan is written: the parts of its state, how an element enters them, how two of them combine, what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mkwrap.codegen.triton.folds import Part, widen
from mkwrap.codegen.triton.spelling import TYPES, constant, float_literal, spell
from mkwrap.codegen.writer import Writer
from mkwrap.errors import InternalError
from mkwrap.ir.analysis import scans
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Combine, Constant, Nest, Scan

Texts: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """A scan over arguments of the dtypes `sources`.

    `function` combines the parts of what comes earlier with those of what comes later; the parts' neutral values change
    nothing on the *left* alone. `commutes`: lanes may be folded in any order.
    """

    op: str
    sources: tuple[DType, ...]
    parts: tuple[Part, ...]
    results: tuple[DType, ...]
    function: str
    needs: frozenset[str]
    commutes: bool

    @property
    def width(self) -> int:
        """Bytes of one state."""
        return sum(part.dtype.itemsize for part in self.parts)

    def names(self, stem: str) -> Texts:
        """Names for the parts."""
        return tuple(f"{stem}_{k}" for k in range(len(self.parts)))

    def lift(self, args: Sequence[str], shape: str) -> Texts:
        """Parts of elements; lanes past the end of a row hold anything, since nothing comes after them."""
        values = tuple(
            f"{arg}.to(tl.int32)" if source is DType.BOOL else widen(arg, source, part.dtype)
            for arg, source, part in zip(args, self.sources, self._values, strict=True)
        )
        if self.op in _POSITIONED:
            return (*values, f"tl.broadcast_to(r, {shape})")
        return (f"tl.full({shape}, 1, tl.int32)", *values) if self.op == _OWN else values

    def scan(self, parts: Texts) -> str:
        """Expression of the inclusive scan along the elements of a tile."""
        return f"tl.associative_scan({_tuple(parts)}, 1, {self.function})"

    def fold(self, parts: Texts) -> str:
        """Expression of all lanes combined in any order, the dimension of the elements kept with length 1."""
        return f"tl.reduce({_tuple(parts)}, 1, {self.function}, keep_dims=True)"

    def combine(self, earlier: Texts, later: Texts) -> str:
        """Expression of the combined parts, a tuple where there are several."""
        return f"{self.function}({', '.join((*earlier, *later))})"

    def write_neutral(self, writer: Writer, stem: str, shape: str) -> Texts:
        """Write a state before the first element."""
        names = self.names(stem)
        for name, part in zip(names, self.parts, strict=True):
            writer.line(f"{name} = tl.full({shape}, {part.neutral}, {TYPES[part.dtype]})")
        return names

    def result_texts(self, parts: Texts) -> Texts:
        """Results in their dtypes."""
        own = (parts[0], parts[1]) if self.op in _POSITIONED else parts[1:] if self.op == _OWN else parts
        held = self.parts if self.op in _POSITIONED else self._values
        return tuple(narrow(part, kind.dtype, dtype) for part, kind, dtype in zip(own, held, self.results, strict=True))

    @property
    def _values(self) -> tuple[Part, ...]:
        """The parts that the arguments enter."""
        return self.parts[1:] if self.op == _OWN else self.parts[: len(self.sources)]


_OWN = "associative"
_POSITIONED = ("cummax", "cummin")
_FUNCTIONS: Mapping[str, str] = {
    "sum": "add",
    "prod": "multiply",
    "cummax": "latest_maximum",
    "cummin": "latest_minimum",
    "logaddexp": "logaddexp",
}


def form_of(scan: Scan, sources: Sequence[DType], wide: bool) -> Form:
    """Choose how a scan is written; `sources`: dtypes of its arguments, `wide`: positions may leave int32."""
    if scan.combine is not None:
        # Whether anything was met yet is a part of its own: the user's function need not have a neutral value.
        met = Part(DType.INT32, "0")
        parts = (met, *(Part(_widened(source), "0") for source in sources))
        name = f"combine_{scan.dests[0]}"
        needs = _combine_needs(scan.combine, sources) | {name, "add"}
        return Form(_OWN, tuple(sources), parts, scan.dtypes, name, frozenset(needs), False)
    if scan.op not in _FUNCTIONS:
        raise InternalError(f"scan {scan.op} has no form")
    value = Part(_widened(sources[0]), _neutral(scan.op, _widened(sources[0])))
    parts = (value,)
    if scan.op in _POSITIONED:
        parts = (value, Part(DType.INT64 if wide else DType.INT32, "-1"))
    double = "_double" if scan.op == "logaddexp" and value.dtype is DType.FLOAT64 else ""
    function = _FUNCTIONS[scan.op] + double
    commutes = scan.op not in _POSITIONED
    return Form(scan.op, tuple(sources), parts, scan.dtypes, function, frozenset({function, "add"}), commutes)


def write_scan(writer: Writer, form: Form, stem: str, args: Sequence[str], shape: str) -> Texts:
    """Write the scan of a tile's own elements, and return the names of its parts."""
    entered, own = form.names(f"{stem}_in"), form.names(f"{stem}_own")
    for name, text in zip(entered, form.lift(args, shape), strict=True):
        writer.line(f"{name} = {text}")
    writer.line(f"{', '.join(own)} = {form.scan(entered)}")
    return own


def write_last(writer: Writer, form: Form, stem: str, parts: Texts, lanes: int) -> Texts:
    """Write the parts of the last lane of each row, bit by bit: a sum over all lanes of which one is not 0."""
    names = form.names(stem)
    writer.line(f"{stem}_lane = tl.arange(0, {lanes})[None, :] == {lanes - 1}")
    for name, text, part in zip(names, parts, form.parts, strict=True):
        bits = "tl.int32" if part.dtype.itemsize == 4 else "tl.int64"
        own = TYPES[part.dtype]
        taken = text if own == bits else f"{text}.to({bits}, bitcast=True)"
        last = f"tl.reduce(tl.where({stem}_lane, {taken}, 0), 1, add, keep_dims=True)"
        writer.line(f"{name} = {last}" if own == bits else f"{name} = {last}.to({own}, bitcast=True)")
    return names


def write_fold(writer: Writer, form: Form, stem: str, parts: Texts, lanes: int) -> Texts:
    """Write all lanes of each row combined in order; the neutral ones come first."""
    if not form.commutes:
        own = form.names(f"{stem}_run")
        writer.line(f"{', '.join(own)} = {form.scan(parts)}")
        return write_last(writer, form, stem, own, lanes)
    names = form.names(stem)
    writer.line(f"{', '.join(names)} = {form.fold(parts)}")
    return names


def write_combined(writer: Writer, form: Form, stem: str, earlier: Texts, later: Texts) -> Texts:
    """Write what two states make together."""
    names = form.names(stem)
    writer.line(f"{', '.join(names)} = {form.combine(earlier, later)}")
    return names


def combines(nest: Nest, dtypes: Mapping[str, DType], needs: Iterable[str]) -> tuple[str, ...]:
    """Definitions of the named combining functions that a nest's scans bring along."""
    wanted = set(needs)
    texts = []
    for scan in scans(nest):
        name = f"combine_{scan.dests[0]}"
        if scan.combine is not None and name in wanted:
            texts.append(_definition(name, scan.combine, [dtypes[arg] for arg in scan.args]))
    return tuple(texts)


def narrow(part: str, own: DType, dtype: DType) -> str:
    """Convert a part of dtype `own` to the dtype of a value."""
    if own is dtype:
        return part
    return f"({part} != 0)" if dtype is DType.BOOL else f"{part}.to({TYPES[dtype]})"


def _tuple(parts: Texts) -> str:
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def _widened(dtype: DType) -> DType:
    """The dtype of a part: 32 bits or more, since smaller ones do not travel between threads."""
    if dtype.itemsize >= 4:
        return dtype
    return DType.FLOAT32 if dtype.is_float else DType.INT32


def _neutral(op: str, dtype: DType) -> str:
    if op in ("sum", "prod"):
        return "0" if op == "sum" else "1"
    largest = op != "cummin"
    if dtype.is_float:
        return float_literal(float("-inf") if largest else float("inf"))
    bits = 8 * dtype.itemsize
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.is_signed else (0, 2**bits - 1)
    return str(low if largest else high)


def _combine_needs(combine: Combine, sources: Sequence[DType]) -> set[str]:
    return {name for _, needs in _statements(combine, sources) for name in needs}


def _statements(combine: Combine, sources: Sequence[DType]) -> list[tuple[str, Texts]]:
    """Each instruction's line and the prelude functions it calls."""
    kinds = dict(zip((*combine.left, *combine.right), (*sources, *sources), strict=True))
    lines: list[tuple[str, Texts]] = []
    for instruction in combine.body:
        if isinstance(instruction, Constant):
            lines.append((f"{instruction.dest} = {constant(instruction.value, instruction.dtype)}", ()))
        else:
            args = instruction.args
            spelled = spell(instruction.op, args, kinds[args[-1]], instruction.dtype)
            lines.append((f"{instruction.dest} = {spelled.text}", spelled.needs))
        kinds[instruction.dest] = instruction.dtype
    return lines


def _definition(name: str, combine: Combine, sources: Sequence[DType]) -> str:
    left, right = ([f"{name}_part" for name in names] for names in (combine.left, combine.right))
    lines = ["@triton.jit", f"def {name}(met_left, {', '.join(left)}, met_right, {', '.join(right)}):"]
    for value, part, source in zip((*combine.left, *combine.right), (*left, *right), (*sources, *sources), strict=True):
        lines.append(f"    {value} = {narrow(part, _widened(source), source)}")
    lines += [f"    {line}" for line, _ in _statements(combine, sources)]
    picks = []
    for result, earlier, later, source in zip(combine.results, left, right, sources, strict=True):
        both = f"{result}.to(tl.int32)" if source is DType.BOOL else widen(result, source, _widened(source))
        picks.append(f"tl.where(met_left * met_right != 0, {both}, tl.where(met_right != 0, {later}, {earlier}))")
    lines.append(f"    return met_left | met_right, {', '.join(picks)}")
    return "\n".join(lines) + "\n"
