// The 16-bit floats: storage types and their exact or round-to-nearest-even conversions.
#pragma once

#include <stdint.h>

namespace mkw {

/// bfloat16 in memory: the upper half of a float32.
struct bf16 {
  uint16_t bits;
};

/// IEEE binary16 in memory.
struct f16 {
  uint16_t bits;
};

namespace detail {

// W is a vector of N unsigned 32-bit lanes, F one of N floats, S one of N signed lanes (what a
// comparison gives). Vectors of 16-bit lanes are widened and narrowed by the caller.

template <class W, class F>
inline __attribute__((always_inline)) F bf16_to_float(W bits) {
  return (F)(bits << 16);
}

template <class W, class F>
inline __attribute__((always_inline)) W float_to_bf16(F x) {
  const W bits = (W)x;
  const W rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return x == x ? rounded : (bits & 0u) + 0x7fc0u;
}

template <class W, class F>
inline __attribute__((always_inline)) F f16_to_float(W bits) {
  // Moved into place, the exponent is 112 too small; a product by 2^112 is exact for normals and
  // subnormals alike.
  const W moved = (bits & 0x7fffu) << 13;
  const F scaled = (F)moved * 0x1p112f;
  const W special = (W)((bits & 0x7c00u) == 0x7c00u) & 0x7f800000u;
  return (F)((W)scaled | special | ((bits & 0x8000u) << 16));
}

template <class W, class F>
inline __attribute__((always_inline)) W float_to_f16(F x) {
  const W all = (W)x;
  const W bits = all & 0x7fffffffu;
  // 15 - 127 into the exponent, then round to even at bit 13.
  const W normal = (bits + 0xc8000fffu + ((bits >> 13) & 1u)) >> 13;
  // Next to 0.5 a float's last place is 2^-24, binary16's smallest subnormal: the addition rounds.
  const W small = (W)((F)bits + 0.5f) - 0x3f000000u;
  const W zero = bits & 0u;
  const W large = bits > 0x7f800000u ? zero + 0x7e00u : zero + 0x7c00u;
  const W finite = bits < 0x38800000u ? small : normal;
  return (bits >= 0x47800000u ? large : finite) | ((all >> 16) & 0x8000u);
}

}  // namespace detail
}  // namespace mkw
