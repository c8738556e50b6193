// Vectors of N lanes over compiler vector types, and the scalar primitives of the IR on them and on
// plain scalars.
//
// Every function has one spelling for both: `mkw::add(a, b)` takes two scalars or two vectors. No
// standard library, no intrinsics but for fused multiply-add, so that a kernel compiles in a few
// tenths of a second on any architecture.
#pragma once

#include <stdint.h>
#include <string.h>

#include "half.h"

#ifndef MKW_VECTOR_BYTES
#if defined(__AVX512F__)
#define MKW_VECTOR_BYTES 64
#elif defined(__AVX__)
#define MKW_VECTOR_BYTES 32
#else
#define MKW_VECTOR_BYTES 16
#endif
#endif

#define MKW_INLINE inline __attribute__((always_inline))

namespace mkw {

template <class A, class B>
inline constexpr bool same = false;
template <class A>
inline constexpr bool same<A, A> = true;

template <bool C, class A, class B>
struct Choose {
  using type = A;
};
template <class A, class B>
struct Choose<false, A, B> {
  using type = B;
};
template <bool C, class A, class B>
using choose = typename Choose<C, A, B>::type;

/// Signed and unsigned integers of a given size in bytes.
template <int Bytes>
using int_of =
    choose<Bytes == 8, int64_t, choose<Bytes == 4, int32_t, choose<Bytes == 2, int16_t, int8_t>>>;
template <int Bytes>
using uint_of = choose<Bytes == 8, uint64_t,
                       choose<Bytes == 4, uint32_t, choose<Bytes == 2, uint16_t, uint8_t>>>;

template <class T>
inline constexpr bool is_half = same<T, bf16> || same<T, f16>;
template <class T>
inline constexpr bool is_float = same<T, float> || same<T, double>;

/// What a lane of T holds in a register: bits for the 16-bit floats.
template <class T>
using lane_of = choose<is_half<T>, uint16_t, T>;

/// Compiler vector of N lanes.
template <class T, int N>
struct NativeOf {
  using type __attribute__((vector_size(sizeof(T) * N))) = T;
};
template <class T, int N>
using native = typename NativeOf<T, N>::type;

/// N lanes of T.
template <class T, int N>
struct Vec {
  static constexpr int lanes = N;
  using element = T;
  native<lane_of<T>, N> v;

  MKW_INLINE T operator[](int i) const {
    if constexpr (is_half<T>)
      return T{v[i]};
    else
      return v[i];
  }
};

/// Bytes of a mask lane: as wide as N lanes can be in one register, so that the widest type of a
/// kernel needs no conversion.
template <int N>
inline constexpr int mask_bytes = MKW_VECTOR_BYTES / N >= 8  ? 8
                                  : MKW_VECTOR_BYTES / N < 1 ? 1
                                                             : MKW_VECTOR_BYTES / N;

/// N truth values: lanes are 0 or −1.
template <int N>
struct Vec<bool, N> {
  static constexpr int lanes = N;
  using element = bool;
  using Lane = int_of<mask_bytes<N>>;
  native<Lane, N> v;

  MKW_INLINE bool operator[](int i) const { return v[i] != 0; }
};

template <class V>
struct ElementOf {
  using type = V;
};
template <class T, int N>
struct ElementOf<Vec<T, N>> {
  using type = T;
};
/// T of both T and Vec<T, N>.
template <class V>
using element_of = typename ElementOf<V>::type;

template <class V>
inline constexpr int lanes_of = 1;
template <class T, int N>
inline constexpr int lanes_of<Vec<T, N>> = N;

/// V's shape with another element type.
template <class V, class U>
using rebind = choose<lanes_of<V> == 1, U, Vec<U, lanes_of<V>>>;

/// Which lanes of a vector access are meant: all, or the first `count`.
template <int N>
struct Full {
  static constexpr int lanes = N;
  static constexpr int count = N;
};
template <int N>
struct Part {
  static constexpr int lanes = N;
  int count;
};

// ── lanes of other types ────────────────────────────────────────────────────────────────────────

namespace detail {

template <class T>
inline constexpr bool is_signed = (T)-1 < (T)0;

/// Converts numbers lane by lane. In steps of twice the width, each of which is one instruction or
/// two: g++ takes wider steps lane by lane. Floats become narrow integers by way of int32 (uint32:
/// int64), so that they wrap as in torch.
template <class U, class T, int N>
MKW_INLINE native<U, N> convert(native<T, N> x) {
  constexpr int from = sizeof(T), into = sizeof(U);
  if constexpr (same<T, U>) {
    return x;
  } else if constexpr (is_float<T> && !is_float<U> && into < 4) {
    return convert<U, int32_t, N>(__builtin_convertvector(x, native<int32_t, N>));
  } else if constexpr (is_float<T> && same<U, uint32_t>) {
    return __builtin_convertvector(__builtin_convertvector(x, native<int64_t, N>), native<U, N>);
  } else if constexpr (is_float<T> && same<U, uint64_t>) {
    // Negative numbers wrap: only what int64 has no room for is converted as it stands.
    const auto near = (native<U, N>)convert<int64_t, T, N>(x);
    const auto small = convert<int64_t, int_of<from>, N>(x < (T)0x1p63);
    return small != 0 ? near : __builtin_convertvector(x, native<U, N>);
  } else if constexpr (is_float<U> && !is_float<T> && from < 4) {
    return __builtin_convertvector(convert<int32_t, T, N>(x), native<U, N>);
  } else if constexpr (!is_float<T> && !is_float<U> && into > 2 * from) {
    using Wide = choose<is_signed<T>, int_of<2 * from>, uint_of<2 * from>>;
    return convert<U, Wide, N>(__builtin_convertvector(x, native<Wide, N>));
  } else if constexpr (!is_float<T> && !is_float<U> && from > 2 * into) {
    return convert<U, uint_of<from / 2>, N>(
        __builtin_convertvector(x, native<uint_of<from / 2>, N>));
  } else {
    return __builtin_convertvector(x, native<U, N>);
  }
}

}  // namespace detail

// ── making vectors ──────────────────────────────────────────────────────────────────────────────

/// A lane-wise comparison's result as a mask.
template <int N, class M>
MKW_INLINE Vec<bool, N> as_mask(M m) {
  return {detail::convert<typename Vec<bool, N>::Lane, int_of<sizeof(M) / N>, N>(
      (native<int_of<sizeof(M) / N>, N>)m)};
}

/// A mask with lanes as wide as T's, for the compiler's vector `?:`.
template <class T, int N>
MKW_INLINE auto mask_for(Vec<bool, N> m) {
  return detail::convert<int_of<sizeof(lane_of<T>)>, typename Vec<bool, N>::Lane, N>(m.v);
}

/// All lanes equal to x.
template <int N, class T>
MKW_INLINE Vec<T, N> splat(T x) {
  if constexpr (same<T, bool>) {
    const typename Vec<bool, N>::Lane lane = x ? -1 : 0;
    return {native<typename Vec<bool, N>::Lane, N>{} + lane};
  } else if constexpr (is_half<T>) {
    return {native<uint16_t, N>{} + x.bits};
  } else if constexpr (is_float<T>) {
    return {x - native<T, N>{}};  // x − 0 is x for every x, −0 and NaN included.
  } else {
    return {native<T, N>{} + x};
  }
}

/// Lanes 0, 1, 2, ….
template <class T, int N>
MKW_INLINE Vec<T, N> iota() {
  Vec<T, N> r;
  for (int i = 0; i < N; i++) r.v[i] = (T)i;
  return r;
}

/// x + 0·s, x + 1·s, x + 2·s, …: an index expression that is linear along the vector axis.
template <int N, class T>
MKW_INLINE Vec<T, N> ramp(T x, T step) {
  return {splat<N>(x).v + iota<T, N>().v * splat<N>(step).v};
}

/// True for the lanes that are meant.
template <int N>
MKW_INLINE Vec<bool, N> active(Full<N>) {
  return splat<N>(true);
}
template <int N>
MKW_INLINE Vec<bool, N> active(Part<N> lanes) {
  using L = int_of<(mask_bytes<N> < 2 ? 2 : mask_bytes<N>)>;
  return as_mask<N>(iota<L, N>().v < splat<N>((L)lanes.count).v);
}

template <int N>
MKW_INLINE bool any(Vec<bool, N> m) {
  typename Vec<bool, N>::Lane r = 0;
  for (int i = 0; i < N; i++) r |= m.v[i];
  return r != 0;
}
MKW_INLINE bool any(bool m) { return m; }

template <class T, int N>
MKW_INLINE Vec<T, N> where(Vec<bool, N> m, Vec<T, N> a, Vec<T, N> b) {
  if constexpr (same<T, bool>)
    return {(m.v & a.v) | (~m.v & b.v)};
  else
    return {mask_for<T>(m) ? a.v : b.v};
}
template <class T>
MKW_INLINE T where(bool m, T a, T b) {
  return m ? a : b;
}

/// The lower and the upper half of the lanes.
template <bool High, class T, int N>
MKW_INLINE auto half_of(Vec<T, N> a) {
  if constexpr (N == 2) {
    return a[High ? 1 : 0];
  } else if constexpr (same<T, bool>) {
    // A mask of half as many lanes has lanes twice as wide.
    native<typename Vec<bool, N>::Lane, N / 2> part;
    memcpy(&part, (const char*)&a.v + (High ? sizeof(part) : 0), sizeof(part));
    return as_mask<N / 2>(part);
  } else {
    Vec<T, N / 2> part;
    memcpy(&part, (const char*)&a.v + (High ? sizeof(part) : 0), sizeof(part));
    return part;
  }
}

/// f of every lane, lane by lane.
template <class R, class F, class T, int N, class... Ts>
MKW_INLINE Vec<R, N> each(F f, Vec<T, N> a, Vec<Ts, N>... b) {
  Vec<R, N> r;
  for (int i = 0; i < N; i++) r.v[i] = f(a.v[i], b.v[i]...);
  return r;
}

// ── conversion ──────────────────────────────────────────────────────────────────────────────────

namespace detail {

template <class T, int N>
MKW_INLINE native<float, N> halves_to_float(native<uint16_t, N> bits) {
  using W = native<uint32_t, N>;
  const W wide = __builtin_convertvector(bits, W);
  if constexpr (same<T, bf16>)
    return bf16_to_float<W, native<float, N>>(wide);
  else
    return f16_to_float<W, native<float, N>>(wide);
}

template <class T, int N>
MKW_INLINE native<uint16_t, N> float_to_halves(native<float, N> x) {
  using W = native<uint32_t, N>;
  if constexpr (same<T, bf16>)
    return __builtin_convertvector(float_to_bf16<W>(x), native<uint16_t, N>);
  else
    return __builtin_convertvector(float_to_f16<W>(x), native<uint16_t, N>);
}

}  // namespace detail

/// Converts as torch's `.to` does: floats to integers truncate, anything to bool is != 0.
template <class U, class T, int N>
MKW_INLINE Vec<U, N> to(Vec<T, N> x) {
  if constexpr (same<U, T>)
    return x;
  else if constexpr (same<T, bool>) {
    if constexpr (is_half<U>)
      return to<U>(to<float>(x));
    else if constexpr (is_float<U>)
      return where(x, splat<N>((U)1), splat<N>((U)0));
    else
      return {detail::convert<U, typename Vec<bool, N>::Lane, N>(-x.v)};
  } else if constexpr (is_half<T>) {
    if constexpr (same<U, bool>)
      return as_mask<N>((x.v & 0x7fff) != 0);
    else
      return to<U>(Vec<float, N>{detail::halves_to_float<T, N>(x.v)});
  } else if constexpr (is_half<U>)
    return {detail::float_to_halves<U, N>(to<float>(x).v)};
  else if constexpr (same<U, bool>)
    return as_mask<N>(x.v != 0);
  else
    return {detail::convert<U, T, N>(x.v)};
}
template <class U, class T>
MKW_INLINE U to(T x) {
  if constexpr (same<U, T>)
    return x;
  else if constexpr (is_half<T> || is_half<U>)
    return to<U>(splat<4>(x))[0];
  else if constexpr (same<U, bool>)
    return x != 0;
  else if constexpr (is_float<T> && !is_float<U> && sizeof(U) < 4)
    return (U)(int32_t)x;
  else if constexpr (is_float<T> && same<U, uint32_t>)
    return (U)(int64_t)x;
  else if constexpr (is_float<T> && same<U, uint64_t>)
    return x < (T)0x1p63 ? (U)(int64_t)x : (U)x;
  else
    return (U)x;
}

/// The same bits as another type of the same size.
template <class U, class V>
MKW_INLINE rebind<V, U> bits(V x) {
  rebind<V, U> r;
  static_assert(sizeof(r) == sizeof(x));
  memcpy(&r, &x, sizeof(r));
  return r;
}

}  // namespace mkw

#include "simd_memory.h"
#include "simd_ops.h"
