// Dynamic sizes on the CPU: what a library elects, keeps and refuses, also from two threads.
#include <cstdint>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.h"
#include "mkwrap/mkwrap.hpp"

namespace {

using mkwrap::Tensor;

// What `rows` and `cols` make of tables.so's inputs and outputs.
struct Call {
  std::int64_t rows;
  std::int64_t cols;
  std::vector<float> x;
  std::vector<float> b;
  std::vector<float> y;
  std::vector<float> z;

  Call(std::int64_t row_count, std::int64_t col_count)
      : rows(row_count),
        cols(col_count),
        x(static_cast<std::size_t>((2 * rows + 1) * cols)),
        b(static_cast<std::size_t>(cols), 1.0F),
        y(2),
        z(static_cast<std::size_t>(cols)) {}

  [[nodiscard]] std::vector<Tensor> inputs() const {
    return {Tensor(x.data(), {2 * rows + 1, cols}), Tensor(b.data(), {cols})};
  }
  [[nodiscard]] std::vector<Tensor> outputs() {
    return {Tensor(aligned(y), {2}), Tensor(aligned(z), {cols})};
  }

  // Outputs must be aligned to 64 bytes.
  static float* aligned(std::vector<float>& memory) {
    const std::size_t size = memory.size();
    memory.resize(size + 32);
    const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
    return reinterpret_cast<float*>((at + 63) / 64 * 64);
  }
};

// Which binary of by_rows ran, and of copy.
std::pair<int, int> ran(mkwrap::Context& context, std::int64_t rows, std::int64_t cols) {
  Call call(rows, cols);
  const std::vector<Tensor> outputs = call.outputs();
  context.run(call.inputs(), outputs);
  const auto* y = static_cast<float*>(outputs[0].view().data);
  const auto* z = static_cast<float*>(outputs[1].view().data);
  const int copies = cols == 0 ? 0 : (static_cast<int>(z[cols - 1]) - 1) / 2;
  for (std::int64_t i = 0; i < cols; ++i) CHECK(z[i] == z[0]);
  return {static_cast<int>(y[0]), copies};
}

constexpr struct {
  std::int64_t rows;
  std::int64_t cols;
  int by_rows;
  int copy;
} kRuns[] = {
    {8, 64, 1, 1},     // its point; 64 lies as far from 16 as from 256: the smaller
    {8, 65, 1, 2},     //
    {64, 64, 1, 1},    // the limit of the binary for few
    {65, 64, 2, 1},    //
    {65, 63, 3, 1},    // no multiple of 16: the stand-in
    {1000, 64, 2, 1},  //
    {0, 64, 1, 1},     //
    {20, 0, 1, 0},     //
    {1, 1, 1, 1},      //
    {3, 4000, 1, 2},   //
};

void test_c21_sizes_elect_binaries(const mkwrap::Model& model) {
  mkwrap::Context context(model);
  for (int round = 0; round < 2; ++round) {
    for (const auto& row : kRuns) {
      const auto got = ran(context, row.rows, row.cols);
      if (got.first != row.by_rows || got.second != row.copy)
        std::fprintf(stderr, "rows %d cols %d: %d %d\n", static_cast<int>(row.rows),
                     static_cast<int>(row.cols), got.first, got.second);
      CHECK(got.first == row.by_rows && got.second == row.copy);
    }
  }
}

void test_what_can_be_asked_before_a_run(const mkwrap::Library& library,
                                         const mkwrap::Model& model) {
  const std::vector<mkwrap::Symbol> symbols = library.symbols();
  CHECK(symbols.size() == 2 && symbols[0].name == "rows" && symbols[0].low == 0);
  CHECK(symbols[1].high == INT64_MAX && model.workspace_bytes() == MKW_DYNAMIC);
  const Call call(1000, 64);
  CHECK((library.sizes(call.inputs()) == std::vector<std::int64_t>{1000, 64}));
  CHECK(
      (library.output_shapes(call.inputs()) == std::vector<std::vector<std::int64_t>>{{2}, {64}}));
  // t and u of the arena, each a multiple of 64, and the workspace of the binary for many.
  CHECK(model.scratch_bytes(call.inputs()) == 256 + 4032 + 1000);
}

// What is said of x with a shape, and b [cols], whose memory nobody reads.
mkw_error refusal_of(const mkwrap::Model& model, const std::vector<std::int64_t>& shape,
                     std::int64_t cols) {
  alignas(64) static float memory[1];
  const std::vector<Tensor> inputs = {Tensor(memory, shape), Tensor(memory, {cols})};
  const mkw_tensor views[] = {inputs[0].view(), inputs[1].view()};
  mkw_error error = {};
  std::int64_t bytes = 0;
  model.library().api().scratch_bytes(model.get(), views, &bytes, &error);
  return error;
}

mkw_error refusal(const mkwrap::Model& model, std::int64_t extent, std::int64_t cols) {
  return refusal_of(model, {extent, cols}, cols);
}

void test_messages_name_sizes(const mkwrap::Model& model) {
  const mkw_error error = refusal_of(model, {5, 4, 1}, 4);
  CHECK(error.status == MKW_ERROR_INPUT && error.argument == 0);
  CHECK_HAS(error.message,
            "args[0]: wrong rank: expected 2 dimensions [2*rows + 1, cols] with rows in "
            "0..1099511627776, cols >= 0, got 3 [5, 4, 1]");
}

void test_sizes_out_of_range_are_refused(const mkwrap::Model& model) {
  mkw_error error = refusal(model, 4, 4);
  CHECK(error.status == MKW_ERROR_INPUT && error.argument == 0);
  CHECK_HAS(error.message,
            "args[0]: wrong shape: expected dimension 0 to be 2*rows + 1 with rows in "
            "0..1099511627776, got 4");
  error = refusal(model, 2 * 4101 + 1, 4);
  CHECK(error.status == MKW_ERROR_INPUT && error.argument == 0);
  CHECK_HAS(error.message,
            "expected rows <= cols + 4096, which is asked for at model.py:3: assert, got rows = "
            "4101 (args[0] dimension 0), cols = 4 (args[0] dimension 1)");
  error = refusal(model, 1, INT64_MAX);  // cols + 4096
  CHECK(error.status == MKW_ERROR_SIZE);
  CHECK_HAS(error.message, "a shape does not fit 64 bits");
  error = refusal(model, 1, std::int64_t{1} << 62);  // the arena
  CHECK(error.status == MKW_ERROR_SIZE);
  CHECK_HAS(error.message, "does not fit 64 bits");
}

void test_memory_that_cannot_grow_leaves_the_context_usable(const mkwrap::Model& model) {
  mkwrap::Context context(model);
  CHECK(ran(context, 8, 64).first == 1);
  static float memory[1];
  const std::int64_t cols = std::int64_t{1} << 58;
  const Tensor x(memory, {1, cols});
  const Tensor b(memory, {cols});
  const mkw_tensor inputs[] = {x.view(), b.view()};
  try {
    context.reserve(inputs);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_MEMORY);
    CHECK_HAS(error.what(), "out of memory");
  }
  CHECK(ran(context, 8, 64).first == 1);
  try {
    context.reserve(nullptr);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_SIZE);
    CHECK_HAS(error.what(), "have no upper bounds");
  }
}

void test_c38_contexts_of_different_sizes_in_threads(const mkwrap::Model& model) {
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int number = 0; number < 4; ++number) {
    threads.emplace_back([&model, number] {
      mkwrap::Context context(model);
      for (int round = 0; round < 200; ++round) {
        const auto& row = kRuns[(round / 2 + number * 3) % std::size(kRuns)];
        CHECK(ran(context, row.rows, row.cols).first == row.by_rows);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int, char** arguments) {
  const mkwrap::Library library = mkwrap::Library::open(std::string(arguments[1]) + "/tables.so");
  const mkwrap::Model model(library);
  test_c21_sizes_elect_binaries(model);
  test_what_can_be_asked_before_a_run(library, model);
  test_messages_name_sizes(model);
  test_sizes_out_of_range_are_refused(model);
  test_memory_that_cannot_grow_leaves_the_context_usable(model);
  test_c38_contexts_of_different_sizes_in_threads(model);
}
