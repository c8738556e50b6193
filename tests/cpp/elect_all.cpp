// Elects a row for every query of a file, by the rule that emitted models run; times it, too.
//
// Input, in 64-bit words: the number of tables; of each: symbols, rows, queries; per row its
// handicap, guards and hints; per query the guards that hold and the sizes. Output: per query the
// row's number. A table whose points are a grid is searched as one, as emitted models do.
#include <algorithm>
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

// The hints of each symbol where points, given in order, are a grid whose hints are far enough
// apart.
std::vector<std::vector<std::uint32_t>> axes_of(const std::vector<std::uint32_t>& points,
                                                std::uint32_t symbols) {
  if (symbols == 0) return {};
  std::vector<std::vector<std::uint32_t>> axes(symbols);
  for (std::size_t place = 0; place < points.size(); ++place)
    axes[place % symbols].push_back(points[place]);
  std::size_t product = 1;
  for (std::vector<std::uint32_t>& axis : axes) {
    std::sort(axis.begin(), axis.end());
    axis.erase(std::unique(axis.begin(), axis.end()), axis.end());
    for (std::size_t place = 1; place < axis.size(); ++place)
      if (axis[place] - axis[place - 1] <= 2 * runtime::kTie * symbols) return {};
    product *= axis.size();
  }
  if (product * symbols != points.size()) return {};
  return axes;
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
    const auto count = static_cast<std::uint32_t>(read_word(in));
    const std::int64_t queries = read_word(in);
    std::vector<runtime::DispatchRow> rows(count);
    std::vector<std::uint32_t> hints;
    std::vector<std::uint32_t> before;
    std::vector<std::uint16_t> first;
    for (std::uint32_t row = 0; row < count; ++row) {
      rows[row].handicap = static_cast<std::uint32_t>(read_word(in));
      rows[row].guards = static_cast<std::uint64_t>(read_word(in));
      rows[row].alternative = row;
      std::vector<std::uint32_t> own(symbols);
      for (std::uint32_t& hint : own) hint = runtime::log2_fixed(read_word(in));
      if (row == 0 || own != before) {
        first.push_back(static_cast<std::uint16_t>(row));
        hints.insert(hints.end(), own.begin(), own.end());
      }
      before = own;
    }
    const auto points = static_cast<std::uint32_t>(first.size());
    first.push_back(static_cast<std::uint16_t>(count));
    const std::vector<std::vector<std::uint32_t>> axes = axes_of(hints, symbols);
    std::vector<std::uint16_t> counts;
    if (!axes.empty()) hints.clear();
    for (const std::vector<std::uint32_t>& axis : axes) {
      counts.push_back(static_cast<std::uint16_t>(axis.size()));
      hints.insert(hints.end(), axis.begin(), axis.end());
    }
    const runtime::DispatchTable table = {rows.data(),  first.data(),
                                          hints.data(), axes.empty() ? nullptr : counts.data(),
                                          points,       symbols};
    std::vector<std::int64_t> words(static_cast<std::size_t>(queries) * (symbols + 1));
    for (std::int64_t& word : words) word = read_word(in);
    std::vector<std::uint32_t> elected(static_cast<std::size_t>(queries));
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
