// Accumulators of the IR's reductions over scalars or vectors: V is T or Vec<T, N>, one accumulator
// per lane.
//
// Each has an identity (its default value), `step` (take a value in; only the lanes that are
// meant), `merge` (take in another accumulator of later elements) and `map` (the same accumulator
// over transformed fields). The results are fields.
#pragma once

#include "simd.h"

namespace mkw {

/// x in every lane of V's shape.
template <class V>
MKW_INLINE V broadcast(element_of<V> x) {
  if constexpr (lanes_of<V> > 1)
    return splat<lanes_of<V>>(x);
  else
    return x;
}

template <class T>
MKW_INLINE T lowest() {
  if constexpr (is_float<T>)
    return -(T)__builtin_inf();
  else if constexpr (same<T, bool>)
    return false;
  else
    return (T)-1 > (T)0 ? (T)0 : (T)((uint64_t)1 << (8 * sizeof(T) - 1));
}
template <class T>
MKW_INLINE T highest() {
  if constexpr (is_float<T>)
    return (T)__builtin_inf();
  else if constexpr (same<T, bool>)
    return true;
  else
    return (T)~lowest<T>();
}

MKW_INLINE bool both(bool a, bool b) { return a & b; }
MKW_INLINE bool either(bool a, bool b) { return a | b; }
template <int N>
MKW_INLINE Vec<bool, N> both(Vec<bool, N> a, Vec<bool, N> b) {
  return {a.v & b.v};
}
template <int N>
MKW_INLINE Vec<bool, N> either(Vec<bool, N> a, Vec<bool, N> b) {
  return {a.v | b.v};
}

// NOLINTBEGIN(bugprone-macro-parentheses): NAME is the name of a type.
#define MKW_FOLD(NAME, IDENTITY, COMBINE)                                             \
  template <class V>                                                                  \
  struct NAME {                                                                       \
    V value = broadcast<V>(IDENTITY);                                                 \
                                                                                      \
    template <int N>                                                                  \
    MKW_INLINE void step(Full<N>, V x) {                                              \
      value = COMBINE(value, x);                                                      \
    }                                                                                 \
    template <int N>                                                                  \
    MKW_INLINE void step(Part<N> lanes, V x) {                                        \
      value = where(active(lanes), COMBINE(value, x), value);                         \
    }                                                                                 \
    MKW_INLINE void step(V x) { value = COMBINE(value, x); }                          \
    MKW_INLINE void merge(const NAME& later) { value = COMBINE(value, later.value); } \
    template <class G>                                                                \
    [[nodiscard]] MKW_INLINE auto map(G g) const {                                    \
      return NAME<decltype(g(value))>{g(value)};                                      \
    }                                                                                 \
  };
MKW_FOLD(Sum, (element_of<V>)0, add)
MKW_FOLD(Prod, (element_of<V>)1, mul)
MKW_FOLD(Maximum, lowest<element_of<V>>(), maximum)
MKW_FOLD(Minimum, highest<element_of<V>>(), minimum)
#undef MKW_FOLD
// NOLINTEND(bugprone-macro-parentheses)

MKW_INLINE bool not_at_most(float a, float b) { return !(a <= b); }
MKW_INLINE bool not_at_most(double a, double b) { return !(a <= b); }
template <class T, int N>
MKW_INLINE Vec<bool, N> not_at_most(Vec<T, N> a, Vec<T, N> b) {
  return as_mask<N>(~(a.v <= b.v));
}

/// The first NaN, else the largest (smallest) value, with its position: ties go to the lowest
/// position. P is the integer type of positions, as wide as the value's lanes where that suffices.
/// Position 0 to begin with is right: where nothing beats the lowest value, all of the row equals
/// it.
template <class V, class P, bool Largest>
struct ArgBest {
  using Positions = rebind<V, P>;
  V value = broadcast<V>(Largest ? lowest<element_of<V>>() : highest<element_of<V>>());
  Positions position = broadcast<Positions>((P)0);

  /// Whether (x, at) comes before what is held.
  [[nodiscard]] MKW_INLINE auto beats(V x, Positions at) const {
    const auto better = Largest ? gt(x, value) : lt(x, value);
    const auto tie = both(eq(x, value), lt(at, position));
    if constexpr (is_float<element_of<V>>) {
      const auto held = eq(value, value);
      const auto first_nan = both(isnan(x), either(held, lt(at, position)));
      return either(either(both(better, held), tie), first_nan);
    } else {
      return either(better, tie);
    }
  }
  /// Whether x comes before what is held, all of which lies at lower positions.
  [[nodiscard]] MKW_INLINE auto beats_earlier(V x) const {
    if constexpr (is_float<element_of<V>>)
      // Not at most, rather than greater: that holds for NaN, too.
      return both(eq(value, value), Largest ? not_at_most(x, value) : not_at_most(value, x));
    else
      return Largest ? gt(x, value) : lt(x, value);
  }
  template <class M>
  MKW_INLINE void take(M takes, V x, Positions at) {
    value = where(takes, x, value);
    position = where(takes, at, position);
  }
  template <int N>
  MKW_INLINE void step(Full<N>, V x, Positions at) {
    take(beats(x, at), x, at);
  }
  template <int N>
  MKW_INLINE void step(Part<N> lanes, V x, Positions at) {
    take(both(beats(x, at), active(lanes)), x, at);
  }
  MKW_INLINE void step(V x, Positions at) { take(beats(x, at), x, at); }
  /// Steps whose positions grow from one to the next.
  template <int N>
  MKW_INLINE void next(Full<N>, V x, Positions at) {
    take(beats_earlier(x), x, at);
  }
  template <int N>
  MKW_INLINE void next(Part<N> lanes, V x, Positions at) {
    take(both(beats_earlier(x), active(lanes)), x, at);
  }
  MKW_INLINE void merge(const ArgBest& later) { step(later.value, later.position); }
  template <class G>
  [[nodiscard]] MKW_INLINE auto map(G g) const {
    return ArgBest<decltype(g(value)), P, Largest>{g(value), g(position)};
  }
};
template <class V, class P>
using ArgMax = ArgBest<V, P, true>;
template <class V, class P>
using ArgMin = ArgBest<V, P, false>;

/// Mean and Σ(x − mean)² in one pass. Step: B. P. Welford, Technometrics 4 (1962). Merge: T. F.
/// Chan, G. H. Golub and R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
/// Sample Variances" (1979).
template <class V>
struct Welford {
  using T = element_of<V>;
  V mean = broadcast<V>((T)0);
  V m2 = broadcast<V>((T)0);
  V count = broadcast<V>((T)0);

  MKW_INLINE void step(V x) {
    const V one = broadcast<V>((T)1);
    count = add(count, one);
    const V delta = sub(x, mean);
    mean = fma(delta, div(one, count), mean);
    m2 = fma(delta, sub(x, mean), m2);
  }
  template <int N>
  MKW_INLINE void step(Full<N>, V x) {
    step(x);
  }
  template <int N>
  MKW_INLINE void step(Part<N> lanes, V x) {
    Welford next = *this;
    next.step(x);
    const auto m = active(lanes);
    mean = where(m, next.mean, mean);
    m2 = where(m, next.m2, m2);
    count = where(m, next.count, count);
  }
  MKW_INLINE void merge(const Welford& later) {
    const V total = add(count, later.count);
    const V some = maximum(total, broadcast<V>((T)1));
    const V delta = sub(later.mean, mean);
    const V share = div(later.count, some);
    mean = fma(delta, share, mean);
    m2 = add(add(m2, later.m2), mul(mul(delta, delta), mul(count, share)));
    count = total;
  }
  template <class G>
  [[nodiscard]] MKW_INLINE auto map(G g) const {
    return Welford<decltype(g(mean))>{g(mean), g(m2), g(count)};
  }
};

struct LowHalf {
  template <class V>
  MKW_INLINE auto operator()(V x) const {
    return half_of<false>(x);
  }
};
struct HighHalf {
  template <class V>
  MKW_INLINE auto operator()(V x) const {
    return half_of<true>(x);
  }
};

/// Merges the lanes pairwise, halves first, into an accumulator over scalars.
template <int N, class A>
MKW_INLINE auto across(const A& acc) {
  auto low = acc.map(LowHalf{});
  low.merge(acc.map(HighHalf{}));
  if constexpr (N == 2)
    return low;
  else
    return across<N / 2>(low);
}

}  // namespace mkw
