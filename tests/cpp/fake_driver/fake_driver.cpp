// The driver functions that mkwrap uses. Device memory is host memory; nothing is executed.
#include "fake_driver.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "cubin.h"

struct CUmod_st {
  Cubin cubin;
  CUcontext context;
  std::map<std::string, std::unique_ptr<CUfunc_st>> functions;
};

struct CUfunc_st {
  std::string name;
  CUcontext context;
  CubinKernel kernel;
  std::uint64_t shared_limit = std::uint64_t{48} << 10;
};

struct CUctx_st {};
struct CUstream_st {};

namespace {

constexpr std::uint64_t kSharedOptIn = std::uint64_t{227} << 10;  // sm_90: 227 KB a block
constexpr unsigned kGridX = 2147483647;
constexpr unsigned kGridYz = 65535;

std::mutex lock;
CUctx_st primary[kFakeDevices];
thread_local std::vector<CUcontext> stack;
thread_local CUstreamCaptureMode capture_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

struct Allocation {
  std::size_t bytes;
  CUcontext context;  // null: memory that counts as any device's
};

std::map<CUdeviceptr, Allocation> allocations;
bool initialised = false;

FakeDriver initial_state() {
  FakeDriver made = {};
  made.devices = 1;
  const char* arch = std::getenv("FAKE_DRIVER_ARCH");
  const int number = arch != nullptr ? static_cast<int>(std::strtol(arch, nullptr, 10)) : 90;
  made.major = number / 10;
  made.minor = number % 10;
  made.fail_with = CUDA_ERROR_UNKNOWN;
  return made;
}

FakeDriver state = initial_state();

// Count a call; what it must return if it is the one to fail.
CUresult enter(const char* name) {
  ++state.calls;
  const char* always = std::getenv("FAKE_DRIVER_FAIL");
  const bool named = always != nullptr && std::strcmp(always, name) == 0;
  if (!named && state.calls != state.fail_at) return CUDA_SUCCESS;
  std::snprintf(state.failed, sizeof(state.failed), "%s", name);
  return state.fail_with;
}

CUresult complain(const char* format, ...) {
  if (state.complaint[0] == '\0') {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(state.complaint, sizeof(state.complaint), format, arguments);
    va_end(arguments);
  }
  return CUDA_ERROR_INVALID_VALUE;
}

// Whether bytes lie in memory that is alive and of the current context's device.
bool inside(CUdeviceptr at, std::size_t bytes) {
  auto above = allocations.upper_bound(at);
  if (above == allocations.begin()) return false;
  const auto& [start, allocation] = *--above;
  const bool here = allocation.context == nullptr || allocation.context == stack.back();
  return here && at + bytes <= start + allocation.bytes;
}

void* allocate(std::size_t bytes, CUcontext context) {
  void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  allocations[reinterpret_cast<CUdeviceptr>(memory)] = {bytes, context};
  ++state.allocations;
  ++state.made;
  return memory;
}

bool deallocate(CUdeviceptr at) {
  if (allocations.erase(at) == 0) return false;
  std::free(reinterpret_cast<void*>(at));
  --state.allocations;
  return true;
}

// A pointer-sized argument is null, a small number (a size), or points into memory that is alive.
bool plausible(std::uint64_t value) { return value < (std::uint64_t{1} << 32) || inside(value, 1); }

CUresult check_parameters(const CUfunc_st& function, void** parameters) {
  const auto& sizes = function.kernel.parameter_bytes;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (parameters[i] == nullptr)
      return complain("%s takes %zu arguments, got %zu", function.name.c_str(), sizes.size(), i);
    std::uint64_t value = 0;
    if (sizes[i] > sizeof(value))
      return complain("%s: argument %zu has %u bytes", function.name.c_str(), i, sizes[i]);
    std::memcpy(&value, parameters[i], sizes[i]);
    if (i < std::size(state.arguments)) state.arguments[i] = value;
    if (sizes[i] == sizeof(value) && !plausible(value))
      return complain("%s: argument %zu is %#llx, which is no device memory", function.name.c_str(),
                      i, static_cast<unsigned long long>(value));
  }
  if (parameters[sizes.size()] != nullptr)
    return complain("%s takes %zu arguments, got more", function.name.c_str(), sizes.size());
  return CUDA_SUCCESS;
}

CUresult check_launch(const CUfunc_st& function, const unsigned (&grid)[3],
                      const unsigned (&block)[3], unsigned shared) {
  const char* name = function.name.c_str();
  if (function.context != stack.back()) return complain("%s is loaded on another device", name);
  if (grid[0] - 1 >= kGridX || grid[1] - 1 >= kGridYz || grid[2] - 1 >= kGridYz)
    return complain("%s: a grid of %u x %u x %u blocks", name, grid[0], grid[1], grid[2]);
  const std::uint64_t threads = std::uint64_t{block[0]} * block[1] * block[2];
  if (threads == 0 || threads > 1024 || threads > function.kernel.max_threads)
    return complain("%s: %llu threads a block, at most %u", name,
                    static_cast<unsigned long long>(threads), function.kernel.max_threads);
  if (shared + function.kernel.static_shared_bytes > function.shared_limit)
    return complain("%s: %u bytes of shared memory, allowed are %llu", name, shared,
                    static_cast<unsigned long long>(function.shared_limit));
  return CUDA_SUCCESS;
}

}  // namespace

#define ENTER(name)                       \
  const std::scoped_lock guard(lock);     \
  const CUresult injected = enter(#name); \
  if (injected != CUDA_SUCCESS) return injected

// Calls that give something up do so even when they report a failure, as the driver does for an
// earlier call's error.
#define ENTER_RELEASE(name)           \
  const std::scoped_lock guard(lock); \
  const CUresult injected = enter(#name)

#define NEED_CONTEXT \
  if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT

extern "C" {

FakeDriver* fake_driver() { return &state; }

void fake_driver_adopt(const void* memory, unsigned long bytes) {
  const std::scoped_lock guard(lock);
  allocations[reinterpret_cast<CUdeviceptr>(memory)] = {bytes, nullptr};
}

CUresult cuInit(unsigned flags) {
  ENTER(cuInit);
  initialised = flags == 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  ENTER(cuDeviceGetCount);
  if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
  *count = state.devices;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  ENTER(cuDeviceGet);
  *device = ordinal;
  return ordinal < state.devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
  ENTER(cuDeviceGetAttribute);
  const bool major = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
  const bool minor = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
  *value = major ? state.major : state.minor;
  return major || minor ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetName(char* name, int bytes, CUdevice) {
  ENTER(cuDeviceGetName);
  std::snprintf(name, static_cast<std::size_t>(bytes), "Fake GPU");
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  ENTER(cuDevicePrimaryCtxRetain);
  ++state.contexts;
  *context = &primary[device];
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) {
  ENTER_RELEASE(cuDevicePrimaryCtxRelease);
  --state.contexts;
  return injected;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  ENTER(cuCtxGetCurrent);
  *context = stack.empty() ? nullptr : stack.back();
  return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context) {
  ENTER(cuCtxPushCurrent);
  stack.push_back(context);
  ++state.pushed;
  return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
  ENTER_RELEASE(cuCtxPopCurrent);
  if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
  *context = stack.back();
  stack.pop_back();
  --state.pushed;
  return injected;
}

CUresult cuCtxSynchronize() {
  ENTER(cuCtxSynchronize);
  NEED_CONTEXT;
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  ENTER(cuModuleLoadData);
  NEED_CONTEXT;
  auto made = std::make_unique<CUmod_st>();
  if (!parse_cubin(image, made->cubin)) return CUDA_ERROR_INVALID_IMAGE;
  if (made->cubin.arch != state.major * 10 + state.minor) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  made->context = stack.back();
  ++state.modules;
  ++state.loads;
  ++state.made;
  *module = made.release();
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
  ENTER_RELEASE(cuModuleUnload);
  NEED_CONTEXT;
  delete module;
  --state.modules;
  return injected;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  ENTER(cuModuleGetFunction);
  const auto kernel = module->cubin.kernels.find(name);
  if (kernel == module->cubin.kernels.end()) return CUDA_ERROR_NOT_FOUND;
  auto& slot = module->functions[name];
  slot = std::make_unique<CUfunc_st>();
  slot->name = name;
  slot->context = module->context;
  slot->kernel = kernel->second;
  *function = slot.get();
  return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  ENTER(cuFuncSetAttribute);
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES ||
      static_cast<std::uint64_t>(value) + function->kernel.static_shared_bytes > kSharedOptIn)
    return CUDA_ERROR_INVALID_VALUE;
  function->shared_limit = static_cast<std::uint64_t>(value) + function->kernel.static_shared_bytes;
  return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr* at, std::size_t bytes) {
  ENTER(cuMemAlloc);
  NEED_CONTEXT;
  if (state.capturing != nullptr && capture_mode != CU_STREAM_CAPTURE_MODE_RELAXED)
    return complain("memory is allocated during a capture");
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (state.memory_bytes != 0 && bytes > state.memory_bytes) return CUDA_ERROR_OUT_OF_MEMORY;
  *at = reinterpret_cast<CUdeviceptr>(allocate(bytes, stack.back()));
  return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr at) {
  ENTER_RELEASE(cuMemFree);
  NEED_CONTEXT;
  return deallocate(at) ? injected : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemHostAlloc(void** at, std::size_t bytes, unsigned) {
  ENTER(cuMemHostAlloc);
  NEED_CONTEXT;
  *at = allocate(bytes, nullptr);
  return CUDA_SUCCESS;
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr* at, void* memory, unsigned) {
  ENTER(cuMemHostGetDevicePointer);
  *at = reinterpret_cast<CUdeviceptr>(memory);
  return allocations.count(*at) == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemFreeHost(void* at) {
  ENTER_RELEASE(cuMemFreeHost);
  return deallocate(reinterpret_cast<CUdeviceptr>(at)) ? injected : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, std::size_t bytes, CUstream) {
  ENTER(cuMemcpyHtoDAsync);
  NEED_CONTEXT;
  if (!inside(to, bytes)) return complain("a copy of %zu bytes leaves its allocation", bytes);
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, std::size_t bytes, CUstream stream) {
  ENTER(cuMemsetD8Async);
  NEED_CONTEXT;
  if (!inside(at, bytes)) return complain("a memset of %zu bytes leaves its allocation", bytes);
  std::memset(reinterpret_cast<void*>(at), value, bytes);
  state.memset_stream = stream;
  return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
  ENTER(cuStreamCreate);
  NEED_CONTEXT;
  *stream = new CUstream_st;
  ++state.streams;
  ++state.made;
  return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
  ENTER(cuStreamIsCapturing);
  NEED_CONTEXT;
  const bool captured = stream != nullptr && stream == state.capturing;
  *status = captured ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  ENTER(cuThreadExchangeStreamCaptureMode);
  std::swap(*mode, capture_mode);
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
  ENTER(cuStreamSynchronize);
  if (stream != nullptr && stream == state.capturing)
    return complain("a stream that is captured is waited for");
  ++state.waits;
  return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
  ENTER_RELEASE(cuStreamDestroy);
  delete stream;
  --state.streams;
  return injected;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                        CUstream stream, void** parameters, void**) {
  ENTER(cuLaunchKernel);
  NEED_CONTEXT;
  const unsigned grid[3] = {grid_x, grid_y, grid_z};
  const unsigned block[3] = {block_x, block_y, block_z};
  if (const CUresult result = check_launch(*function, grid, block, shared)) return result;
  if (const CUresult result = check_parameters(*function, parameters)) return result;
  if (std::getenv("FAKE_DRIVER_LOG") != nullptr)
    std::printf("launch %s %u,%u,%u %u %u\n", function->name.c_str(), grid_x, grid_y, grid_z,
                block_x, shared);
  ++state.launches;
  std::memcpy(state.grid, grid, sizeof(grid));
  std::snprintf(state.launched, sizeof(state.launched), "%s", function->name.c_str());
  if (state.kernel != nullptr) state.kernel(function->name.c_str(), state.arguments, stream);
  return CUDA_SUCCESS;
}

}  // extern "C"
