// Integer arithmetic of size expressions, with Python's rounding.
#ifndef MKWRAP_SIZES_H_
#define MKWRAP_SIZES_H_

#include <stdint.h>

namespace mkwrap::runtime {

// ⌊a / b⌋ for b > 0.
constexpr int64_t floor_div(int64_t a, int64_t b) {
  return a / b - static_cast<int64_t>(a % b < 0);
}

// a − b·⌊a / b⌋ for b > 0.
constexpr int64_t floor_mod(int64_t a, int64_t b) { return a % b < 0 ? a % b + b : a % b; }

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

}  // namespace mkwrap::runtime

#endif  // MKWRAP_SIZES_H_
