// The part of the CUDA driver API that measuring needs, opened at run time. Declared here, so that
// the binding can be built where no CUDA header exists; the driver's ABI is stable. Names and
// numbers as in cuda.h 12 and 13.
#ifndef MKWRAP_TIMING_DRIVER_H_
#define MKWRAP_TIMING_DRIVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>

namespace mkwrap::timing {

struct DriverError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using DeviceAddress = unsigned long long;
using ContextHandle = struct CUctx_st*;
using ModuleHandle = struct CUmod_st*;
using FunctionHandle = struct CUfunc_st*;
using StreamHandle = struct CUstream_st*;
using EventHandle = struct CUevent_st*;
using GraphHandle = struct CUgraph_st*;
using GraphExecHandle = struct CUgraphExec_st*;

enum DeviceAttribute {
  kMultiprocessors = 16,
  kL2Bytes = 38,
  kCapabilityMajor = 75,
  kCapabilityMinor = 76,
  kSharedOptInBytes = 97
};
enum FunctionAttribute { kLocalBytes = 3, kRegisters = 4, kMaxDynamicSharedBytes = 8 };
enum : unsigned { kNonBlockingStream = 1 };
enum : int { kThreadLocalCapture = 1 };
enum : int { kCaptureActive = 1 };

// member name, symbol, parameters
#define MKW_TIMING_FUNCTIONS(X)                                                              \
  X(init, "cuInit", (unsigned))                                                              \
  X(driver_version, "cuDriverGetVersion", (int*))                                            \
  X(error_name, "cuGetErrorName", (int, const char**))                                       \
  X(error_text, "cuGetErrorString", (int, const char**))                                     \
  X(device_count, "cuDeviceGetCount", (int*))                                                \
  X(device_get, "cuDeviceGet", (int*, int))                                                  \
  X(device_name, "cuDeviceGetName", (char*, int, int))                                       \
  X(device_attribute, "cuDeviceGetAttribute", (int*, DeviceAttribute, int))                  \
  X(device_memory, "cuDeviceTotalMem_v2", (std::size_t*, int))                               \
  X(context_retain, "cuDevicePrimaryCtxRetain", (ContextHandle*, int))                       \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (int))                                  \
  X(context_push, "cuCtxPushCurrent_v2", (ContextHandle))                                    \
  X(context_pop, "cuCtxPopCurrent_v2", (ContextHandle*))                                     \
  X(module_load, "cuModuleLoadData", (ModuleHandle*, const void*))                           \
  X(module_unload, "cuModuleUnload", (ModuleHandle))                                         \
  X(module_function, "cuModuleGetFunction", (FunctionHandle*, ModuleHandle, const char*))    \
  X(function_get, "cuFuncGetAttribute", (int*, FunctionAttribute, FunctionHandle))           \
  X(function_set, "cuFuncSetAttribute", (FunctionHandle, FunctionAttribute, int))            \
  X(allocate, "cuMemAlloc_v2", (DeviceAddress*, std::size_t))                                \
  X(free, "cuMemFree_v2", (DeviceAddress))                                                   \
  X(allocate_host, "cuMemAllocHost_v2", (void**, std::size_t))                               \
  X(free_host, "cuMemFreeHost", (void*))                                                     \
  X(upload, "cuMemcpyHtoDAsync_v2", (DeviceAddress, const void*, std::size_t, StreamHandle)) \
  X(download, "cuMemcpyDtoHAsync_v2", (void*, DeviceAddress, std::size_t, StreamHandle))     \
  X(copy, "cuMemcpyDtoDAsync_v2", (DeviceAddress, DeviceAddress, std::size_t, StreamHandle)) \
  X(fill, "cuMemsetD8Async", (DeviceAddress, unsigned char, std::size_t, StreamHandle))      \
  X(stream_create, "cuStreamCreate", (StreamHandle*, unsigned))                              \
  X(stream_wait, "cuStreamSynchronize", (StreamHandle))                                      \
  X(stream_destroy, "cuStreamDestroy_v2", (StreamHandle))                                    \
  X(stream_capture, "cuStreamGetCaptureInfo_v2",                                             \
    (StreamHandle, int*, std::uint64_t*, GraphHandle*, const void**, std::size_t*))          \
  X(launch, "cuLaunchKernel",                                                                \
    (FunctionHandle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,   \
     StreamHandle, void**, void**))                                                          \
  X(capture_begin, "cuStreamBeginCapture_v2", (StreamHandle, int))                           \
  X(capture_end, "cuStreamEndCapture", (StreamHandle, GraphHandle*))                         \
  X(graph_instantiate, "cuGraphInstantiateWithFlags",                                        \
    (GraphExecHandle*, GraphHandle, unsigned long long))                                     \
  X(graph_launch, "cuGraphLaunch", (GraphExecHandle, StreamHandle))                          \
  X(graph_destroy, "cuGraphDestroy", (GraphHandle))                                          \
  X(graph_exec_destroy, "cuGraphExecDestroy", (GraphExecHandle))                             \
  X(event_create, "cuEventCreate", (EventHandle*, unsigned))                                 \
  X(event_record, "cuEventRecord", (EventHandle, StreamHandle))                              \
  X(event_wait, "cuEventSynchronize", (EventHandle))                                         \
  X(event_elapsed, "cuEventElapsedTime", (float*, EventHandle, EventHandle))                 \
  X(event_destroy, "cuEventDestroy_v2", (EventHandle))

class Driver {
 public:
  // Open and initialise the driver. Throws DriverError where there is none, or it finds no device.
  static std::shared_ptr<const Driver> open();

  // Throw DriverError naming the call and its error, unless result is 0.
  void check(int result, const char* call) const;

  // NOLINTBEGIN(bugprone-macro-parentheses): names and types take none.
#define MKW_TIMING_MEMBER(name, symbol, parameters) int(*name) parameters = nullptr;
  MKW_TIMING_FUNCTIONS(MKW_TIMING_MEMBER)
#undef MKW_TIMING_MEMBER
  // NOLINTEND(bugprone-macro-parentheses)
};

}  // namespace mkwrap::timing

#endif  // MKWRAP_TIMING_DRIVER_H_
