// Runs any library on zeros, on the CPU or on the fake driver, which holds every launch against its
// cubin.
//
// Usage: run_any model.so[@SHAPES]…; SHAPES are the inputs' sizes and strides where these are
// dynamic, as "3x7/7x1,7/1".
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

constexpr std::size_t kAlignment = 512;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

using Sizes = std::vector<std::int64_t>;

// "3x7" as numbers; nothing is a scalar's.
Sizes numbers(const std::string& text) {
  Sizes found;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, 'x');) found.push_back(std::stoll(word));
  return found;
}

// One tensor of a call: zeroed memory of its own.
struct Argument {
  mkw_tensor_info info;
  Sizes shape;
  Sizes strides;
  Memory memory;

  Argument(const mkw_tensor_info& described, Sizes extents, Sizes steps, bool cuda)
      : info(described), shape(std::move(extents)), strides(std::move(steps)) {
    std::int64_t elements = 1;
    bool empty = false;
    for (std::size_t d = 0; d < shape.size(); ++d) {
      elements += (shape[d] - 1) * strides[d];
      empty = empty || shape[d] == 0;
    }
    if (empty) elements = 0;
    const std::size_t bytes = static_cast<std::size_t>(elements) * (info.dtype.bits / 8) + 1;
    const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    memory.reset(std::aligned_alloc(kAlignment, rounded));
    std::memset(memory.get(), 0, rounded);
    if (cuda) adopt(memory.get(), rounded);
  }

  mkw_tensor view(mkw_device device) {
    return {memory.get(), device, info.ndim, info.dtype, shape.data(), strides.data(), 0};
  }
};

std::vector<Argument> make_inputs(const mkw_api& api, const std::string& shapes) {
  std::vector<Argument> inputs;
  inputs.reserve(static_cast<std::size_t>(api.input_count));
  std::istringstream in(shapes);
  for (int i = 0; i < api.input_count; ++i) {
    const mkw_tensor_info& info = api.inputs[i];
    Sizes shape(info.shape, info.shape + info.ndim);
    Sizes strides(info.strides, info.strides + info.ndim);
    if (std::string word; std::getline(in, word, ',')) {
      shape = numbers(word.substr(0, word.find('/')));
      strides = numbers(word.substr(word.find('/') + 1));
      CHECK(shape.size() == static_cast<std::size_t>(info.ndim));
    }
    inputs.emplace_back(info, shape, strides, api.device_type == MKW_DEVICE_CUDA);
  }
  return inputs;
}

void run(const std::string& named) {
  const std::string path = named.substr(0, named.find('@'));
  const mkwrap::Library library = mkwrap::Library::open(path);
  const mkw_api& api = library.api();
  const mkw_device device = {api.device_type, 0};
  std::vector<Argument> memory =
      make_inputs(api, path == named ? "" : named.substr(path.size() + 1));
  std::vector<mkw_tensor> inputs;
  inputs.reserve(memory.size());
  for (Argument& argument : memory) inputs.push_back(argument.view(device));
  const auto count = static_cast<std::size_t>(api.output_count);
  std::vector<Sizes> sizes(2 * count);
  std::vector<std::int64_t*> places(2 * count);
  for (std::size_t i = 0; i < 2 * count; ++i) {
    sizes[i].resize(static_cast<std::size_t>(api.outputs[i % count].ndim));
    places[i] = sizes[i].data();
  }
  mkw_error error = {};
  if (api.output_shapes(inputs.data(), places.data(), places.data() + count, &error) != MKW_OK)
    throw mkwrap::Error(error);
  std::vector<Argument> results;
  std::vector<mkw_tensor> outputs;
  results.reserve(count);
  outputs.reserve(count);
  for (std::size_t i = 0; i < count; ++i)
    results.emplace_back(api.outputs[i], sizes[i], sizes[i + count],
                         api.device_type == MKW_DEVICE_CUDA);
  for (Argument& argument : results) outputs.push_back(argument.view(device));
  mkwrap::Context context{mkwrap::Model(library)};
  for (int round = 0; round < 2; ++round) context.run(inputs.data(), outputs.data());
  std::printf("%s ran\n", named.c_str());
}

}  // namespace

int main(int count, char** arguments) {
  try {
    for (int i = 1; i < count; ++i) run(arguments[i]);
  } catch (const mkwrap::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    const FakeDriver* driver = find_fake_driver();
    if (driver != nullptr) std::fprintf(stderr, "%s\n", driver->complaint);
    return 1;
  }
  FakeDriver* driver = find_fake_driver();
  if (driver == nullptr) return 0;
  CHECK(driver->complaint[0] == '\0');
  CHECK(driver->contexts == 0 && driver->modules == 0 && driver->allocations == 0);
  std::printf("launches: %d\n", driver->launches);
}
