// CUDA memory, launches and timing through the driver API, for a process without torch. Knows
// nothing of Python.
#ifndef MKWRAP_TIMING_CUDA_H_
#define MKWRAP_TIMING_CUDA_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "timing/driver.h"

namespace mkwrap::timing {

struct CudaDevice {
  int ordinal;
  std::string name;
  int major;
  int minor;
  int multiprocessors;
  int shared_optin_bytes;
  int l2_bytes;
  std::size_t memory_bytes;
  int driver_version;
};

// The devices of this machine; empty where there is no driver.
std::vector<CudaDevice> cuda_devices();

// The primary context of a device, a private stream, and the memory allocated through it. All
// methods throw DriverError.
class CudaContext {
 public:
  explicit CudaContext(int ordinal);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  DeviceAddress allocate(std::size_t bytes);
  void free(DeviceAddress address);
  void upload(DeviceAddress address, const void* data, std::size_t bytes);
  void download(DeviceAddress address, void* data, std::size_t bytes);
  void fill(DeviceAddress address, unsigned char value, std::size_t bytes);
  void copy(DeviceAddress destination, DeviceAddress source, std::size_t bytes);

  [[nodiscard]] const Driver& driver() const { return *driver_; }
  [[nodiscard]] StreamHandle stream() const { return stream_; }
  [[nodiscard]] ContextHandle handle() const { return context_; }

 private:
  std::shared_ptr<const Driver> driver_;
  int device_ = 0;
  ContextHandle context_ = nullptr;
  StreamHandle stream_ = nullptr;
  std::set<DeviceAddress> allocated_;
};

// Makes a context current on this thread while it lives.
class Current {
 public:
  explicit Current(const CudaContext& context);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Driver& driver_;
};

// A function of a loaded cubin.
class CudaFunction {
 public:
  CudaFunction(std::shared_ptr<CudaContext> context, const std::string& cubin,
               const std::string& entry, unsigned shared_bytes);
  ~CudaFunction();
  CudaFunction(const CudaFunction&) = delete;
  CudaFunction& operator=(const CudaFunction&) = delete;

  [[nodiscard]] int registers() const { return attribute(kRegisters); }
  [[nodiscard]] int local_bytes() const { return attribute(kLocalBytes); }
  [[nodiscard]] FunctionHandle handle() const { return function_; }
  [[nodiscard]] const CudaContext& context() const { return *context_; }

 private:
  [[nodiscard]] int attribute(FunctionAttribute which) const;
  std::shared_ptr<CudaContext> context_;
  ModuleHandle module_ = nullptr;
  FunctionHandle function_ = nullptr;
};

// A launch with its arguments bound: each is eight bytes, of which the kernel reads as many as its
// parameter has.
struct CudaLaunch {
  std::shared_ptr<CudaFunction> function;
  std::array<unsigned, 3> grid;
  unsigned threads;
  unsigned shared_bytes;
  std::vector<std::uint64_t> args;
};

struct CudaFill {
  DeviceAddress address;
  unsigned char value;
  std::size_t bytes;
};

struct CudaCopy {
  DeviceAddress destination;
  DeviceAddress source;
  std::size_t bytes;
};

// One use of a kernel: its launches and memsets in order.
using CudaRun = std::vector<std::variant<std::shared_ptr<CudaLaunch>, CudaFill>>;

// Do one run and wait.
void run(const CudaContext& context, const CudaRun& run);

struct CudaPlan {
  int rounds = 1;
  int unroll = 20;
  std::vector<CudaCopy> restore;
  std::size_t flush_bytes = 0;
};

// Microseconds per run: result[candidate][round]. A sample is one replay of a graph of `unroll`
// runs between two events. An untimed replay goes before, so that the device is busy while the host
// enqueues the timed one.
std::vector<std::vector<double>> time_cuda(CudaContext& context,
                                           const std::vector<std::vector<CudaRun>>& candidates,
                                           const CudaPlan& plan);

}  // namespace mkwrap::timing

#endif  // MKWRAP_TIMING_CUDA_H_
