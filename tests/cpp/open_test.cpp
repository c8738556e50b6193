// Libraries with an open choice, with the choice made without a linker, and for two architectures,
// on the fake driver.
#include <string>
#include <vector>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

alignas(512) float x[128];
alignas(512) float y[128];

constexpr mkw_device kGpu = {MKW_DEVICE_CUDA, 0};

struct Launched {
  std::string name;
  std::vector<unsigned long long> pointers;
};
std::vector<Launched> launched;

void note(const char* name, const unsigned long long* arguments, CUstream) {
  launched.push_back({name, {arguments, arguments + 2}});
}

// What a run of the library launches.
const std::vector<Launched>& run(const mkwrap::Model& model) {
  launched.clear();
  mkwrap::Context context(model);
  context.run({mkwrap::Tensor(x, {128}, {}, kGpu)}, {mkwrap::Tensor(y, {128}, {}, kGpu)});
  return launched;
}

unsigned long long address(const float* tensor) {
  return reinterpret_cast<unsigned long long>(tensor);
}

// The choice is one launch from input to output; nothing else is loaded or allocated.
void check_one(const std::string& path, const char* entry, FakeDriver& driver) {
  const mkwrap::Model model(mkwrap::Library::open(path));
  CHECK(driver.modules == 1 && driver.allocations == 0);
  CHECK(model.workspace_bytes() == 0);
  const auto& found = run(model);
  CHECK(found.size() == 1 && found[0].name == entry);
  CHECK(found[0].pointers[0] == address(x) && found[0].pointers[1] == address(y));
}

// The choice is two launches through a workspace of its own.
void check_two(const std::string& path, FakeDriver& driver) {
  const mkwrap::Model model(mkwrap::Library::open(path));
  CHECK(driver.modules == 2);
  CHECK(model.workspace_bytes() == 1024);
  const auto& found = run(model);
  CHECK(found.size() == 2 && found[0].name == "partial_sm_90" && found[1].name == "final_sm_90");
  CHECK(found[0].pointers[0] == address(x) && found[1].pointers[1] == address(y));
  CHECK(found[0].pointers[1] == found[1].pointers[0] && found[0].pointers[1] % 256 == 0);
}

void test_architectures(const std::string& path, FakeDriver& driver) {
  driver.major = 8;
  driver.minor = 0;
  check_one(path, "whole_sm_80", driver);
  driver.major = 9;
  check_one(path, "whole_sm_90", driver);
  struct Other {
    int major;
    int minor;
    const char* name;
  };
  for (const Other& other : {Other{7, 5, "sm_75"}, Other{9, 1, "sm_91"}, Other{10, 0, "sm_100"}}) {
    driver.major = other.major;
    driver.minor = other.minor;
    try {
      const mkwrap::Model model(mkwrap::Library::open(path));
      CHECK(false);
    } catch (const mkwrap::Error& error) {
      CHECK(error.status() == MKW_ERROR_ARCHITECTURE);
      CHECK_HAS(error.what(), "compiled for sm_80, sm_90; this device");
      CHECK_HAS(error.what(), other.name);
    }
    CHECK(driver.modules == 0 && driver.contexts == 0);
  }
  driver.major = 9;
  driver.minor = 0;
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = std::string(arguments[1]) + "/";
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  adopt(x, sizeof(x));
  adopt(y, sizeof(y));
  driver->kernel = note;
  check_one(folder + "cuda_open.so", "whole_sm_90", *driver);
  check_one(folder + "cuda_closed_one.so", "whole_sm_90", *driver);
  check_two(folder + "cuda_closed_two.so", *driver);
  test_architectures(folder + "cuda_both.so", *driver);
  if (driver->complaint[0] != '\0') std::fprintf(stderr, "%s\n", driver->complaint);
  CHECK(driver->complaint[0] == '\0');
  CHECK(driver->contexts == 0 && driver->modules == 0 && driver->allocations == 0);
}
