// The checks every run makes of its tensors: a few nanoseconds each where they pass, a precise
// message where they do not.
#ifndef MKWRAP_CHECK_H_
#define MKWRAP_CHECK_H_

#include <inttypes.h>

#include "mkwrap/error.h"

namespace mkwrap::runtime {

// DLPack's type for page-locked host memory, which is as good as any to a CPU model.
constexpr int32_t kDeviceCudaHost = 3;

inline unsigned char* address(const mkw_tensor& tensor) {
  return static_cast<unsigned char*>(tensor.data) + tensor.byte_offset;
}

inline bool on_device(mkw_device got, mkw_device want) {
  if (want.type == MKW_DEVICE_CPU) return got.type == MKW_DEVICE_CPU || got.type == kDeviceCudaHost;
  return got.type == want.type && got.id == want.id;
}

inline bool same_dtype(mkw_dtype got, mkw_dtype want) {
  return got.code == want.code && got.bits == want.bits && got.lanes == want.lanes;
}

inline bool is_empty(const mkw_tensor& tensor) {
  for (int32_t d = 0; d < tensor.ndim; ++d)
    if (tensor.shape[d] == 0) return true;
  return false;
}

// Stride of a dimension in elements; a tensor without strides is row-major.
inline int64_t stride(const mkw_tensor& tensor, int32_t dim) {
  if (tensor.strides != nullptr) return tensor.strides[dim];
  int64_t step = 1;
  for (int32_t d = tensor.ndim - 1; d > dim; --d) step *= tensor.shape[d];
  return step;
}

inline bool same_shape(const mkw_tensor& tensor, const mkw_tensor_info& info) {
  for (int32_t d = 0; d < info.ndim; ++d) {
    const bool free = info.shape[d] == MKW_DYNAMIC && tensor.shape[d] >= 0;
    if (tensor.shape[d] != info.shape[d] && !free) return false;
  }
  return true;
}

inline bool same_strides(const mkw_tensor& tensor, const mkw_tensor_info& info) {
  int64_t row_major = 1;
  for (int32_t d = info.ndim - 1; d >= 0; --d) {
    const int64_t got = tensor.strides != nullptr ? tensor.strides[d] : row_major;
    row_major *= tensor.shape[d];
    if (got != info.strides[d] && tensor.shape[d] != 1 && info.strides[d] != MKW_DYNAMIC)
      return false;
  }
  return true;
}

// Whether the address can be used: aligned, and not null.
inline bool good_address(const mkw_tensor& tensor, const mkw_tensor_info& info) {
  const auto at = reinterpret_cast<uintptr_t>(address(tensor));
  return tensor.data != nullptr && (at & static_cast<uintptr_t>(info.alignment - 1)) == 0;
}

// Whether a tensor is what `info` asks for. Dynamic sizes and strides are left to the model's own
// checks.
inline bool matches(const mkw_tensor& tensor, const mkw_tensor_info& info, mkw_device device) {
  if (!on_device(tensor.device, device) || !same_dtype(tensor.dtype, info.dtype) ||
      tensor.ndim != info.ndim || (tensor.shape == nullptr && info.ndim != 0) ||
      !same_shape(tensor, info))
    return false;
  if (same_strides(tensor, info) && good_address(tensor, info)) return true;
  return is_empty(tensor);
}

// No tensor of a model is complex, but one of a call may be.
constexpr uint8_t kDlpackComplex = 5;

inline const char* dtype_name(mkw_dtype dtype, char (&buffer)[32]) {
  static constexpr struct {
    uint8_t code;
    const char* name;
  } kNames[] = {{MKW_INT, "int"},
                {MKW_UINT, "uint"},
                {MKW_FLOAT, "float"},
                {MKW_BFLOAT, "bfloat"},
                {kDlpackComplex, "complex"}};
  Text text(buffer, sizeof(buffer));
  if (dtype.lanes != 1) text.add("%d x ", dtype.lanes);
  if (dtype.code == MKW_BOOL && dtype.bits == 8) {
    text.add("bool");
    return buffer;
  }
  for (const auto& row : kNames) {
    if (row.code == dtype.code) {
      text.add("%s%d", row.name, dtype.bits);
      return buffer;
    }
  }
  text.add("dtype (%d, %d bits)", dtype.code, dtype.bits);
  return buffer;
}

inline const char* device_name(mkw_device device, char (&buffer)[32]) {
  Text text(buffer, sizeof(buffer));
  if (device.type == MKW_DEVICE_CPU)
    text.add("cpu");
  else if (device.type == MKW_DEVICE_CUDA)
    text.add("cuda:%d", device.id);
  else
    text.add("device type %d:%d", device.type, device.id);
  return buffer;
}

inline void add_sizes(Text& text, const int64_t* sizes, int32_t count) {
  text.add("[");
  for (int32_t d = 0; d < count; ++d) text.add(d == 0 ? "%" PRId64 : ", %" PRId64, sizes[d]);
  text.add("]");
}

// Append the shape that is expected; `sizes` null: all of it is numbers.
inline void add_shape(Text& text, const mkw_tensor_info& info, const mkw_size_text* sizes) {
  if (sizes != nullptr)
    text.add("%s%s", sizes->shape, sizes->ranges);
  else
    add_sizes(text, info.shape, info.ndim);
}

inline void add_strides(Text& text, const mkw_tensor& tensor) {
  for (int32_t d = 0; d < tensor.ndim; ++d)
    text.add(d == 0 ? "[%" PRId64 : ", %" PRId64, stride(tensor, d));
  text.add(tensor.ndim == 0 ? "[]" : "]");
}

// Say which property differs, what was expected and what came.
inline void explain(Text& text, const mkw_tensor& tensor, const mkw_tensor_info& info,
                    const mkw_size_text* sizes, mkw_device device) {
  char expected[32];
  char got[32];
  text.add("%s: ", info.path);
  if (!on_device(tensor.device, device)) {
    text.add("wrong device: expected %s, got %s", device_name(device, expected),
             device_name(tensor.device, got));
  } else if (!same_dtype(tensor.dtype, info.dtype)) {
    text.add("wrong dtype: expected %s, got %s", dtype_name(info.dtype, expected),
             dtype_name(tensor.dtype, got));
  } else if (tensor.ndim != info.ndim || (tensor.shape == nullptr && info.ndim != 0)) {
    text.add("wrong rank: expected %d dimensions ", info.ndim);
    add_shape(text, info, sizes);
    text.add(", got %d ", tensor.ndim);
    add_sizes(text, tensor.shape, tensor.shape == nullptr ? 0 : tensor.ndim);
  } else if (!same_shape(tensor, info)) {
    text.add("wrong shape: expected ");
    add_shape(text, info, sizes);
    text.add(", got ");
    add_sizes(text, tensor.shape, tensor.ndim);
  } else if (!same_strides(tensor, info)) {
    text.add("wrong strides: expected ");
    if (sizes != nullptr)
      text.add("%s", sizes->strides);
    else
      add_sizes(text, info.strides, info.ndim);
    text.add(" for shape ");
    add_sizes(text, tensor.shape, tensor.ndim);
    text.add(", got ");
    add_strides(text, tensor);
  } else if (tensor.data == nullptr) {
    text.add("expected the address of the first element, got a null pointer");
  } else {
    text.add("wrong alignment: expected an address that is a multiple of %d bytes, got %p",
             info.alignment, static_cast<const void*>(address(tensor)));
  }
}

// `sizes` as `check` is given it.
[[gnu::cold, gnu::noinline]] inline mkw_status mismatch(const mkw_tensor& tensor,
                                                        const mkw_tensor_info& info,
                                                        const mkw_size_text* sizes,
                                                        mkw_device device, int32_t argument,
                                                        mkw_error* error) {
  if (error == nullptr) return MKW_ERROR_INPUT;
  error->status = MKW_ERROR_INPUT;
  error->argument = argument;
  Text text(error->message, sizeof(error->message));
  explain(text, tensor, info, sizes != nullptr ? sizes + argument : nullptr, device);
  return MKW_ERROR_INPUT;
}

// Check `count` tensors against their infos; `first` is the argument number of the first, by which
// `sizes` are numbered (null: all sizes are numbers).
inline mkw_status check(const mkw_tensor* tensors, const mkw_tensor_info* infos, int32_t count,
                        int32_t first, mkw_device device, mkw_error* error,
                        const mkw_size_text* sizes = nullptr) {
  if (tensors == nullptr && count > 0) {
    fail(error, MKW_ERROR_ARGUMENT, first, "%s: the array of tensors is a null pointer",
         infos[0].path);
    return MKW_ERROR_ARGUMENT;
  }
  for (int32_t i = 0; i < count; ++i) {
    if (__builtin_expect(!matches(tensors[i], infos[i], device), 0))
      return mismatch(tensors[i], infos[i], sizes, device, first + i, error);
  }
  return MKW_OK;
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_CHECK_H_
