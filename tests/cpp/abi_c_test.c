// The ABI header is C11, and DLPack's tensors can be passed as they are.
#include <stddef.h>
#include <stdio.h>

#include "mkwrap/dlpack.h"

int main(void) {
  const mkw_api* api = mkw_get_api(MKW_ABI_VERSION);
  mkw_model* model = NULL;
  mkw_context* context = NULL;
  mkw_error error;
  _Alignas(64) float x[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  _Alignas(64) float y[8] = {0};
  int64_t shape[] = {8};
  int64_t strides[] = {1};
  DLTensor input = {x, {kDLCPU, 0}, 1, {kDLFloat, 32, 1}, shape, strides, 0};
  DLTensor output = {y, {kDLCPU, 0}, 1, {kDLFloat, 32, 1}, shape, strides, 0};
  if (api == NULL || api->model_create(0, &model, &error) != MKW_OK) return 1;
  if (api->context_create(model, &context, &error) != MKW_OK) return 2;
  if (api->run(context, mkw_tensors(&input), mkw_tensors(&output), NULL) != MKW_OK) {
    fprintf(stderr, "%s\n", api->last_error(context)->message);
    return 3;
  }
  api->context_destroy(context);
  api->model_destroy(model);
  return y[7] == 8.0F ? 0 : 4;
}
