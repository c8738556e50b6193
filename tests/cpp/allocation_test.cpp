// R7: in steady state `run` allocates nothing and takes no lock: malloc and pthread_mutex_lock are
// replaced by ones that count, and the fake driver counts too.
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>

#include "check.h"
#include "mkwrap/mkwrap.hpp"
#ifdef MKWRAP_FAKE_DRIVER
#include "fake_driver/fake_driver.h"
#endif

// glibc's names of the functions that are replaced.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" {
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* old, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace {
std::atomic<long> allocations{0};
std::atomic<long> locks{0};
}  // namespace

// Exported by the executable (ENABLE_EXPORTS), so that the library's calls come here as well.
extern "C" {
void* malloc(std::size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  ++allocations;
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) {
  ++allocations;
  return __libc_realloc(old, bytes);
}
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
  ++allocations;
  *memory = __libc_memalign(alignment, bytes);
  return *memory == nullptr ? 12 : 0;
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static const auto kOriginal =
      reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  ++locks;
  return kOriginal(mutex);
}
}

namespace {

alignas(64) float x[128];
alignas(64) float y[128];
alignas(64) float z[8];

// Allocations and locks of a thousand runs.
long steady_state(const mkwrap::Library& library, const std::vector<mkwrap::Tensor>& inputs,
                  const std::vector<mkwrap::Tensor>& outputs) {
  const long before_context = allocations;
  mkwrap::Context context{mkwrap::Model(library)};
  CHECK(allocations > before_context);  // the hook sees the library's allocations
  std::vector<mkw_tensor> in;
  std::vector<mkw_tensor> out;
  in.reserve(inputs.size());
  out.reserve(outputs.size());
  for (const auto& tensor : inputs) in.push_back(tensor.view());
  for (const auto& tensor : outputs) out.push_back(tensor.view());
  context.run(in.data(), out.data());
  const long before = allocations + locks;
  for (int i = 0; i < 1000; ++i) context.run(in.data(), out.data());
  return allocations + locks - before;
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  using mkwrap::Library;
  using mkwrap::Tensor;
  CHECK(steady_state(Library::open(folder + "/add_one.so"), {Tensor(x, {8})}, {Tensor(y, {8})}) ==
        0);
  CHECK(steady_state(Library::open(folder + "/pipeline.so"), {Tensor(x, {4, 8})},
                     {Tensor(y, {4, 8}), Tensor(z, {8})}) == 0);
  CHECK(steady_state(Library::open(folder + "/tables.so"), {Tensor(x, {3, 8}), Tensor(z, {8})},
                     {Tensor(y, {2}), Tensor(y + 16, {8})}) == 0);
#ifdef MKWRAP_FAKE_DRIVER
  FakeDriver* driver = find_fake_driver();
  CHECK(driver != nullptr);
  adopt(x, sizeof(x));
  adopt(y, sizeof(y));
  const mkw_device gpu = {MKW_DEVICE_CUDA, 0};
  const Library cuda = Library::open(folder + "/cuda.so");
  const long unlocked = locks;
  mkwrap::Context context{mkwrap::Model(cuda)};
  CHECK(locks > unlocked + driver->calls);  // the hook sees the library's locks
  const Tensor input(x, {128}, {}, gpu);
  const Tensor output(y, {128}, {}, gpu);
  const mkw_tensor in = input.view();
  const mkw_tensor out = output.view();
  const int made = driver->made;
  const long before = allocations;
  const long others = locks - driver->calls;  // the fake driver takes a lock in every call
  for (int i = 0; i < 1000; ++i) context.run(&in, &out);
  CHECK(allocations == before && driver->made == made && driver->launches == 3000);
  CHECK(locks - driver->calls == others);
#endif
}
