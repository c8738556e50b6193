"""Which values end only in 16-bit floats, so that a float32 approximation of 2 ulp cannot be seen in the results."""

from __future__ import annotations

from mkwrap.codegen.triton.spelling import NARROW_FLOATS
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Compute, Nest, Reduce, Scan, Sort, Store

# Continuous ops that do not enlarge an error of 2 ulp beyond what rounding to 16 bits hides.
_ARITHMETIC = ("abs", "add", "div", "mul", "neg", "reciprocal", "sub")
_CARRIES = frozenset((*_ARITHMETIC, "erf", "exp", "maximum", "minimum", "rsqrt", "sigmoid", "sqrt", "tanh", "where"))
_REDUCES = frozenset(("sum", "maximum", "minimum", "dot"))


def approximable(nest: Nest) -> frozenset[str]:
    """Names of the float32 values whose every use ends, through continuous ops, in a cast to a 16-bit float.

    Welford's deviations and products of many factors would enlarge an error; comparisons would make it visible.
    """
    exact: set[str] = set()
    used: set[str] = set()
    for instruction in reversed(nest.body):
        match instruction:
            case Compute(op="cast", args=(arg,), dtype=dtype):
                used.add(arg)
                if dtype not in NARROW_FLOATS and (dtype is not DType.FLOAT32 or instruction.dest in exact):
                    exact.add(arg)
            case Compute(op=op, args=args):
                used.update(args)
                exact.update(args if op not in _CARRIES or instruction.dest in exact else args[:0])
            case Reduce(op=op, args=args, dests=dests):
                used.update(args)
                exact.update(args if op not in _REDUCES or exact.intersection(dests) else ())
            case Scan(op=op, args=args, dests=dests):
                used.update(args)
                exact.update(args if op != "sum" or exact.intersection(dests) else ())
            case Store(arg=arg) | Sort(arg=arg):
                used.add(arg)
                exact.add(arg)
    return frozenset(used - exact)
