// The CUDA driver, opened at run time: a library never has libcuda as a NEEDED entry, so it can be
// compiled, inspected and refused with a clear message on a machine that has none.
#ifndef MKWRAP_DRIVER_H_
#define MKWRAP_DRIVER_H_

#include <cuda.h>
#include <dlfcn.h>

#include "mkwrap/error.h"

// Every driver function in use. cuda.h maps some names to versioned ones; the expansion below
// resolves those.
#define MKW_DRIVER_FUNCTIONS(X)        \
  X(cuInit)                            \
  X(cuGetErrorName)                    \
  X(cuGetErrorString)                  \
  X(cuDeviceGetCount)                  \
  X(cuDeviceGet)                       \
  X(cuDeviceGetAttribute)              \
  X(cuDeviceGetName)                   \
  X(cuDevicePrimaryCtxRetain)          \
  X(cuDevicePrimaryCtxRelease)         \
  X(cuCtxGetCurrent)                   \
  X(cuCtxPushCurrent)                  \
  X(cuCtxPopCurrent)                   \
  X(cuCtxSynchronize)                  \
  X(cuModuleLoadData)                  \
  X(cuModuleUnload)                    \
  X(cuModuleGetFunction)               \
  X(cuFuncSetAttribute)                \
  X(cuMemAlloc)                        \
  X(cuMemFree)                         \
  X(cuMemHostAlloc)                    \
  X(cuMemHostGetDevicePointer)         \
  X(cuMemFreeHost)                     \
  X(cuMemcpyHtoDAsync)                 \
  X(cuMemsetD8Async)                   \
  X(cuStreamCreate)                    \
  X(cuStreamIsCapturing)               \
  X(cuStreamSynchronize)               \
  X(cuStreamDestroy)                   \
  X(cuThreadExchangeStreamCaptureMode) \
  X(cuLaunchKernel)

namespace mkwrap::runtime {

// A table of the driver's functions.
struct Driver {
  void* handle;
#define MKW_MEMBER(name) decltype(&::name) name##_;
  MKW_DRIVER_FUNCTIONS(MKW_MEMBER)
#undef MKW_MEMBER
};

#define MKW_SYMBOL_TEXT(name) #name
#define MKW_SYMBOL(name) MKW_SYMBOL_TEXT(name)

// Open the driver. The caller closes it with close_driver.
inline mkw_status open_driver(Driver& driver, mkw_error* error) {
  // NODELETE: the driver keeps threads and exit handlers of its own.
  driver.handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (driver.handle == nullptr) {
    const char* reason = dlerror();
    return fail(error, MKW_ERROR_NO_DRIVER, -1, "no CUDA driver on this machine: %s",
                reason != nullptr ? reason : "libcuda.so.1 cannot be opened");
  }
#define MKW_RESOLVE(name)                                                                       \
  driver.name##_ = reinterpret_cast<decltype(&::name)>(dlsym(driver.handle, MKW_SYMBOL(name))); \
  if (driver.name##_ == nullptr)                                                                \
    return fail(error, MKW_ERROR_NO_DRIVER, -1, "the CUDA driver is too old: it has no %s",     \
                MKW_SYMBOL(name));
  MKW_DRIVER_FUNCTIONS(MKW_RESOLVE)
#undef MKW_RESOLVE
  return MKW_OK;
}

inline void close_driver(Driver& driver) {
  if (driver.handle != nullptr) dlclose(driver.handle);
  driver.handle = nullptr;
}

// Turn a driver result into a status whose message names the call and its error. `where` says what
// it was for.
[[gnu::cold, gnu::noinline]] inline mkw_status driver_error(const Driver& driver, CUresult result,
                                                            const char* call, const char* where,
                                                            mkw_error* error) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver.cuGetErrorName_(result, &name) != CUDA_SUCCESS || name == nullptr)
    name = "unknown error";
  if (driver.cuGetErrorString_(result, &text) != CUDA_SUCCESS || text == nullptr)
    text = "no description";
  const mkw_status status = result == CUDA_ERROR_NO_DEVICE || result == CUDA_ERROR_STUB_LIBRARY
                                ? MKW_ERROR_NO_DRIVER
                                : MKW_ERROR_DRIVER;
  return fail(error, status, -1, "%s failed with %s (%d): %s%s%s", call, name,
              static_cast<int>(result), text, where[0] != '\0' ? "; " : "", where);
}

// Call a driver function inside a function that returns mkw_status; return its failure.
#define MKW_DRIVER_CALL(driver, error, where, name, ...)                               \
  do {                                                                                 \
    const CUresult mkw_result = (driver).name##_(__VA_ARGS__);                         \
    if (__builtin_expect(mkw_result != CUDA_SUCCESS, 0))                               \
      return ::mkwrap::runtime::driver_error(driver, mkw_result, #name, where, error); \
  } while (false)

// Makes a CUDA context current while it lives; costs one query where it is current already.
class CurrentContext {
 public:
  CurrentContext(const Driver& driver, CUcontext context) : driver_(driver) {
    CUcontext now = nullptr;
    result_ = driver.cuCtxGetCurrent_(&now);
    if (result_ != CUDA_SUCCESS || now == context) return;
    call_ = "cuCtxPushCurrent";
    result_ = driver.cuCtxPushCurrent_(context);
    pushed_ = result_ == CUDA_SUCCESS;
  }
  // For releasing: no query, and a second attempt, since a call may report the error of earlier
  // asynchronous work.
  static CurrentContext for_release(const Driver& driver, CUcontext context) {
    return {driver, context, Release()};
  }
  ~CurrentContext() {
    CUcontext popped = nullptr;
    if (pushed_) driver_.cuCtxPopCurrent_(&popped);
  }
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

  mkw_status status(mkw_error* error) const {
    if (__builtin_expect(result_ == CUDA_SUCCESS, 1)) return MKW_OK;
    return driver_error(driver_, result_, call_, "", error);
  }

 private:
  struct Release {};
  CurrentContext(const Driver& driver, CUcontext context, Release) : driver_(driver) {
    for (int attempt = 0; attempt < 2 && !pushed_; ++attempt)
      pushed_ = driver.cuCtxPushCurrent_(context) == CUDA_SUCCESS;
  }

  const Driver& driver_;
  const char* call_ = "cuCtxGetCurrent";
  CUresult result_ = CUDA_SUCCESS;
  bool pushed_ = false;
};

// While it lives, this thread may allocate memory although another thread captures a stream: a call
// that a capture forbids would break that thread's.
class BesideCaptures {
 public:
  explicit BesideCaptures(const Driver& driver) : driver_(driver) {
    result_ = driver.cuThreadExchangeStreamCaptureMode_(&mode_);
  }
  ~BesideCaptures() {
    if (result_ != CUDA_SUCCESS) return;
    // A second attempt, since a call may report the error of earlier asynchronous work.
    if (driver_.cuThreadExchangeStreamCaptureMode_(&mode_) != CUDA_SUCCESS)
      driver_.cuThreadExchangeStreamCaptureMode_(&mode_);
  }
  BesideCaptures(const BesideCaptures&) = delete;
  BesideCaptures& operator=(const BesideCaptures&) = delete;

  mkw_status status(mkw_error* error) const {
    if (result_ == CUDA_SUCCESS) return MKW_OK;
    return driver_error(driver_, result_, "cuThreadExchangeStreamCaptureMode", "", error);
  }

 private:
  const Driver& driver_;
  CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
  CUresult result_ = CUDA_SUCCESS;
};

}  // namespace mkwrap::runtime

#endif  // MKWRAP_DRIVER_H_
