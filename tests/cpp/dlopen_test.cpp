// R9: a C++ program opens libraries and runs them through the RAII header.
#include <vector>

#include "check.h"
#include "mkwrap/mkwrap.hpp"

namespace {

using mkwrap::Tensor;

alignas(64) float x[32];
alignas(64) float y[32];
alignas(64) float z[32];

void add_one(const std::string& folder) {
  const mkwrap::Library library = mkwrap::Library::open(folder + "/add_one.so");
  CHECK(library.api().input_count == 1 && library.api().output_count == 1);
  CHECK(library.api().device_type == MKW_DEVICE_CPU);
  CHECK(std::strcmp(library.api().inputs[0].path, "args[0]") == 0);
  CHECK(library.api().inputs[0].ndim == 1 && library.api().inputs[0].shape[0] == 8);
  CHECK(library.manifest().front() == '{' && library.manifest().back() == '}');
  CHECK(library.manifest().size() == std::strlen(library.api().manifest));
  mkwrap::Context context{mkwrap::Model(library)};  // the context keeps model and library alive
  for (int i = 0; i < 8; ++i) x[i] = static_cast<float>(i);
  context.run({Tensor(x, {8})}, {Tensor(y, {8})});
  for (int i = 0; i < 8; ++i) CHECK(y[i] == static_cast<float>(i) + 1.0F);
}

void pipeline(const std::string& folder) {
  const mkwrap::Library library = mkwrap::Library::open(folder + "/pipeline.so");
  const mkwrap::Model model(library);
  CHECK(model.workspace_bytes() == 192 + 64);
  CHECK(library.api().constant_bytes == 64);
  mkwrap::Context context(model);
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(i);
  for (int round = 0; round < 2; ++round) {  // the workspace is zeroed before every run
    context.run({Tensor(x, {4, 8})}, {Tensor(y, {4, 8}), Tensor(z, {8})});
    for (int row = 0; row < 4; ++row) {
      float sum = 0;
      for (int k = 0; k < 8; ++k) sum += x[row * 8 + k] * static_cast<float>(k);
      for (int k = 0; k < 8; ++k)
        CHECK(y[row * 8 + k] == x[row * 8 + k] * static_cast<float>(k) + sum);
    }
    for (int k = 0; k < 8; ++k) CHECK(z[k] == static_cast<float>(7 - k));
  }
}

void index_error(const std::string& folder) {
  const mkwrap::Library library = mkwrap::Library::open(folder + "/gather.so");
  mkwrap::Context context{mkwrap::Model(library)};
  std::int64_t index[3] = {0, 4, 1};
  const std::vector<Tensor> inputs = {Tensor(x, {4}), Tensor(index, {3})};
  try {
    context.run(inputs, {Tensor(y, {3})});
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_INDEX_RANGE);
    CHECK_HAS(error.what(), "aten.index (model.py:7: y = x[index])");
  }
  index[1] = 3;
  context.run(inputs, {Tensor(y, {3})});  // usable again
  CHECK(y[1] == x[3]);
}

void dynamic_sizes(const std::string& folder) {
  const mkwrap::Library library = mkwrap::Library::open(folder + "/dynamic.so");
  const mkw_api& api = library.api();
  CHECK(api.inputs[0].shape[0] == MKW_DYNAMIC && api.outputs[0].shape[0] == MKW_DYNAMIC);
  const mkwrap::Model model(library);
  CHECK(model.workspace_bytes() == std::uint64_t{8} * 64);
  mkwrap::Context context(model);
  context.run({Tensor(x, {3, 6})}, {Tensor(y, {6})});
  CHECK(y[0] == x[0]);

  const Tensor input(x, {4, 8});
  const mkw_tensor view = input.view();
  std::int64_t shape[1] = {0};
  std::int64_t* shapes[] = {shape};
  mkw_error error = {};
  CHECK(api.output_shapes(&view, shapes, nullptr, &error) == MKW_OK && shape[0] == 8);

  const auto refused = [&](const Tensor& in, const Tensor& out, const char* message) {
    try {
      context.run({in}, {out});
      CHECK(false);
    } catch (const mkwrap::Error& failure) {
      CHECK(failure.status() == MKW_ERROR_INPUT);
      CHECK_HAS(failure.what(), message);
    }
  };
  refused(Tensor(x, {3, 7}), Tensor(y, {6}),
          "args[0]: wrong shape: expected 6 in dimension 1, which is 2*s0, got 7; s0 = 3 (args[0] "
          "dimension 0)");
  refused(Tensor(x, {3, 6}), Tensor(y, {7}),
          "output[0]: wrong shape: expected 6 in dimension 0, which is 2*s0, got 7");
  refused(Tensor(x, {0, 0}), Tensor(y, {0}),
          "args[0]: wrong shape: expected dimension 0 to be s0 with s0 in 1..64, got 0");
  refused(Tensor(x, {3, 6}, {7, 1}), Tensor(y, {6}),
          "args[0]: wrong strides: expected 6 in dimension 0, which is 2*s0, got 7");
}

void refusals(const std::string& folder) {
  try {
    const mkwrap::Model model(mkwrap::Library::open(folder + "/foreign.so"));
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_ISA);
    CHECK_HAS(error.what(), "no_such_feature");
    CHECK(std::strstr(error.what(), "sse4_2") == nullptr);
  }
  try {
    mkwrap::Library::open(folder + "/absent.so");
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_FILE);
    CHECK_HAS(error.what(), "absent.so cannot be read");
  }
  const mkwrap::Library library = mkwrap::Library::open(folder + "/add_one.so");
  try {
    const mkwrap::Model model(library, 1);
    CHECK(false);
  } catch (const mkwrap::Error& error) {
    CHECK(error.status() == MKW_ERROR_ARGUMENT);
  }
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  add_one(folder);
  pipeline(folder);
  index_error(folder);
  dynamic_sizes(folder);
  refusals(folder);
}
