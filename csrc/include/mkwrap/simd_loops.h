// The loops that generated kernels are written with: vectors along an axis, blocks of vectors,
// shares of threads.
#pragma once

#include "simd.h"

#if defined(_OPENMP)
extern "C" int omp_get_thread_num(void);
extern "C" int omp_get_num_threads(void);
#endif

/// Marks a lambda that is the body of a loop.
#define MKW_BODY __attribute__((always_inline))

namespace mkw {

/// A compile-time number as a value: which accumulator, or how many vectors.
template <int I>
struct Count {
  static constexpr int value = I;
  MKW_INLINE constexpr operator int() const { return I; }
};

namespace detail {

template <int N, int U, int I, class Body>
MKW_INLINE void unrolled(int64_t at, Body& body) {
  if constexpr (I < U) {
    body(Full<N>{}, at + (int64_t)I * N, Count<I>{});
    unrolled<N, U, I + 1>(at, body);
  }
}

}  // namespace detail

/// Runs body(lanes, position, which) over begin … end − 1, U vectors of N lanes at a time; `which`
/// counts those U. Singles: fewer than U vectors may be left over. Tail: fewer than N lanes may be.
template <int N, int U, bool Singles, bool Tail, class Body>
MKW_INLINE void sweep(int64_t begin, int64_t end, Body body) {
  constexpr int64_t step = (int64_t)N * U;
  int64_t i = begin;
  for (; i + step <= end; i += step) detail::unrolled<N, U, 0>(i, body);
  if constexpr (U > 1 && Singles)
    for (; i + N <= end; i += N) body(Full<N>{}, i, Count<0>{});
  if constexpr (Tail)
    if (i < end) body(Part<N>{(int)(end - i)}, i, Count<0>{});
}

/// Runs body(lanes, vectors, position) over begin … end − 1 in blocks of K vectors; what is left
/// over goes one by one.
template <int N, int K, bool Singles, bool Tail, class Body>
MKW_INLINE void blocks(int64_t begin, int64_t end, Body body) {
  constexpr int64_t step = (int64_t)N * K;
  int64_t i = begin;
  for (; i + step <= end; i += step) body(Full<N>{}, Count<K>{}, i);
  if constexpr (K > 1 && Singles)
    for (; i + N <= end; i += N) body(Full<N>{}, Count<1>{}, i);
  if constexpr (Tail)
    if (i < end) body(Part<N>{(int)(end - i)}, Count<1>{}, i);
}

/// Merges U accumulators in fixed order into the first.
template <class A, int U>
MKW_INLINE A merged(A (&acc)[U]) {
  for (int step = 1; step < U; step *= 2)
    for (int i = 0; i + step < U; i += 2 * step) acc[i].merge(acc[i + step]);
  return acc[0];
}

/// Merges partial results, `step` apart, in order.
template <class A>
MKW_INLINE A merged_partials(const A* partials, int64_t count, int64_t step) {
  A all;
  for (int64_t i = 0; i < count; i++) all.merge(partials[i * step]);
  return all;
}

/// A range of work.
struct Share {
  int64_t begin;
  int64_t end;
};

/// Part `index` of `parts` of 0 … total − 1, cut at multiples of `grain`.
MKW_INLINE Share share(int64_t total, int64_t grain, int64_t index, int64_t parts) {
  const int64_t grains = (total + grain - 1) / grain;
  const int64_t begin = grains * index / parts * grain, end = grains * (index + 1) / parts * grain;
  return {begin, end < total ? end : total};
}

/// Elements of one piece of a row of `extent`, at least 1: the whole row where there are enough
/// rows for the threads, else a share, cut at multiples of `grain`.
MKW_INLINE int64_t piece_length(int64_t extent, int64_t grain, int64_t rows, int64_t threads) {
  if (rows >= 8 * threads || rows % threads == 0) return extent < 1 ? 1 : extent;
  const int64_t share = (extent + threads * grain - 1) / (threads * grain) * grain;
  return share < grain ? grain : share;
}

/// Number of this thread in the team, and how many there are.
MKW_INLINE int64_t thread_index() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}
MKW_INLINE int64_t thread_count() {
#if defined(_OPENMP)
  return omp_get_num_threads();
#else
  return 1;
#endif
}

MKW_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace mkw
