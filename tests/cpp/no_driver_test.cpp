// R4: on a machine without a driver a CUDA library loads and can be inspected; making a model says
// that no driver is there.
#include <dlfcn.h>

#include "check.h"
#include "mkwrap/mkwrap.hpp"

int main(int, char** arguments) {
  constexpr int kSkipped = 77;
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL) != nullptr) return kSkipped;
  const mkwrap::Library library = mkwrap::Library::open(std::string(arguments[1]) + "/cuda.so");
  CHECK(library.api().device_type == MKW_DEVICE_CUDA);
  try {
    const mkwrap::Model model(library);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_NO_DRIVER);
    CHECK_HAS(error.what(), "no CUDA driver on this machine");
  }
}
