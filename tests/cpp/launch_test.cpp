// A CUDA library against the fake driver: launches fit their cubins, other architectures are
// refused, nothing leaks.
#include <cstring>
#include <functional>
#include <set>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

alignas(512) float x[128];
alignas(512) float y[128];

constexpr mkw_device kGpu = {MKW_DEVICE_CUDA, 0};

void check_nothing_alive(const FakeDriver& driver) {
  CHECK(driver.contexts == 0 && driver.modules == 0 && driver.allocations == 0 &&
        driver.streams == 0);
  CHECK(driver.pushed == 0);
}

void test_launches(const mkwrap::Library& library, FakeDriver& driver) {
  {
    const mkwrap::Model model(library);
    CHECK(driver.modules == 3 && driver.allocations == 1);  // three images, one block of constants
    CHECK(model.workspace_bytes() == 512 + 512 + 0);
    mkwrap::Context first(model);
    mkwrap::Context second(model);
    CHECK(driver.modules == 3 && driver.allocations == 3);
    first.run({mkwrap::Tensor(x, {128}, {}, kGpu)}, {mkwrap::Tensor(y, {128}, {}, kGpu)});
    second.run({mkwrap::Tensor(x, {128}, {}, kGpu)}, {mkwrap::Tensor(y, {128}, {}, kGpu)});
    CHECK(driver.launches == 6);
    CHECK(driver.pushed == 0);
  }
  if (driver.complaint[0] != '\0') std::fprintf(stderr, "%s\n", driver.complaint);
  CHECK(driver.complaint[0] == '\0');
  check_nothing_alive(driver);
}

void test_the_fake_objects(const mkwrap::Library& library, FakeDriver& driver) {
  // Memory that was never given to the fake driver: it must complain, or its checks are worth
  // nothing.
  static float stranger[128 + 128];
  mkwrap::Context context{mkwrap::Model(library)};
  auto* aligned =
      reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(stranger) + 511) / 512 * 512);
  try {
    context.run({mkwrap::Tensor(aligned, {128}, {}, kGpu)}, {mkwrap::Tensor(y, {128}, {}, kGpu)});
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_DRIVER);
    CHECK_HAS(error.what(), "cuLaunchKernel failed with CUDA_ERROR_INVALID_VALUE");
    CHECK_HAS(error.what(), "split hand");  // the kernel and its variant
  }
  CHECK_HAS(driver.complaint, "which is no device memory");
  driver.complaint[0] = '\0';
}

void test_inputs_on_another_device(const mkwrap::Library& library) {
  mkwrap::Context context{mkwrap::Model(library)};
  try {
    context.run({mkwrap::Tensor(x, {128})}, {mkwrap::Tensor(y, {128}, {}, kGpu)});
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_INPUT && error.argument() == 0);
    CHECK_HAS(error.what(), "args[0]: wrong device: expected cuda:0, got cpu");
  }
}

// As kernels with a semaphore do: rely on a workspace of zeros, and leave it as they like.
constexpr std::size_t kWorkspaceBytes = 512;
const FakeDriver* observed = nullptr;
std::set<unsigned long long> workspaces;
int dirty_runs = 0;

void use_workspace(const char* name, const unsigned long long* arguments, CUstream stream) {
  if (std::strcmp(name, "partial") != 0) return;
  auto* bytes = reinterpret_cast<unsigned char*>(arguments[1]);
  for (std::size_t i = 0; i < kWorkspaceBytes; ++i) CHECK(bytes[i] == 0);
  CHECK(observed->memset_stream == stream);  // zeroed in order with the launch
  std::memset(bytes, 0xff, kWorkspaceBytes);
  workspaces.insert(arguments[1]);
  ++dirty_runs;
}

void test_c15_zeroed_workspace_survives_a_thousand_runs_on_two_streams(
    const mkwrap::Library& library, FakeDriver& driver) {
  observed = &driver;
  driver.kernel = use_workspace;
  {
    const mkwrap::Model model(library);
    mkwrap::Context first(model);
    mkwrap::Context second(model);
    int streams[2];
    for (int i = 0; i < 1000; ++i) {
      first.run({mkwrap::Tensor(x, {128}, {}, kGpu)}, {mkwrap::Tensor(y, {128}, {}, kGpu)},
                &streams[0]);
      second.run({mkwrap::Tensor(x, {128}, {}, kGpu)}, {mkwrap::Tensor(y, {128}, {}, kGpu)},
                 &streams[1]);
    }
  }
  driver.kernel = nullptr;
  CHECK(dirty_runs == 2000);
  CHECK(workspaces.size() == 2);  // one per context
  CHECK(driver.complaint[0] == '\0');
  check_nothing_alive(driver);
}

void test_c41_missing_image(const mkwrap::Library& library, const FakeDriver& driver) {
  const int launches = driver.launches;
  try {
    const mkwrap::Model model(library);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_ARCHITECTURE);
    CHECK_HAS(error.what(), "the library holds no image of checked hand for sm_90");
    CHECK(driver.launches == launches);
  }
  check_nothing_alive(driver);
}

mkw_status status_of(const std::function<void()>& call, const char* message) {
  try {
    call();
  } catch (const mkwrap::Error& error) {
    CHECK_HAS(error.what(), message);
    return error.status();
  }
  return MKW_OK;
}

// What the kernel of the last launch does where it meets an index out of range.
void set_fault(const FakeDriver& driver) {
  auto* word = reinterpret_cast<std::int32_t*>(driver.arguments[2]);
  CHECK(*word == 0);
  *word = 1;
}

void test_an_index_out_of_range_is_reported_later(const mkwrap::Library& library,
                                                  const FakeDriver& driver) {
  constexpr const char* kMessage =
      "index out of range in checked, from aten.embedding (model.py:7: y = w[index]), in an "
      "earlier "
      "run";
  {
    const mkwrap::Model model(library);
    mkwrap::Context context(model);
    mkwrap::Context other(model);
    const auto run_on = [&](mkwrap::Context& on) {
      on.run({mkwrap::Tensor(x, {128}, {}, kGpu)}, {mkwrap::Tensor(y, {128}, {}, kGpu)});
    };
    run_on(context);
    set_fault(driver);
    run_on(other);
    const int launches = driver.launches;
    CHECK(status_of([&] { run_on(context); }, kMessage) == MKW_ERROR_INDEX_RANGE);
    CHECK(driver.launches == launches);
    run_on(context);  // reported once
    set_fault(driver);
    CHECK(status_of([&] { context.synchronize(); }, kMessage) == MKW_ERROR_INDEX_RANGE);
    context.synchronize();
    other.synchronize();
    run_on(context);
  }
  CHECK(driver.complaint[0] == '\0');
  check_nothing_alive(driver);
}

void test_c41_other_architecture(const mkwrap::Library& library, FakeDriver& driver) {
  for (const int arch : {80, 100}) {
    driver.major = arch / 10;
    driver.minor = arch % 10;
    try {
      const mkwrap::Model model(library);
      CHECK(false);
    } catch (const mkwrap::Error& error) {
      CHECK(error.status() == MKW_ERROR_ARCHITECTURE);
      CHECK_HAS(error.what(), "sm_90");
      CHECK_HAS(error.what(), arch == 80 ? "sm_80" : "sm_100");
    }
    check_nothing_alive(driver);
  }
  driver.major = 9;
  driver.minor = 0;
}

void test_devices(const mkwrap::Library& library, FakeDriver& driver) {
  try {
    const mkwrap::Model model(library, 1);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_ARGUMENT);
    CHECK_HAS(error.what(), "there is no CUDA device 1; there are 1");
  }
  driver.devices = 0;
  try {
    const mkwrap::Model model(library);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_NO_DRIVER);
  }
  driver.devices = 1;
  check_nothing_alive(driver);
}

}  // namespace

int main(int, char** arguments) {
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  adopt(x, sizeof(x));
  adopt(y, sizeof(y));
  const mkwrap::Library library = mkwrap::Library::open(std::string(arguments[1]) + "/cuda.so");
  test_launches(library, *driver);
  test_the_fake_objects(library, *driver);
  test_inputs_on_another_device(library);
  test_c41_other_architecture(library, *driver);
  test_devices(library, *driver);
  test_c15_zeroed_workspace_survives_a_thousand_runs_on_two_streams(library, *driver);
  test_c41_missing_image(
      mkwrap::Library::open(std::string(arguments[1]) + "/cuda_without_image.so"), *driver);
  test_an_index_out_of_range_is_reported_later(
      mkwrap::Library::open(std::string(arguments[1]) + "/cuda_checked.so"), *driver);
}
