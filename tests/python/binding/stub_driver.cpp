// A CUDA driver whose device is the host: enough of one to run `_C`'s CUDA half where there is no
// GPU. Memory is malloc'ed, every cubin holds the kernel `add(ptr x, i32 n, i64 step)`, a capture
// records calls and a graph replays them. A clock of the device counts 1 ms per kernel.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

namespace {

using Work = std::vector<std::function<void()>>;

struct Event {
  double time;
};

struct State {
  double clock = 0;
  int depth = 0;
  Work* capture = nullptr;
  std::set<void*> alive;
  std::map<void*, std::size_t> memory;
  std::size_t bytes = 0;
  std::size_t peak = 0;
};

State state;
constexpr int kInvalidValue = 1;
constexpr int kNotFound = 500;

int do_now(std::function<void()> work) {
  if (state.depth == 0) return 201;  // no context is current
  if (state.capture != nullptr) {
    state.capture->push_back(std::move(work));
  } else {
    work();
  }
  return 0;
}

template <typename T>
int make(T** out) {
  *out = new T();
  state.alive.insert(*out);
  return 0;
}

template <typename T>
int destroy(T* object) {
  if (state.alive.erase(object) == 0) return kInvalidValue;
  delete object;
  return 0;
}

}  // namespace

// What is alive: streams, modules, graphs, events, memory, and pushed contexts.
API stub_alive() { return static_cast<int>(state.alive.size()) + state.depth; }

// The most bytes of device memory that were allocated at once since the last question.
API stub_peak() {
  const auto peak = static_cast<int>(state.peak);
  return state.peak = state.bytes, peak;
}

API cuInit(unsigned) { return 0; }
API cuDriverGetVersion(int* version) { return *version = 13000, 0; }
API cuGetErrorName(int error, const char** name) {
  return *name = error == kNotFound ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_OTHER", 0;
}
API cuGetErrorString(int, const char** text) { return *text = "text", 0; }
API cuDeviceGetCount(int* count) { return *count = 1, 0; }
API cuDeviceGet(int* device, int ordinal) { return ordinal == 0 ? (*device = 0) : 101; }
API cuDeviceGetName(char* name, int size, int) { return std::strncpy(name, "Stub", size), 0; }
API cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 16   ? 132
           : attribute == 38 ? 50 << 20
           : attribute == 75 ? 9
           : attribute == 97 ? 232448
                             : 0;
  return 0;
}
API cuDeviceTotalMem_v2(std::size_t* bytes, int) { return *bytes = std::size_t{80} << 30, 0; }
API cuDevicePrimaryCtxRetain(int** context, int) {
  static int primary = 0;
  return *context = &primary, 0;
}
API cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API cuCtxPushCurrent_v2(void*) { return ++state.depth, 0; }
API cuCtxPopCurrent_v2(void** context) { return *context = nullptr, --state.depth < 0; }
API cuModuleLoadData(int** module, const void* image) {
  return std::memcmp(image,
                     "\x7f"
                     "ELF",
                     4) == 0
             ? make(module)
             : 200;
}
API cuModuleUnload(int* module) { return destroy(module); }
API cuModuleGetFunction(void** function, void*, const char* name) {
  *function = &state;
  return std::strcmp(name, "add") == 0 ? 0 : kNotFound;
}
API cuFuncGetAttribute(int* value, int attribute, void*) {
  return *value = attribute == 4 ? 24 : 8, 0;
}
API cuFuncSetAttribute(void*, int attribute, int value) {
  return attribute == 8 && value <= 232448 ? 0 : 1;
}
API cuMemAlloc_v2(std::uintptr_t* address, std::size_t bytes) {
  void* memory = std::malloc(bytes);
  state.alive.insert(memory);
  state.memory[memory] = bytes;
  state.bytes += bytes;
  state.peak = std::max(state.peak, state.bytes);
  return *address = reinterpret_cast<std::uintptr_t>(memory), 0;
}
API cuMemFree_v2(std::uintptr_t address) {
  void* memory = reinterpret_cast<void*>(address);
  if (state.alive.erase(memory) == 0) return kInvalidValue;
  state.bytes -= state.memory[memory];
  return std::free(memory), 0;
}
API cuMemAllocHost_v2(void** memory, std::size_t bytes) {
  return state.alive.insert(*memory = std::malloc(bytes)), 0;
}
API cuMemFreeHost(void* memory) {
  if (state.alive.erase(memory) == 0) return kInvalidValue;
  return std::free(memory), 0;
}
API cuMemcpyHtoDAsync_v2(void* to, const void* from, std::size_t n, void*) {
  return do_now([=] { std::memcpy(to, from, n); });
}
API cuMemcpyDtoHAsync_v2(void* to, const void* from, std::size_t n, void*) {
  return do_now([=] { std::memcpy(to, from, n); });
}
API cuMemcpyDtoDAsync_v2(void* to, const void* from, std::size_t n, void*) {
  return do_now([=] { std::memcpy(to, from, n); });
}
API cuMemsetD8Async(void* at, unsigned char value, std::size_t n, void*) {
  return do_now([=] { std::memset(at, value, n); });
}
API cuStreamCreate(int** stream, unsigned) { return make(stream); }
API cuStreamSynchronize(void*) { return state.capture != nullptr ? 900 : 0; }
API cuStreamDestroy_v2(int* stream) { return destroy(stream); }
API cuStreamGetCaptureInfo_v2(void*, int* status, std::uint64_t*, void*, void*, void*) {
  return *status = 0;
}
API cuLaunchKernel(void*, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned, void*, void** arguments, void**) {
  auto* data = *static_cast<float**>(arguments[0]);
  const auto count = *static_cast<std::int32_t*>(arguments[1]);
  const auto step = *static_cast<std::int64_t*>(arguments[2]);
  if (x * y * z * threads < static_cast<unsigned>(count)) return 701;
  return do_now([=] {
    for (int k = 0; k < count; ++k) data[k] += static_cast<float>(step);
    state.clock += 1;
  });
}
API cuStreamBeginCapture_v2(void*, int mode) { return state.capture = new Work(), mode != 1; }
API cuStreamEndCapture(void*, Work** graph) {
  make(graph);
  **graph = std::move(*state.capture);
  delete state.capture;
  return state.capture = nullptr, 0;
}
API cuGraphInstantiateWithFlags(Work** executable, Work* graph, unsigned long long) {
  make(executable);
  return **executable = *graph, 0;
}
API cuGraphLaunch(Work* executable, void*) {
  for (const auto& work : *executable) work();
  return 0;
}
API cuGraphDestroy(Work* graph) { return destroy(graph); }
API cuGraphExecDestroy(Work* executable) { return destroy(executable); }
API cuEventCreate(Event** event, unsigned) { return make(event); }
API cuEventRecord(Event* event, void*) { return event->time = state.clock, 0; }
API cuEventSynchronize(Event*) { return 0; }
API cuEventElapsedTime(float* milliseconds, Event* start, Event* stop) {
  return *milliseconds = static_cast<float>(stop->time - start->time), 0;
}
API cuEventDestroy_v2(Event* event) { return destroy(event); }
