"""Says which binary each kernel of a library runs for given sizes, and why: the library's own rule, in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mkwrap.calls import mapping, sequence
from mkwrap.errors import InputError
from mkwrap.ir.nearest import DOUBLING, TIE, distance, elect
from mkwrap.model import Model
from mkwrap.options import integer
from mkwrap.sizes import expect_related, read_size


@dataclass(frozen=True)
class ExplainedRow:
    """One row of a kernel's table: its binary, its distance from the sizes in doublings, and the guards that fail there."""

    variant: str
    point: tuple[int, ...]
    alternative: int
    distance: float
    failing: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExplainedKernel:
    """What one kernel runs. Without a table there is one binary whatever the sizes: `rows` is empty."""

    name: str
    target: int
    variant: str
    alternative: int
    symbols: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    rows: tuple[ExplainedRow, ...] = ()
    elected: int = 0
    """The number of the row that runs."""
    is_open: bool = False
    """Whether the choice is still to be made on the target machine: what runs until then is a guess."""

    @property
    def why(self) -> str:
        """Say it in a sentence."""
        if not self.rows:
            return "one binary serves all sizes"
        row = self.rows[self.elected]
        return f"its point {_spell(self.symbols, row.point)} is nearest, {row.distance:.2f} doublings away"

    def _ties(self, row: ExplainedRow) -> bool:
        """Whether a row is as near as the one that runs, as the rule counts."""
        return abs(row.distance - self.rows[self.elected].distance) * DOUBLING <= TIE * len(self.symbols)

    def __str__(self) -> str:
        """Spell the kernel, its binary and why, then every other row and why it does not run."""
        guess = "; a guess, as the choice is open" if self.is_open else ""
        lines = [f"{self.name}: {self.variant}; {self.why}{guess}"]
        for number, row in enumerate(self.rows):
            if number == self.elected:
                continue
            far = f"{row.distance:.2f} doublings away"
            near = " as well: the smaller point runs, then the earlier row" if self._ties(row) else ""
            reason = f"is not right here: {', '.join(row.failing)}" if row.failing else far + near
            lines.append(f"    {_spell(self.symbols, row.point)} {row.variant}: {reason}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Explanation:
    """What `print(mkwrap.explain(model, …))` shows."""

    sizes: Mapping[str, int]
    kernels: tuple[ExplainedKernel, ...]

    def __str__(self) -> str:
        """Spell the sizes, then a paragraph per kernel."""
        given = ", ".join(f"{name} = {size}" for name, size in self.sizes.items()) or "static sizes"
        return "\n".join([given, *map(str, self.kernels)])


def explain(model: Model, /, **sizes: int) -> Explanation:
    """Say which binary each kernel runs where the dynamic sizes are `sizes`, by name; all of them must be given.

    Raises `InputError` for a name that is no symbol of the model, one that is missing, a size that is no integer or out of its
    range, and sizes that every call refuses for a relation between them.
    """
    if not isinstance(model, Model):
        raise InputError(f"explain takes a model, got {model!r}; load a library first: mkwrap.load(path)")
    ranges = {symbol.name: (symbol.low, symbol.high) for symbol in model.symbols}
    unknown = [name for name in sizes if name not in ranges]
    missing = [name for name in ranges if name not in sizes]
    if unknown or missing:
        wanted = ", ".join(ranges) or "none"
        raise InputError(f"the dynamic sizes of this model are: {wanted}; got {', '.join(sizes) or 'none'}")
    values = {name: _size(name, sizes[name], *ends) for name, ends in ranges.items()}
    expect_related(model.manifest, values)
    kernels = [mapping(kernel) for kernel in sequence(model.manifest["kernels"])]
    return Explanation(values, tuple(_kernel(kernel, values) for kernel in kernels))


def _size(name: str, size: object, low: int, high: int) -> int:
    number = integer(size)
    if number is None:
        raise InputError(f"{name} is {size!r}; a size is an integer")
    if not low <= number <= high:
        raise InputError(f"{name} is {number}; its range is {low} to {high}")
    return number


def _kernel(kernel: Mapping[str, object], values: Mapping[str, int]) -> ExplainedKernel:
    name, target = str(kernel["name"]), int(str(kernel["target"]))
    if "dispatch" not in kernel:
        alternative = int(str(kernel["alternative"]))
        return ExplainedKernel(name, target, str(kernel["winner"]), alternative, is_open="open" in kernel)
    table = mapping(kernel["dispatch"])
    symbols = tuple(map(str, sequence(table["symbols"])))
    sizes = tuple(values[symbol] for symbol in symbols)
    entries = [mapping(row) for row in sequence(table["rows"])]
    rows = tuple(_row(entry, sizes, values) for entry in entries)
    legal = [
        (row.point, int(str(entry["handicap"])), not row.failing) for row, entry in zip(rows, entries, strict=True)
    ]
    elected = elect(sizes, legal)
    row = rows[elected]
    return ExplainedKernel(
        name, target, row.variant, row.alternative, symbols, sizes, rows, elected, is_open="open" in kernel
    )


def _row(entry: Mapping[str, object], sizes: Sequence[int], values: Mapping[str, int]) -> ExplainedRow:
    point = tuple(int(str(hint)) for hint in sequence(entry["point"]))
    failing = [text for guard in sequence(entry["guards"]) if (text := _failing(mapping(guard), values))]
    far = distance(sizes, point, int(str(entry["handicap"])))
    return ExplainedRow(str(entry["variant"]), point, int(str(entry["alternative"])), far / DOUBLING, tuple(failing))


def _failing(guard: Mapping[str, object], values: Mapping[str, int]) -> str:
    """Say what a guard asks for that the sizes do not have; "" where it holds."""
    size, most, multiple = read_size(guard["expr"])(values), guard["most"], int(str(guard["multiple"]))
    if most is not None and size > int(str(most)):
        return f"{guard['expr']} = {size} is more than {most}"
    return f"{guard['expr']} = {size} is no multiple of {multiple}" if size % multiple else ""


def _spell(symbols: Sequence[str], point: Sequence[int]) -> str:
    return "(" + ", ".join(f"{name}={size}" for name, size in zip(symbols, point, strict=True)) + ")"
