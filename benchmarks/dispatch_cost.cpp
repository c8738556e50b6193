// Nanoseconds of host time of a run, with the same sizes again and with new ones every time.
//
// Usage: dispatch_cost LIBRARY…; prints "LIBRARY same new" for libraries of
// benchmarks/dispatch_cost.py.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iterator>
#include <vector>

#include "mkwrap/mkwrap.hpp"

namespace {

constexpr int kRounds = 41;
constexpr int kRuns = 2000;
constexpr std::int64_t kSizes[] = {3, 60, 17, 33};

alignas(64) float x[64 * 64];
alignas(64) float y[1];

double per_run(mkwrap::Context& context, const mkw_tensor* shapes, int count) {
  const mkwrap::Tensor out(y, {1});
  const mkw_tensor output = out.view();
  std::vector<double> samples;
  samples.reserve(kRounds);
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int run = 0; run < kRuns; ++run) context.run(&shapes[run % count], &output);
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
    samples.push_back(spent.count() / kRuns);
  }
  std::nth_element(samples.begin(), samples.begin() + kRounds / 2, samples.end());
  return samples[kRounds / 2];
}

void time_library(const char* path) {
  mkwrap::Context context{mkwrap::Model(mkwrap::Library::open(path))};
  std::vector<mkwrap::Tensor> tensors;
  std::vector<mkw_tensor> shapes;
  tensors.reserve(std::size(kSizes));
  shapes.reserve(std::size(kSizes));
  for (const std::int64_t size : kSizes)
    tensors.emplace_back(x, std::vector<std::int64_t>{size, size + 1});
  for (const mkwrap::Tensor& tensor : tensors) shapes.push_back(tensor.view());
  const double same = per_run(context, shapes.data(), 1);
  const double changing = per_run(context, shapes.data(), static_cast<int>(shapes.size()));
  std::printf("%s %.1f %.1f\n", path, same, changing);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    for (int i = 1; i < count; ++i) time_library(arguments[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
