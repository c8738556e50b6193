// R3: fifty different models are loaded, run from 8 threads and unloaded in one process. Built with
// a sanitizer, which looks for races and leaks.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

constexpr int kThreads = 8;
constexpr std::size_t kModels = 50;
constexpr std::size_t kGpuElements = 128;

alignas(512) float device_memory[kThreads + 1][kGpuElements];

// "…/07_add.so" is x + 7.
struct File {
  std::string path;
  std::string operation;
  float constant;

  [[nodiscard]] bool on_gpu() const { return operation == "cuda"; }
  [[nodiscard]] float apply(float x) const {
    if (operation == "add") return x + constant;
    if (operation == "sub") return x - constant;
    if (operation == "mul") return x * constant;
    return std::max(x, constant);
  }
};

std::vector<File> find_models(const std::string& folder) {
  std::vector<File> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".so") continue;
    const std::string name = entry.path().stem();
    files.push_back({entry.path(), name.substr(3), std::stof(name.substr(0, 2))});
  }
  CHECK(files.size() == kModels);
  return files;
}

void use(const File& file, const mkwrap::Model& model, std::size_t thread) {
  mkwrap::Context context(model);
  if (file.on_gpu()) {
    const mkw_device gpu = {MKW_DEVICE_CUDA, 0};
    context.run({mkwrap::Tensor(device_memory[kThreads], {128}, {}, gpu)},
                {mkwrap::Tensor(device_memory[thread], {128}, {}, gpu)});
    return;
  }
  alignas(64) float x[8];
  alignas(64) float y[8];
  for (int i = 0; i < 8; ++i) x[i] = static_cast<float>(i) + static_cast<float>(thread);
  for (int round = 0; round < 3; ++round)
    context.run({mkwrap::Tensor(x, {8})}, {mkwrap::Tensor(y, {8})});
  for (int i = 0; i < 8; ++i) CHECK(y[i] == file.apply(x[i]));
}

// Every thread uses every model, beginning with another: those that all share, and ones of its own,
// which it loads and unloads meanwhile.
void run_from_threads(const std::vector<File>& files) {
  std::vector<mkwrap::Model> shared;
  shared.reserve(files.size());
  for (const File& file : files) shared.emplace_back(mkwrap::Library::open(file.path));
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (std::size_t thread = 0; thread < kThreads; ++thread)
    threads.emplace_back([&, thread] {
      for (std::size_t k = 0; k < files.size(); ++k) {
        const std::size_t which = (k + thread * 6) % files.size();
        use(files[which], shared[which], thread);
        use(files[which], mkwrap::Model(mkwrap::Library::open(files[which].path)), thread);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

std::size_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

bool any_mapped(const std::string& folder) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find(folder) != std::string::npos) return true;
  return false;
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  adopt(device_memory, sizeof(device_memory));
  const std::vector<File> files = find_models(folder);
  const std::size_t before = open_files();
  run_from_threads(files);
  CHECK(open_files() == before);
  CHECK(!any_mapped(folder + "/"));
  CHECK(driver->modules == 0 && driver->contexts == 0 && driver->allocations == 0);
  CHECK(driver->complaint[0] == '\0');
}
