// Integer arithmetic of size expressions, with Python's rounding. `wide` is set where a result does
// not fit 64 bits; the value is of no use then.
#ifndef MKWRAP_SIZES_H_
#define MKWRAP_SIZES_H_

#include <stdint.h>

namespace mkwrap::runtime {

constexpr int64_t plus(int64_t a, int64_t b, bool& wide) {
  int64_t sum = 0;
  wide |= __builtin_add_overflow(a, b, &sum);
  return sum;
}

constexpr int64_t times(int64_t a, int64_t b, bool& wide) {
  int64_t product = 0;
  wide |= __builtin_mul_overflow(a, b, &product);
  return product;
}

// ⌊a / b⌋, and 0 for b = 0: a size of 0 may stand there, whose axes have no points that would use
// the quotient.
constexpr int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return static_cast<int64_t>(0 - static_cast<uint64_t>(a));
  return a / b - static_cast<int64_t>(a % b != 0 && (a < 0) != (b < 0));
}

// a − b·⌊a / b⌋, and 0 for b = 0.
constexpr int64_t floor_mod(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

}  // namespace mkwrap::runtime

#endif  // MKWRAP_SIZES_H_
