// Nanoseconds of host time of a run, with the same sizes again and with new ones every time.
//
// Usage: dispatch_cost LIBRARY…; prints "LIBRARY same new" for libraries of
// benchmarks/dispatch_cost.py.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "mkwrap/mkwrap.hpp"

namespace {

constexpr int kRounds = 41;
constexpr int kRuns = 2000;

alignas(64) float x[64 * 64];
alignas(64) float y[1];

double per_run(mkwrap::Context& context, const mkw_tensor* shapes, int count) {
  const mkwrap::Tensor out(y, {1});
  const mkw_tensor output = out.view();
  std::vector<double> samples;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int run = 0; run < kRuns; ++run) context.run(&shapes[run % count], &output);
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
    samples.push_back(spent.count() / kRuns);
  }
  std::nth_element(samples.begin(), samples.begin() + kRounds / 2, samples.end());
  return samples[kRounds / 2];
}

}  // namespace

int main(int count, char** arguments) {
  for (int i = 1; i < count; ++i) {
    mkwrap::Context context{mkwrap::Model(mkwrap::Library::open(arguments[i]))};
    std::vector<mkwrap::Tensor> tensors;
    for (const int size : {3, 60, 17, 33})
      tensors.emplace_back(x, std::vector<std::int64_t>{size, size + 1});
    std::vector<mkw_tensor> shapes;
    shapes.reserve(tensors.size());
    for (const mkwrap::Tensor& tensor : tensors) shapes.push_back(tensor.view());
    context.run(shapes.data(), [] {
      static const mkwrap::Tensor out(y, {1});
      static const mkw_tensor view = out.view();
      return &view;
    }());
    std::printf("%s %.1f %.1f\n", arguments[i], per_run(context, shapes.data(), 1),
                per_run(context, shapes.data(), static_cast<int>(shapes.size())));
  }
}
