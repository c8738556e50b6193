// Opens libraries and turns statuses into exceptions.
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "loader/seal.h"
#include "loader/shared_object.h"
#include "mkwrap/mkwrap.hpp"

namespace mkwrap {

namespace {

void throw_if(mkw_status status, const mkw_error& error) {
  if (status != MKW_OK) throw Error(error);
}

std::vector<mkw_tensor> views_of(const mkw_api& api, const std::vector<Tensor>& inputs) {
  if (inputs.size() != static_cast<std::size_t>(api.input_count))
    throw Error(MKW_ERROR_INPUT, -1,
                "expected " + std::to_string(api.input_count) + " inputs, got " +
                    std::to_string(inputs.size()));
  std::vector<mkw_tensor> views;
  views.reserve(inputs.size());
  for (const Tensor& tensor : inputs) views.push_back(tensor.view());
  return views;
}

}  // namespace

Library Library::open(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw Error(MKW_ERROR_FILE, -1, path + " cannot be read: " + std::strerror(errno));
  std::string fault = loader::seal_fault(file);
  loader::SharedObject loaded;
  if (fault.empty()) {
    loaded = loader::load(file, path);
    if (!loaded.fault.empty()) fault = "is not a library this mkwrap can load: " + loaded.fault;
  }
  ::close(file);
  if (!fault.empty()) throw Error(MKW_ERROR_FILE, -1, path + " " + fault);
  return {std::shared_ptr<void>(loaded.handle, [](void* opened) { dlclose(opened); }), loaded.api};
}

Library Library::from(mkw_get_api_function get) {
  const mkw_api* api = get(MKW_ABI_VERSION);
  if (api == nullptr || api->version != MKW_ABI_VERSION || api->size < sizeof(mkw_api))
    throw Error(MKW_ERROR_VERSION, -1,
                "the linked library does not speak version " + std::to_string(MKW_ABI_VERSION) +
                    " of mkwrap's ABI");
  return {nullptr, api};
}

std::vector<Symbol> Library::symbols() const {
  std::vector<Symbol> found;
  found.reserve(static_cast<std::size_t>(api_->symbol_count));
  for (std::int32_t i = 0; i < api_->symbol_count; ++i)
    found.push_back({api_->symbols[i].name, api_->symbols[i].low, api_->symbols[i].high});
  return found;
}

std::vector<std::int64_t> Library::sizes(const std::vector<Tensor>& inputs) const {
  const std::vector<mkw_tensor> views = views_of(*api_, inputs);
  std::vector<std::int64_t> values(static_cast<std::size_t>(api_->symbol_count));
  mkw_error error = {};
  throw_if(api_->bind_symbols(views.data(), values.data(), &error), error);
  return values;
}

std::vector<std::vector<std::int64_t>> Library::output_shapes(
    const std::vector<Tensor>& inputs) const {
  const std::vector<mkw_tensor> views = views_of(*api_, inputs);
  std::vector<std::vector<std::int64_t>> shapes;
  std::vector<std::int64_t*> places;
  shapes.reserve(static_cast<std::size_t>(api_->output_count));
  for (std::int32_t i = 0; i < api_->output_count; ++i)
    shapes.emplace_back(static_cast<std::size_t>(api_->outputs[i].ndim));
  places.reserve(shapes.size());
  for (std::vector<std::int64_t>& shape : shapes) places.push_back(shape.data());
  mkw_error error = {};
  throw_if(api_->output_shapes(views.data(), places.data(), nullptr, &error), error);
  return shapes;
}

Model::Model(const Library& library, std::int32_t device) : library_(library) {
  mkw_model* made = nullptr;
  mkw_error error = {};
  throw_if(library.api().model_create(device, &made, &error), error);
  model_ = std::shared_ptr<mkw_model>(
      made, [library](mkw_model* model) { library.api().model_destroy(model); });
}

std::int64_t Model::workspace_bytes() const {
  std::int64_t bytes = 0;
  library_.api().workspace_bytes(model_.get(), &bytes);
  return bytes;
}

std::int64_t Model::scratch_bytes(const std::vector<Tensor>& inputs) const {
  const std::vector<mkw_tensor> views = views_of(library_.api(), inputs);
  std::int64_t bytes = 0;
  mkw_error error = {};
  throw_if(library_.api().scratch_bytes(model_.get(), views.data(), &bytes, &error), error);
  return bytes;
}

Weights::Weights(const Model& model, const Library& source) : model_(model), source_(source) {
  mkw_weights* made = nullptr;
  mkw_error error = {};
  throw_if(model.library().api().weights_create(model.get(), &source.api(), &made, &error), error);
  weights_ = std::shared_ptr<mkw_weights>(made, [library = model.library()](mkw_weights* weights) {
    library.api().weights_destroy(weights);
  });
}

Context::Context(const Weights& weights)
    : context_(nullptr, Destroy{weights.model().library(), weights.source_}) {
  mkw_context* made = nullptr;
  mkw_error error = {};
  throw_if(api().context_create_with(weights.model().get(), weights.get(), &made, &error), error);
  context_.reset(made);
}

Context::Context(const Model& model)
    : context_(nullptr, Destroy{model.library(), model.library()}) {
  mkw_context* made = nullptr;
  mkw_error error = {};
  throw_if(api().context_create(model.get(), &made, &error), error);
  context_.reset(made);
}

void Context::run(const mkw_tensor* inputs, const mkw_tensor* outputs, void* stream) {
  throw_if(api().run(context_.get(), inputs, outputs, stream), *api().last_error(context_.get()));
}

void Context::run(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
                  void* stream) {
  const auto wanted_inputs = static_cast<std::size_t>(api().input_count);
  const auto wanted_outputs = static_cast<std::size_t>(api().output_count);
  if (inputs.size() != wanted_inputs || outputs.size() != wanted_outputs)
    throw Error(MKW_ERROR_INPUT, -1,
                "expected " + std::to_string(wanted_inputs) + " inputs and " +
                    std::to_string(wanted_outputs) + " outputs, got " +
                    std::to_string(inputs.size()) + " and " + std::to_string(outputs.size()));
  std::vector<mkw_tensor> views;
  views.reserve(inputs.size() + outputs.size());
  for (const Tensor& tensor : inputs) views.push_back(tensor.view());
  for (const Tensor& tensor : outputs) views.push_back(tensor.view());
  run(views.data(), views.data() + inputs.size(), stream);
}

void Context::reserve(const mkw_tensor* inputs, void* stream) {
  mkw_error error = {};
  throw_if(api().context_reserve(context_.get(), inputs, stream, &error), error);
}

void Context::synchronize() {
  mkw_error error = {};
  throw_if(api().synchronize(context_.get(), &error), error);
}

}  // namespace mkwrap
