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
  if (context->scratch != 0 || context->faults != nullptr) {
    const CurrentContext current = CurrentContext::for_release(model.driver, model.context);
    if (context->scratch != 0) model.driver.cuMemFree_(context->scratch);
    if (context->faults != nullptr) model.driver.cuMemFreeHost_(context->faults);
  }
  free(context);
}

inline mkw_status fill_context(const mkw_model& model, mkw_context& context, mkw_error* error) {
  const auto words = static_cast<size_t>(model.plan->checked_step_count);
  if (model.scratch_bytes == 0 && words == 0) return MKW_OK;
  const Driver& driver = model.driver;
  const CurrentContext current(driver, model.context);
  if (const mkw_status status = current.status(error)) return status;
  if (model.scratch_bytes > 0)
    MKW_DRIVER_CALL(driver, error, "scratch memory", cuMemAlloc, &context.scratch,
                    model.scratch_bytes);
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

// Launch image number `index` with `parameters`; nothing is launched for an empty grid.
inline mkw_status launch(mkw_context& context, const CudaPlan& plan, int32_t index, Grid grid,
                         CUstream stream, void** parameters) {
  if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0) return MKW_OK;
  const mkw_model& model = *context.model;
  const CudaImage& image = plan.images[index];
  // The driver checks each axis' limit of the device; this one is for what its unsigned int would
  // cut off.
  if (grid.x > INT32_MAX || grid.y > INT32_MAX || grid.z > INT32_MAX)
    return driver_error(model.driver, CUDA_ERROR_INVALID_VALUE, "cuLaunchKernel", image.kernel,
                        &context.error);
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
