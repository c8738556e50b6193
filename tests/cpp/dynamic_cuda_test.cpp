// Dynamic sizes on the fake driver: the launches that sizes elect, and scratch memory that grows,
// which a capture refuses and captured graphs outlive.
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

constexpr mkw_device kGpu = {MKW_DEVICE_CUDA, 0};
constexpr std::int64_t kMost = 1 << 16;
alignas(512) float x[kMost];
alignas(512) float y[kMost];

void run(mkwrap::Context& context, std::int64_t n, void* stream = nullptr) {
  context.run({mkwrap::Tensor(x, {n}, {}, kGpu)}, {mkwrap::Tensor(y, {n}, {}, kGpu)}, stream);
}

mkwrap::Error refused(mkwrap::Context& context, std::int64_t n, void* stream = nullptr) {
  try {
    run(context, n, stream);
  } catch (const mkwrap::Error& error) {
    return error;
  }
  std::fprintf(stderr, "a run of %lld was not refused\n", static_cast<long long>(n));
  std::exit(1);
}

std::vector<std::string> launched;
std::vector<std::vector<unsigned>> grids;

void record(const char* name, const unsigned long long*, CUstream) {
  launched.emplace_back(name);
  const FakeDriver* driver = find_fake_driver();
  grids.push_back({driver->grid[0], driver->grid[1], driver->grid[2]});
}

void test_c21_sizes_elect_launches_and_grids(const mkwrap::Model& model, FakeDriver& driver) {
  mkwrap::Context context(model);
  driver.kernel = record;
  const struct {
    std::int64_t n;
    std::vector<std::string> kernels;
    std::vector<unsigned> first_grid;
  } kCases[] = {
      {1, {"few", "per_block"}, {1, 1, 1}},
      {64, {"few", "per_block"}, {1, 1, 1}},
      {512, {"few", "per_block"}, {1, 8, 1}},  // as near to both: the smaller point
      {513, {"many_partial", "many_final", "per_block"}, {3, 1, 1}},
      {4096, {"many_partial", "many_final", "per_block"}, {16, 1, 1}},
      {513, {"many_partial", "many_final", "per_block"}, {3, 1, 1}},
      {63, {"few", "per_block"}, {1, 1, 1}},
  };
  for (const auto& row : kCases) {
    for (int round = 0; round < 2; ++round) {
      launched.clear();
      grids.clear();
      run(context, row.n);
      CHECK(launched == row.kernels);
      CHECK(grids[0] == row.first_grid);
    }
  }
  launched.clear();
  run(context, 0);  // C20
  CHECK(launched.empty());
  driver.kernel = nullptr;
}

void test_scratch_grows_with_the_sizes(const mkwrap::Model& model, FakeDriver& driver) {
  const int before = driver.allocations;
  mkwrap::Context context(model);
  CHECK(driver.allocations == before);  // none before sizes are known
  int stream = 0;
  run(context, 64, &stream);
  CHECK(driver.allocations == before + 1);
  const int made = driver.made;
  const int waits = driver.waits;
  run(context, 32, &stream);
  CHECK(driver.made == made && driver.waits == waits);
  run(context, 4096, &stream);
  CHECK(driver.allocations == before + 1 && driver.made == made + 1);
  CHECK(driver.waits == waits + 1);  // kernels in flight had the old memory
  CHECK(driver.complaint[0] == '\0');
  driver.memory_bytes = 100000;
  const mkwrap::Error error = refused(context, kMost, &stream);
  CHECK(error.status() == MKW_ERROR_MEMORY);
  CHECK_HAS(error.what(), "out of device memory");
  driver.memory_bytes = 0;
  run(context, 64, &stream);  // usable again
  run(context, kMost, &stream);
}

void test_c43_a_capture_takes_what_there_is_and_keeps_it(const mkwrap::Model& model,
                                                         FakeDriver& driver) {
  const int before = driver.allocations;
  {
    mkwrap::Context context(model);
    auto* stream = reinterpret_cast<CUstream>(&x[0]);
    run(context, 256, stream);
    driver.capturing = stream;
    run(context, 256, stream);
    const mkwrap::Error error = refused(context, 4096, stream);
    CHECK(error.status() == MKW_ERROR_CAPTURE);
    CHECK_HAS(error.what(), "while the stream is captured");
    run(context, 200, stream);
    mkwrap::Context other(model);  // of a thread that captures nothing
    run(other, 4096);
    driver.capturing = nullptr;
    CHECK(driver.complaint[0] == '\0');
    run(context, 4096, stream);
    CHECK(driver.allocations == before + 3);  // the graph still has the first
    run(context, kMost, stream);
    CHECK(driver.allocations == before + 3);
  }
  CHECK(driver.allocations == before);
}

void test_what_can_be_asked_before_a_run(const mkwrap::Model& model, FakeDriver& driver) {
  const mkw_api& api = model.library().api();
  CHECK(api.symbol_count == 1 && api.kernel_count == 2);
  CHECK(std::string(api.symbols[0].name) == "n" && api.symbols[0].high == std::int64_t{1} << 50);
  const mkwrap::Tensor tensor(x, {4096}, {}, kGpu);
  const mkw_tensor input = tensor.view();
  std::int64_t n = 0;
  std::int64_t bytes = 0;
  std::uint32_t numbers[2] = {9, 9};
  mkw_error error = {};
  CHECK(api.bind_symbols(&input, &n, &error) == MKW_OK && n == 4096);
  CHECK(api.scratch_bytes(model.get(), &input, &bytes, &error) == MKW_OK);
  CHECK(bytes == 16384 + 16384);  // the arena, and the workspace of the binary for many
  CHECK(api.elected(model.get(), &input, numbers, &error) == MKW_OK);
  CHECK(numbers[0] == 0 && numbers[1] == 0);
  mkwrap::Context context(model);
  const int made = driver.made;
  context.reserve(&input);
  CHECK(driver.made == made + 1);
  run(context, 4096);
  CHECK(driver.made == made + 1);
  driver.memory_bytes = std::uint64_t{1} << 40;
  try {
    context.reserve(nullptr);  // 2^50 numbers
    CHECK(false);
  } catch (const mkwrap::Error& failure) {
    CHECK(failure.status() == MKW_ERROR_MEMORY);
  }
  driver.memory_bytes = 0;
}

void test_c29_a_grid_that_no_device_takes_is_refused(const mkwrap::Model& model,
                                                     FakeDriver& driver) {
  mkwrap::Context context(model);
  constexpr std::int64_t kMostRows = std::int64_t{128} * 65535;
  float* const far[] = {reinterpret_cast<float*>(std::uintptr_t{1} << 45),
                        reinterpret_cast<float*>(std::uintptr_t{1} << 46)};
  for (const float* memory : far) adopt(memory, std::uint64_t{4} * (kMostRows + 1));
  const auto run_far = [&](std::int64_t n) {
    context.run({mkwrap::Tensor(far[0], {n}, {}, kGpu)}, {mkwrap::Tensor(far[1], {n}, {}, kGpu)});
  };
  run_far(kMostRows);
  CHECK(driver.grid[1] == 65535);
  try {
    run_far(kMostRows + 1);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_SIZE);
    CHECK_HAS(error.what(), "last hand takes a grid of 1 x 65536 x 1 blocks");
  }
  CHECK(driver.complaint[0] == '\0');
}

// On sm_80 one binary runs whatever the sizes, on sm_90 sizes choose.
void test_each_architecture_has_a_table_of_its_own(const mkwrap::Library& library,
                                                   FakeDriver& driver) {
  for (const int arch : {80, 90}) {
    driver.major = arch / 10;
    driver.minor = arch % 10;
    const mkwrap::Model model(library);
    CHECK(driver.modules == (arch == 80 ? 3 : 4));
    mkwrap::Context context(model);
    driver.kernel = record;
    launched.clear();
    run(context, 64);
    run(context, 4096);
    driver.kernel = nullptr;
    CHECK(launched[0] == (arch == 80 ? "many_partial" : "few"));
    CHECK(launched.back() == "per_block" && launched[launched.size() - 2] == "many_final");
  }
}

}  // namespace

int main(int, char** arguments) {
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  adopt(x, sizeof(x));
  adopt(y, sizeof(y));
  {
    const mkwrap::Library library =
        mkwrap::Library::open(std::string(arguments[1]) + "/cuda_tables.so");
    const mkwrap::Model model(library);
    CHECK(driver->modules == 4);  // every binary of a table, and the kernel without
    test_c21_sizes_elect_launches_and_grids(model, *driver);
    test_scratch_grows_with_the_sizes(model, *driver);
    test_c43_a_capture_takes_what_there_is_and_keeps_it(model, *driver);
    test_what_can_be_asked_before_a_run(model, *driver);
    test_c29_a_grid_that_no_device_takes_is_refused(model, *driver);
  }
  test_each_architecture_has_a_table_of_its_own(
      mkwrap::Library::open(std::string(arguments[1]) + "/cuda_tables_both.so"), *driver);
  if (driver->complaint[0] != '\0') std::fprintf(stderr, "%s\n", driver->complaint);
  CHECK(driver->complaint[0] == '\0');
  CHECK(driver->contexts == 0 && driver->modules == 0 && driver->allocations == 0);
}
