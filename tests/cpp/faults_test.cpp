// R5: every driver call fails in turn; the status names the call and its error, nothing leaks, and
// the model is usable afterwards.
#include <set>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

alignas(512) float x[128];
alignas(512) float y[128];

constexpr mkw_device kGpu = {MKW_DEVICE_CUDA, 0};

struct Outcome {
  mkw_status status = MKW_OK;
  std::string message;
  int calls_before_release = 0;
};

// Create, run twice, destroy; the second run must succeed whatever happened in the first.
Outcome use_once(const mkw_api& api, FakeDriver& driver) {
  mkw_model* model = nullptr;
  mkw_context* context = nullptr;
  mkw_error error = {};
  Outcome outcome;
  const mkwrap::Tensor in(x, {128}, {}, kGpu);
  const mkwrap::Tensor out(y, {128}, {}, kGpu);
  const mkw_tensor input = in.view();
  const mkw_tensor output = out.view();
  if (api.model_create(0, &model, &error) != MKW_OK) {
    CHECK(model == nullptr);
    return {error.status, error.message, driver.calls};
  }
  if (api.context_create(model, &context, &error) != MKW_OK) {
    CHECK(context == nullptr);
    outcome = {error.status, error.message, 0};
    CHECK(api.context_create(model, &context, &error) == MKW_OK);
  }
  int stream = 0;
  if (api.run(context, &input, &output, &stream) != MKW_OK) {
    outcome = {api.last_error(context)->status, api.last_error(context)->message, 0};
    CHECK(driver.pushed == 0);
    CHECK(api.run(context, &input, &output, &stream) == MKW_OK);
  }
  if (api.synchronize(context, &error) != MKW_OK) {
    outcome = {error.status, error.message, 0};
    CHECK(api.synchronize(context, &error) == MKW_OK);
  }
  outcome.calls_before_release = driver.calls;
  api.context_destroy(context);
  api.model_destroy(model);
  return outcome;
}

void fail_every_call(const mkwrap::Library& library, FakeDriver* driver,
                     std::set<std::string>& failed) {
  for (int n = 1;; ++n) {
    driver->calls = 0;
    driver->failed[0] = '\0';
    driver->fail_at = n;
    driver->fail_with = n % 2 == 0 ? CUDA_ERROR_UNKNOWN : CUDA_ERROR_OUT_OF_MEMORY;
    const Outcome outcome = use_once(library.api(), *driver);
    const std::string name = driver->failed;
    if (name.empty()) break;  // fewer than n calls: every one has failed once
    failed.insert(name);
    // Leaving a context and releasing have nobody to tell: the work is done and the objects are
    // gone.
    const bool restores = name == "cuThreadExchangeStreamCaptureMode" && outcome.status == MKW_OK;
    const bool silent = n > outcome.calls_before_release || name == "cuCtxPopCurrent" || restores;
    if (!silent) {
      // Scratch memory that cannot grow is told from a driver that fails.
      const bool grows = library.api().symbol_count > 0 && name == "cuMemAlloc" && n % 2 != 0;
      const mkw_status expected = grows ? MKW_ERROR_MEMORY : MKW_ERROR_DRIVER;
      if (outcome.status != expected) std::fprintf(stderr, "call %d, %s\n", n, name.c_str());
      CHECK(outcome.status == expected);
      CHECK_HAS(outcome.message.c_str(), name.c_str());
      CHECK_HAS(outcome.message.c_str(),
                n % 2 == 0 ? "CUDA_ERROR_UNKNOWN" : "CUDA_ERROR_OUT_OF_MEMORY");
    }
    if (driver->contexts != 0 || driver->modules != 0 || driver->allocations != 0 ||
        driver->streams != 0)
      std::fprintf(stderr, "%s (call %d) leaks\n", name.c_str(), n);
    CHECK(driver->contexts == 0 && driver->modules == 0 && driver->allocations == 0 &&
          driver->streams == 0);
    CHECK(driver->pushed == 0);
  }
}

// What the runtime calls of the driver, but for what it calls after a failure only.
std::set<std::string> driver_functions() {
  std::set<std::string> names;
#define MKW_NAME(name) names.insert(#name);
  MKW_DRIVER_FUNCTIONS(MKW_NAME)
#undef MKW_NAME
  for (const char* name : {"cuGetErrorName", "cuGetErrorString", "cuDeviceGetName"})
    names.erase(name);
  return names;
}

}  // namespace

int main(int, char** arguments) {
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  adopt(x, sizeof(x));
  adopt(y, sizeof(y));
  std::set<std::string> failed;
  for (const char* name : {"/cuda.so", "/cuda_checked.so", "/cuda_tables.so"})
    fail_every_call(mkwrap::Library::open(std::string(arguments[1]) + name), driver, failed);
  for (const std::string& name : driver_functions()) {
    if (failed.count(name) == 0) std::fprintf(stderr, "%s was not failed\n", name.c_str());
    CHECK(failed.count(name) == 1);
  }
  std::printf("%zu driver functions failed in turn\n", failed.size());
}
