// Stable sorts of one row: keys with their positions, by radix or by merging.
#pragma once

#include "simd.h"

namespace mkw {

/// A sort key and the place it came from.
template <class K>
struct Entry {
  K key;
  uint32_t place;
};

/// An unsigned integer that orders as x does: −0 as 0, every NaN above all numbers.
template <bool Descending, class T>
MKW_INLINE uint_of<sizeof(T)> order_key(T x) {
  using K = uint_of<sizeof(T)>;
  constexpr K sign = (K)((K)1 << (8 * sizeof(T) - 1));
  K key;
  if constexpr (is_float<T>) {
    const K raw = x == (T)0 ? (K)0 : bits<K>(x);
    const K number = (raw & sign) ? (K)~raw : (K)(raw | sign);
    key = x != x ? (K) ~(K)0 : number;
  } else {
    key = detail::is_signed<T> ? (K)((K)x ^ sign) : (K)x;
  }
  return Descending ? (K)~key : key;
}

namespace detail {

/// Sorts a run by inserting each entry before the larger ones.
template <class K>
MKW_INLINE void insert_in_order(Entry<K>* run, int64_t count) {
  for (int64_t i = 1; i < count; i++) {
    const Entry<K> entry = run[i];
    int64_t at = i;
    for (; at > 0 && run[at - 1].key > entry.key; at--) run[at] = run[at - 1];
    run[at] = entry;
  }
}

/// Merges two neighbouring runs; of equal keys that of the first comes first.
template <class K>
MKW_INLINE void merge_runs(const Entry<K>* a, int64_t a_count, const Entry<K>* b, int64_t b_count,
                           Entry<K>* into) {
  int64_t i = 0, j = 0;
  while (i < a_count && j < b_count) {
    const bool second = b[j].key < a[i].key;
    *into++ = second ? b[j] : a[i];
    j += second;
    i += !second;
  }
  while (i < a_count) *into++ = a[i++];
  while (j < b_count) *into++ = b[j++];
}

}  // namespace detail

/// Sorts entries by merging ever longer runs; returns where they are, in one of the two buffers.
template <class K>
Entry<K>* merge_sort(Entry<K>* from, Entry<K>* into, int64_t count) {
  constexpr int64_t start = 16;
  for (int64_t i = 0; i < count; i += start)
    detail::insert_in_order(from + i, count - i < start ? count - i : start);
  for (int64_t run = start; run < count; run *= 2) {
    for (int64_t i = 0; i < count; i += 2 * run) {
      const int64_t rest = count - i;
      const int64_t first = rest < run ? rest : run;
      const int64_t second = rest - first < run ? rest - first : run;
      detail::merge_runs(from + i, first, from + i + first, second, into + i);
    }
    Entry<K>* const sorted = into;
    into = from;
    from = sorted;
  }
  return from;
}

/// Sorts entries digit by digit, the least significant of 8 bits first; digits that all keys share
/// are passed over. Returns where they are, in one of the two buffers.
template <class K>
Entry<K>* radix_sort(Entry<K>* from, Entry<K>* into, int64_t count) {
  for (int shift = 0; shift < (int)(8 * sizeof(K)); shift += 8) {
    uint32_t starts[256] = {};
    for (int64_t i = 0; i < count; i++) starts[(from[i].key >> shift) & 255]++;
    if (count == 0 || starts[(from[0].key >> shift) & 255] == (uint32_t)count) continue;
    uint32_t total = 0;
    for (uint32_t& start : starts) {
      const uint32_t of_digit = start;
      start = total;
      total += of_digit;
    }
    for (int64_t i = 0; i < count; i++) into[starts[(from[i].key >> shift) & 255]++] = from[i];
    Entry<K>* const sorted = into;
    into = from;
    from = sorted;
  }
  return from;
}

/// Sorts a row of `count` values: `sorted` in order, `places` where each was. `work` holds two
/// entries a value.
template <bool Radix, bool Descending, class T>
void sort_row(const T* values, int64_t count, Entry<uint_of<sizeof(T)>>* work, T* sorted,
              int64_t* places) {
  auto* entries = work;
  for (int64_t i = 0; i < count; i++) entries[i] = {order_key<Descending>(values[i]), (uint32_t)i};
  entries = Radix ? radix_sort(work, work + count, count) : merge_sort(work, work + count, count);
  for (int64_t i = 0; i < count; i++) {
    places[i] = entries[i].place;
    sorted[i] = values[entries[i].place];
  }
}

}  // namespace mkw
