// Inclusive scans over the lanes of vectors and from vector to vector: along a row that vectors lie
// along (RowScan), or along an axis across which they lie (ColumnScan).
//
// An operation takes two `Together` (what is scanned together: scalars or vectors), the earlier one
// first, and need only be associative. Where it has an identity, it says so.
#pragma once

#include "simd_reduce.h"

namespace mkw {

/// Values that are scanned together.
template <class... Ts>
struct Together;

template <class T, class... Ts>
MKW_INLINE Together<T, Ts...> joined(T first, Together<Ts...> rest) {
  return {first, rest};
}

template <>
struct Together<> {
  template <class G>
  MKW_INLINE Together<> map(G) const {
    return {};
  }
  template <class G>
  MKW_INLINE Together<> zip(G, Together<>) const {
    return {};
  }
};
template <class T, class... Ts>
struct Together<T, Ts...> {
  T first;
  [[no_unique_address]] Together<Ts...> rest;

  template <class G>
  [[nodiscard]] MKW_INLINE auto map(G g) const {
    return joined(g(first), rest.map(g));
  }
  template <class G, class... Us>
  [[nodiscard]] MKW_INLINE auto zip(G g, const Together<Us...>& other) const {
    return joined(g(first, other.first), rest.zip(g, other.rest));
  }
};

MKW_INLINE Together<> together() { return {}; }
template <class T, class... Ts>
MKW_INLINE Together<T, Ts...> together(T first, Ts... rest) {
  return {first, together(rest...)};
}

/// Number I of what is together.
template <int I, class T, class... Ts>
MKW_INLINE auto get(const Together<T, Ts...>& all) {
  if constexpr (I == 0)
    return all.first;
  else
    return get<I - 1>(all.rest);
}

// ── operations ──────────────────────────────────────────────────────────────────────────────────

struct AddScan {
  static constexpr bool has_identity = true;
  template <class V>
  MKW_INLINE Together<V> operator()(Together<V> a, Together<V> b) const {
    return {add(a.first, b.first), {}};
  }
  template <class V>
  MKW_INLINE void set_identity(Together<V>& a) const {
    a.first = broadcast<V>((element_of<V>)0);
  }
};

struct MulScan {
  static constexpr bool has_identity = true;
  template <class V>
  MKW_INLINE Together<V> operator()(Together<V> a, Together<V> b) const {
    return {mul(a.first, b.first), {}};
  }
  template <class V>
  MKW_INLINE void set_identity(Together<V>& a) const {
    a.first = broadcast<V>((element_of<V>)1);
  }
};

/// (value, position): of equal values the later wins; a NaN stays, and a later NaN wins over it.
template <bool Largest>
struct BestScan {
  static constexpr bool has_identity = true;
  /// Whether b wins over the earlier a.
  template <class V>
  static MKW_INLINE auto wins(V b, V a) {
    const auto better = Largest ? ge(b, a) : le(b, a);
    if constexpr (is_float<element_of<V>>)
      return either(better, isnan(b));
    else
      return better;
  }
  template <class V, class P>
  MKW_INLINE Together<V, P> operator()(Together<V, P> a, Together<V, P> b) const {
    const auto takes = wins(b.first, a.first);
    return {where(takes, b.first, a.first), {where(takes, b.rest.first, a.rest.first), {}}};
  }
  /// Whether no element of b changes what is held in a: along a long row, that is the rule.
  template <class V, class P>
  MKW_INLINE bool keeps(Together<V, P> a, Together<V, P> b) const {
    return !any(wins(b.first, a.first));
  }
  template <class V, class P>
  MKW_INLINE void set_identity(Together<V, P>& a) const {
    using T = element_of<V>;
    a.first = broadcast<V>(Largest ? lowest<T>() : highest<T>());
    a.rest.first = broadcast<P>((element_of<P>)0);
  }
};

/// An operation without identity: a function of a kernel's own.
template <class F>
struct OwnScan {
  static constexpr bool has_identity = false;
  template <class X>
  MKW_INLINE X operator()(X a, X b) const {
    return F{}(a, b);
  }
};

// ── within a vector ─────────────────────────────────────────────────────────────────────────────

namespace detail {

template <int... I>
struct Places {};
template <int N, int... I>
struct PlacesBelow : PlacesBelow<N - 1, N - 1, I...> {};
template <int... I>
struct PlacesBelow<0, I...> {
  using type = Places<I...>;
};

/// Lanes below D from `low`, the others from x moved up by D.
template <int D, class T, int N, int... I>
MKW_INLINE Vec<T, N> moved_up(Vec<T, N> low, Vec<T, N> x, Places<I...>) {
  return {__builtin_shufflevector(low.v, x.v, (I < D ? I : N + I - D)...)};
}
/// Lanes below D from `low`, the others from x.
template <int D, class T, int N, int... I>
MKW_INLINE Vec<T, N> above(Vec<T, N> low, Vec<T, N> x, Places<I...>) {
  return {__builtin_shufflevector(low.v, x.v, (I < D ? I : N + I)...)};
}

/// The scan of the lanes in log₂ N steps: W. D. Hillis and G. L. Steele, "Data Parallel Algorithms"
/// (1986).
template <int N, int D, class Op, class X>
MKW_INLINE X prefix(Op op, X x) {
  if constexpr (D >= N) {
    return x;
  } else {
    using Lanes = typename PlacesBelow<N>::type;
    const auto up = [](auto low, auto v)
                        __attribute__((always_inline)) { return moved_up<D>(low, v, Lanes{}); };
    if constexpr (Op::has_identity) {
      X low;
      op.set_identity(low);
      return prefix<N, 2 * D>(op, op(low.zip(up, x), x));
    } else {
      const auto over = [](auto low, auto v)
                            __attribute__((always_inline)) { return above<D>(low, v, Lanes{}); };
      return prefix<N, 2 * D>(op, x.zip(over, op(x.zip(up, x), x)));
    }
  }
}

template <int N>
struct Splat {
  template <class T>
  MKW_INLINE Vec<T, N> operator()(T x) const {
    return splat<N>(x);
  }
};
struct Lane {
  int i;
  template <class T, int N>
  MKW_INLINE T operator()(Vec<T, N> x) const {
    return x[i];
  }
};
struct SetLane {
  int i;
  template <class T, int N>
  MKW_INLINE Vec<T, N> operator()(Vec<T, N> all, T x) const {
    if constexpr (same<T, bool>)
      all.v[i] = x ? -1 : 0;
    else
      all.v[i] = x;
    return all;
  }
};

}  // namespace detail

// ── from vector to vector ───────────────────────────────────────────────────────────────────────

/// What of a row was scanned so far, in `Carry`: the result at its last element.
template <class Op, class Carry>
struct ScanState {
  Carry carry;
  bool started = Op::has_identity;

  MKW_INLINE ScanState() {
    if constexpr (Op::has_identity) Op{}.set_identity(carry);
  }
  /// Takes in the state of what comes next.
  MKW_INLINE void merge(const ScanState& later) {
    if (!later.started) return;
    carry = started ? Op{}(carry, later.carry) : later.carry;
    started = true;
  }
};

/// What x, scanned from where its part begins, is after what a state of one row has taken in.
template <class Op, class... Ts, int N>
MKW_INLINE Together<Vec<Ts, N>...> after(const ScanState<Op, Together<Ts...>>& before,
                                         Together<Vec<Ts, N>...> x) {
  return before.started ? Op{}(before.carry.map(detail::Splat<N>{}), x) : x;
}
/// The same for as many rows as there are lanes.
template <class Op, class... Ts, int N>
MKW_INLINE Together<Vec<Ts, N>...> after(const ScanState<Op, Together<Vec<Ts, N>...>>& before,
                                         Together<Vec<Ts, N>...> x) {
  return before.started ? Op{}(before.carry, x) : x;
}

/// Scans a row, N elements of types Ts at a time. Serial: lane by lane, for costly operations.
template <int N, bool Serial, class Op, class... Ts>
struct RowScan : ScanState<Op, Together<Ts...>> {
  /// Returns the scan at the next elements, those of `lanes`; the other lanes are unspecified.
  template <class L>
  MKW_INLINE Together<Vec<Ts, N>...> step(L lanes, Together<Vec<Ts, N>...> x) {
    const Op op;
    if constexpr (Serial) {
      for (int i = 0; i < lanes.count; i++) {
        const Together<Ts...> one = x.map(detail::Lane{i});
        this->carry = this->started ? op(this->carry, one) : one;
        this->started = true;
        x = x.zip(detail::SetLane{i}, this->carry);
      }
      return x;
    } else {
      const bool first = !this->started;
      const auto before = this->carry.map(detail::Splat<N>{});
      if constexpr (requires { op.keeps(before, x); })
        if (op.keeps(before, x)) return before;
      const auto inner = detail::prefix<N, 1>(op, x);
      const auto last = inner.map(detail::Lane{lanes.count - 1});
      // The carry waits for one operation on scalars only, not for the lanes.
      this->carry = first ? last : op(this->carry, last);
      this->started = true;
      return first ? inner : op(before, inner);
    }
  }
};

/// Scans as many rows as its vectors have lanes, one element of each at a time.
template <class Op, class... Vs>
struct ColumnScan : ScanState<Op, Together<Vs...>> {
  template <class L>
  MKW_INLINE Together<Vs...> step(L, Together<Vs...> x) {
    this->carry = this->started ? Op{}(this->carry, x) : x;
    this->started = true;
    return this->carry;
  }
};

}  // namespace mkw
