// CUDA memory, launches and timing through the driver API, for a process without torch. Knows
// nothing of Python.
#ifndef MKWRAP_TIMING_CUDA_H_
#define MKWRAP_TIMING_CUDA_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "timing/driver.h"
#include "timing/values.h"

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
  // Repeat the first `period` bytes up to `bytes`.
  void repeat(DeviceAddress address, std::size_t period, std::size_t bytes);
  // Compare the memory at an address, as long as the reference, while it arrives in pieces.
  Difference compare(DeviceAddress address, const Reference& reference);

  [[nodiscard]] const Driver& driver() const { return *driver_; }
  [[nodiscard]] StreamHandle stream() const { return stream_; }
  [[nodiscard]] ContextHandle handle() const { return context_; }

 private:
  // A page-locked buffer and the event after which it holds what was asked for.
  struct Landing {
    void* memory = nullptr;
    EventHandle filled = nullptr;
  };
  using Use = std::function<void(const void* piece, std::size_t offset, std::size_t bytes)>;

  // Copy device memory to the host piece by piece; one is used while the next arrives.
  void read(DeviceAddress address, std::size_t bytes, const Use& use);

  std::shared_ptr<const Driver> driver_;
  int device_ = 0;
  ContextHandle context_ = nullptr;
  StreamHandle stream_ = nullptr;
  std::set<DeviceAddress> allocated_;
  std::array<Landing, 2> landings_;
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

// A CUDA graph of `unroll` runs, ready to replay: run k is entry k modulo the number of `runs`, so
// that buffers can be rotated past the L2.
class CudaReplay {
 public:
  // Throws DriverError, or std::invalid_argument for no runs.
  CudaReplay(std::shared_ptr<CudaContext> context, std::vector<CudaRun> runs, int unroll);
  ~CudaReplay();
  CudaReplay(const CudaReplay&) = delete;
  CudaReplay& operator=(const CudaReplay&) = delete;

  // Enqueue one replay; the context must be current.
  void launch() const;

  [[nodiscard]] int unroll() const { return unroll_; }

 private:
  std::shared_ptr<CudaContext> context_;
  std::vector<CudaRun> runs_;
  int unroll_;
  GraphExecHandle executable_ = nullptr;
};

// Microseconds per run: result[replay][round]. A sample is one replay between two events. An
// untimed replay goes before, so that the device is busy while the host enqueues the timed one; the
// copies of `restore` are made between the two, untimed.
std::vector<std::vector<double>> time_cuda(const CudaContext& context,
                                           const std::vector<const CudaReplay*>& replays,
                                           int rounds, const std::vector<CudaCopy>& restore);

}  // namespace mkwrap::timing

#endif  // MKWRAP_TIMING_CUDA_H_
