// The model of a CUDA library: what is loaded once per device.
#ifndef MKWRAP_CUDA_MODEL_H_
#define MKWRAP_CUDA_MODEL_H_

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mkwrap/check.h"
#include "mkwrap/driver.h"
#include "mkwrap/open_table.h"
#include "mkwrap/overlap.h"
#include "mkwrap/parts.h"
#include "mkwrap/shape.h"

namespace mkwrap::runtime {

// A compiled kernel: one cubin with one entry. It is loaded where `alternative` of kernel number
// `number` is the choice, or, as one of several binaries that sizes choose among, for its target;
// by a table that is a part, where sizes may choose it.
struct CudaImage {
  const char* entry;
  const char* kernel;  // for messages: name and variant
  uint32_t part;
  uint32_t threads;
  uint32_t shared_bytes;  // dynamic shared memory of every launch
  uint32_t number;
  uint32_t alternative;
  int32_t target;  // -1: it is no binary that sizes choose
  uint32_t table;  // the part by which they do; 0: a constant
};

// A constant and its place in the model's device memory.
struct CudaConstant {
  uint32_t part;
  uint64_t offset;
};

// An architecture that the library has images for; its row of the choice has the same number.
struct CudaArch {
  const char* name;
  int32_t major;
  int32_t minor;
  bool exact;  // the images use features of this very architecture (sm_90a) and run on no later
               // minor version
};

// A step whose kernel reports indices out of range.
struct CudaCheckedStep {
  const char* kernel;
  const char* origin;
};

// What a library's model needs of the device and of its memory.
struct CudaPlan {
  const CudaArch* archs;
  int32_t arch_count;
  const char* parts;
  const CudaImage* images;
  int32_t image_count;
  const CudaConstant* constants;
  int32_t constant_count;
  uint64_t constant_bytes;
  uint64_t arena_bytes;
  const CudaCheckedStep* checked_steps;
  int32_t checked_step_count;
  ShapeCounts counts;
};

struct Outgrown {
  Outgrown* next;
  CUdeviceptr scratch;
};

}  // namespace mkwrap::runtime

struct mkw_model {
  mkw_model* next;     // of this library, on another device
  int32_t references;  // one per model_create, and one per context
  const mkwrap::runtime::CudaPlan* plan;
  mkw_device device;
  mkwrap::runtime::Driver driver;
  CUdevice handle;
  CUcontext context;  // the device's primary context, retained
  CUdeviceptr constants;
  const char* arch;         // the one of the library's that this device runs
  const uint32_t* choices;  // per kernel the alternative that runs
  int32_t target;           // number of the library's target
  int64_t scratch_bytes;    // of a context; MKW_DYNAMIC: sizes have no upper bounds
  int32_t image_count;
  CUmodule* modules;
  CUfunction* functions;
};

struct mkw_weights {
  int32_t references;  // the caller's, and one per context
  mkw_model* model;
  CUdeviceptr constants;
};

struct mkw_context {
  mkw_model* model;
  mkw_weights* weights;   // null: the library's own
  CUdeviceptr constants;  // theirs
  CUdeviceptr scratch;    // arena, then the workspace that the steps share
  uint64_t scratch_bytes;
  // Scratch memory that this one outgrew while a captured graph has its address: kept as long as
  // the context. Null: none.
  mkwrap::runtime::Outgrown* outgrown;
  bool captured;  // whether a captured graph has the address of the scratch memory
  mkwrap::runtime::Shape shape;
  // A word per checked step, set by its kernel where an index is out of range: host memory that the
  // device can write, so that looking takes neither a copy nor waiting. Null where there are none.
  int32_t* faults;
  CUdeviceptr device_faults;
  mkw_error error;
};

namespace mkwrap::runtime {

// The models of this library that are alive, one per device, since a model never changes: whoever
// comes first loads it, all others share it. The lock also guards their numbers of references.
struct Models {
  pthread_mutex_t lock;
  mkw_model* first;
};

static Models models = {PTHREAD_MUTEX_INITIALIZER, nullptr};

inline mkw_device device_of(const mkw_model& model) { return model.device; }

// Kernels that ask for more dynamic shared memory than this must be allowed to (CUDA C++
// Programming Guide, 16.4).
constexpr uint32_t kSharedWithoutOptIn = 48 * 1024;

// Whether a device runs an architecture's images: same major version and no older minor version
// (CUDA C++ Programming Guide, binary compatibility), or the very version for
// architecture-specific images.
inline bool fits(const CudaArch& arch, int major, int minor) {
  return major == arch.major && (minor == arch.minor || (!arch.exact && minor > arch.minor));
}

[[gnu::cold, gnu::noinline]] inline mkw_status no_architecture(const Driver& driver,
                                                               CUdevice device,
                                                               const CudaPlan& plan, int major,
                                                               int minor, mkw_error* error) {
  char name[128] = "";
  MKW_DRIVER_CALL(driver, error, "", cuDeviceGetName, name, static_cast<int>(sizeof(name)), device);
  char archs[256];
  Text text(archs, sizeof(archs));
  for (int32_t i = 0; i < plan.arch_count; ++i)
    text.add(i == 0 ? "%s" : ", %s", plan.archs[i].name);
  return fail(error, MKW_ERROR_ARCHITECTURE, -1,
              "the library is compiled for %s; this device (%s) is sm_%d%d", archs, name, major,
              minor);
}

// Take the architecture that fits the device best, the latest of those that do, and with it its
// choice of kernels; a device that none fits is refused.
inline mkw_status choose_architecture(mkw_model& model, const CudaPlan& plan, mkw_error* error) {
  int major = 0;
  int minor = 0;
  MKW_DRIVER_CALL(model.driver, error, "", cuDeviceGetAttribute, &major,
                  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, model.handle);
  MKW_DRIVER_CALL(model.driver, error, "", cuDeviceGetAttribute, &minor,
                  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, model.handle);
  int32_t best = -1;
  for (int32_t i = 0; i < plan.arch_count; ++i)
    if (fits(plan.archs[i], major, minor) &&
        (best < 0 || plan.archs[i].minor > plan.archs[best].minor))
      best = i;
  if (best < 0) return no_architecture(model.driver, model.handle, plan, major, minor, error);
  const Row chosen = row(plan.parts, best);
  model.arch = plan.archs[best].name;
  model.choices = chosen.choices;
  model.target = best;
  model.scratch_bytes = most_scratch(
      plan.counts.values != 0 ? plan.counts.most_arena : static_cast<int64_t>(plan.arena_bytes),
      chosen.workspace_bytes);
  return MKW_OK;
}

inline mkw_status open_device(mkw_model& model, const CudaPlan& plan, mkw_error* error) {
  const Driver& driver = model.driver;
  MKW_DRIVER_CALL(driver, error, "", cuInit, 0);
  int count = 0;
  MKW_DRIVER_CALL(driver, error, "", cuDeviceGetCount, &count);
  if (count == 0) return fail(error, MKW_ERROR_NO_DRIVER, -1, "the CUDA driver finds no device");
  if (model.device.id < 0 || model.device.id >= count)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "there is no CUDA device %d; there are %d",
                model.device.id, count);
  MKW_DRIVER_CALL(driver, error, "", cuDeviceGet, &model.handle, model.device.id);
  if (const mkw_status status = choose_architecture(model, plan, error)) return status;
  MKW_DRIVER_CALL(driver, error, "", cuDevicePrimaryCtxRetain, &model.context, model.handle);
  return MKW_OK;
}

inline bool is_wanted(const mkw_model& model, const CudaPlan& plan, const CudaImage& image) {
  if (image.target < 0) return model.choices[image.number] == image.alternative;
  return image.target == model.target &&
         (image.table == 0 || may_elect(plan.parts, image.table, image.alternative));
}

inline mkw_status load_images(mkw_model& model, const CudaPlan& plan, mkw_error* error) {
  const Driver& driver = model.driver;
  for (int32_t i = 0; i < plan.image_count; ++i) {
    const CudaImage& image = plan.images[i];
    if (!is_wanted(model, plan, image)) continue;
    if (part(plan.parts, image.part).size == 0)
      return fail(error, MKW_ERROR_ARCHITECTURE, -1, "the library holds no image of %s for %s",
                  image.kernel, model.arch);
    MKW_DRIVER_CALL(driver, error, image.kernel, cuModuleLoadData, &model.modules[i],
                    part_bytes(plan.parts, image.part));
    MKW_DRIVER_CALL(driver, error, image.kernel, cuModuleGetFunction, &model.functions[i],
                    model.modules[i], image.entry);
    if (image.shared_bytes > kSharedWithoutOptIn)
      MKW_DRIVER_CALL(driver, error, image.kernel, cuFuncSetAttribute, model.functions[i],
                      CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                      static_cast<int>(image.shared_bytes));
  }
  return MKW_OK;
}

inline mkw_status copy_constants(const mkw_model& model, const char* parts, CUdeviceptr to,
                                 CUstream stream, mkw_error* error) {
  const Driver& driver = model.driver;
  for (int32_t i = 0; i < model.plan->constant_count; ++i) {
    const CudaConstant& constant = model.plan->constants[i];
    if (const uint64_t size = part(parts, constant.part).size)
      MKW_DRIVER_CALL(driver, error, "constants", cuMemcpyHtoDAsync, to + constant.offset,
                      part_bytes(parts, constant.part), size, stream);
  }
  MKW_DRIVER_CALL(driver, error, "constants", cuStreamSynchronize, stream);
  return MKW_OK;
}

// Copy the constants of a library's parts to device memory of their own; *to is freed by the
// caller, also after a failure. The model's CUDA context is current.
inline mkw_status upload_constants(const mkw_model& model, const char* parts, CUdeviceptr* to,
                                   mkw_error* error) {
  if (model.plan->constant_bytes == 0) return MKW_OK;
  const Driver& driver = model.driver;
  MKW_DRIVER_CALL(driver, error, "constants", cuMemAlloc, to, model.plan->constant_bytes);
  // A stream of its own: a copy on the default stream would wait for, and hold up, every other
  // model's work.
  CUstream stream = nullptr;
  MKW_DRIVER_CALL(driver, error, "constants", cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING);
  const mkw_status status = copy_constants(model, parts, *to, stream, error);
  const CUresult closed = driver.cuStreamDestroy_(stream);
  if (status == MKW_OK && closed != CUDA_SUCCESS)
    return driver_error(driver, closed, "cuStreamDestroy", "constants", error);
  return status;
}

// Free all that a model holds, also one that is half made. Failures here have nobody to go to.
inline void destroy_model(mkw_model* model) {
  const Driver& driver = model->driver;
  if (model->context != nullptr) {
    {
      const CurrentContext current = CurrentContext::for_release(driver, model->context);
      for (int32_t i = 0; i < model->image_count; ++i)
        if (model->modules[i] != nullptr) driver.cuModuleUnload_(model->modules[i]);
      if (model->constants != 0) driver.cuMemFree_(model->constants);
    }
    driver.cuDevicePrimaryCtxRelease_(model->handle);
  }
  close_driver(model->driver);
  free(static_cast<void*>(model->modules));
  free(static_cast<void*>(model->functions));
  free(model);
}

inline mkw_status fill_model(mkw_model& model, const CudaPlan& plan, mkw_error* error) {
  if (const mkw_status status = open_driver(model.driver, error)) return status;
  if (const mkw_status status = open_device(model, plan, error)) return status;
  const CurrentContext current(model.driver, model.context);
  if (const mkw_status status = current.status(error)) return status;
  if (const mkw_status status = load_images(model, plan, error)) return status;
  return upload_constants(model, plan.parts, &model.constants, error);
}

inline mkw_status make_model(const CudaPlan& plan, int32_t device, mkw_model** model,
                             mkw_error* error) {
  auto* made = static_cast<mkw_model*>(calloc(1, sizeof(mkw_model)));
  if (made == nullptr) return fail(error, MKW_ERROR_MEMORY, -1, "model_create: out of memory");
  made->plan = &plan;
  made->device = {MKW_DEVICE_CUDA, device};
  const auto count = static_cast<size_t>(plan.image_count) + 1;  // never an allocation of no bytes
  made->modules = static_cast<CUmodule*>(calloc(count, sizeof(CUmodule)));
  made->functions = static_cast<CUfunction*>(calloc(count, sizeof(CUfunction)));
  mkw_status status = MKW_OK;
  if (made->modules == nullptr || made->functions == nullptr) {
    status = fail(error, MKW_ERROR_MEMORY, -1, "model_create: out of memory");
  } else {
    made->image_count = plan.image_count;
    status = fill_model(*made, plan, error);
  }
  if (status != MKW_OK) {
    destroy_model(made);
    return status;
  }
  *model = made;
  return MKW_OK;
}

inline mkw_status create_model(const CudaPlan& plan, int32_t device, mkw_model** model,
                               mkw_error* error) {
  if (model == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "model_create: `model` is a null pointer");
  *model = nullptr;
  pthread_mutex_lock(&models.lock);
  mkw_model* found = models.first;
  while (found != nullptr && found->device.id != device) found = found->next;
  mkw_status status = MKW_OK;
  if (found == nullptr) {
    status = make_model(plan, device, &found, error);
    if (status == MKW_OK) {
      found->next = models.first;
      models.first = found;
    }
  }
  if (status == MKW_OK) {
    ++found->references;
    *model = found;
  }
  pthread_mutex_unlock(&models.lock);
  return status;
}

inline void retain(mkw_model* model) {
  pthread_mutex_lock(&models.lock);
  ++model->references;
  pthread_mutex_unlock(&models.lock);
}

inline void release(mkw_model* model) {
  if (model == nullptr) return;
  // Destroyed under the lock, so that whoever creates it anew meanwhile does not hold it twice.
  pthread_mutex_lock(&models.lock);
  if (--model->references == 0) {
    mkw_model** link = &models.first;
    while (*link != model) link = &(*link)->next;
    *link = model->next;
    destroy_model(model);
  }
  pthread_mutex_unlock(&models.lock);
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_CUDA_MODEL_H_
