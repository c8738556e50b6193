// What a run writes must share memory with nothing else it reads or writes: a kernel may read an
// element after another of its threads, or an earlier step, has written it.
#ifndef MKWRAP_OVERLAP_H_
#define MKWRAP_OVERLAP_H_

#include "mkwrap/check.h"

namespace mkwrap::runtime {

// The bytes from a tensor's first to its last element in memory; those between the elements of a
// strided tensor count as its own.
struct Span {
  uintptr_t low;
  uintptr_t high;
};

inline bool overlap(Span a, Span b) { return (a.low < b.high) & (b.low < a.high); }

// A tensor without elements has the span {0, 0}, which overlaps none.
inline Span span_of(const mkw_tensor& tensor) {
  int64_t below = 0;
  int64_t above = 0;
  int64_t row_major = 1;
  for (int32_t d = tensor.ndim - 1; d >= 0; --d) {
    const int64_t step = tensor.strides != nullptr ? tensor.strides[d] : row_major;
    row_major *= tensor.shape[d];
    (step < 0 ? below : above) += (tensor.shape[d] - 1) * step;
  }
  if (row_major == 0) return {0, 0};
  const int64_t bytes = tensor.dtype.bits / 8;
  const auto start = reinterpret_cast<uintptr_t>(address(tensor));
  return {start + static_cast<uintptr_t>(below * bytes),
          start + static_cast<uintptr_t>((above + 1) * bytes)};
}

// Tensor `argument` of a run, inputs first, is written to and shares memory with tensor `other`.
[[gnu::cold, gnu::noinline]] inline mkw_status shared_memory(const mkw_tensor_info& written,
                                                             int32_t argument,
                                                             const mkw_tensor_info& other,
                                                             bool is_output, mkw_error* error) {
  if (is_output)
    return fail(error, MKW_ERROR_INPUT, argument,
                "%s: expected memory of its own, got memory shared with %s", written.path,
                other.path);
  return fail(error, MKW_ERROR_ALIASING, argument,
              "%s is written to, and shares memory with %s; pass a copy of one of them",
              written.path, other.path);
}

// Check that outputs and mutated inputs share memory with no other tensor. The tensors match their
// infos already.
template <int32_t kInputCount, int32_t kOutputCount>
mkw_status check_apart(const mkw_tensor* inputs, const mkw_tensor_info* input_infos,
                       const mkw_tensor* outputs, const mkw_tensor_info* output_infos,
                       mkw_error* error) {
  constexpr int32_t kCount = kInputCount + kOutputCount;
  Span spans[kCount + 1];  // never an array of no elements
  for (int32_t i = 0; i < kInputCount; ++i) spans[i] = span_of(inputs[i]);
  for (int32_t i = 0; i < kOutputCount; ++i) spans[kInputCount + i] = span_of(outputs[i]);
  const auto info = [=](int32_t i) -> const mkw_tensor_info& {
    return i < kInputCount ? input_infos[i] : output_infos[i - kInputCount];
  };
  for (int32_t i = 0; i < kCount; ++i) {
    const bool is_output = i >= kInputCount;
    if (!is_output && info(i).mutated == 0) continue;
    // An output is held against all before it; a mutated input against all inputs.
    const int32_t last = is_output ? i : kInputCount;
    for (int32_t j = 0; j < last; ++j)
      if (__builtin_expect(i != j && overlap(spans[i], spans[j]), 0))
        return shared_memory(info(i), i, info(j), is_output, error);
  }
  return MKW_OK;
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_OVERLAP_H_
