// Which binary of a kernel runs for the sizes of a call: the rule of docs/dynamic.md in integer
// arithmetic, the same as `mkwrap/ir/nearest.py`'s. Part of the runtime that emitted models
// include.
#ifndef MKWRAP_DISPATCH_H_
#define MKWRAP_DISPATCH_H_

#include <stddef.h>
#include <stdint.h>

namespace mkwrap::runtime {

constexpr int kFractionBits = 16;
// Distances that differ by at most so much for each symbol are equal.
constexpr uint32_t kTie = 8;
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
// Where the points are a grid, `axes` says how many hints each symbol has, and `hints` has those of
// each symbol, ascending, symbol by symbol; two of a symbol are then apart by more than twice the
// tie.
struct DispatchTable {
  const DispatchRow* rows;
  const uint16_t* first;
  const uint32_t* hints;
  const uint16_t* axes;   // null: no grid
  uint32_t point_count;   // `first` has room for 65,535 rows
  uint32_t symbol_count;  // at most kMostSymbols in a grid
};

constexpr uint32_t kMostSymbols = 8;

constexpr uint32_t apart(uint32_t log, uint32_t hint) {
  return log > hint ? log - hint : hint - log;
}

// Of a point's rows that may run the one with the least handicap, the first of these; kNoRow: none
// may.
inline uint32_t least_row(const DispatchTable& table, uint32_t point, uint64_t holds) {
  uint32_t best = kNoRow;
  for (uint32_t row = table.first[point]; row < table.first[point + 1]; ++row) {
    if ((table.rows[row].guards & ~holds) != 0) continue;
    if (best == kNoRow || table.rows[row].handicap < table.rows[best].handicap) best = row;
    if (table.rows[best].handicap == 0) break;
  }
  return best;
}

// The search for the nearest rows, over points in their order: first how near one is, then the
// first row that is as near within the tie.
struct Search {
  const DispatchTable& table;
  uint64_t holds;
  uint32_t limit = UINT32_MAX;

  void consider(uint32_t point, uint32_t far) {
    const uint32_t row = least_row(table, point, holds);
    if (row == kNoRow) return;
    const uint32_t distance = far + table.rows[row].handicap;
    limit = distance < limit ? distance : limit;
  }

  // The alternative of the point's first row within the tie; kNoRow: none is.
  [[nodiscard]] uint32_t answer(uint32_t point, uint32_t far) const {
    for (uint32_t row = table.first[point]; row < table.first[point + 1]; ++row)
      if ((table.rows[row].guards & ~holds) == 0 &&
          far + table.rows[row].handicap <= limit + kTie * table.symbol_count)
        return table.rows[row].alternative;
    return kNoRow;
  }
};

inline uint32_t far_from(const DispatchTable& table, const uint32_t* logs, uint32_t point) {
  const uint32_t* hints = table.hints + static_cast<size_t>(point) * table.symbol_count;
  uint32_t far = 0;
  for (uint32_t symbol = 0; symbol < table.symbol_count; ++symbol)
    far += apart(logs[symbol], hints[symbol]);
  return far;
}

inline uint32_t elect_of_points(const DispatchTable& table, const uint32_t* logs, uint64_t holds) {
  Search search{table, holds};
  for (uint32_t point = 0; point < table.point_count; ++point) {
    const uint32_t far = far_from(table, logs, point);
    if (far < search.limit) search.consider(point, far);
  }
  if (search.limit == UINT32_MAX) return kNoRow;
  for (uint32_t point = 0; point < table.point_count; ++point) {
    const uint32_t far = far_from(table, logs, point);
    if (far > search.limit + kTie * table.symbol_count) continue;
    const uint32_t answer = search.answer(point, far);
    if (answer != kNoRow) return answer;
  }
  return kNoRow;
}

// The hints of a grid that rows can be elected from: of each symbol those from `begin` to `end`.
struct Window {
  const uint32_t* hints[kMostSymbols];  // of each symbol
  uint32_t begin[kMostSymbols];
  uint32_t end[kMostSymbols];

  // Calls `visit(point, far)` for the points of the window in their order, until it returns true.
  template <typename Visit>
  bool each(const DispatchTable& table, const uint32_t* logs, Visit visit, uint32_t symbol = 0,
            uint32_t point = 0, uint32_t far = 0) const {
    if (symbol == table.symbol_count) return visit(point, far);
    for (uint32_t place = begin[symbol]; place < end[symbol]; ++place)
      if (each(table, logs, visit, symbol + 1, point * table.axes[symbol] + place,
               far + apart(logs[symbol], hints[symbol][place])))
        return true;
    return false;
  }
};

// In a grid the nearest point is the nearest along each axis. Its row is elected where it has no
// handicap and no other point is as near; else only points are looked at that can be nearer than
// it.
inline uint32_t elect_of_grid(const DispatchTable& table, const uint32_t* logs, uint64_t holds) {
  const uint32_t tie = kTie * table.symbol_count;
  Window window;
  uint32_t near[kMostSymbols];
  uint32_t nearest = 0;
  uint32_t least = 0;
  bool sure = true;
  const uint32_t* hints = table.hints;
  for (uint32_t symbol = 0; symbol < table.symbol_count; ++symbol) {
    const uint32_t count = table.axes[symbol];
    uint32_t above = 0;
    while (above < count && hints[above] <= logs[symbol]) ++above;
    const uint32_t up = above < count ? hints[above] - logs[symbol] : UINT32_MAX;
    const uint32_t down = above > 0 ? logs[symbol] - hints[above - 1] : UINT32_MAX;
    sure = sure && apart(up, down) > 2 * tie;
    near[symbol] = up < down ? up : down;
    nearest = nearest * count + (up < down ? above : above - 1);
    least += near[symbol];
    window.hints[symbol] = hints;
    hints += count;
  }
  const uint32_t row = least_row(table, nearest, holds);
  if (row != kNoRow && sure && table.rows[row].handicap == 0)
    return Search{table, holds, least}.answer(nearest, least);
  const uint32_t room = row == kNoRow ? UINT32_MAX / 2 : table.rows[row].handicap + tie;
  for (uint32_t symbol = 0; symbol < table.symbol_count; ++symbol) {
    uint32_t begin = 0;
    uint32_t end = table.axes[symbol];
    while (apart(logs[symbol], window.hints[symbol][begin]) > near[symbol] + room) ++begin;
    while (apart(logs[symbol], window.hints[symbol][end - 1]) > near[symbol] + room) --end;
    window.begin[symbol] = begin;
    window.end[symbol] = end;
  }
  Search search{table, holds};
  window.each(table, logs, [&](uint32_t point, uint32_t far) {
    if (far <= least + room && far < search.limit) search.consider(point, far);
    return false;
  });
  if (search.limit == UINT32_MAX) return kNoRow;
  uint32_t answer = kNoRow;
  window.each(table, logs, [&](uint32_t point, uint32_t far) {
    if (far <= search.limit + tie) answer = search.answer(point, far);
    return answer != kNoRow;
  });
  return answer;
}

// The alternative of the row that runs for sizes with these logarithms, where the guards of `holds`
// hold; kNoRow where no row may run.
inline uint32_t elect(const DispatchTable& table, const uint32_t* logs, uint64_t holds) {
  return table.axes == nullptr ? elect_of_points(table, logs, holds)
                               : elect_of_grid(table, logs, holds);
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_DISPATCH_H_
