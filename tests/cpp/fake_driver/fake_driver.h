// A CUDA driver for tests: no device, but the rules of one. It reads each cubin's own ELF metadata
// and holds every launch against it, counts what is alive, and can fail any call.
#ifndef MKWRAP_TESTS_FAKE_DRIVER_H_
#define MKWRAP_TESTS_FAKE_DRIVER_H_

#include <cuda.h>
#include <dlfcn.h>

constexpr int kFakeDevices = 2;

// Called by every launch that breaks no rule, in place of the kernel: its name, its first arguments
// and its stream.
using FakeKernel = void (*)(const char* name, const unsigned long long* arguments, CUstream stream);

struct FakeDriver {
  // Settings. FAKE_DRIVER_ARCH=80 sets the compute capability at load, FAKE_DRIVER_FAIL=cuMemAlloc
  // fails all such calls.
  int devices;  // at most kFakeDevices
  int major;
  int minor;
  int fail_at;         // the call that fails, counted from 1 after `calls` was reset; 0: none
  CUresult fail_with;  // what it returns
  FakeKernel kernel;   // may be null
  CUstream capturing;  // counts as captured; null: none is
  unsigned long long memory_bytes;  // the largest allocation that succeeds; 0: any
  // Observed.
  int calls;        // not counted: cuGetErrorName and cuGetErrorString
  char failed[64];  // name of the last call that was made to fail
  int contexts;     // retained primary contexts, modules, … that are alive
  int modules;
  int allocations;
  int streams;
  int pushed;  // contexts on this thread's stack
  int made;    // modules, allocations and streams ever made
  int loads;   // modules ever loaded
  int launches;
  int waits;                        // cuStreamSynchronize
  unsigned grid[3];                 // of the last launch
  char launched[64];                // its kernel
  unsigned long long arguments[8];  // the first of the last launch
  CUstream memset_stream;           // of the last memset
  char complaint[256];              // the first rule that a launch broke
};

extern "C" FakeDriver* fake_driver();
// Make host memory count as device memory that is alive.
extern "C" void fake_driver_adopt(const void* memory, unsigned long bytes);

// The state of the fake driver that this process would load, or nullptr if libcuda.so.1 is another.
inline FakeDriver* find_fake_driver() {
  void* handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return nullptr;
  auto find = reinterpret_cast<FakeDriver* (*)()>(dlsym(handle, "fake_driver"));
  return find != nullptr ? find() : nullptr;
}

// Let the fake driver that is loaded adopt memory.
inline void adopt(const void* memory, unsigned long bytes) {
  void* handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  reinterpret_cast<decltype(&fake_driver_adopt)>(dlsym(handle, "fake_driver_adopt"))(memory, bytes);
}

#endif  // MKWRAP_TESTS_FAKE_DRIVER_H_
