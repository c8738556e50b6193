"""How far the results of right variants of a nest may lie apart, told from what its body computes."""

from __future__ import annotations

import math

from mkwrap.ir.analysis import defined, dependencies, stores
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Compute, Instruction, Nest, Reduce, Scan, Sort
from mkwrap.ir.ops import OPS, Kind
from mkwrap.tune.contest import Accuracy

# From fine to coarse.
_FLOATS = (DType.FLOAT64, DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)
# Results jump where an argument passes some value, so that a rounding error may become a large difference.
_JUMPS = frozenset(
    ["floor", "ceil", "round", "trunc", "floordiv", "truncdiv", "mod", "fmod", "sign", "signbit", "nextafter"]
)
_EXACT = frozenset({"maximum", "minimum", "argmax", "argmin", "cummax", "cummin"})
_PLACES = frozenset({"argmax", "argmin", "cummax", "cummin"})
# Sums up to this long are within the plain tolerance whatever their order; the error of longer ones grows as a root.
_SHORT_SUM = 4096


def accuracies(nest: Nest) -> dict[str, Accuracy]:
    """Return the accuracy of each stored buffer that float arithmetic leads to; the others are exact.

    Several stores to one buffer: the least accurate counts.
    """
    makers = {name: instruction for instruction in nest.body for name in defined(instruction)}
    slack = _slack(nest)
    result: dict[str, Accuracy] = {}
    for store in stores(nest):
        behind = _behind(store.arg, makers)
        computed = [i for i in behind if _computes_float(i)]
        if not computed:
            continue
        coarsest = max((dtype for i in behind for dtype in _dtypes(i) if dtype.is_float), key=_FLOATS.index)
        if store.buffer in result:
            coarsest = max(coarsest, result[store.buffer].precision, key=_FLOATS.index)
        jumps = any(_jumps(i) for i in behind) or (store.buffer in result and result[store.buffer].jumps)
        result[store.buffer] = Accuracy(coarsest, slack, jumps)
    return result


def _behind(value: str, makers: dict[str, Instruction]) -> list[Instruction]:
    """Return the instructions a value comes from."""
    found: dict[int, Instruction] = {}
    pending, names = [value], frozenset(makers)
    while pending:
        maker = makers.get(pending.pop())
        if maker is None or id(maker) in found:
            continue
        found[id(maker)] = maker
        pending.extend(dependencies(maker, names))
    return list(found.values())


def _dtypes(instruction: Instruction) -> tuple[DType, ...]:
    match instruction:
        case Reduce(dtypes=dtypes) | Scan(dtypes=dtypes) | Sort(dtypes=dtypes):
            return dtypes
        case Compute(dtype=dtype):
            return (dtype,)
        case _:
            return ()


def _computes_float(instruction: Instruction) -> bool:
    if isinstance(instruction, Sort) or (isinstance(instruction, Reduce | Scan) and instruction.op in _EXACT):
        return False
    return any(dtype.is_float for dtype in _dtypes(instruction))


def _jumps(instruction: Instruction) -> bool:
    match instruction:
        case Compute(op=op, dtype=dtype):
            return op in _JUMPS or OPS[op].kind is Kind.COMPARE or (op == "cast" and not dtype.is_float)
        case Reduce(op=op) | Scan(op=op):
            return op in _PLACES or any(_jumps(i) for i in _inside(instruction))
        case Sort():
            return True
        case _:
            return False


def _inside(instruction: Instruction) -> tuple[Instruction, ...]:
    """Return what a scan's own function computes."""
    return instruction.combine.body if isinstance(instruction, Scan) and instruction.combine is not None else ()


def _slack(nest: Nest) -> float:
    extents = [axis.extent for axis in nest.reduction_axes]
    if not all(extent.is_Integer for extent in extents):
        return 1.0
    return max(1.0, math.sqrt(math.prod(int(extent) for extent in extents) / _SHORT_SUM))
