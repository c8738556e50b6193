#include "loader/shared_object.h"

#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <initializer_list>

namespace mkwrap::loader {

namespace {

// A path to an open file that nobody has written before: the time, in binary, as components that
// mean nothing.
std::string unique_path(int file) {
  std::string path = "/proc/" + std::to_string(getpid()) + "/fd";
  auto time = std::chrono::steady_clock::now().time_since_epoch().count();
  for (; time != 0; time /= 2) path += time % 2 == 0 ? "/" : "/.";
  return path + "/" + std::to_string(file);
}

// The library's table, or null with `fault` set.
const mkw_api* table_of(void* handle, std::string& fault) {
  const auto get = reinterpret_cast<mkw_get_api_function>(dlsym(handle, "mkw_get_api"));
  const mkw_api* api = get != nullptr ? get(MKW_ABI_VERSION) : nullptr;
  if (get == nullptr) {
    fault = "it does not export mkw_get_api";
  } else if (api == nullptr || api->version != MKW_ABI_VERSION) {
    fault = "it speaks another version of mkwrap's ABI";
  } else if (api->size < sizeof(mkw_api)) {
    fault = "its function table is too short";
  } else {
    return api;
  }
  return nullptr;
}

}  // namespace

SharedObject load(int file, const std::string& path) {
  const std::string unique = unique_path(file);
  SharedObject made;
  made.handle = dlopen(access(unique.c_str(), R_OK) == 0 ? unique.c_str() : path.c_str(),
                       RTLD_NOW | RTLD_LOCAL);
  if (made.handle == nullptr) {
    const char* reason = dlerror();
    made.fault = reason != nullptr ? reason : "it cannot be loaded";
    return made;
  }
  made.api = table_of(made.handle, made.fault);
  if (made.api == nullptr) {
    dlclose(made.handle);
    made.handle = nullptr;
    return made;
  }
  // Idle threads of the OpenMP pool sleep in the runtime's code: it must never be unmapped.
  for (const char* runtime : {"libgomp.so.1", "libomp.so.5"})
    dlopen(runtime, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  return made;
}

}  // namespace mkwrap::loader
