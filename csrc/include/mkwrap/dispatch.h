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
constexpr uint32_t kMostRows = 1024;
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

// Rows are in the order of their points, as ties are decided, and a point's rows together: those of
// point p are first[p] … first[p + 1] − 1. `hints` has log2_fixed of each point, point by point.
struct DispatchTable {
  const DispatchRow* rows;
  const uint16_t* first;
  const uint32_t* hints;
  uint32_t point_count;  // at most kMostRows, as rows are
  uint32_t symbol_count;
};

// Of points alone, without guards and handicaps: how far each is, and the least of it.
inline uint32_t measure(const DispatchTable& table, const uint32_t* logs, uint32_t* far) {
  uint32_t least = UINT32_MAX;
  const uint32_t* hint = table.hints;
  for (uint32_t point = 0; point < table.point_count; ++point) {
    uint32_t apart = 0;
    for (uint32_t symbol = 0; symbol < table.symbol_count; ++symbol, ++hint)
      apart += logs[symbol] > *hint ? logs[symbol] - *hint : *hint - logs[symbol];
    far[point] = apart;
    least = apart < least ? apart : least;
  }
  return least;
}

// The alternative of the row that runs for sizes with these logarithms, where the guards of `holds`
// hold; kNoRow where no row may run.
inline uint32_t elect(const DispatchTable& table, const uint32_t* logs, uint64_t holds) {
  uint32_t far[kMostRows];
  const uint32_t tie = kTie * table.symbol_count;
  const uint32_t least = measure(table, logs, far);
  // Where one point is nearer than all others beyond doubt, its first row that may run and has no
  // handicap is elected, unless one before it has so small a handicap that the two are equal.
  uint32_t nearest = 0;
  uint32_t near_by = 0;
  for (uint32_t point = 0; point < table.point_count; ++point) {
    const bool near = far[point] <= least + 2 * tie;
    near_by += near ? 1 : 0;
    nearest = near ? point : nearest;
  }
  if (near_by == 1)
    for (uint32_t row = table.first[nearest]; row < table.first[nearest + 1]; ++row) {
      if ((table.rows[row].guards & ~holds) != 0 || table.rows[row].handicap > tie) continue;
      if (table.rows[row].handicap == 0) return table.rows[row].alternative;
      break;
    }
  uint32_t limit = UINT32_MAX;
  for (uint32_t point = 0; point < table.point_count; ++point)
    for (uint32_t row = table.first[point]; row < table.first[point + 1]; ++row) {
      const uint32_t apart = far[point] + table.rows[row].handicap;
      if ((table.rows[row].guards & ~holds) == 0 && apart < limit) limit = apart;
    }
  if (limit == UINT32_MAX) return kNoRow;
  for (uint32_t point = 0; point < table.point_count; ++point)
    for (uint32_t row = table.first[point]; row < table.first[point + 1]; ++row)
      if ((table.rows[row].guards & ~holds) == 0 &&
          far[point] + table.rows[row].handicap <= limit + tie)
        return table.rows[row].alternative;
  return kNoRow;
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_DISPATCH_H_
