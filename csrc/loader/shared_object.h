// Brings a library file into the process.
#ifndef MKWRAP_LOADER_SHARED_OBJECT_H_
#define MKWRAP_LOADER_SHARED_OBJECT_H_

#include <string>

#include "mkwrap/abi.h"

namespace mkwrap::loader {

// A file as the dynamic loader's handle and the library's table; or why it cannot be used.
struct SharedObject {
  void* handle = nullptr;
  const mkw_api* api = nullptr;
  std::string fault;
};

// Load the open file `file`. It is loaded through a path made for the occasion: dlopen takes a path
// it has seen before for the library it loaded then, even if the file has been replaced since; and
// so the file that was verified is the file that is loaded. `path` serves where there is no /proc.
// The caller closes `handle`; it is null where there is a fault.
SharedObject load(int file, const std::string& path);

}  // namespace mkwrap::loader

#endif  // MKWRAP_LOADER_SHARED_OBJECT_H_
