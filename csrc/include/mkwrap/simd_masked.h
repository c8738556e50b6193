// Masked loads and stores of one register, for the lanes a row leaves over. Part of simd.h.
//
// A loop over lanes with a count that is no constant is unrolled into a branch a lane, or goes
// through memory twice; the machine has an instruction for it.
#pragma once

namespace mkw::detail {

/// Moves the first `count` lanes of `Width` bytes in a register of `Bytes`; lanes that are not
/// moved are 0 and touch no memory. `there`: whether the machine can.
template <int Width, int Bytes>
struct Masked {
  static constexpr bool there = false;
};

#if defined(__AVX512BW__) && defined(__AVX512VL__) && !defined(__clang__)
// NOLINTBEGIN(bugprone-macro-parentheses,readability-math-missing-parentheses): types and names.
#define MKW_MASKED(WIDTH, BYTES, NAME, LANE, MASK)                                         \
  template <>                                                                              \
  struct Masked<WIDTH, BYTES> {                                                            \
    static constexpr bool there = true;                                                    \
    typedef LANE V __attribute__((vector_size(BYTES)));                                    \
    static MKW_INLINE MASK first(int count) { return (MASK)(((uint64_t)1 << count) - 1); } \
    static MKW_INLINE V load(const void* p, int count) {                                   \
      return (V)__builtin_ia32_load##NAME##_mask((const LANE*)p, V{}, first(count));       \
    }                                                                                      \
    static MKW_INLINE void store(void* p, V x, int count) {                                \
      __builtin_ia32_store##NAME##_mask((LANE*)p, x, first(count));                        \
    }                                                                                      \
  };
MKW_MASKED(1, 16, dquqi128, char, uint16_t)
MKW_MASKED(1, 32, dquqi256, char, uint32_t)
MKW_MASKED(1, 64, dquqi512, char, uint64_t)
MKW_MASKED(2, 16, dquhi128, short, uint8_t)
MKW_MASKED(2, 32, dquhi256, short, uint16_t)
MKW_MASKED(2, 64, dquhi512, short, uint32_t)
MKW_MASKED(4, 16, dqusi128, int, uint8_t)
MKW_MASKED(4, 32, dqusi256, int, uint8_t)
MKW_MASKED(4, 64, dqusi512, int, uint16_t)
MKW_MASKED(8, 16, dqudi128, long long, uint8_t)
MKW_MASKED(8, 32, dqudi256, long long, uint8_t)
MKW_MASKED(8, 64, dqudi512, long long, uint8_t)
#undef MKW_MASKED
// NOLINTEND(bugprone-macro-parentheses,readability-math-missing-parentheses)
#elif defined(__AVX2__) && !defined(__clang__)
// NOLINTBEGIN(bugprone-macro-parentheses,readability-math-missing-parentheses): types and names.
#define MKW_MASKED(WIDTH, BYTES, SUFFIX, LANE)                                         \
  template <>                                                                          \
  struct Masked<WIDTH, BYTES> {                                                        \
    static constexpr bool there = true;                                                \
    typedef LANE V __attribute__((vector_size(BYTES)));                                \
    static MKW_INLINE V first(int count) {                                             \
      return (V)(iota<LANE, BYTES / WIDTH>().v < splat<BYTES / WIDTH>((LANE)count).v); \
    }                                                                                  \
    static MKW_INLINE V load(const void* p, int count) {                               \
      return (V)__builtin_ia32_maskload##SUFFIX((const V*)p, first(count));            \
    }                                                                                  \
    static MKW_INLINE void store(void* p, V x, int count) {                            \
      __builtin_ia32_maskstore##SUFFIX((V*)p, first(count), x);                        \
    }                                                                                  \
  };
MKW_MASKED(4, 16, d, int)
MKW_MASKED(4, 32, d256, int)
MKW_MASKED(8, 16, q, long long)
MKW_MASKED(8, 32, q256, long long)
#undef MKW_MASKED
// NOLINTEND(bugprone-macro-parentheses,readability-math-missing-parentheses)
#endif

}  // namespace mkw::detail
