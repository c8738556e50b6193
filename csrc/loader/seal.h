// The seal behind a library's ELF image, by which damage is found before the file is loaded;
// python/mkwrap/toolchain/seal.py writes it and says what it is.
#ifndef MKWRAP_LOADER_SEAL_H_
#define MKWRAP_LOADER_SEAL_H_

#include <string>

namespace mkwrap::loader {

// What is wrong with an open file as a sealed library ("is damaged: …"); empty if nothing is.
std::string seal_fault(int file);

}  // namespace mkwrap::loader

#endif  // MKWRAP_LOADER_SEAL_H_
