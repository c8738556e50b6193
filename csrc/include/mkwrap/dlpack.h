// DLPack interoperability: DLTensor and mkw_tensor have one layout. Needs <dlpack/dlpack.h> (or
// torch's ATen/dlpack.h, included before this header).
#ifndef MKWRAP_DLPACK_H_
#define MKWRAP_DLPACK_H_

#include <stddef.h>

#include "mkwrap/abi.h"
#ifndef DLPACK_DLPACK_H_
#include <dlpack/dlpack.h>
#endif

#ifdef __cplusplus
#define MKW_STATIC_ASSERT static_assert
#else
#define MKW_STATIC_ASSERT _Static_assert
#endif

// NOLINTBEGIN(bugprone-casting-through-void,modernize-avoid-c-style-cast): C has no other cast.
#define MKW_SAME_FIELD(field)                                                          \
  MKW_STATIC_ASSERT(offsetof(DLTensor, field) == offsetof(mkw_tensor, field), #field); \
  MKW_STATIC_ASSERT(sizeof(((DLTensor*)0)->field) == sizeof(((mkw_tensor*)0)->field), #field)

MKW_STATIC_ASSERT(sizeof(DLTensor) == sizeof(mkw_tensor), "DLTensor");
MKW_SAME_FIELD(data);
MKW_SAME_FIELD(device);
MKW_SAME_FIELD(ndim);
MKW_SAME_FIELD(dtype);
MKW_SAME_FIELD(shape);
MKW_SAME_FIELD(strides);
MKW_SAME_FIELD(byte_offset);
MKW_STATIC_ASSERT(MKW_DEVICE_CPU == (int)kDLCPU && MKW_DEVICE_CUDA == (int)kDLCUDA, "device types");
MKW_STATIC_ASSERT(MKW_INT == (int)kDLInt && MKW_UINT == (int)kDLUInt && MKW_FLOAT == (int)kDLFloat,
                  "dtype codes");
MKW_STATIC_ASSERT(MKW_BFLOAT == (int)kDLBfloat && MKW_BOOL == (int)kDLBool, "dtype codes");

#undef MKW_SAME_FIELD
#undef MKW_STATIC_ASSERT

// View an array of DLTensor as what `mkw_api.run` takes.
static inline const mkw_tensor* mkw_tensors(const DLTensor* tensors) {
  return (const mkw_tensor*)(const void*)tensors;
}
// NOLINTEND(bugprone-casting-through-void,modernize-avoid-c-style-cast)

#endif  // MKWRAP_DLPACK_H_
