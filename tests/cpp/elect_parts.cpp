// Elects by tables that are parts of a library.
//
// Input: a directory of parts (mkwrap/parts.h), then a file of 64-bit words: per query the part's
// number, the guards that hold, the number of sizes, and these. Output: per query the alternative.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "mkwrap/check.h"
#include "mkwrap/open_table.h"

namespace runtime = mkwrap::runtime;

namespace {

std::vector<std::int64_t> read_words(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) std::exit(1);
  std::vector<std::int64_t> words;
  for (std::int64_t word = 0; std::fread(&word, sizeof(word), 1, file) == 1;) words.push_back(word);
  std::fclose(file);
  return words;
}

}  // namespace

int main(int, char** arguments) {
  const std::vector<std::int64_t> directory = read_words(arguments[1]);
  const char* const parts = reinterpret_cast<const char*>(directory.data());
  const std::vector<std::int64_t> words = read_words(arguments[2]);
  std::FILE* out = std::fopen(arguments[3], "wb");
  if (out == nullptr) std::exit(1);
  for (std::size_t at = 0; at < words.size();) {
    const auto part = static_cast<std::uint32_t>(words[at]);
    const auto holds = static_cast<std::uint64_t>(words[at + 1]);
    const auto count = static_cast<std::size_t>(words[at + 2]);
    std::vector<std::uint32_t> logs(count);
    for (std::size_t k = 0; k < count; ++k) logs[k] = runtime::log2_fixed(words[at + 3 + k]);
    const std::uint32_t elected = runtime::elect(parts, part, logs.data(), holds);
    if (elected != runtime::kNoRow && !runtime::may_elect(parts, part, elected)) std::exit(2);
    if (runtime::may_elect(parts, part, runtime::kNoRow - 1)) std::exit(3);
    std::fwrite(&elected, sizeof(elected), 1, out);
    at += 3 + count;
  }
  return std::fclose(out);
}
