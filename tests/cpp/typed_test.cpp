// The typed header that mkwrap writes for a library: arguments by name, sizes that give shapes.
#include <type_traits>

#include "check.h"
#include "tables.hpp"

namespace {

alignas(64) float x[17 * 64];
alignas(64) float b[64];
alignas(64) float y[2];
alignas(64) float z[64];

static_assert(std::is_same_v<decltype(tables::Inputs::x), const float*>);
static_assert(std::is_same_v<decltype(tables::Outputs::z), float*>);

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  tables::Model model(folder + "/tables.so");
  tables::Sizes sizes;
  sizes.rows = 8;
  sizes.cols = 64;
  const tables::Inputs inputs = {x, b};
  model.run(sizes, inputs, {y, z});
  CHECK(y[0] == 1 && z[63] == 2);
  tables::Model second(model);
  sizes.rows = 0;
  second.run(sizes, inputs, {y, z});
  CHECK((tables::Shapes::x(sizes) == std::vector<std::int64_t>{1, 64}));
  CHECK((tables::Shapes::x_strides(sizes) == std::vector<std::int64_t>{64, 1}));
  CHECK(model.scratch_bytes(sizes, inputs) == 256);
  sizes.rows = 1 << 20;
  try {
    model.run(sizes, inputs, {y, z});
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_INPUT);
    CHECK_HAS(error.what(), "expected rows <= cols + 4096");
  }
  sizes.rows = INT64_MAX / 2 + 1;
  try {
    model.run(sizes, inputs, {y, z});
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_SIZE);
    CHECK_HAS(error.what(), "a size of x does not fit 64 bits");
  }
  try {
    const tables::Model other(folder + "/dynamic.so");
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_VERSION);
    CHECK_HAS(error.what(), "another signature");
  }
}
