// R6: a truncated or bit-flipped library is refused with a typed error. Every mutation goes through
// the loader, so one that passed the seal would be loaded, and most likely crash.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "mkwrap/mkwrap.hpp"

namespace {

using Bytes = std::vector<char>;

class Mutations {
 public:
  explicit Mutations(Bytes original) : original_(std::move(original)) {}

  // Another damaged copy: never equal to the original.
  Bytes next() {
    Bytes bytes;
    do {
      bytes = original_;
      for (std::size_t left = 1 + below(3); left > 0; --left) damage(bytes);
    } while (bytes == original_);
    return bytes;
  }

 private:
  std::size_t below(std::size_t end) {
    return std::uniform_int_distribution<std::size_t>(0, end - 1)(random_);
  }

  void damage(Bytes& bytes) {
    if (bytes.empty()) return;
    const std::size_t at = below(bytes.size());
    const std::size_t count = std::min(1 + below(64), bytes.size() - at);
    const auto start = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const auto end = start + static_cast<std::ptrdiff_t>(count);
    switch (below(8)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.insert(bytes.end(), original_.begin(), original_.begin() + 1);
        break;
      case 2:
        bytes.erase(start, end);
        break;
      case 3:
        std::fill(start, end, '\0');
        break;
      case 4:
        std::generate(start, end, [&] { return static_cast<char>(random_()); });
        break;
      default:
        *start = static_cast<char>(*start ^ (1 << below(8)));
    }
  }

  Bytes original_;
  // Every run makes the same mutations.
  std::mt19937 random_{20260101};  // NOLINT(bugprone-random-generator-seed)
};

void write(int file, const Bytes& bytes) {
  CHECK(ftruncate(file, static_cast<off_t>(bytes.size())) == 0);
  CHECK(pwrite(file, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 2 ? std::stoi(arguments[2]) : 2000;
  std::ifstream stream(std::string(arguments[1]) + "/add_one.so", std::ios::binary);
  const Bytes whole{std::istreambuf_iterator<char>(stream), {}};
  const int file = memfd_create("mutated", 0);
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  Mutations mutations(whole);
  for (int k = 0; k < rounds; ++k) {
    write(file, mutations.next());
    try {
      mkwrap::Library::open(path);
      std::fprintf(stderr, "mutation %d was loaded\n", k);
      return 1;
    } catch (const mkwrap::Error& error) {
      CHECK(error.status() == MKW_ERROR_FILE);
      CHECK_HAS(error.what(), path.c_str());
    }
  }
  write(file, whole);
  CHECK(mkwrap::Library::open(path).api().input_count == 1);
  std::printf("%d mutations refused\n", rounds);
}
