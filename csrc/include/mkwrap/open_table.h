// The tables from sizes to binaries that are parts of a library: those of kernels whose choice is
// open, or was where the library was compiled, so that a tuned library can be written without a
// compiler. Part of the runtime that emitted models include. Nothing is checked: whoever loads a
// library checks its seal, which vouches for its parts.
#ifndef MKWRAP_OPEN_TABLE_H_
#define MKWRAP_OPEN_TABLE_H_

#include <stdint.h>
#include <string.h>

#include "mkwrap/dispatch.h"
#include "mkwrap/parts.h"

namespace mkwrap::runtime {

// The start of such a part. Behind it: `rows` rows; `hints` logarithms; per symbol its place among
// the logarithms that an election takes; per point its first row, and the number of rows; of a grid
// how many hints each symbol has. As `DispatchTable` has them.
struct OpenTableHead {
  uint32_t rows;
  uint32_t points;
  uint32_t symbols;
  uint32_t hints;
  uint32_t is_grid;
  uint32_t unused;  // rows are aligned to 8 bytes
};

struct OpenTable {
  DispatchTable table;
  uint32_t row_count;
  const uint32_t* places;
};

inline OpenTable open_table(const char* parts, uint32_t number) {
  const unsigned char* at = part_bytes(parts, number);
  OpenTableHead head;
  memcpy(&head, at, sizeof(head));
  const auto* rows = reinterpret_cast<const DispatchRow*>(at + sizeof(head));
  const auto* hints = reinterpret_cast<const uint32_t*>(rows + head.rows);
  const uint32_t* places = hints + head.hints;
  const auto* first = reinterpret_cast<const uint16_t*>(places + head.symbols);
  const uint16_t* axes = head.is_grid != 0 ? first + head.points + 1 : nullptr;
  return {{rows, first, hints, axes, head.points, head.symbols}, head.rows, places};
}

// Whether some sizes choose the alternative by the table in this part.
inline bool may_elect(const char* parts, uint32_t number, uint32_t alternative) {
  const OpenTable open = open_table(parts, number);
  for (uint32_t row = 0; row < open.row_count; ++row)
    if (open.table.rows[row].alternative == alternative) return true;
  return false;
}

// `elect` by the table in this part. Of `logs`, which has the logarithms of all of the kernel's
// sizes, those of the table's symbols are moved to the front.
inline uint32_t elect(const char* parts, uint32_t number, uint32_t* logs, uint64_t holds) {
  const OpenTable open = open_table(parts, number);
  for (uint32_t symbol = 0; symbol < open.table.symbol_count; ++symbol)
    logs[symbol] = logs[open.places[symbol]];
  return elect(open.table, logs, holds);
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_OPEN_TABLE_H_
