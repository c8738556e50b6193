// R8: a server swaps weights under load: no request fails, none sees a mixture. Models as
// make_models.py makes them: "07_add.so" is x + 7, and all of one operation are one program.
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

constexpr int kThreads = 4;
constexpr int kModels = 10;

alignas(512) float device_memory[2][128];

mkwrap::Library library(const std::string& folder, int number, const char* operation) {
  return mkwrap::Library::open(folder + "/0" + std::to_string(number) + "_" + operation + ".so");
}

// The constant of x + constant, by a run on zeros; all elements must agree.
float constant_of(mkwrap::Context& context) {
  alignas(64) float x[8] = {};
  alignas(64) float y[8] = {};
  context.run({mkwrap::Tensor(x, {8})}, {mkwrap::Tensor(y, {8})});
  for (const float value : y) CHECK(value == y[0]);
  return y[0];
}

void test_contexts_keep_their_weights(const std::string& folder) {
  const mkwrap::Model model(library(folder, 1, "add"));
  mkwrap::Context own(model);
  auto seven = std::make_unique<mkwrap::Weights>(model, library(folder, 7, "add"));
  mkwrap::Context with_seven(*seven);
  seven.reset();  // the context keeps them, and the library they are from
  mkwrap::Context with_three(mkwrap::Weights(model, library(folder, 3, "add")));
  for (int round = 0; round < 3; ++round) {
    CHECK(constant_of(own) == 1.0F);
    CHECK(constant_of(with_seven) == 7.0F);
    CHECK(constant_of(with_three) == 3.0F);
  }
}

void test_weights_of_another_program_are_refused(const std::string& folder) {
  const mkwrap::Model model(library(folder, 1, "add"));
  try {
    const mkwrap::Weights weights(model, library(folder, 1, "sub"));
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_WEIGHTS);
    CHECK_HAS(error.what(), "another program");
  }
}

void test_r8_swaps_under_load(const std::string& folder) {
  const mkwrap::Model model(library(folder, 0, "add"));
  std::mutex lock;
  auto weights = std::make_shared<const mkwrap::Weights>(model, library(folder, 0, "add"));
  std::atomic<int> published{0};  // no swap to a greater number has begun
  std::atomic<bool> done{false};
  const auto serve = [&] {
    while (!done) {
      const int least = published;
      std::shared_ptr<const mkwrap::Weights> now;
      {
        const std::scoped_lock guard(lock);
        now = weights;
      }
      mkwrap::Context context(*now);
      for (int k = 0; k < 20; ++k) CHECK(constant_of(context) >= static_cast<float>(least));
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int k = 0; k < kThreads; ++k) threads.emplace_back(serve);
  for (int number = 1; number < kModels; ++number) {
    auto next = std::make_shared<const mkwrap::Weights>(model, library(folder, number, "add"));
    {
      const std::scoped_lock guard(lock);
      weights = std::move(next);
    }
    published = number;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
}

void test_weights_on_a_gpu(const std::string& folder, FakeDriver& driver) {
  const mkw_device gpu = {MKW_DEVICE_CUDA, 0};
  adopt(device_memory, sizeof(device_memory));
  {
    const mkwrap::Model model(library(folder, 1, "cuda"));
    mkwrap::Context own(model);
    CHECK(driver.allocations == 1);
    auto context =
        std::make_unique<mkwrap::Context>(mkwrap::Weights(model, library(folder, 7, "cuda")));
    CHECK(driver.allocations == 2 && driver.loads == 1);  // constants of their own, no kernels
    const auto constant = [&](mkwrap::Context& on) {
      on.run({mkwrap::Tensor(device_memory[0], {128}, {}, gpu)},
             {mkwrap::Tensor(device_memory[1], {128}, {}, gpu)});
      return *reinterpret_cast<const float*>(driver.arguments[1]);
    };
    CHECK(constant(own) == 1.0F && constant(*context) == 7.0F && constant(own) == 1.0F);
    context.reset();
    CHECK(driver.allocations == 1);
    // Every call of making weights fails in turn.
    const mkwrap::Library source = library(folder, 7, "cuda");
    int failures = 0;
    for (int n = 1;; ++n) {
      driver.calls = 0;
      driver.fail_at = n;
      try {
        const mkwrap::Weights weights(model, source);
        driver.fail_at = 0;
        if (driver.calls < n) break;
      } catch (const mkwrap::Error& error) {
        CHECK(error.status() == MKW_ERROR_DRIVER);
        ++failures;
      }
      driver.fail_at = 0;
      CHECK(driver.allocations == 1 && driver.streams == 0 && driver.pushed == 0);
    }
    CHECK(failures >= 5);
  }
  CHECK(driver.modules == 0 && driver.contexts == 0 && driver.allocations == 0);
  CHECK(driver.complaint[0] == '\0');
}

void test_weights_of_another_model_on_a_gpu_are_refused(const std::string& folder,
                                                        FakeDriver& driver) {
  {
    const mkwrap::Model first(library(folder, 1, "cuda"));
    const mkwrap::Model second(library(folder, 3, "cuda"));
    const mkw_api& api = second.library().api();
    const mkwrap::Weights weights(first, library(folder, 7, "cuda"));
    const int allocations = driver.allocations;
    mkw_context* context = nullptr;
    mkw_error error = {};
    CHECK(api.context_create_with(second.get(), weights.get(), &context, &error) ==
          MKW_ERROR_WEIGHTS);
    CHECK_HAS(error.message, "another model");
    CHECK(context == nullptr && driver.allocations == allocations);
    CHECK(api.context_create_with(first.get(), weights.get(), &context, &error) == MKW_OK);
    api.context_destroy(context);
  }
  CHECK(driver.modules == 0 && driver.contexts == 0 && driver.allocations == 0);
  CHECK(driver.complaint[0] == '\0');
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  test_contexts_keep_their_weights(folder);
  test_weights_of_another_program_are_refused(folder);
  test_r8_swaps_under_load(folder);
  test_weights_on_a_gpu(folder, *driver);
  test_weights_of_another_model_on_a_gpu_are_refused(folder, *driver);
}
