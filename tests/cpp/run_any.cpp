// Runs any library on zeros, on the CPU or on the fake driver, which holds every launch against its
// cubin. Usage: run_any model.so…
#include <cstdlib>
#include <memory>

#include "check.h"
#include "fake_driver/fake_driver.h"
#include "mkwrap/mkwrap.hpp"

namespace {

constexpr std::size_t kAlignment = 512;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

// Zeroed memory that a tensor of this signature fits into.
Memory allocate(const mkw_tensor_info& info, bool cuda) {
  std::int64_t elements = 1;
  for (int d = 0; d < info.ndim; ++d) {
    CHECK(info.shape[d] != MKW_DYNAMIC);
    elements += info.shape[d] == 0 ? 0 : (info.shape[d] - 1) * info.strides[d];
  }
  const std::size_t bytes = static_cast<std::size_t>(elements) * (info.dtype.bits / 8);
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  Memory memory(std::aligned_alloc(kAlignment, rounded));
  std::memset(memory.get(), 0, rounded);
  if (cuda) adopt(memory.get(), rounded);
  return memory;
}

mkw_tensor view(const mkw_tensor_info& info, const Memory& memory, mkw_device device) {
  return {memory.get(),
          device,
          info.ndim,
          info.dtype,
          const_cast<std::int64_t*>(info.shape),
          const_cast<std::int64_t*>(info.strides),
          0};
}

void run(const char* path) {
  const mkwrap::Library library = mkwrap::Library::open(path);
  const mkw_api& api = library.api();
  const bool cuda = api.device_type == MKW_DEVICE_CUDA;
  std::vector<Memory> memory;
  std::vector<mkw_tensor> inputs;
  std::vector<mkw_tensor> outputs;
  for (int i = 0; i < api.input_count; ++i) {
    memory.push_back(allocate(api.inputs[i], cuda));
    inputs.push_back(view(api.inputs[i], memory.back(), {api.device_type, 0}));
  }
  for (int i = 0; i < api.output_count; ++i) {
    memory.push_back(allocate(api.outputs[i], cuda));
    outputs.push_back(view(api.outputs[i], memory.back(), {api.device_type, 0}));
  }
  mkwrap::Context context{mkwrap::Model(library)};
  for (int round = 0; round < 2; ++round) context.run(inputs.data(), outputs.data());
  std::printf("%s ran\n", path);
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
