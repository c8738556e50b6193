// What a cubin says of its kernels.
#ifndef MKWRAP_TESTS_CUBIN_H_
#define MKWRAP_TESTS_CUBIN_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct CubinKernel {
  std::vector<std::uint32_t> parameter_bytes;  // by ordinal
  std::uint32_t max_threads = 1024;
  std::uint64_t static_shared_bytes = 0;
};

struct Cubin {
  int arch = 0;  // 90 for sm_90
  std::map<std::string, CubinKernel> kernels;
};

// Parse an ELF image; returns false where it is none. The size is taken from the image's own
// header.
bool parse_cubin(const void* image, Cubin& cubin);

#endif  // MKWRAP_TESTS_CUBIN_H_
