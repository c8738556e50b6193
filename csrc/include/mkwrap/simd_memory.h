// Vector loads and stores: contiguous, strided, gathered, masked; all lanes or the first few. Part
// of simd.h.
//
// A load never touches memory for a lane that is not meant or whose mask is false; such lanes are
// 0. The loops over lanes are written so that the compiler makes masked instructions of them where
// the machine has them.
#pragma once

#include "simd_masked.h"

namespace mkw {

namespace detail {

template <class T>
MKW_INLINE lane_of<T> lane_in(const T* p) {
  if constexpr (is_half<T>)
    return p->bits;
  else
    return *p;
}

/// Lanes read from memory as bytes 0 or 1 become a mask.
template <class T, int N>
MKW_INLINE Vec<T, N> from_lanes(const lane_of<T>* lanes) {
  if constexpr (same<T, bool>) {
    native<uint8_t, N> bytes;
    memcpy(&bytes, lanes, N);
    return as_mask<N>(bytes != 0);
  } else {
    Vec<T, N> r;
    memcpy(&r.v, lanes, sizeof(r.v));
    return r;
  }
}

template <class T, int N>
MKW_INLINE void to_lanes(T* lanes, Vec<T, N> x) {
  if constexpr (same<T, bool>) {
    const native<uint8_t, N> bytes = convert<uint8_t, typename Vec<T, N>::Lane, N>(-x.v);
    memcpy(lanes, &bytes, N);
  } else {
    memcpy(lanes, &x.v, sizeof(x.v));
  }
}

}  // namespace detail

template <int N, class T>
MKW_INLINE Vec<T, N> load(Full<N>, const T* p) {
  return detail::from_lanes<T, N>((const lane_of<T>*)p);
}
template <int N, class T>
MKW_INLINE Vec<T, N> load(Part<N> lanes, const T* p) {
  alignas(64) lane_of<T> t[N];
  using Move = detail::Masked<sizeof(lane_of<T>), N * sizeof(lane_of<T>)>;
  if constexpr (Move::there) {
    const auto v = Move::load(p, lanes.count);
    memcpy(t, &v, sizeof(t));
  } else {
    for (int i = 0; i < N; i++) t[i] = i < lanes.count ? detail::lane_in(p + i) : (lane_of<T>)0;
  }
  return detail::from_lanes<T, N>(t);
}

/// Loads where the mask holds.
template <class L, class T, int N = L::lanes>
MKW_INLINE Vec<T, N> load_masked(L lanes, Vec<bool, N> mask, const T* p) {
  alignas(64) lane_of<T> t[N];
  alignas(64) typename Vec<bool, N>::Lane m[N];
  memcpy(m, &mask.v, sizeof(m));
  for (int i = 0; i < N; i++)
    t[i] = (i < lanes.count) & (m[i] != 0) ? detail::lane_in(p + i) : (lane_of<T>)0;
  return detail::from_lanes<T, N>(t);
}

/// Loads p[0], p[step], p[2·step], ….
template <class L, class T, int N = L::lanes>
MKW_INLINE Vec<T, N> load_strided(L lanes, const T* p, int64_t step) {
  alignas(64) lane_of<T> t[N];
  for (int i = 0; i < N; i++)
    t[i] = i < lanes.count ? detail::lane_in(p + i * step) : (lane_of<T>)0;
  return detail::from_lanes<T, N>(t);
}

/// Loads from p + offset(lane).
template <class L, class T, class F, int N = L::lanes>
MKW_INLINE Vec<T, N> gather(L lanes, const T* p, F offset) {
  alignas(64) lane_of<T> t[N];
  for (int i = 0; i < N; i++)
    t[i] = i < lanes.count ? detail::lane_in(p + offset(i)) : (lane_of<T>)0;
  return detail::from_lanes<T, N>(t);
}
template <class L, class T, class F, int N = L::lanes>
MKW_INLINE Vec<T, N> gather_masked(L lanes, Vec<bool, N> mask, const T* p, F offset) {
  alignas(64) lane_of<T> t[N];
  for (int i = 0; i < N; i++)
    t[i] = i < lanes.count && mask[i] ? detail::lane_in(p + offset(i)) : (lane_of<T>)0;
  return detail::from_lanes<T, N>(t);
}

/// Lane values given by a function of the lane, for index expressions that are not linear.
template <int N, class F>
MKW_INLINE Vec<int64_t, N> lanewise(F value) {
  Vec<int64_t, N> r;
  for (int i = 0; i < N; i++) r.v[i] = value(i);
  return r;
}

template <int N, class T>
MKW_INLINE void store(Full<N>, T* p, Vec<T, N> x) {
  detail::to_lanes(p, x);
}
template <int N, class T>
MKW_INLINE void store(Part<N> lanes, T* p, Vec<T, N> x) {
  alignas(64) T t[N];
  detail::to_lanes(t, x);
  using Move = detail::Masked<sizeof(lane_of<T>), N * sizeof(lane_of<T>)>;
  if constexpr (Move::there) {
    typename Move::V v;
    memcpy(&v, t, sizeof(v));
    Move::store(p, v, lanes.count);
  } else {
    for (int i = 0; i < N; i++)
      if (i < lanes.count) p[i] = t[i];
  }
}

/// Stores past the caches; p must be a multiple of the vector's size, else this is a plain store.
template <int N, class T>
MKW_INLINE void store_streaming(Full<N> lanes, T* p, Vec<T, N> x) {
#if defined(__AVX__)
  if constexpr (!same<T, bool> && (sizeof(x.v) == MKW_VECTOR_BYTES)) {
    if (((uintptr_t)p & (sizeof(x.v) - 1)) == 0) {
      asm volatile("vmovntdq %1, %0" : "=m"(*(native<lane_of<T>, N>*)p) : "v"(x.v));
      return;
    }
  }
#endif
  store(lanes, p, x);
}
template <int N, class T>
MKW_INLINE void store_streaming(Part<N> lanes, T* p, Vec<T, N> x) {
  store(lanes, p, x);
}

/// Orders streaming stores before whatever tells another thread of them.
MKW_INLINE void end_streaming() {
#if defined(__SSE__)
  __builtin_ia32_sfence();
#endif
}

/// Asks for the cache line of p[index], which may lie outside every buffer.
template <class T>
MKW_INLINE void prefetch(const T* p, int64_t index) {
  __builtin_prefetch((const void*)((uintptr_t)p + (uintptr_t)index * sizeof(T)));
}

template <class L, class T, int N = L::lanes>
MKW_INLINE void store_strided(L lanes, T* p, int64_t step, Vec<T, N> x) {
  for (int i = 0; i < N; i++)
    if (i < lanes.count) p[i * step] = x[i];
}
template <class L, class T, class F, int N = L::lanes>
MKW_INLINE void scatter(L lanes, T* p, F offset, Vec<T, N> x) {
  for (int i = 0; i < N; i++)
    if (i < lanes.count) p[offset(i)] = x[i];
}

/// Clamps an index into 0 … extent − 1; sets the flag where a meant, unmasked lane lay outside.
MKW_INLINE int64_t bounds_check(int64_t index, int64_t extent, bool mask, int32_t& failed) {
  const bool outside = index < 0 || index >= extent;
  if (outside && mask) failed = 1;
  return outside ? (index < 0 || extent < 1 ? 0 : extent - 1) : index;
}
template <class L, int N = L::lanes>
MKW_INLINE Vec<int64_t, N> bounds_check(L lanes, Vec<int64_t, N> index, int64_t extent,
                                        Vec<bool, N> mask, int32_t& failed) {
  Vec<int64_t, N> r;
  for (int i = 0; i < N; i++)
    r.v[i] = bounds_check(index.v[i], extent, i < lanes.count && mask[i], failed);
  return r;
}

}  // namespace mkw
