// Which binary of a kernel runs for the sizes of a call: the rule of docs/dynamic.md in integer
// arithmetic, the same as `mkwrap/ir/nearest.py`'s. Part of the runtime that emitted models
// include.
#ifndef MKWRAP_DISPATCH_H_
#define MKWRAP_DISPATCH_H_

#include <stdint.h>

namespace mkwrap::runtime {

constexpr int kFractionBits = 16;
// Distances that differ by at most so much for each symbol are equal.
constexpr uint32_t kTie = 8;
constexpr uint32_t kMostRows = 256;
constexpr uint32_t kNoRow = UINT32_MAX;

// ⌊2¹⁶·log2(size)⌋ for 1 ≤ size < 2⁶³, at most 2 too small; 0 for 0. The fraction's digits come by
// squaring the mantissa in 1.31 fixed point.
constexpr uint32_t log2_fixed(int64_t size) {
  if (size < 2) return 0;
  const auto value = static_cast<uint64_t>(size);
  auto digits = static_cast<uint32_t>(63 - __builtin_clzll(value));
  uint64_t mantissa = (value << (63 - digits)) >> 32;
  for (int i = 0; i < kFractionBits; ++i) {
    mantissa = (mantissa * mantissa) >> 31;
    const auto digit = static_cast<uint32_t>(mantissa >> 32);
    mantissa >>= digit;
    digits = digits << 1 | digit;
  }
  return digits;
}

// A row of a kernel's table: it takes part where every guard of `guards`, a set of bits, holds.
struct DispatchRow {
  uint64_t guards;
  uint32_t handicap;     // added to its distance, in 2⁻¹⁶ doublings
  uint32_t alternative;  // the kernel's alternative that runs
};

// Rows are in the order of their points, as ties are decided; `hints` has log2_fixed of each row's
// point, row by row.
struct DispatchTable {
  const DispatchRow* rows;
  const uint32_t* hints;
  uint32_t row_count;  // at most kMostRows
  uint32_t symbol_count;
};

// The alternative of the row that runs for sizes with these logarithms, where the guards of `holds`
// hold; kNoRow where no row may run.
inline uint32_t elect(const DispatchTable& table, const uint32_t* logs, uint64_t holds) {
  uint32_t far[kMostRows];
  uint32_t least = UINT32_MAX;
  const uint32_t* hint = table.hints;
  for (uint32_t row = 0; row < table.row_count; ++row) {
    uint32_t apart = table.rows[row].handicap;
    for (uint32_t symbol = 0; symbol < table.symbol_count; ++symbol, ++hint)
      apart += logs[symbol] > *hint ? logs[symbol] - *hint : *hint - logs[symbol];
    const bool legal = (table.rows[row].guards & ~holds) == 0;
    far[row] = legal ? apart : UINT32_MAX;
    least = far[row] < least ? far[row] : least;
  }
  if (least == UINT32_MAX) return kNoRow;
  const uint32_t limit = least + kTie * table.symbol_count;
  for (uint32_t row = 0; row < table.row_count; ++row)
    if (far[row] <= limit) return table.rows[row].alternative;
  return kNoRow;
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_DISPATCH_H_
