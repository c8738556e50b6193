// Embeds one batch of tokenized sentences with a compiled MiniLM library: no Python, no libtorch.
//
//   embed LIBRARY IDS MASK OUTPUT     IDS and MASK: int64, OUTPUT: float32, raw row-major files
//
// The shapes come from the library itself, so any library with two int64 inputs and one float32
// output will do.
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "mkwrap/mkwrap.hpp"

namespace {

std::vector<std::int64_t> shape_of(const mkw_tensor_info& info) {
  return {info.shape, info.shape + info.ndim};
}

std::size_t elements(const std::vector<std::int64_t>& shape) {
  std::size_t count = 1;
  for (const std::int64_t extent : shape) count *= static_cast<std::size_t>(extent);
  return count;
}

std::vector<std::int64_t> read(const std::string& path, std::size_t count) {
  std::vector<std::int64_t> values(count);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(count * sizeof(std::int64_t)));
  if (!file)
    throw std::runtime_error("cannot read " + std::to_string(count) + " numbers from " + path);
  return values;
}

void write(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void embed(const std::vector<std::string>& arguments) {
  const mkwrap::Library library = mkwrap::Library::open(arguments[0]);
  const mkw_api& api = library.api();
  if (api.input_count != 2 || api.output_count != 1)
    throw std::runtime_error("the library does not take ids and mask and give one result");
  const mkwrap::Model model(library);
  mkwrap::Context context(model);

  const auto shape = shape_of(api.inputs[0]);
  const auto result_shape = shape_of(api.outputs[0]);
  std::vector<std::int64_t> ids = read(arguments[1], elements(shape));
  std::vector<std::int64_t> mask = read(arguments[2], elements(shape_of(api.inputs[1])));
  std::vector<float> result(elements(result_shape));
  context.run(
      {mkwrap::Tensor(ids.data(), shape), mkwrap::Tensor(mask.data(), shape_of(api.inputs[1]))},
      {mkwrap::Tensor(result.data(), result_shape)});
  write(arguments[3], result);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: embed LIBRARY IDS MASK OUTPUT\n";
    return EXIT_FAILURE;
  }
  try {
    embed({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "embed: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
