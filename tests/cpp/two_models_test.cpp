// C42: two models with equal kernel names and different code in one process each run their own.
#include <dlfcn.h>

#include "check.h"
#include "mkwrap/mkwrap.hpp"

namespace {

const mkw_api* load(const std::string& path) {
  // RTLD_GLOBAL is the harder case: a symbol that leaked would be taken from the library loaded
  // first.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  CHECK(handle != nullptr);
  return reinterpret_cast<mkw_get_api_function>(dlsym(handle, "mkw_get_api"))(MKW_ABI_VERSION);
}

float run(const mkw_api& api) {
  mkw_model* model = nullptr;
  mkw_context* context = nullptr;
  mkw_error error = {};
  CHECK(api.model_create(0, &model, &error) == MKW_OK);
  CHECK(api.context_create(model, &context, &error) == MKW_OK);
  api.model_destroy(model);  // the context keeps it
  alignas(64) float x[8] = {};
  alignas(64) float y[8] = {};
  const mkwrap::Tensor in(x, {8});
  const mkwrap::Tensor out(y, {8});
  const mkw_tensor input = in.view();
  const mkw_tensor output = out.view();
  CHECK(api.run(context, &input, &output, nullptr) == MKW_OK);
  api.context_destroy(context);
  return y[0];
}

}  // namespace

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  const mkw_api* one = load(folder + "/add_one.so");
  const mkw_api* two = load(folder + "/add_two.so");
  CHECK(one != two);
  CHECK(run(*one) == 1.0F);
  CHECK(run(*two) == 2.0F);
  CHECK(run(*one) == 1.0F);
}
