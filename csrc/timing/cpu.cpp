#include "timing/cpu.h"

#include <dlfcn.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <system_error>
#include <utility>

namespace mkwrap::timing {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

// Binds this thread to CPUs for as long as it lives.
class Affinity {
 public:
  explicit Affinity(const std::vector<int>& cpus) : changed_(!cpus.empty()) {
    if (!changed_) return;
    if (sched_getaffinity(0, sizeof before_, &before_) != 0) fail("sched_getaffinity");
    cpu_set_t wanted;
    CPU_ZERO(&wanted);
    for (const int cpu : cpus) CPU_SET(cpu, &wanted);
    if (sched_setaffinity(0, sizeof wanted, &wanted) != 0) fail("sched_setaffinity");
  }
  ~Affinity() {
    if (changed_) sched_setaffinity(0, sizeof before_, &before_);
  }
  Affinity(const Affinity&) = delete;
  Affinity& operator=(const Affinity&) = delete;

 private:
  [[noreturn]] static void fail(const char* call) {
    throw std::system_error(errno, std::generic_category(), call);
  }
  cpu_set_t before_{};
  bool changed_;
};

void restore(const std::vector<Copy>& copies) {
  for (const Copy& copy : copies) std::memcpy(copy.destination, copy.source, copy.bytes);
}

double batch(const CpuKernel& kernel, std::int64_t calls) {
  const auto start = Clock::now();
  for (std::int64_t i = 0; i < calls; ++i) kernel(static_cast<std::size_t>(i));
  return microseconds(Clock::now() - start);
}

// How many calls last about `batch_us`, found by doubling so that one slow first call misleads
// nobody.
std::int64_t calls_for(const CpuKernel& kernel, double batch_us) {
  constexpr std::int64_t kMost = 1'000'000;
  for (std::int64_t calls = 1;; calls *= 2) {
    const double elapsed = batch(kernel, calls);
    if (elapsed < batch_us / 4 && calls < kMost) continue;
    const double wanted =
        std::ceil(static_cast<double>(calls) * batch_us / std::max(elapsed, 1e-3));
    return static_cast<std::int64_t>(std::clamp(wanted, 1.0, static_cast<double>(kMost)));
  }
}

}  // namespace

void CpuKernel::Close::operator()(void* handle) const { dlclose(handle); }

CpuKernel::CpuKernel(const std::string& path, const std::string& entry,
                     std::vector<std::vector<void*>> args, std::vector<std::int64_t> sizes,
                     std::vector<Region> zero, std::ptrdiff_t offset)
    : args_(std::move(args)), sizes_(std::move(sizes)), zero_(std::move(zero)) {
  if (args_.empty()) throw std::invalid_argument("a kernel needs at least one argument list");
  handle_.reset(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (!handle_) throw LoadError(dlerror());
  // Idle threads of the OpenMP pool sleep in the runtime's code: it must never be unmapped.
  dlopen("libgomp.so.1", RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  void* found = dlsym(handle_.get(), entry.c_str());
  if (found == nullptr) throw LoadError(path + " has no entry " + entry);
  entry_ = reinterpret_cast<Entry>(static_cast<char*>(found) + offset);
}

std::int32_t CpuKernel::operator()(std::size_t which) const {
  for (const Region& region : zero_) std::memset(region.address, 0, region.bytes);
  const auto& args = args_[args_.size() == 1 ? 0 : which % args_.size()];
  return entry_(args.data(), sizes_.empty() ? nullptr : sizes_.data());
}

std::vector<std::vector<double>> time_cpu(const std::vector<const CpuKernel*>& kernels,
                                          const CpuPlan& plan) {
  const Affinity affinity(plan.pin);
  std::vector<std::int64_t> calls = plan.calls;
  if (calls.empty()) {
    for (const CpuKernel* kernel : kernels) {
      restore(plan.restore);
      calls.push_back(calls_for(*kernel, plan.batch_us));
    }
  }
  if (calls.size() != kernels.size())
    throw std::invalid_argument("`calls` needs one number per kernel");
  const auto rounds = static_cast<std::size_t>(std::max(plan.rounds, 0));
  std::vector<std::vector<double>> samples(kernels.size(), std::vector<double>(rounds));
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t k = 0; k < kernels.size(); ++k) {
      restore(plan.restore);
      (*kernels[k])(kernels[k]->lists() - 1);
      samples[k][round] =
          batch(*kernels[k], calls[k]) / static_cast<double>(std::max<std::int64_t>(calls[k], 1));
    }
  }
  return samples;
}

}  // namespace mkwrap::timing
