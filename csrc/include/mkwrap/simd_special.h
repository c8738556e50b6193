// Rare functions, lane by lane in double: erfinv, lgamma, digamma.
#pragma once

#include "simd_math.h"

extern "C" double lgamma_r(double, int*);

namespace mkw {

/// The inverse of erf. First guess: M. Giles, "Approximating the erfinv function", GPU Computing
/// Gems (2012); then two steps of Newton's method on erfc, which keeps its digits in the tails.
inline double erfinv(double y) {
  const double a = __builtin_fabs(y);
  if (!(a < 1)) return a == 1 ? y * __builtin_inf() : __builtin_nan("");
  constexpr double near[] = {2.81022636e-08,  3.43273939e-07, -3.5233877e-06,
                             -4.39150654e-06, 0.00021858087,  -0.00125372503,
                             -0.00417768164,  0.246640727,    1.50140941};
  constexpr double far[] = {-0.000200214257, 0.000100950558, 0.00134934322,
                            -0.00367342844,  0.00573950773,  -0.0076224613,
                            0.00943887047,   1.00167406,     2.83297682};
  const double w = -__builtin_log1p(-a * a);
  const double t = w < 5 ? w - 2.5 : __builtin_sqrt(w) - 3;
  double x = 0;
  for (const double c : w < 5 ? near : far) x = x * t + c;
  x *= a;
  for (int step = 0; step < 2; step++) {
    const double error = a < 0.5 ? __builtin_erf(x) - a : (1 - a) - __builtin_erfc(x);
    x -= error * 0.88622692545275801 * __builtin_exp(x * x);  // √π / 2
  }
  return __builtin_copysign(x, y);
}

inline double lgamma(double x) {
  int sign;
  return lgamma_r(x, &sign);
}

/// ψ(x): reflected to positive x, moved above 10 by ψ(x) = ψ(x + 1) − 1/x, then the asymptotic
/// series (Abramowitz and Stegun 6.3.7, 6.3.5, 6.3.18).
inline double digamma(double x) {
  if (x == 0) return __builtin_copysign(__builtin_inf(), -x);
  double result = 0;
  if (x < 0) {
    const double whole = __builtin_trunc(x);
    if (whole == x) return __builtin_nan("");
    result = -3.14159265358979323846 / __builtin_tan(3.14159265358979323846 * (x - whole));
    x = 1 - x;
  }
  for (; x < 10; x += 1) result -= 1 / x;
  const double z = 1 / (x * x);
  constexpr double series[] = {1.0 / 12,  -691.0 / 32760, 1.0 / 132, -1.0 / 240,
                               1.0 / 252, -1.0 / 120,     1.0 / 12};
  double sum = 0;
  for (const double c : series) sum = sum * z + c;
  return result + __builtin_log(x) - 0.5 / x - sum * z;
}

#define MKW_SPECIAL(NAME)                                           \
  MKW_INLINE float NAME(float x) { return (float)NAME((double)x); } \
  template <class T, int N>                                         \
  MKW_INLINE Vec<T, N> NAME(Vec<T, N> x) {                          \
    return each<T>([](T y) { return NAME(y); }, x);                 \
  }
MKW_SPECIAL(erfinv)
MKW_SPECIAL(lgamma)
MKW_SPECIAL(digamma)
#undef MKW_SPECIAL

}  // namespace mkw
