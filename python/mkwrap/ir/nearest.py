"""The dispatch rule: which row of a table runs for given sizes. `mkwrap/dispatch.h` is the same rule in C++.

The distance between sizes and a row's point is Σ |log2 s − log2 h| over the table's symbols, each counted once, plus the
row's handicap. Logarithms are whole numbers of 2⁻¹⁶, computed by integer arithmetic alone, so that every machine and
language finds the same; 0 and 1 both have 0. A row runs if its guards hold and no other such row is nearer by more than
`TIE` for each symbol: among those as near, the smallest point wins (the first symbol decides first), then the earlier row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from mkwrap.fresh import clear_on_fresh_cache

FRACTION_BITS = 16
DOUBLING = 1 << FRACTION_BITS
"""A factor of two, as distances count it."""
TIE = 8
"""Distances that differ by at most so much for each symbol are equal: more than `log2_fixed` errs in two logarithms."""
MOST_ROWS = 1024
"""The most rows that a library's table has room for."""
MOST_GUARDS = 64
"""The most different guards that a table may have: each is one bit of a row."""
MOST_SYMBOLS = 8
"""The most symbols of a table that is searched along its axes."""
_MANTISSA_BITS = 31


@clear_on_fresh_cache
@lru_cache(maxsize=4096)
def log2_fixed(size: int) -> int:
    """Return ⌊2¹⁶·log2(size)⌋ for 1 ≤ size < 2⁶³, at most 2 too small; 0 for 0.

    The fraction's digits come by squaring the mantissa in 1.31 fixed point: a square of 2 or more is a digit 1.
    """
    if size < 2:
        return 0
    digits = size.bit_length() - 1
    mantissa = (size << 63 - digits) >> 32
    for _ in range(FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> _MANTISSA_BITS
        digit = mantissa >> _MANTISSA_BITS + 1
        mantissa >>= digit
        digits = digits << 1 | digit
    return digits


def distance(sizes: Sequence[int], point: Sequence[int], handicap: int = 0) -> int:
    """Return the distance of a row in 2⁻¹⁶ doublings."""
    apart = (abs(log2_fixed(size) - log2_fixed(hint)) for size, hint in zip(sizes, point, strict=True))
    return handicap + sum(apart)


def elect(sizes: Sequence[int], rows: Sequence[tuple[Sequence[int], int, bool]]) -> int:
    """Return the number of the row that runs; a row is its point, its handicap, and whether its guards hold.

    Raises ValueError where no row's guards hold: a table has a row for every size in range.
    """
    far = [distance(sizes, point, handicap) for point, handicap, _ in rows]
    legal = [number for number, (_, _, holds) in enumerate(rows) if holds]
    if not legal:
        raise ValueError(f"no row of the table may run at {tuple(sizes)}")
    limit = min(far[number] for number in legal) + TIE * len(sizes)
    return min((tuple(rows[number][0]), number) for number in legal if far[number] <= limit)[1]
