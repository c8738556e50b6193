#include "binding/library.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <utility>

#include "loader/shared_object.h"

namespace mkwrap::binding {

Library::Library(int file, const std::string& path) : file_(fcntl(file, F_DUPFD_CLOEXEC, 0)) {
  if (file_ < 0) throw LibraryError(path + ": " + std::strerror(errno));
  const loader::SharedObject loaded = loader::load(file_, path);
  if (!loaded.fault.empty()) {
    close(file_);
    throw LibraryError(path + " is not a library this mkwrap can load: " + loaded.fault);
  }
  handle_ = loaded.handle;
  api_ = loaded.api;
}

Library::~Library() {
  dlclose(handle_);
  close(file_);
}

LoadedModel::LoadedModel(std::shared_ptr<const Library> library, int device)
    : library_(std::move(library)), device_(device) {
  mkw_error error{};
  if (library_->api().model_create(device, &model_, &error) != MKW_OK) throw StatusError(error);
}

LoadedModel::~LoadedModel() {
  const mkw_api& api = library_->api();
  for (const Held& held : contexts_) api.context_destroy(held.context);
  contexts_.clear();
  weights_ = {};
  api.model_destroy(model_);
}

LoadedModel::Held* LoadedModel::take_idle(Order order) {
  for (const bool adopt : {false, true}) {
    for (Held& held : contexts_) {
      if (!held.idle || !current(held) ||
          !(held.order == order || (adopt && order.capture != 0 && held.order.capture == 0)))
        continue;
      held.idle = false;
      return &held;
    }
  }
  return nullptr;
}

mkw_context* LoadedModel::acquire(Order order) {
  Weights weights;
  {
    const std::scoped_lock lock(mutex_);
    if (const Held* held = take_idle(order)) return held->context;
    weights = weights_;
  }
  const mkw_api& api = library_->api();
  mkw_context* context = nullptr;
  mkw_error error{};
  const mkw_status status =
      weights.handle ? api.context_create_with(model_, weights.handle.get(), &context, &error)
                     : api.context_create(model_, &context, &error);
  if (status != MKW_OK) throw StatusError(error);
  const std::scoped_lock lock(mutex_);
  contexts_.push_back({context, weights, order, false});
  return context;
}

void LoadedModel::release(mkw_context* context, Order order) {
  std::vector<Held> outdated;
  {
    const std::scoped_lock lock(mutex_);
    for (Held& held : contexts_) {
      if (held.context != context) continue;
      held.order = order;
      held.idle = true;
    }
    // On a GPU its work may be in flight still: it goes when the device has been waited for.
    if (library_->api().device_type == MKW_DEVICE_CPU) outdated = take_outdated();
  }
  destroy(outdated);
}

std::vector<LoadedModel::Held> LoadedModel::take_outdated() {
  const auto first = std::partition(contexts_.begin(), contexts_.end(), [&](const Held& held) {
    return !held.idle || held.order.capture != 0 || current(held);
  });
  std::vector<Held> outdated(std::make_move_iterator(first),
                             std::make_move_iterator(contexts_.end()));
  contexts_.erase(first, contexts_.end());
  return outdated;
}

void LoadedModel::destroy(const std::vector<Held>& contexts) const {
  for (const Held& held : contexts) library_->api().context_destroy(held.context);
}

void LoadedModel::use_weights(std::shared_ptr<const Library> source) {
  const mkw_api& api = library_->api();
  mkw_weights* made = nullptr;
  mkw_error error{};
  if (api.weights_create(model_, &source->api(), &made, &error) != MKW_OK) throw StatusError(error);
  Weights weights{std::move(source), {made, api.weights_destroy}};
  {
    const std::scoped_lock lock(mutex_);
    std::swap(weights_, weights);
  }
  synchronize();
}

void LoadedModel::synchronize() {
  const std::scoped_lock waiting(waiting_);
  std::vector<Held> outdated;
  std::vector<mkw_context*> contexts;
  {
    const std::scoped_lock lock(mutex_);
    for (const Held& held : contexts_) contexts.push_back(held.context);
    outdated = take_outdated();
  }
  mkw_error first{};
  for (mkw_context* context : contexts) {
    mkw_error error{};
    if (library_->api().synchronize(context, &error) != MKW_OK && first.status == MKW_OK)
      first = error;
  }
  destroy(outdated);
  if (first.status != MKW_OK) throw StatusError(first);
}

std::int64_t LoadedModel::workspace_bytes() const {
  std::int64_t bytes = 0;
  return library_->api().workspace_bytes(model_, &bytes) == MKW_OK ? bytes : 0;
}

std::size_t LoadedModel::contexts() const {
  const std::scoped_lock lock(mutex_);
  return contexts_.size();
}

}  // namespace mkwrap::binding
