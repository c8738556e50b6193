// Times entries of CPU kernels in interleaved rounds. Knows nothing of Python.
#ifndef MKWRAP_TIMING_CPU_H_
#define MKWRAP_TIMING_CPU_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace mkwrap::timing {

struct LoadError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Region {
  void* address;
  std::size_t bytes;
};

struct Copy {
  void* destination;
  const void* source;
  std::size_t bytes;
};

using Entry = std::int32_t (*)(void* const* args, const std::int64_t* sizes);

// One entry of a shared object and what to call it with. The memory behind `args` stays the
// caller's.
class CpuKernel {
 public:
  // `offset`: bytes from the symbol `entry` to the code, for code that is not exported. Throws
  // LoadError if the file or the entry cannot be loaded, std::invalid_argument if there is no
  // argument list.
  CpuKernel(const std::string& path, const std::string& entry, std::vector<std::vector<void*>> args,
            std::vector<std::int64_t> sizes, std::vector<Region> zero, std::ptrdiff_t offset = 0);

  // Call once with argument list `which` modulo their number; returns the kernel's status.
  std::int32_t operator()(std::size_t which) const;

  [[nodiscard]] std::size_t lists() const { return args_.size(); }

 private:
  struct Close {
    void operator()(void* handle) const;
  };
  std::unique_ptr<void, Close> handle_;
  Entry entry_ = nullptr;
  std::vector<std::vector<void*>> args_;
  std::vector<std::int64_t> sizes_;
  std::vector<Region> zero_;
};

struct CpuPlan {
  int rounds = 1;
  double batch_us = 200.0;          // where `calls` is empty: how long a batch should last
  std::vector<std::int64_t> calls;  // calls per batch and kernel
  std::vector<Copy> restore;        // done before each batch, untimed
  std::vector<int> pin;             // CPUs to bind this thread to meanwhile; empty: leave it
};

// Microseconds per call: result[kernel][round]. Throws std::system_error where a CPU of `pin` may
// not be used.
std::vector<std::vector<double>> time_cpu(const std::vector<const CpuKernel*>& kernels,
                                          const CpuPlan& plan);

}  // namespace mkwrap::timing

#endif  // MKWRAP_TIMING_CPU_H_
