#include "timing/cuda.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace mkwrap::timing {
namespace {

// Kernels that ask for more dynamic shared memory than this must be allowed to (CUDA C++
// Programming Guide, 16.4).
constexpr unsigned kSharedWithoutOptIn = 48 * 1024;
// Large enough that the bus is busy, small enough to stay in the host's cache.
constexpr std::size_t kLandingBytes = std::size_t{4} << 20;

}  // namespace

std::vector<CudaDevice> cuda_devices() {
  std::shared_ptr<const Driver> driver;
  try {
    driver = Driver::open();
  } catch (const DriverError&) {
    return {};
  }
  int count = 0;
  int version = 0;
  driver->check(driver->device_count(&count), "cuDeviceGetCount");
  driver->check(driver->driver_version(&version), "cuDriverGetVersion");
  std::vector<CudaDevice> devices;
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    int device = 0;
    driver->check(driver->device_get(&device, ordinal), "cuDeviceGet");
    const auto attribute = [&](DeviceAttribute which) {
      int value = 0;
      driver->check(driver->device_attribute(&value, which, device), "cuDeviceGetAttribute");
      return value;
    };
    char name[128] = "";
    std::size_t memory = 0;
    driver->check(driver->device_name(name, sizeof name, device), "cuDeviceGetName");
    driver->check(driver->device_memory(&memory, device), "cuDeviceTotalMem");
    devices.push_back({ordinal, name, attribute(kCapabilityMajor), attribute(kCapabilityMinor),
                       attribute(kMultiprocessors), attribute(kSharedOptInBytes),
                       attribute(kL2Bytes), memory, version});
  }
  return devices;
}

Current::Current(const CudaContext& context) : driver_(context.driver()) {
  driver_.check(driver_.context_push(context.handle()), "cuCtxPushCurrent");
}

Current::~Current() {
  ContextHandle popped = nullptr;
  driver_.context_pop(&popped);
}

CudaContext::CudaContext(int ordinal) : driver_(Driver::open()) {
  driver_->check(driver_->device_get(&device_, ordinal), "cuDeviceGet");
  driver_->check(driver_->context_retain(&context_, device_), "cuDevicePrimaryCtxRetain");
  int result = driver_->context_push(context_);
  if (result == 0) {
    result = driver_->stream_create(&stream_, kNonBlockingStream);
    ContextHandle popped = nullptr;
    driver_->context_pop(&popped);
  }
  if (result == 0) return;
  driver_->context_release(device_);
  driver_->check(result, "cuStreamCreate");
}

CudaContext::~CudaContext() {
  // A context that a kernel has broken refuses all calls: there is nobody to tell, and the process
  // will end.
  if (driver_->context_push(context_) == 0) {
    driver_->stream_wait(stream_);
    for (const DeviceAddress address : allocated_) driver_->free(address);
    for (const Landing& landing : landings_) {
      if (landing.filled != nullptr) driver_->event_destroy(landing.filled);
      if (landing.memory != nullptr) driver_->free_host(landing.memory);
    }
    driver_->stream_destroy(stream_);
    ContextHandle popped = nullptr;
    driver_->context_pop(&popped);
  }
  driver_->context_release(device_);
}

DeviceAddress CudaContext::allocate(std::size_t bytes) {
  const Current current(*this);
  DeviceAddress address = 0;
  driver_->check(driver_->allocate(&address, std::max<std::size_t>(bytes, 1)), "cuMemAlloc");
  allocated_.insert(address);
  return address;
}

void CudaContext::free(DeviceAddress address) {
  if (allocated_.erase(address) == 0)
    throw std::invalid_argument("this address was not allocated by this context");
  const Current current(*this);
  driver_->check(driver_->free(address), "cuMemFree");
}

void CudaContext::upload(DeviceAddress address, const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  const Current current(*this);
  driver_->check(driver_->upload(address, data, bytes, stream_), "cuMemcpyHtoDAsync");
  driver_->check(driver_->stream_wait(stream_), "cuStreamSynchronize");
}

void CudaContext::download(DeviceAddress address, void* data, std::size_t bytes) {
  read(address, bytes, [&](const void* piece, std::size_t offset, std::size_t size) {
    std::memcpy(static_cast<char*>(data) + offset, piece, size);
  });
}

Difference CudaContext::compare(DeviceAddress address, const Reference& reference) {
  Difference all;
  read(address, reference.bytes(), [&](const void* piece, std::size_t offset, std::size_t size) {
    const Difference part = reference.compare(piece, offset, size);
    if (all.wrong == 0 && part.wrong > 0) all.first = part.first;
    all.wrong += part.wrong;
  });
  return all;
}

void CudaContext::read(DeviceAddress address, std::size_t bytes, const Use& use) {
  if (bytes == 0) return;
  const Current current(*this);
  for (Landing& landing : landings_) {
    if (landing.memory == nullptr)
      driver_->check(driver_->allocate_host(&landing.memory, kLandingBytes), "cuMemAllocHost");
    if (landing.filled == nullptr)
      driver_->check(driver_->event_create(&landing.filled, 0), "cuEventCreate");
  }
  const auto size_at = [&](std::size_t offset) { return std::min(kLandingBytes, bytes - offset); };
  const auto ask = [&](std::size_t offset) {
    const Landing& landing = landings_[offset / kLandingBytes % 2];
    driver_->check(driver_->download(landing.memory, address + offset, size_at(offset), stream_),
                   "cuMemcpyDtoHAsync");
    driver_->check(driver_->event_record(landing.filled, stream_), "cuEventRecord");
  };
  ask(0);
  for (std::size_t offset = 0; offset < bytes; offset += kLandingBytes) {
    if (offset + kLandingBytes < bytes) ask(offset + kLandingBytes);
    const Landing& landing = landings_[offset / kLandingBytes % 2];
    driver_->check(driver_->event_wait(landing.filled), "cuEventSynchronize");
    use(landing.memory, offset, size_at(offset));
  }
}

void CudaContext::fill(DeviceAddress address, unsigned char value, std::size_t bytes) {
  run(*this, {CudaFill{address, value, bytes}});
}

void CudaContext::copy(DeviceAddress destination, DeviceAddress source, std::size_t bytes) {
  if (bytes == 0) return;
  const Current current(*this);
  driver_->check(driver_->copy(destination, source, bytes, stream_), "cuMemcpyDtoDAsync");
  driver_->check(driver_->stream_wait(stream_), "cuStreamSynchronize");
}

void CudaContext::repeat(DeviceAddress address, std::size_t period, std::size_t bytes) {
  if (period == 0) throw std::invalid_argument("there is nothing to repeat");
  const Current current(*this);
  // What is there doubles with each copy.
  for (std::size_t filled = period; filled < bytes; filled *= 2)
    driver_->check(
        driver_->copy(address + filled, address, std::min(filled, bytes - filled), stream_),
        "cuMemcpyDtoDAsync");
  driver_->check(driver_->stream_wait(stream_), "cuStreamSynchronize");
}

CudaFunction::CudaFunction(std::shared_ptr<CudaContext> context, const std::string& cubin,
                           const std::string& entry, unsigned shared_bytes)
    : context_(std::move(context)) {
  const Driver& driver = context_->driver();
  const Current current(*context_);
  driver.check(driver.module_load(&module_, cubin.data()), "cuModuleLoadData");
  int result = driver.module_function(&function_, module_, entry.c_str());
  const char* call = "cuModuleGetFunction";
  if (result == 0 && shared_bytes > kSharedWithoutOptIn) {
    call = "cuFuncSetAttribute";
    result = driver.function_set(function_, kMaxDynamicSharedBytes, static_cast<int>(shared_bytes));
  }
  if (result == 0) return;
  driver.module_unload(module_);
  driver.check(result, call);
}

CudaFunction::~CudaFunction() {
  const Driver& driver = context_->driver();
  if (driver.context_push(context_->handle()) != 0) return;
  driver.module_unload(module_);
  ContextHandle popped = nullptr;
  driver.context_pop(&popped);
}

int CudaFunction::attribute(FunctionAttribute which) const {
  int value = 0;
  const Current current(*context_);
  context_->driver().check(context_->driver().function_get(&value, which, function_),
                           "cuFuncGetAttribute");
  return value;
}

}  // namespace mkwrap::timing
