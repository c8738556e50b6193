// Elects a row for every query of a file, by the rule that emitted models run; times it, too.
//
// Input, in 64-bit words: the number of tables; of each the numbers of its symbols, rows, points,
// hints and queries, and whether it is a grid; then what mkwrap/dispatch.h has of it: rows (guards,
// handicap, alternative), `first`, `hints` and, of a grid, `axes`; then per query the guards that
// hold and the sizes. Output: per query the alternative.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "mkwrap/dispatch.h"

namespace runtime = mkwrap::runtime;

namespace {

std::int64_t read_word(std::FILE* file) {
  std::int64_t word = 0;
  if (std::fread(&word, sizeof(word), 1, file) != 1) std::exit(1);
  return word;
}

template <typename T>
std::vector<T> read_words(std::FILE* file, std::size_t count) {
  std::vector<T> words(count);
  for (T& word : words) word = static_cast<T>(read_word(file));
  return words;
}

}  // namespace

int main(int, char** arguments) {
  std::FILE* in = std::fopen(arguments[1], "rb");
  std::FILE* out = std::fopen(arguments[2], "wb");
  if (in == nullptr || out == nullptr) std::exit(1);
  std::uint64_t elections = 0;
  std::chrono::duration<double, std::nano> spent{};
  for (std::int64_t tables = read_word(in); tables > 0; --tables) {
    const auto symbols = static_cast<std::uint32_t>(read_word(in));
    const auto count = static_cast<std::size_t>(read_word(in));
    const auto points = static_cast<std::uint32_t>(read_word(in));
    const auto hint_count = static_cast<std::size_t>(read_word(in));
    const auto queries = static_cast<std::size_t>(read_word(in));
    const bool grid = read_word(in) != 0;
    std::vector<runtime::DispatchRow> rows(count);
    for (runtime::DispatchRow& row : rows) {
      row.guards = static_cast<std::uint64_t>(read_word(in));
      row.handicap = static_cast<std::uint32_t>(read_word(in));
      row.alternative = static_cast<std::uint32_t>(read_word(in));
    }
    const auto first = read_words<std::uint16_t>(in, points + 1);
    const auto hints = read_words<std::uint32_t>(in, hint_count);
    const auto axes = read_words<std::uint16_t>(in, grid ? symbols : 0);
    const runtime::DispatchTable table = {
        rows.data(), first.data(), hints.data(), grid ? axes.data() : nullptr, points, symbols};
    const auto words = read_words<std::int64_t>(in, queries * (symbols + 1));
    std::vector<std::uint32_t> elected(queries);
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t query = 0; query < elected.size(); ++query) {
      const std::int64_t* at = words.data() + query * (symbols + 1);
      std::uint32_t logs[8] = {};
      for (std::uint32_t s = 0; s < symbols; ++s) logs[s] = runtime::log2_fixed(at[1 + s]);
      elected[query] = runtime::elect(table, logs, static_cast<std::uint64_t>(at[0]));
    }
    spent += std::chrono::steady_clock::now() - start;
    elections += elected.size();
    for (const std::uint32_t row : elected) std::fwrite(&row, sizeof(row), 1, out);
  }
  std::printf("%.1f ns an election, logarithms included\n",
              spent.count() / static_cast<double>(elections));
  std::fclose(in);
  return std::fclose(out);
}
