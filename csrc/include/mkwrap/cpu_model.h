// Model and context of a CPU library. An emitted model includes this file once.
#ifndef MKWRAP_CPU_MODEL_H_
#define MKWRAP_CPU_MODEL_H_

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mkwrap/check.h"
#include "mkwrap/cpu_features.h"
#include "mkwrap/overlap.h"
#include "mkwrap/parts.h"
#include "mkwrap/shape.h"

struct mkw_model {
  int32_t references;       // the caller's, and one per context
  const uint32_t* choices;  // per kernel the alternative that runs
  int32_t target;           // number of the library's target
  int64_t scratch_bytes;    // of a context; MKW_DYNAMIC: sizes have no upper bounds
  const char* parts;        // the library's own
  mkwrap::runtime::ShapeCounts counts;
};

struct mkw_weights {
  int32_t references;  // the caller's, and one per context
  const char* parts;   // of the library they are from
};

struct mkw_context {
  mkw_model* model;
  mkw_weights* weights;    // null: the library's own
  const char* parts;       // where the constants lie
  unsigned char* scratch;  // arena, then the workspace that the steps share
  uint64_t scratch_bytes;
  mkwrap::runtime::Shape shape;
  mkw_error error;
};

namespace mkwrap::runtime {

constexpr mkw_device kHost = {MKW_DEVICE_CPU, 0};
constexpr size_t kScratchAlignment = 64;

// What a library's model needs of the machine and of memory.
struct CpuPlan {
  const char* arch;
  const char* const* features;
  int32_t feature_count;
  int64_t arena_bytes;
  const char* parts;  // NULL: no alternatives, no workspace
  ShapeCounts counts;
};

inline mkw_status check_features(const CpuPlan& plan, mkw_error* error) {
  char missing[256];
  Text text(missing, sizeof(missing));
  int32_t count = 0;
  for (int32_t i = 0; i < plan.feature_count; ++i) {
    if (!cpu_has(plan.features[i])) text.add(count++ == 0 ? "%s" : ", %s", plan.features[i]);
  }
  if (count == 0) return MKW_OK;
  return fail(error, MKW_ERROR_ISA, -1, "the library is compiled for %s; this CPU lacks %s",
              plan.arch, missing);
}

inline mkw_status create_model(const CpuPlan& plan, int32_t device, mkw_model** model,
                               mkw_error* error) {
  if (model == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "model_create: `model` is a null pointer");
  *model = nullptr;
  if (device != 0)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "model_create: there is no CPU device %d", device);
  if (const mkw_status status = check_features(plan, error)) return status;
  auto* made = static_cast<mkw_model*>(calloc(1, sizeof(mkw_model)));
  if (made == nullptr) return fail(error, MKW_ERROR_MEMORY, -1, "model_create: out of memory");
  made->references = 1;
  const Row chosen = plan.parts != nullptr ? row(plan.parts, 0) : Row{};
  made->choices = chosen.choices;
  made->parts = plan.parts;
  made->counts = plan.counts;
  made->scratch_bytes = most_scratch(
      plan.counts.values != 0 ? plan.counts.most_arena : plan.arena_bytes, chosen.workspace_bytes);
  *model = made;
  return MKW_OK;
}

inline void release(mkw_model* model) {
  if (model != nullptr && __atomic_sub_fetch(&model->references, 1, __ATOMIC_ACQ_REL) == 0)
    free(model);
}

inline mkw_status fill_weights(mkw_weights& weights, mkw_model*, const char* parts, mkw_error*) {
  weights.parts = parts;
  return MKW_OK;
}

inline void release_weights(mkw_weights* weights) {
  if (weights != nullptr && __atomic_sub_fetch(&weights->references, 1, __ATOMIC_ACQ_REL) == 0)
    free(weights);
}

// Let the scratch memory hold `bytes`, what it held is lost. After a failure it holds nothing.
inline mkw_status grow_scratch(mkw_context& context, uint64_t bytes, void*, mkw_error* error) {
  if (bytes <= context.scratch_bytes) return MKW_OK;
  uint64_t size = grown(context.scratch_bytes, bytes);
  free(context.scratch);
  context.scratch = nullptr;
  context.scratch_bytes = 0;
  void* scratch = nullptr;
  if (size > PTRDIFF_MAX || posix_memalign(&scratch, kScratchAlignment, size) != 0) {
    size = bytes;
    if (size > PTRDIFF_MAX || posix_memalign(&scratch, kScratchAlignment, size) != 0)
      return fail(error, MKW_ERROR_MEMORY, -1, "out of memory: %" PRIu64 " bytes of scratch",
                  bytes);
  }
  context.scratch = static_cast<unsigned char*>(scratch);
  context.scratch_bytes = size;
  return MKW_OK;
}

// `weights` null: the library's own constants.
inline mkw_status create_context(mkw_model* model, mkw_weights* weights, mkw_context** context,
                                 mkw_error* error) {
  if (model == nullptr || context == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "context_create: a null pointer was given");
  *context = nullptr;
  auto* made = static_cast<mkw_context*>(calloc(1, sizeof(mkw_context)));
  if (made == nullptr) return fail(error, MKW_ERROR_MEMORY, -1, "context_create: out of memory");
  const bool is_static = model->counts.values == 0;
  mkw_status status = MKW_OK;
  if (!allocate_shape(model->counts, made->shape))
    status = fail(error, MKW_ERROR_MEMORY, -1, "context_create: out of memory");
  else if (is_static)
    status = grow_scratch(*made, static_cast<uint64_t>(model->scratch_bytes), nullptr, error);
  if (status != MKW_OK) {
    free_shape(made->shape);
    free(made);
    return status;
  }
  made->model = model;
  made->parts = weights != nullptr ? weights->parts : model->parts;
  made->weights = weights;
  made->error.argument = -1;
  __atomic_add_fetch(&model->references, 1, __ATOMIC_RELAXED);
  if (weights != nullptr) __atomic_add_fetch(&weights->references, 1, __ATOMIC_RELAXED);
  *context = made;
  return MKW_OK;
}

inline void destroy_context(mkw_context* context) {
  if (context == nullptr) return;
  release_weights(context->weights);
  release(context->model);
  free_shape(context->shape);
  free(context->scratch);
  free(context);
}

inline mkw_status reserve(mkw_context& context, uint64_t bytes, void* stream, mkw_error* error) {
  return grow_scratch(context, bytes, stream, error);
}

inline mkw_device device_of(const mkw_model&) { return kHost; }

// A run on the CPU is complete on return, and has reported all it met.
inline mkw_status wait_for(const mkw_context&, mkw_error*) { return MKW_OK; }

}  // namespace mkwrap::runtime

#endif  // MKWRAP_CPU_MODEL_H_
