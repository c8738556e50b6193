// Elementary functions on scalars and vectors. float32 vectors of exp, exp2, expm1, log, log1p,
// tanh, erf, sigmoid, sin and cos are polynomials (errors of 2 to 3 units in the last place, erf 5;
// special values right); all else is libm, lane by lane.
//
// Reductions of the argument follow Cody and Waite, "Software Manual for the Elementary Functions"
// (1980). Polynomials are minimax fits (Lawson's reweighted least squares on Chebyshev nodes) of
// the function named beside them.
#pragma once

#include "simd.h"

namespace mkw {

// ── lane by lane ────────────────────────────────────────────────────────────────────────────────

#define MKW_LIBM_SCALAR(NAME, LIBM)                                 \
  MKW_INLINE float NAME(float x) { return __builtin_##LIBM##f(x); } \
  MKW_INLINE double NAME(double x) { return __builtin_##LIBM(x); }
#define MKW_LANES(NAME)                             \
  template <class T, int N>                         \
  MKW_INLINE Vec<T, N> NAME(Vec<T, N> x) {          \
    return each<T>([](T y) { return NAME(y); }, x); \
  }
#define MKW_LIBM(NAME)        \
  MKW_LIBM_SCALAR(NAME, NAME) \
  MKW_LANES(NAME)
MKW_LIBM(sqrt)
MKW_LIBM(floor)
MKW_LIBM(ceil)
MKW_LIBM(trunc)
MKW_LIBM(exp)
MKW_LIBM(exp2)
MKW_LIBM(expm1)
MKW_LIBM(log)
MKW_LIBM(log2)
MKW_LIBM(log10)
MKW_LIBM(log1p)
MKW_LIBM(sin)
MKW_LIBM(cos)
MKW_LIBM(tan)
MKW_LIBM(asin)
MKW_LIBM(acos)
MKW_LIBM(atan)
MKW_LIBM(sinh)
MKW_LIBM(cosh)
MKW_LIBM(tanh)
MKW_LIBM(asinh)
MKW_LIBM(acosh)
MKW_LIBM(atanh)
MKW_LIBM(erf)
MKW_LIBM(erfc)
MKW_LIBM_SCALAR(round, rint)  // half to even: the default rounding mode
MKW_LANES(round)
#undef MKW_LIBM
#undef MKW_LANES
#undef MKW_LIBM_SCALAR

#define MKW_LIBM2(NAME)                                                         \
  MKW_INLINE float NAME(float x, float y) { return __builtin_##NAME##f(x, y); } \
  MKW_INLINE double NAME(double x, double y) { return __builtin_##NAME(x, y); } \
  template <class T, int N>                                                     \
  MKW_INLINE Vec<T, N> NAME(Vec<T, N> x, Vec<T, N> y) {                         \
    return each<T>([](T a, T b) { return NAME(a, b); }, x, y);                  \
  }
MKW_LIBM2(atan2)
MKW_LIBM2(pow)
MKW_LIBM2(hypot)
MKW_LIBM2(nextafter)
#undef MKW_LIBM2

// ── bits ────────────────────────────────────────────────────────────────────────────────────────

/// x with the sign bit of y.
template <class V>
MKW_INLINE V copysign(V x, V y) {
  using T = element_of<V>;
  using U = uint_of<sizeof(T)>;
  const auto sign = (U)1 << (8 * sizeof(T) - 1);
  if constexpr (lanes_of<V> > 1)
    return bits<T>(rebind<V, U>{(bits<U>(x).v & ~sign) | (bits<U>(y).v & sign)});
  else
    return bits<T>((U)((bits<U>(x) & ~sign) | (bits<U>(y) & sign)));
}

template <class V>
MKW_INLINE rebind<V, bool> signbit(V x) {
  using I = int_of<sizeof(element_of<V>)>;
  if constexpr (lanes_of<V> > 1)
    return as_mask<V::lanes>(bits<I>(x).v < 0);
  else
    return bits<I>(x) < 0;
}

template <class V>
MKW_INLINE rebind<V, bool> isinf(V x) {
  using T = element_of<V>;
  const T inf = (T)__builtin_inf();
  if constexpr (lanes_of<V> > 1)
    return as_mask<V::lanes>(abs(x).v == inf);
  else
    return abs(x) == inf;
}

template <class V>
MKW_INLINE V reciprocal(V x) {
  if constexpr (lanes_of<V> > 1)
    return {1 / x.v};
  else
    return 1 / x;
}
template <class V>
MKW_INLINE V rsqrt(V x) {
  return reciprocal(sqrt(x));
}

// ── float32 polynomials ─────────────────────────────────────────────────────────────────────────

namespace detail {

template <int N>
using F = Vec<float, N>;

/// c0 + x·(c1 + x·(c2 + …)), by Horner's rule.
template <int N>
MKW_INLINE F<N> poly(F<N>, float c) {
  return splat<N>(c);
}
template <int N, class... C>
MKW_INLINE F<N> poly(F<N> x, float c, C... rest) {
  return fma(poly(x, rest...), x, splat<N>(c));
}

/// 2^k for −126 ≤ k ≤ 127.
template <int N>
MKW_INLINE F<N> power_of_two(native<int32_t, N> k) {
  return {(native<float, N>)((k + 127) << 23)};
}

/// The integer nearest to x·factor, both as float and as integer: 1.5·2^23 has a last place of 1.
/// For |x| < 2^22.
template <int N>
MKW_INLINE F<N> nearest(F<N> x, float factor, native<int32_t, N>& k) {
  const auto shifted = fma(x, splat<N>(factor), splat<N>(0x1.8p23f)).v;
  k = (native<int32_t, N>)shifted - 0x4b400000;
  return {shifted - 0x1.8p23f};
}

constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kLn2High = 0x1.62e43p-1f;
constexpr float kLn2Low = -0x1.05c61p-29f;

/// e^r for |r| ≤ ln 2 / 2: fits (e^r − 1 − r) / r².
template <int N>
MKW_INLINE F<N> exp_reduced(F<N> r) {
  const F<N> p = poly(r, 0.5f, 0.166665122f, 0.0416661873f, 0.00836959854f, 0.00139517197f);
  return fma(mul(r, r), p, F<N>{r.v + 1.0f});
}

/// x·2^n, where k is n as integer: in two steps, so that subnormal results are right and 2^128 is
/// not needed.
template <int N>
MKW_INLINE F<N> scale(F<N> x, [[maybe_unused]] F<N> n, [[maybe_unused]] native<int32_t, N> k) {
#if defined(__AVX512F__) && !defined(__clang__)
  if constexpr (N == 16)
    return {__builtin_ia32_scalefps512_mask(x.v, n.v, x.v, (unsigned short)-1, 4)};
#endif
  const auto half = k >> 1;
  return mul(mul(x, power_of_two<N>(half)), power_of_two<N>(k - half));
}

template <int N>
MKW_INLINE F<N> clamp(F<N> x, float low, float high) {
  return smaller_or_second(splat<N>(high), larger_or_second(splat<N>(low), x));  // NaN stays
}

/// e^x for −104.5 ≤ x ≤ 89.5.
template <int N>
MKW_INLINE F<N> exp_bounded(F<N> x) {
  native<int32_t, N> k;
  const F<N> n = nearest(x, kLog2E, k);
  const F<N> r = fma(n, splat<N>(-kLn2Low), fma(n, splat<N>(-kLn2High), x));
  return scale(exp_reduced(r), n, k);
}

}  // namespace detail

template <int N>
MKW_INLINE Vec<float, N> exp(Vec<float, N> x) {
  return detail::exp_bounded(detail::clamp(x, -104.5f, 89.5f));
}

template <int N>
MKW_INLINE Vec<float, N> exp2(Vec<float, N> x) {
  using namespace detail;
  native<int32_t, N> k;
  x = clamp(x, -151.0f, 129.0f);
  const F<N> n = nearest(x, 1.0f, k);
  return scale(exp_reduced(mul(sub(x, n), splat<N>(0x1.62e43p-1f))), n, k);
}

/// 2^k·(e^r − 1) + (2^k − 1), by way of 2^(k−1).
template <int N>
MKW_INLINE Vec<float, N> expm1(Vec<float, N> x) {
  using namespace detail;
  native<int32_t, N> k;
  const F<N> y = clamp(x, -30.0f, 88.9f);
  const F<N> n = nearest(y, kLog2E, k);
  const F<N> r = fma(n, splat<N>(-kLn2Low), fma(n, splat<N>(-kLn2High), y));
  const F<N> p =
      poly(r, 0.166666672f, 0.0416664742f, 0.00833327975f, 0.00139342016f, 0.000199110553f);
  const F<N> m = fma(mul(r, r), fma(p, r, splat<N>(0.5f)), r);
  const F<N> s = power_of_two<N>(k - 1);
  const F<N> result = fma(s, m, F<N>{s.v - 0.5f});
  return where(eq(x, splat<N>(0.0f)), x, F<N>{result.v + result.v});  // keeps −0
}

namespace detail {

/// log(x) = e·ln 2 + log(1 + f) with 1 + f in [√½, √2): fits (log(1 + f) − f + f²/2) / f³. x is
/// positive and normal; `exponent` is added to e, `correction` to the smaller terms.
template <int N>
MKW_INLINE F<N> log_positive(F<N> x, F<N> exponent, F<N> correction) {
  const auto all = (native<int32_t, N>)x.v;
  const auto e = (all - 0x3f3504f3) >> 23;
  const F<N> f = {(native<float, N>)(all - (e << 23)) - 1.0f};
  const F<N> n = {__builtin_convertvector(e, native<float, N>) + exponent.v};
  const F<N> p = poly(f, 0.333333135f, -0.250000089f, 0.200021192f, -0.166679963f, 0.142195523f,
                      -0.124055892f, 0.118881628f, -0.116756514f, 0.0674663857f);
  const F<N> square = mul(f, f);
  F<N> small = fma(n, splat<N>(kLn2Low), correction);
  small = fma(mul(square, f), p, small);
  small = fma(square, splat<N>(-0.5f), small);
  return fma(n, splat<N>(kLn2High), add(f, small));
}

/// 0 gives −∞, ∞ itself, what is negative NaN; `y` is the logarithm for all others.
template <int N>
MKW_INLINE F<N> log_special(F<N> x, F<N> y) {
  const float inf = __builtin_inff();
  y = where(lt(x, splat<N>(inf)), y, x);  // ∞ and NaN
  y = where(eq(x, splat<N>(0.0f)), splat<N>(-inf), y);
  return where(lt(x, splat<N>(0.0f)), splat<N>(__builtin_nanf("")), y);
}

}  // namespace detail

template <int N>
MKW_INLINE Vec<float, N> log(Vec<float, N> x) {
  using namespace detail;
  const auto tiny = lt(x, splat<N>(0x1p-126f));  // subnormal: scaled by 2^25
  const F<N> y = where(tiny, F<N>{x.v * 0x1p25f}, x);
  return log_special(
      x, log_positive(y, where(tiny, splat<N>(-25.0f), splat<N>(0.0f)), splat<N>(0.0f)));
}

/// log(u) + (x − (u − 1)) / u with u = 1 + x rounded: the quotient makes up for the rounding.
template <int N>
MKW_INLINE Vec<float, N> log1p(Vec<float, N> x) {
  using namespace detail;
  const F<N> u = {x.v + 1.0f};
  const F<N> lost = {(x.v - (u.v - 1.0f)) / u.v};
  const F<N> y = log_special(u, log_positive(u, splat<N>(0.0f), lost));
  return where(lt(abs(x), splat<N>(0x1p-24f)), x, y);
}

/// x + x³·P(x²) below 0.6, 1 − 2/(e^2x + 1) above; fits (tanh(x) − x) / x³.
template <int N>
MKW_INLINE Vec<float, N> tanh(Vec<float, N> x) {
  using namespace detail;
  const F<N> a = abs(x), z = mul(x, x);
  const F<N> p = poly(z, -0.333333313f, 0.133332476f, -0.0539524741f, 0.0217344388f,
                      -0.00826709066f, 0.00223106379f);
  const F<N> small = fma(mul(x, z), p, x);
  const F<N> e = exp(F<N>{a.v + a.v});
  const F<N> large = {1.0f - 2.0f / (e.v + 1.0f)};
  return copysign(where(lt(a, splat<N>(0.6f)), small, large), x);
}

namespace detail {

/// c0 + x·(c1 + x·(c2 + …)) for w = x²: even and odd powers apart. Fewer roundings follow one
/// another than in Horner's rule.
template <int N>
MKW_INLINE F<N> poly_split(F<N> x, F<N> w, float c0, float c1, float c2, float c3, float c4,
                           float c5) {
  return fma(poly(w, c1, c3, c5), x, poly(w, c0, c2, c4));
}

}  // namespace detail

/// |x|·P(x²)/Q(x²) with the sign of x: fits erf(x)/x up to 3.88, above which erf rounds to 1 or the
/// number below it. A quotient of short polynomials takes half the instructions of 1 − e^…; its
/// roundings make it 5 units, and would carry it past 1.
template <int N>
MKW_INLINE Vec<float, N> erf(Vec<float, N> x) {
  using namespace detail;
  const F<N> a = smaller_or_second(splat<N>(3.88f), abs(x)), z = mul(a, a), w = mul(z, z);
  const F<N> p = poly_split(z, w, 1.9728893f, 0.330356508f, 0.0919505358f, 0.00649001962f,
                            0.000498791109f, 3.64209495e-06f);
  const F<N> q = poly_split(z, w, 1.74842763f, 0.875579178f, 0.198510677f, 0.0259835962f,
                            0.00201497297f, 6.72309397e-05f);
  const F<N> quotient = {mul(a, p).v / q.v};
  return copysign(smaller_or_second(splat<N>(1.0f), quotient), x);
}

/// 1/(1 + e^−|x|), times e^−|x| for negative x: no overflow, and tiny results stay right.
template <class T, int N>
MKW_INLINE Vec<T, N> sigmoid(Vec<T, N> x) {
  const Vec<T, N> e = exp(neg(abs(x)));
  return {where(lt(x, splat<N>((T)0)), e, splat<N>((T)1)).v / (1 + e.v)};
}
MKW_INLINE float sigmoid(float x) {
  const float e = __builtin_expf(-__builtin_fabsf(x));
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}
MKW_INLINE double sigmoid(double x) {
  const double e = __builtin_exp(-__builtin_fabs(x));
  return (x < 0 ? e : 1.0) / (1.0 + e);
}

namespace detail {

/// sin(x + quarter·π/2): x less a multiple of π/2 in three parts, then fits of (sin(r) − r) / r³
/// and (cos(r) − 1 + r²/2) / r⁴. Arguments above 2^16 go through libm.
template <int N>
MKW_INLINE F<N> sin_shifted(F<N> x, int32_t quarter) {
  const F<N> n = {(x.v * 0x1.45f306p-1f + 0x1.8p23f) - 0x1.8p23f};
  const auto q = (native<int32_t, N>)(n.v + 0x1.8p23f) + quarter;
  F<N> r = fma(n, splat<N>(-0x1.921fb6p+0f), x);
  r = fma(n, splat<N>(0x1.777a5cp-25f), r);
  r = fma(n, splat<N>(0x1.ee59dap-50f), r);
  const F<N> z = mul(r, r);
  const F<N> s =
      fma(mul(r, z), poly(z, -0.166666672f, 0.00833332911f, -0.000198392561f, 2.71756448e-06f), r);
  const F<N> p = poly(z, 0.0416666679f, -0.00138888834f, 2.47994358e-05f, -2.72033049e-07f);
  const F<N> c = fma(mul(z, z), p, fma(z, splat<N>(-0.5f), splat<N>(1.0f)));
  const auto chosen = (q & 1) != 0 ? c.v : s.v;
  return {(native<float, N>)((native<int32_t, N>)chosen ^ ((q & 2) << 30))};
}

}  // namespace detail

template <int N>
MKW_INLINE Vec<float, N> sin(Vec<float, N> x) {
  Vec<float, N> y = detail::sin_shifted(x, 0);
  y = where(eq(x, splat<N>(0.0f)), x, y);  // keeps −0
  if (any(ge(abs(x), splat<N>(0x1p16f))))
    y = each<float>([](float a) { return __builtin_sinf(a); }, x);
  return y;
}
template <int N>
MKW_INLINE Vec<float, N> cos(Vec<float, N> x) {
  Vec<float, N> y = detail::sin_shifted(x, 1);
  if (any(ge(abs(x), splat<N>(0x1p16f))))
    y = each<float>([](float a) { return __builtin_cosf(a); }, x);
  return y;
}

}  // namespace mkw
