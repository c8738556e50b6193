// Runs the library it is linked with: float32 inputs from files, the first output to a file.
//   linked OUTPUT INPUT...
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <vector>

#include "mkwrap/mkwrap.hpp"

namespace {

std::vector<std::int64_t> shape_of(const mkw_tensor_info& info) {
  return {info.shape, info.shape + info.ndim};
}

std::size_t elements(const mkw_tensor_info& info) {
  std::size_t count = 1;
  for (const std::int64_t extent : shape_of(info)) count *= static_cast<std::size_t>(extent);
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  const mkwrap::Library library = mkwrap::Library::from(mkw_get_api);
  const mkw_api& api = library.api();
  if (argc != 2 + api.input_count || api.output_count != 1) return EXIT_FAILURE;
  std::vector<std::vector<float>> data;
  std::vector<mkwrap::Tensor> inputs;
  data.reserve(static_cast<std::size_t>(api.input_count));
  for (int k = 0; k < api.input_count; ++k) {
    data.emplace_back(elements(api.inputs[k]));
    std::ifstream file(argv[2 + k], std::ios::binary);
    file.read(reinterpret_cast<char*>(data.back().data()),
              static_cast<std::streamsize>(data.back().size() * sizeof(float)));
    if (!file) return EXIT_FAILURE;
    inputs.emplace_back(data.back().data(), shape_of(api.inputs[k]));
  }
  std::vector<float> result(elements(api.outputs[0]));
  const mkwrap::Model model(library);
  mkwrap::Context context(model);
  try {
    context.run(inputs, {mkwrap::Tensor(result.data(), shape_of(api.outputs[0]))});
  } catch (const mkwrap::Error& error) {
    std::cerr << error.what() << '\n';
    return EXIT_FAILURE;
  }
  std::ofstream(argv[1], std::ios::binary)
      .write(reinterpret_cast<const char*>(result.data()),
             static_cast<std::streamsize>(result.size() * sizeof(float)));
  return EXIT_SUCCESS;
}
