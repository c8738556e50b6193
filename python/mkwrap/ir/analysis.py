"""Facts about a nest that fusion and code generation both ask for."""

from __future__ import annotations

from collections.abc import Iterator

from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import (
    BoundsCheck,
    Compute,
    Constant,
    Expr,
    IndexValue,
    Instruction,
    Load,
    Nest,
    Reduce,
    Scan,
    Sort,
    Store,
)
from mkwrap.ir.ops import OPS


def defined(instruction: Instruction) -> tuple[str, ...]:
    """Names of the values an instruction defines."""
    return tuple(name for name, _ in results(instruction))


def results(instruction: Instruction) -> tuple[tuple[str, DType], ...]:
    """Names and dtypes of the values an instruction defines."""
    match instruction:
        case Reduce() | Scan() | Sort():
            return tuple(zip(instruction.dests, instruction.dtypes, strict=True))
        case BoundsCheck(dest=dest):
            return ((dest, DType.INT64),)
        case Store():
            return ()
        case _:
            return ((instruction.dest, instruction.dtype),)


def value_dtypes(nest: Nest) -> dict[str, DType]:
    """Dtype of every value of a nest."""
    return {name: dtype for instruction in nest.body for name, dtype in results(instruction)}


def index_exprs(instruction: Instruction) -> tuple[Expr, ...]:
    """Index expressions an instruction evaluates."""
    match instruction:
        case Load(index=index) | Store(index=index):
            return index
        case IndexValue(expr=expr):
            return (expr,)
        case BoundsCheck(extent=extent):
            return (extent,)
        case _:
            return ()


def arithmetic_cost(nest: Nest) -> int:
    """Weight of one iteration's arithmetic, in vector instructions."""
    combines = [i.combine for i in scans(nest) if i.combine is not None]
    every = [*nest.body, *(i for combine in combines for i in combine.body)]
    return sum(OPS[i.op].cost for i in every if isinstance(i, Compute))


def used(instruction: Instruction) -> tuple[str, ...]:
    """Names of the values an instruction reads, those inside index expressions not included."""
    match instruction:
        case Compute(args=args) | Reduce(args=args) | Scan(args=args):
            return args
        case Store(arg=arg) | Sort(arg=arg):
            return (arg,)
        case BoundsCheck(arg=arg, mask=mask):
            return (arg,) if mask is None else (arg, mask)
        case Load(mask=mask):
            return () if mask is None else (mask,)
        case Constant() | IndexValue():
            return ()


def dependencies(instruction: Instruction, values: frozenset[str] | set[str]) -> Iterator[str]:
    """Values an instruction depends on, those inside index expressions included; `values` are the SSA names in scope."""
    yield from used(instruction)
    for expr in index_exprs(instruction):
        for symbol in sorted(expr.free_symbols, key=lambda s: s.name):
            if symbol.name in values:
                yield symbol.name


def element_level(nest: Nest) -> frozenset[str]:
    """Values that vary along a reduction axis."""
    inner: set[str] = set()
    symbols = {axis.symbol for axis in nest.reduction_axes}
    names: set[str] = set()
    for instruction in nest.body:
        names.update(defined(instruction))
        if isinstance(instruction, Reduce | Store):
            continue
        if (
            isinstance(instruction, Scan | Sort)
            or any(expr.free_symbols & symbols for expr in index_exprs(instruction))
            or any(name in inner for name in dependencies(instruction, names))
        ):
            inner.update(defined(instruction))
    return frozenset(inner)


def alike_in_all_rows(nest: Nest) -> frozenset[str]:
    """Values that no parallel axis enters: the same for every row, however the rows are walked.

    A load of a buffer that the nest also writes is not among them.
    """
    symbols = {axis.symbol for axis in nest.axes}
    written = {store.buffer for store in stores(nest)}
    names: set[str] = set()
    varied: set[str] = set()
    for instruction in nest.body:
        names.update(defined(instruction))
        if (
            isinstance(instruction, Reduce | Scan | Sort)
            or (isinstance(instruction, Load) and instruction.buffer in written)
            or any(expr.free_symbols & symbols for expr in index_exprs(instruction))
            or any(name in varied for name in dependencies(instruction, names))
        ):
            varied.update(defined(instruction))
    return frozenset(names - varied)


def stores_elements(nest: Nest, store: Store) -> bool:
    """Whether a store runs once per element (its index names a reduction axis) rather than once per row."""
    symbols = {axis.symbol for axis in nest.reduction_axes}
    return any(expr.free_symbols & symbols for expr in store.index)


def phases(nest: Nest) -> dict[str, int]:
    """Loop number in which each value is complete: 0 for what needs no reduction, n for what needs n loops before it.

    The results of a Scan are complete element by element in the loop of its args, those of a Sort after that loop.
    """
    phase: dict[str, int] = {}
    for instruction in nest.body:
        depth = max((phase[name] for name in dependencies(instruction, phase.keys() | set())), default=0)
        for name in defined(instruction):
            phase[name] = depth + 1 if isinstance(instruction, Reduce | Sort) else depth
    return phase


def loads(nest: Nest) -> tuple[Load, ...]:
    """All loads, in order."""
    return tuple(i for i in nest.body if isinstance(i, Load))


def stores(nest: Nest) -> tuple[Store, ...]:
    """All stores, in order."""
    return tuple(i for i in nest.body if isinstance(i, Store))


def reduces(nest: Nest) -> tuple[Reduce, ...]:
    """All reductions, in order."""
    return tuple(i for i in nest.body if isinstance(i, Reduce))


def scans(nest: Nest) -> tuple[Scan, ...]:
    """All scans, in order."""
    return tuple(i for i in nest.body if isinstance(i, Scan))


def sorts(nest: Nest) -> tuple[Sort, ...]:
    """All sorts, in order."""
    return tuple(i for i in nest.body if isinstance(i, Sort))
