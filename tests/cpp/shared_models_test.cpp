// C38: first use from 8 threads at once, and on cuda:1 after cuda:0: images load once per device;
// after destroy the count is back at the start.
#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

constexpr int kThreads = 8;
constexpr int kImages = 3;

alignas(512) float x[128];
alignas(512) float y[kThreads][128];

void run(const mkwrap::Model& model, std::int32_t device, int thread) {
  const mkw_device gpu = {MKW_DEVICE_CUDA, device};
  mkwrap::Context context(model);
  context.run({mkwrap::Tensor(x, {128}, {}, gpu)}, {mkwrap::Tensor(y[thread], {128}, {}, gpu)});
}

// Create models on a device from all threads at the same moment, run each; the models are returned.
std::vector<mkwrap::Model> first_use(const mkwrap::Library& library, std::int32_t device) {
  std::vector<std::unique_ptr<mkwrap::Model>> made(kThreads);
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  std::atomic<int> waiting{kThreads};
  for (int k = 0; k < kThreads; ++k)
    threads.emplace_back([&, k] {
      --waiting;
      while (waiting > 0) std::this_thread::yield();
      made[static_cast<std::size_t>(k)] = std::make_unique<mkwrap::Model>(library, device);
      run(*made[static_cast<std::size_t>(k)], device, k);
    });
  for (std::thread& thread : threads) thread.join();
  std::vector<mkwrap::Model> models;
  models.reserve(made.size());
  for (const auto& model : made) models.push_back(*model);
  return models;
}

void test_c38_images_load_once_per_device(const mkwrap::Library& library,
                                          const FakeDriver& driver) {
  {
    const std::vector<mkwrap::Model> first = first_use(library, 0);
    CHECK(driver.loads == kImages && driver.modules == kImages && driver.contexts == 1);
    CHECK(driver.allocations == 1);  // the constants
    const std::vector<mkwrap::Model> second = first_use(library, 1);
    CHECK(driver.loads == 2 * kImages && driver.modules == 2 * kImages && driver.contexts == 2);
    CHECK(driver.allocations == 2);
    CHECK(first.front().get() == first.back().get() && first.front().get() != second.front().get());
    run(first.front(), 0, 0);
  }
  CHECK(driver.launches == (2 * kThreads + 1) * kImages);
  CHECK(driver.modules == 0 && driver.contexts == 0 && driver.allocations == 0);
  CHECK(driver.complaint[0] == '\0');
}

void test_c38_creating_while_destroying(const mkwrap::Library& library, const FakeDriver& driver) {
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int k = 0; k < kThreads; ++k)
    threads.emplace_back([&, k] {
      for (int round = 0; round < 50; ++round) run(mkwrap::Model(library, k % 2), k % 2, k);
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(driver.modules == 0 && driver.contexts == 0 && driver.allocations == 0);
  CHECK(driver.complaint[0] == '\0');
}

}  // namespace

int main(int, char** arguments) {
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  driver->devices = 2;
  adopt(x, sizeof(x));
  adopt(y, sizeof(y));
  const mkwrap::Library library = mkwrap::Library::open(std::string(arguments[1]) + "/cuda.so");
  test_c38_images_load_once_per_device(library, *driver);
  test_c38_creating_while_destroying(library, *driver);
}
