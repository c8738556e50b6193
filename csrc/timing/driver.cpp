#include "timing/driver.h"

#include <dlfcn.h>

#include <string>

namespace mkwrap::timing {

std::shared_ptr<const Driver> Driver::open() {
  // Never closed: the driver keeps threads and exit handlers of its own.
  void* handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr)
    throw DriverError(std::string("no CUDA driver on this machine: ") + dlerror());
  auto driver = std::make_shared<Driver>();
  // NOLINTBEGIN(bugprone-macro-parentheses): types take none.
#define MKW_TIMING_RESOLVE(name, symbol, parameters)                         \
  driver->name = reinterpret_cast<int(*) parameters>(dlsym(handle, symbol)); \
  if (driver->name == nullptr) throw DriverError("the CUDA driver is too old: it has no " symbol);
  MKW_TIMING_FUNCTIONS(MKW_TIMING_RESOLVE)
#undef MKW_TIMING_RESOLVE
  // NOLINTEND(bugprone-macro-parentheses)
  driver->check(driver->init(0), "cuInit");
  return driver;
}

void Driver::check(int result, const char* call) const {
  if (result == 0) return;
  const char* name = nullptr;
  const char* text = nullptr;
  if (error_name(result, &name) != 0 || name == nullptr) name = "unknown error";
  if (error_text(result, &text) != 0 || text == nullptr) text = "no description";
  throw DriverError(std::string(call) + " failed with " + name + " (" + std::to_string(result) +
                    "): " + text);
}

}  // namespace mkwrap::timing
