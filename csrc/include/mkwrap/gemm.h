// Microkernel and packing of the generated matrix products; T is float or double.
//
// C[m, n] = Σ_k A[m, k] · B[k, n] by register tiles of MR rows and NV vectors of W lanes. Rows of A
// are read in place through one pointer each; B comes as panels of NV·W columns with a fixed
// distance between its rows, in place or packed. The whole depth is summed in registers where a
// panel fits the second-level cache; longer ones are cut and accumulated.
#pragma once

#include "simd_loops.h"

namespace mkw::gemm {

/// a·b + sum; floats with one rounding where the machine has the instruction.
template <class V>
MKW_INLINE V multiply_add(V a, V b, V sum) {
#if defined(__FMA__) || defined(__aarch64__)
  if constexpr (is_float<element_of<V>>) return fma(a, b, sum);
#endif
  return add(mul(a, b), sum);
}

/// Sum of all lanes of four vectors.
template <class T, int N>
MKW_INLINE T total(const Vec<T, N> (&sums)[4]) {
  const Vec<T, N> lanes = add(add(sums[0], sums[1]), add(sums[2], sums[3]));
  T all = lanes[0];
  for (int i = 1; i < N; ++i) all = add(all, lanes[i]);
  return all;
}

/// Depth that is summed in one go. Sums of sums: the error of a float sum in one go grows with its
/// length.
constexpr int64_t kRun = 256;

/// c[i·P·W + j] = (or +=) Σ_p rows[i][p·step] · b[p·ldb + j] for i < MR, j < NV·W, p < k.
template <int MR, int NV, int W, int P = NV, class T>
MKW_INLINE void tile(const T* const* rows, int64_t step, const T* b, int64_t ldb, int64_t k, T* c,
                     bool accumulate) {
  int64_t start = 0;
  do {
    const int64_t end = smaller(k, start + kRun);
    Vec<T, W> sums[MR][NV];
    const T* a[MR];
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      a[i] = rows[i];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) sums[i][v] = splat<W>(T(0));
    }
#pragma GCC unroll 4
    for (int64_t p = start; p < end; ++p) {
      Vec<T, W> x[NV];
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) x[v] = load(Full<W>{}, b + p * ldb + v * W);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const Vec<T, W> y = splat<W>(a[i][p * step]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; ++v) sums[i][v] = multiply_add(y, x[v], sums[i][v]);
      }
    }
    const bool first = start == 0 && !accumulate;
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 16
      for (int v = 0; v < NV; ++v) {
        T* out = c + (i * P + v) * W;
        store(Full<W>{}, out, first ? sums[i][v] : add(load(Full<W>{}, out), sums[i][v]));
      }
    }
    start += kRun;
  } while (start < k);
}

/// `tile` for the first `count` rows and `columns` columns at least, by a microkernel of a quarter,
/// half or three quarters of the rows, and half or all vectors, where that is enough.
template <int MR, int NV, int W, class T>
MKW_INLINE void fitted_tile(int64_t count, [[maybe_unused]] int64_t columns, const T* const* rows,
                            int64_t step, const T* b, int64_t ldb, int64_t k, T* c,
                            bool accumulate) {
  constexpr int quarter = (MR + 3) / 4, half = (MR + 1) / 2, most = MR - MR / 4;
  constexpr int narrow = (NV + 1) / 2;
  [[maybe_unused]] constexpr int64_t reach = int64_t{narrow} * W;
  const auto of = [&](auto height) MKW_BODY {
    constexpr int tall = decltype(height)::value;
    if constexpr (narrow < NV)
      if (columns <= reach) {
        tile<tall, narrow, W, NV>(rows, step, b, ldb, k, c, accumulate);
        return;
      }
    tile<tall, NV, W>(rows, step, b, ldb, k, c, accumulate);
  };
  if (count > most)
    of(mkw::Count<MR>{});
  else if (count > half)
    of(mkw::Count<most>{});
  else if (count > quarter)
    of(mkw::Count<half>{});
  else
    of(mkw::Count<quarter>{});
}

/// Packs k rows of a panel whose columns are contiguous: out[p·width + j] =
/// source[p·ldb + j], 0 where columns ≤ j < width.
template <class T>
MKW_INLINE void pack_rows(const T* source, int64_t ldb, int64_t k, int64_t columns, int64_t width,
                          T* out) {
  for (int64_t p = 0; p < k; ++p) {
    memcpy(out + p * width, source + p * ldb, columns * sizeof(T));
    for (int64_t j = columns; j < width; ++j) out[p * width + j] = T(0);
  }
}

template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
  using type = Indices<I...>;
};

/// Swaps, between two rows S apart, the lanes S apart: one step of a
/// transposition.
template <int S, class T, int W, int... L>
MKW_INLINE void exchange(Vec<T, W>& low, Vec<T, W>& high, Indices<L...>) {
  const auto a = low.v, b = high.v;
  low.v = __builtin_shufflevector(a, b, ((L & S) ? W + L - S : L)...);
  high.v = __builtin_shufflevector(a, b, ((L & S) ? W + L : L + S)...);
}

/// Transposes W rows of W lanes in log2(W) rounds of exchanges.
template <int S, class T, int W>
MKW_INLINE void transpose(Vec<T, W> (&block)[W]) {
  if constexpr (S < W) {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (!(i & S)) exchange<S>(block[i], block[i + S], typename Count<W>::type{});
    }
    transpose<2 * S>(block);
  }
}

/// Packs k rows of a panel whose depth is contiguous: out[p·width + j] =
/// source[j·ldb + p], 0 where columns ≤ j < width.
template <int W, class T>
MKW_INLINE void pack_columns(const T* source, int64_t ldb, int64_t k, int64_t columns,
                             int64_t width, T* out) {
  const int64_t whole = k - k % W;
  int64_t j = 0;
  for (; j + W <= columns; j += W) {
    for (int64_t p = 0; p < whole; p += W) {
      Vec<T, W> block[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) block[i] = load(Full<W>{}, source + (j + i) * ldb + p);
      transpose<1>(block);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store(Full<W>{}, out + (p + i) * width + j, block[i]);
    }
    for (int64_t p = whole; p < k; ++p) {
      for (int i = 0; i < W; ++i) out[p * width + j + i] = source[(j + i) * ldb + p];
    }
  }
  for (; j < width; ++j) {
    for (int64_t p = 0; p < k; ++p) out[p * width + j] = j < columns ? source[j * ldb + p] : T(0);
  }
}

}  // namespace mkw::gemm
