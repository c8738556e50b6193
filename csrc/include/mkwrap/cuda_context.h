// The context of a CUDA library, and what a run does on it. An emitted model includes this file
// once.
#ifndef MKWRAP_CUDA_CONTEXT_H_
#define MKWRAP_CUDA_CONTEXT_H_

#include "mkwrap/cuda_model.h"

namespace mkwrap::runtime {

inline void free_constants(const mkw_model& model, CUdeviceptr constants) {
  if (constants == 0) return;
  const CurrentContext current = CurrentContext::for_release(model.driver, model.context);
  model.driver.cuMemFree_(constants);
}

// Weights hold a reference to their model.
inline mkw_status fill_weights(mkw_weights& weights, mkw_model* model, const char* parts,
                               mkw_error* error) {
  const auto upload = [&] {
    const CurrentContext current(model->driver, model->context);
    if (const mkw_status status = current.status(error)) return status;
    return upload_constants(*model, parts, &weights.constants, error);
  };
  if (const mkw_status status = upload()) {
    free_constants(*model, weights.constants);
    return status;
  }
  weights.model = model;
  retain(model);
  return MKW_OK;
}

inline void release_weights(mkw_weights* weights) {
  if (weights == nullptr || __atomic_sub_fetch(&weights->references, 1, __ATOMIC_ACQ_REL) != 0)
    return;
  free_constants(*weights->model, weights->constants);
  release(weights->model);
  free(weights);
}

// Free what a context holds, also one that is half made.
inline void free_context(const mkw_model& model, mkw_context* context) {
  if (context->scratch != 0 || context->faults != nullptr || context->outgrown != nullptr) {
    const CurrentContext current = CurrentContext::for_release(model.driver, model.context);
    if (context->scratch != 0) model.driver.cuMemFree_(context->scratch);
    if (context->faults != nullptr) model.driver.cuMemFreeHost_(context->faults);
    while (Outgrown* first = context->outgrown) {
      context->outgrown = first->next;
      model.driver.cuMemFree_(first->scratch);
      free(first);
    }
  }
  free_shape(context->shape);
  free(context);
}

// Take note of a capture that this run becomes part of: its graph has the scratch memory's address.
// The legacy default stream cannot be captured.
inline mkw_status note_capture(mkw_context& context, CUstream stream, bool* capturing,
                               mkw_error* error) {
  *capturing = false;
  if (stream == nullptr) return MKW_OK;
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  MKW_DRIVER_CALL(context.model->driver, error, "", cuStreamIsCapturing, stream, &status);
  *capturing = status != CU_STREAM_CAPTURE_STATUS_NONE;
  return MKW_OK;
}

// Give the scratch memory up, which no kernel uses any more; a captured graph may yet.
inline mkw_status drop_scratch(mkw_context& context, mkw_error* error) {
  if (context.scratch == 0) return MKW_OK;
  const CUdeviceptr scratch = context.scratch;
  if (context.captured) {
    auto* kept = static_cast<Outgrown*>(malloc(sizeof(Outgrown)));
    if (kept == nullptr) return fail(error, MKW_ERROR_MEMORY, -1, "out of memory");
    *kept = {context.outgrown, scratch};
    context.outgrown = kept;
  }
  const bool captured = context.captured;
  context.scratch = 0;
  context.scratch_bytes = 0;
  context.captured = false;
  if (!captured)
    MKW_DRIVER_CALL(context.model->driver, error, "scratch memory", cuMemFree, scratch);
  return MKW_OK;
}

// Let the scratch memory hold `bytes`, what it held is lost. Earlier runs on the context are
// ordered before `stream`, which is waited for. The model's CUDA context is current. After a
// failure that is not MKW_ERROR_CAPTURE it may hold nothing.
inline mkw_status grow_scratch(mkw_context& context, uint64_t bytes, CUstream stream,
                               mkw_error* error) {
  bool capturing = false;
  if (bytes == 0) return MKW_OK;
  if (const mkw_status status = note_capture(context, stream, &capturing, error)) return status;
  if (bytes <= context.scratch_bytes) {
    context.captured |= capturing;
    return MKW_OK;
  }
  if (capturing)
    return fail(error, MKW_ERROR_CAPTURE, -1,
                "the run needs %" PRIu64 " bytes of scratch, its context holds %" PRIu64
                ", and memory cannot be allocated while the stream is captured; run with these "
                "sizes, or reserve the memory, before",
                bytes, context.scratch_bytes);
  const Driver& driver = context.model->driver;
  const BesideCaptures beside(driver);
  if (const mkw_status status = beside.status(error)) return status;
  const uint64_t wanted = grown(context.scratch_bytes, bytes);
  if (context.scratch != 0)
    MKW_DRIVER_CALL(driver, error, "scratch memory", cuStreamSynchronize, stream);
  if (const mkw_status status = drop_scratch(context, error)) return status;
  uint64_t size = wanted;
  CUresult result = driver.cuMemAlloc_(&context.scratch, size);
  if (result == CUDA_ERROR_OUT_OF_MEMORY && wanted > bytes) {
    size = bytes;
    result = driver.cuMemAlloc_(&context.scratch, size);
  }
  if (result == CUDA_ERROR_OUT_OF_MEMORY)
    return fail(error, MKW_ERROR_MEMORY, -1,
                "out of device memory: %" PRIu64
                " bytes of scratch (cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY)",
                bytes);
  if (result != CUDA_SUCCESS)
    return driver_error(driver, result, "cuMemAlloc", "scratch memory", error);
  context.scratch_bytes = size;
  return MKW_OK;
}

inline mkw_status fill_context(const mkw_model& model, mkw_context& context, mkw_error* error) {
  const auto words = static_cast<size_t>(model.plan->checked_step_count);
  const bool is_static = model.plan->counts.values == 0;
  if (!allocate_shape(model.plan->counts, context.shape))
    return fail(error, MKW_ERROR_MEMORY, -1, "context_create: out of memory");
  const bool scratch = is_static && model.scratch_bytes > 0;
  if (!scratch && words == 0) return MKW_OK;
  const Driver& driver = model.driver;
  const CurrentContext current(driver, model.context);
  if (const mkw_status status = current.status(error)) return status;
  if (scratch) {
    context.scratch_bytes = static_cast<uint64_t>(model.scratch_bytes);
    MKW_DRIVER_CALL(driver, error, "scratch memory", cuMemAlloc, &context.scratch,
                    context.scratch_bytes);
  }
  if (words == 0) return MKW_OK;
  void* faults = nullptr;
  MKW_DRIVER_CALL(driver, error, "checks of indices", cuMemHostAlloc, &faults,
                  words * sizeof(int32_t), CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
  context.faults = static_cast<int32_t*>(memset(faults, 0, words * sizeof(int32_t)));
  MKW_DRIVER_CALL(driver, error, "checks of indices", cuMemHostGetDevicePointer,
                  &context.device_faults, faults, 0);
  return MKW_OK;
}

// `weights` null: the library's own constants.
inline mkw_status create_context(mkw_model* model, mkw_weights* weights, mkw_context** context,
                                 mkw_error* error) {
  if (model == nullptr || context == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "context_create: a null pointer was given");
  *context = nullptr;
  // Their constants lie on the device of the model that they were made for.
  if (weights != nullptr && weights->model != model)
    return fail(error, MKW_ERROR_WEIGHTS, -1,
                "context_create_with: the weights were made for another model");
  auto* made = static_cast<mkw_context*>(calloc(1, sizeof(mkw_context)));
  if (made == nullptr) return fail(error, MKW_ERROR_MEMORY, -1, "context_create: out of memory");
  if (const mkw_status status = fill_context(*model, *made, error)) {
    free_context(*model, made);
    return status;
  }
  made->model = model;
  made->constants = weights != nullptr ? weights->constants : model->constants;
  made->weights = weights;
  made->error.argument = -1;
  retain(model);
  if (weights != nullptr) __atomic_add_fetch(&weights->references, 1, __ATOMIC_RELAXED);
  *context = made;
  return MKW_OK;
}

inline void destroy_context(mkw_context* context) {
  if (context == nullptr) return;
  mkw_model* model = context->model;
  mkw_weights* weights = context->weights;
  free_context(*model, context);
  release_weights(weights);
  release(model);
}

inline mkw_status reserve(mkw_context& context, uint64_t bytes, void* stream, mkw_error* error) {
  const mkw_model& model = *context.model;
  const CurrentContext current(model.driver, model.context);
  if (const mkw_status status = current.status(error)) return status;
  return grow_scratch(context, bytes, static_cast<CUstream>(stream), error);
}

[[gnu::cold, gnu::noinline]] inline mkw_status take_fault(const CudaPlan& plan, int32_t* faults,
                                                          mkw_error* error) {
  mkw_status status = MKW_OK;
  for (int32_t i = 0; i < plan.checked_step_count; ++i) {
    if (__atomic_exchange_n(&faults[i], 0, __ATOMIC_RELAXED) == 0 || status != MKW_OK) continue;
    const CudaCheckedStep& step = plan.checked_steps[i];
    status =
        fail(error, MKW_ERROR_INDEX_RANGE, -1, "index out of range in %s%s%s, in an earlier run",
             step.kernel, step.origin[0] != '\0' ? ", from " : "", step.origin);
  }
  return status;
}

// Report, once, that a run on this context has met an index out of range. Waits for none.
inline mkw_status earlier_fault(const CudaPlan& plan, int32_t* faults, mkw_error* error) {
  int32_t any = 0;
  for (int32_t i = 0; i < plan.checked_step_count; ++i)
    any |= __atomic_load_n(&faults[i], __ATOMIC_RELAXED);
  return __builtin_expect(any != 0, 0) ? take_fault(plan, faults, error) : MKW_OK;
}

inline mkw_status wait_for(mkw_context& context, mkw_error* error) {
  const mkw_model& model = *context.model;
  const CurrentContext current(model.driver, model.context);
  if (const mkw_status status = current.status(error)) return status;
  if (const CUresult result = model.driver.cuCtxSynchronize_(); result != CUDA_SUCCESS)
    return driver_error(model.driver, result, "cuCtxSynchronize", "", error);
  return earlier_fault(*model.plan, context.faults, error);
}

// Blocks per axis.
struct Grid {
  int64_t x;
  int64_t y;
  int64_t z;
};

// Blocks per axis that every device takes (CUDA C++ Programming Guide, compute capabilities).
constexpr int64_t kMostBlocks = INT32_MAX;
constexpr int64_t kMostBlocksBeyond = 65535;  // y and z

[[gnu::cold, gnu::noinline]] inline mkw_status grid_too_large(const CudaImage& image, Grid grid,
                                                              mkw_error* error) {
  return fail(error, MKW_ERROR_SIZE, -1,
              "the sizes are too large: %s takes a grid of %" PRId64 " x %" PRId64 " x %" PRId64
              " blocks, a device at most 2147483647 x 65535 x 65535",
              image.kernel, grid.x, grid.y, grid.z);
}

// Launch image number `index` with `parameters`; nothing is launched for an empty grid.
inline mkw_status launch(mkw_context& context, const CudaPlan& plan, int32_t index, Grid grid,
                         CUstream stream, void** parameters) {
  if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0) return MKW_OK;
  const mkw_model& model = *context.model;
  const CudaImage& image = plan.images[index];
  if (grid.x > kMostBlocks || grid.y > kMostBlocksBeyond || grid.z > kMostBlocksBeyond)
    return grid_too_large(image, grid, &context.error);
  MKW_DRIVER_CALL(model.driver, &context.error, image.kernel, cuLaunchKernel,
                  model.functions[index], static_cast<uint32_t>(grid.x),
                  static_cast<uint32_t>(grid.y), static_cast<uint32_t>(grid.z), image.threads, 1, 1,
                  image.shared_bytes, stream, parameters, nullptr);
  return MKW_OK;
}

inline mkw_status zero(mkw_context& context, CUdeviceptr at, uint64_t bytes, CUstream stream) {
  if (bytes == 0) return MKW_OK;
  MKW_DRIVER_CALL(context.model->driver, &context.error, "workspace", cuMemsetD8Async, at, 0, bytes,
                  stream);
  return MKW_OK;
}

inline CUdeviceptr device_address(const mkw_tensor& tensor) {
  return reinterpret_cast<CUdeviceptr>(address(tensor));
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_CUDA_CONTEXT_H_
