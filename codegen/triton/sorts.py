"""How a sort of whole rows is written: a bitonic network (Batcher 1968) over words that order as the values do.

A word holds the key of a value above the position it had, so that no two are equal and the sort is stable in either
direction. The lowest bit remembers the sign of a zero, which both zeros' common key forgets. Keys of 64 bits travel in
a word of their own beside the one of positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mkwrap.codegen.triton.spelling import TYPES
from mkwrap.codegen.writer import Writer
from mkwrap.ir.dtypes import DType
from mkwrap.ir.nodes import Sort


@dataclass(frozen=True)
class Key:
    """The signed integer that orders values of a dtype, NaN the largest."""

    source: DType

    @property
    def wide(self) -> bool:
        """Whether it needs 64 bits."""
        return self.source.itemsize == 8

    @property
    def type(self) -> str:
        """Its Triton type."""
        return "tl.int64" if self.wide else "tl.int32"

    @property
    def largest(self) -> int:
        """Its greatest value."""
        return (1 << (63 if self.wide else 31)) - 1

    def encode(self, value: str) -> str:
        """Expression of the key of a value."""
        bits = f"{value}.to({self.type}, bitcast=True)"
        if self.source.is_float:
            # Negative floats order backwards; both zeros are one value, so are all NaNs.
            ordered = f"{bits} ^ (({bits} >> {self._sign}) & {self.largest})"
            return f"tl.where({value} == 0, 0, tl.where({value} != {value}, {self.largest}, {ordered}))"
        if self.source in (DType.UINT32, DType.UINT64):
            return f"{bits} ^ {-self.largest - 1}"
        return value if TYPES[self.source] == self.type else f"{value}.to({self.type})"

    def decode(self, key: str, negative_zero: str) -> str:
        """Expression of the value of a key."""
        own = TYPES[self.source]
        if self.source.is_float:
            # The sign is a bit here: Triton before 3.9 writes the literal -0.0 as 0.0.
            sign = f"({negative_zero}.to({self.type}) << {self._sign})"
            return f"(({key} ^ (({key} >> {self._sign}) & {self.largest})) | {sign}).to({own}, bitcast=True)"
        if self.source in (DType.UINT32, DType.UINT64):
            return f"({key} ^ {-self.largest - 1}).to({own}, bitcast=True)"
        return key if own == self.type else f"{key}.to({own})"

    @property
    def _sign(self) -> int:
        return 63 if self.wide else 31


NEEDS: Mapping[bool, frozenset[str]] = {
    False: frozenset({"exclusive_or", "sort_step", "sort_words"}),
    True: frozenset({"exclusive_or", "sort_pair_step", "sort_pairs"}),
}
"""Prelude functions, by whether keys need 64 bits."""


def write_sort(writer: Writer, sort: Sort, source: DType, arg: str, shape: tuple[int, int], masked: bool) -> None:
    """Write the two results of a sort of a tile of whole rows; lanes past the end of a row come last."""
    key, stem = Key(source), sort.dests[0]
    rows, width = shape
    steps = width.bit_length() - 1
    line = writer.line
    line(f"{stem}_key = {key.encode(arg)}")
    if sort.descending:
        line(f"{stem}_key = ~{stem}_key")
    if masked:
        line(f"{stem}_key = tl.where(r_mask, {stem}_key, {key.largest})")
    zero = f" | (({arg} == 0) & ({arg}.to({key.type}, bitcast=True) < 0)).to(tl.int32)" if source.is_float else ""
    line(f"{stem}_place = (tl.broadcast_to(r, [{rows}, {width}]).to(tl.int32) << 1){zero}")
    if key.wide:
        line(f"{stem}_key, {stem}_place = sort_pairs({stem}_key, {stem}_place, {rows}, {width}, {steps})")
    else:
        line(f"{stem}_word = ({stem}_key.to(tl.int64) << 32) | {stem}_place")
        line(f"{stem}_word = sort_words({stem}_word, {rows}, {width}, {steps})")
        line(f"{stem}_key = ({stem}_word >> 32).to(tl.int32)")
        line(f"{stem}_place = {stem}_word.to(tl.int32)")
    if sort.descending:
        line(f"{stem}_key = ~{stem}_key")
    line(f"{sort.dests[0]} = {key.decode(f'{stem}_key', f'({stem}_place & 1)')}")
    line(f"{sort.dests[1]} = ({stem}_place >> 1).to(tl.int64)")
