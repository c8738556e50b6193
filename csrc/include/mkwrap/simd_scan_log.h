// The scan log Σ exp.
#pragma once

#include "simd_math.h"
#include "simd_scan.h"

namespace mkw {

/// log(e^a + e^b); two infinities of one sign give that infinity.
struct LogAddExpScan {
  static constexpr bool has_identity = true;
  template <class V>
  MKW_INLINE Together<V> operator()(Together<V> a, Together<V> b) const {
    const V top = maximum(a.first, b.first);
    const V apart = neg(abs(sub(a.first, b.first)));
    return {where(isinf(top), top, add(top, log1p(exp(apart)))), {}};
  }
  template <class V>
  MKW_INLINE void set_identity(Together<V>& a) const {
    a.first = broadcast<V>(lowest<element_of<V>>());
  }
};

}  // namespace mkw
