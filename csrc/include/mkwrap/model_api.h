// The entries of mkw_api that are the same for every model; included after cpu_model.h or
// cuda_context.h.
#ifndef MKWRAP_MODEL_API_H_
#define MKWRAP_MODEL_API_H_

namespace mkwrap::runtime {

template <const auto& kPlan>
mkw_status model_create(int32_t device, mkw_model** model, mkw_error* error) {
  return create_model(kPlan, device, model, error);
}

inline void model_destroy(mkw_model* model) { release(model); }

inline mkw_status context_create(mkw_model* model, mkw_context** context, mkw_error* error) {
  return create_context(model, nullptr, context, error);
}

inline mkw_status context_create_with(mkw_model* model, mkw_weights* weights, mkw_context** context,
                                      mkw_error* error) {
  if (weights == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "context_create_with: `weights` is a null pointer");
  return create_context(model, weights, context, error);
}

template <const mkw_api& kApi, uint32_t kConstantCount>
mkw_status weights_create(mkw_model* model, const mkw_api* source, mkw_weights** weights,
                          mkw_error* error) {
  if (model == nullptr || source == nullptr || weights == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "weights_create: a null pointer was given");
  *weights = nullptr;
  if (const mkw_status status = check_weights(kApi, *source, kConstantCount, error)) return status;
  auto* made = static_cast<mkw_weights*>(calloc(1, sizeof(mkw_weights)));
  if (made == nullptr) return fail(error, MKW_ERROR_MEMORY, -1, "weights_create: out of memory");
  made->references = 1;
  if (const mkw_status status = fill_weights(*made, model, source->parts, error)) {
    free(made);
    return status;
  }
  *weights = made;
  return MKW_OK;
}

inline void weights_destroy(mkw_weights* weights) { release_weights(weights); }

inline void context_destroy(mkw_context* context) { destroy_context(context); }

inline const mkw_error* last_error(const mkw_context* context) { return &context->error; }

inline mkw_status workspace_bytes(const mkw_model* model, int64_t* bytes) {
  if (model == nullptr || bytes == nullptr) return MKW_ERROR_ARGUMENT;
  *bytes = model->scratch_bytes;
  return MKW_OK;
}

[[gnu::cold, gnu::noinline]] inline mkw_status null_model(mkw_error* error) {
  return fail(error, MKW_ERROR_ARGUMENT, -1, "`model` is a null pointer");
}

// `kScratchBytes` is the model's entry of the table.
template <mkw_status (*kScratchBytes)(const mkw_model*, const mkw_tensor*, int64_t*, mkw_error*)>
mkw_status context_reserve(mkw_context* context, const mkw_tensor* inputs, void* stream,
                           mkw_error* error) {
  if (context == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "context_reserve: `context` is a null pointer");
  int64_t bytes = context->model->scratch_bytes;
  if (inputs != nullptr)
    if (const mkw_status status = kScratchBytes(context->model, inputs, &bytes, error))
      return status;
  if (bytes < 0)
    return fail(error, MKW_ERROR_SIZE, -1,
                "context_reserve: the dynamic sizes have no upper bounds; give inputs");
  return reserve(*context, static_cast<uint64_t>(bytes), stream, error);
}

inline mkw_status synchronize(mkw_context* context, mkw_error* error) {
  if (context == nullptr)
    return fail(error, MKW_ERROR_ARGUMENT, -1, "synchronize: `context` is a null pointer");
  return wait_for(*context, error);
}

}  // namespace mkwrap::runtime

#endif  // MKWRAP_MODEL_API_H_
