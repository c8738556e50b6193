// Arithmetic, comparisons and bits, on scalars and vectors alike, with torch's semantics. Part of
// simd.h.
#pragma once

namespace mkw {

#define MKW_BINARY(NAME, OP)                            \
  template <class T, int N>                             \
  MKW_INLINE Vec<T, N> NAME(Vec<T, N> a, Vec<T, N> b) { \
    return {a.v OP b.v};                                \
  }                                                     \
  template <class T>                                    \
  MKW_INLINE T NAME(T a, T b) {                         \
    return (T)(a OP b);                                 \
  }
MKW_BINARY(add, +)
MKW_BINARY(sub, -)
MKW_BINARY(mul, *)
MKW_BINARY(div, /)
MKW_BINARY(bitand_, &)
MKW_BINARY(bitor_, |)
MKW_BINARY(bitxor_, ^)
#undef MKW_BINARY

#define MKW_COMPARE(NAME, OP)                              \
  template <class T, int N>                                \
  MKW_INLINE Vec<bool, N> NAME(Vec<T, N> a, Vec<T, N> b) { \
    return as_mask<N>(a.v OP b.v);                         \
  }                                                        \
  template <class T>                                       \
  MKW_INLINE bool NAME(T a, T b) {                         \
    return a OP b;                                         \
  }
MKW_COMPARE(eq, ==)
MKW_COMPARE(ne, !=)
#undef MKW_COMPARE

// A mask's lanes are 0 or −1, so that of two truth values the larger has the smaller lane.
#define MKW_ORDER(NAME, OP)                                \
  template <class T, int N>                                \
  MKW_INLINE Vec<bool, N> NAME(Vec<T, N> a, Vec<T, N> b) { \
    if constexpr (same<T, bool>)                           \
      return as_mask<N>(b.v OP a.v);                       \
    else                                                   \
      return as_mask<N>(a.v OP b.v);                       \
  }                                                        \
  template <class T>                                       \
  MKW_INLINE bool NAME(T a, T b) {                         \
    return a OP b;                                         \
  }
MKW_ORDER(lt, <)
MKW_ORDER(le, <=)
MKW_ORDER(gt, >)
MKW_ORDER(ge, >=)
#undef MKW_ORDER

template <class T, int N>
MKW_INLINE Vec<T, N> bitnot(Vec<T, N> a) {
  return {~a.v};
}
template <class T>
MKW_INLINE T bitnot(T a) {
  if constexpr (same<T, bool>)
    return !a;
  else
    return (T)~a;
}

/// a·b + c with one rounding.
MKW_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
MKW_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
template <class T, int N>
MKW_INLINE Vec<T, N> fma(Vec<T, N> a, Vec<T, N> b, Vec<T, N> c) {
#if defined(__FMA__) && !defined(__clang__)
  if constexpr (same<T, float> && N == 4) return {__builtin_ia32_vfmaddps(a.v, b.v, c.v)};
  if constexpr (same<T, float> && N == 8) return {__builtin_ia32_vfmaddps256(a.v, b.v, c.v)};
  if constexpr (same<T, double> && N == 2) return {__builtin_ia32_vfmaddpd(a.v, b.v, c.v)};
  if constexpr (same<T, double> && N == 4) return {__builtin_ia32_vfmaddpd256(a.v, b.v, c.v)};
#if defined(__AVX512F__)
  // The last argument is _MM_FROUND_CUR_DIRECTION.
  if constexpr (same<T, float> && N == 16)
    return {__builtin_ia32_vfmaddps512_mask(a.v, b.v, c.v, (unsigned short)-1, 4)};
  if constexpr (same<T, double> && N == 8)
    return {__builtin_ia32_vfmaddpd512_mask(a.v, b.v, c.v, (unsigned char)-1, 4)};
#endif
#endif
  return each<T>([](T x, T y, T z) { return fma(x, y, z); }, a, b, c);
}

template <class T, int N>
MKW_INLINE Vec<bool, N> isnan(Vec<T, N> a) {
  return as_mask<N>(a.v != a.v);
}
template <class T>
MKW_INLINE bool isnan(T a) {
  return a != a;
}

template <class V>
MKW_INLINE V neg(V a) {
  if constexpr (lanes_of<V> > 1)
    return {-a.v};
  else
    return (V)-a;
}

template <class V>
MKW_INLINE V abs(V a) {
  using T = element_of<V>;
  using U = uint_of<sizeof(T)>;
  if constexpr (is_float<T>) {
    const auto sign = (U)1 << (8 * sizeof(T) - 1);
    if constexpr (lanes_of<V> > 1)
      return bits<T>(rebind<V, U>{bits<U>(a).v & ~sign});
    else
      return bits<T>((U)(bits<U>(a) & ~sign));
  } else if constexpr ((T)-1 > (T)0) {
    return a;
  } else if constexpr (lanes_of<V> > 1) {
    return {a.v < 0 ? -a.v : a.v};
  } else {
    return a < 0 ? (T)-a : a;
  }
}

/// a > b ? a : b, hence b where either is NaN: one instruction on x86, which g++ does not find for
/// vectors.
template <class T, int N>
MKW_INLINE Vec<T, N> larger_or_second(Vec<T, N> a, Vec<T, N> b) {
#if defined(__AVX512F__) && !defined(__clang__)
  if constexpr (same<T, float> && N == 16)
    return {__builtin_ia32_maxps512_mask(a.v, b.v, a.v, (unsigned short)-1, 4)};
  if constexpr (same<T, double> && N == 8)
    return {__builtin_ia32_maxpd512_mask(a.v, b.v, a.v, (unsigned char)-1, 4)};
#endif
#if defined(__AVX__) && !defined(__clang__)
  if constexpr (same<T, float> && N == 8) return {__builtin_ia32_maxps256(a.v, b.v)};
  if constexpr (same<T, double> && N == 4) return {__builtin_ia32_maxpd256(a.v, b.v)};
#endif
  return {a.v > b.v ? a.v : b.v};
}
/// a < b ? a : b, hence b where either is NaN.
template <class T, int N>
MKW_INLINE Vec<T, N> smaller_or_second(Vec<T, N> a, Vec<T, N> b) {
#if defined(__AVX512F__) && !defined(__clang__)
  if constexpr (same<T, float> && N == 16)
    return {__builtin_ia32_minps512_mask(a.v, b.v, a.v, (unsigned short)-1, 4)};
  if constexpr (same<T, double> && N == 8)
    return {__builtin_ia32_minpd512_mask(a.v, b.v, a.v, (unsigned char)-1, 4)};
#endif
#if defined(__AVX__) && !defined(__clang__)
  if constexpr (same<T, float> && N == 8) return {__builtin_ia32_minps256(a.v, b.v)};
  if constexpr (same<T, double> && N == 4) return {__builtin_ia32_minpd256(a.v, b.v)};
#endif
  return {a.v < b.v ? a.v : b.v};
}

/// The larger; NaN where either is NaN. A reduction's running value is `a`: the test for NaN is not
/// on its path.
template <class T, int N>
MKW_INLINE Vec<T, N> maximum(Vec<T, N> a, Vec<T, N> b) {
  if constexpr (same<T, bool>)
    return {a.v | b.v};
  else if constexpr (is_float<T>)
    return {b.v != b.v ? b.v : larger_or_second(b, a).v};
  else
    return {a.v > b.v ? a.v : b.v};
}
template <class T>
MKW_INLINE T maximum(T a, T b) {
  return (a > b) | (a != a) ? a : b;
}
/// The smaller; NaN where either is NaN.
template <class T, int N>
MKW_INLINE Vec<T, N> minimum(Vec<T, N> a, Vec<T, N> b) {
  if constexpr (same<T, bool>)
    return {a.v & b.v};
  else if constexpr (is_float<T>)
    return {b.v != b.v ? b.v : smaller_or_second(b, a).v};
  else
    return {a.v < b.v ? a.v : b.v};
}
template <class T>
MKW_INLINE T minimum(T a, T b) {
  return (a < b) | (a != a) ? a : b;
}

/// −1, 0 or 1; 0 for NaN, as in torch.
template <class V>
MKW_INLINE V sign(V a) {
  using T = element_of<V>;
  if constexpr (lanes_of<V> > 1) {
    constexpr int lanes = V::lanes;
    const V zero = splat<lanes>((T)0);
    const V positive = where(gt(a, zero), splat<lanes>((T)1), zero);
    if constexpr ((T)-1 > (T)0)
      return positive;
    else
      return where(lt(a, zero), splat<lanes>((T)-1), positive);
  } else {
    return (T)((a > (T)0) - (a < (T)0));
  }
}

// Shifts by the width or more give 0, or the sign for a signed right shift, and so do negative
// ones, as in torch.
template <class T>
MKW_INLINE T shl(T a, T b) {
  const bool wide = b < (T)0 || (uint64_t)b >= 8 * sizeof(T);
  return wide ? (T)0 : (T)((uint64_t)a << (uint64_t)b);
}
template <class T>
MKW_INLINE T shr(T a, T b) {
  const bool wide = b < (T)0 || (uint64_t)b >= 8 * sizeof(T);
  return wide ? (a < (T)0 ? (T)-1 : (T)0) : (T)(a >> b);
}

// A zero divisor is eager's error; here it gives an unspecified number, but never a fault: unused
// lanes hold zeros too. The lowest integer over −1 wraps.
template <class T>
MKW_INLINE T truncdiv(T a, T b) {
  if constexpr (is_float<T>)
    return sizeof(T) == 4 ? (T)__builtin_truncf((float)(a / b)) : (T)__builtin_trunc(a / b);
  else if constexpr ((T)-1 < (T)0)
    return b == 0 ? (T)-1 : b == (T)-1 ? (T)(0 - a) : (T)(a / b);
  else
    return b == 0 ? (T)-1 : (T)(a / b);
}
template <class T>
MKW_INLINE T fmod(T a, T b) {
  if constexpr (is_float<T>)
    return sizeof(T) == 4 ? (T)__builtin_fmodf((float)a, (float)b) : (T)__builtin_fmod(a, b);
  else if constexpr ((T)-1 < (T)0)
    return b == 0 || b == (T)-1 ? (T)0 : (T)(a % b);
  else
    return b == 0 ? (T)0 : (T)(a % b);
}
/// Python's %, with the sign of the divisor.
template <class T>
MKW_INLINE T mod(T a, T b) {
  const T r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? (T)(r + b) : r;
}
/// Python's //; for floats as CPython's float_floor_div: from the exact remainder, so that no
/// quotient rounds up.
template <class T>
MKW_INLINE T floordiv(T a, T b) {
  if constexpr (!is_float<T>) {
    const T q = truncdiv(a, b);
    return (T)(q - (fmod(a, b) != 0 && (a < 0) != (b < 0)));
  } else {
    if (b == 0) return a / b;
    const T r = fmod(a, b);
    const T q = (a - r) / b - (T)(r != 0 && (b < 0) != (r < 0));
    if (q == 0) return (a < 0) != (b < 0) ? -(T)0 : (T)0;
    const T f = sizeof(T) == 4 ? (T)__builtin_floorf((float)q) : (T)__builtin_floor(q);
    return q - f > (T)0.5 ? f + 1 : f;
  }
}

#define MKW_LANES(NAME)                                        \
  template <class T, int N>                                    \
  MKW_INLINE Vec<T, N> NAME(Vec<T, N> a, Vec<T, N> b) {        \
    return each<T>([](T x, T y) { return NAME(x, y); }, a, b); \
  }
MKW_LANES(shl)
MKW_LANES(shr)
MKW_LANES(truncdiv)
MKW_LANES(fmod)
MKW_LANES(mod)
MKW_LANES(floordiv)
#undef MKW_LANES

}  // namespace mkw
