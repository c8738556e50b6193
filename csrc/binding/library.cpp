#include "binding/library.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
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
  for (mkw_context* context : all_) api.context_destroy(context);
  api.model_destroy(model_);
}

mkw_context* LoadedModel::take_idle(Order order) {
  const std::scoped_lock lock(mutex_);
  for (const bool adopt : {false, true}) {
    for (std::size_t k = idle_.size(); k-- > 0;) {
      if (!(idle_[k].order == order ||
            (adopt && order.capture != 0 && idle_[k].order.capture == 0)))
        continue;
      mkw_context* context = idle_[k].context;
      idle_[k] = idle_.back();
      idle_.pop_back();
      return context;
    }
  }
  return nullptr;
}

mkw_context* LoadedModel::acquire(Order order) {
  mkw_context* context = take_idle(order);
  if (context != nullptr) return context;
  mkw_error error{};
  if (library_->api().context_create(model_, &context, &error) != MKW_OK) throw StatusError(error);
  const std::scoped_lock lock(mutex_);
  all_.push_back(context);
  idle_.reserve(all_.size());
  return context;
}

void LoadedModel::release(mkw_context* context, Order order) {
  const std::scoped_lock lock(mutex_);
  idle_.push_back({context, order});
}

void LoadedModel::synchronize() const {
  const std::scoped_lock lock(mutex_);
  for (mkw_context* context : all_) {
    mkw_error error{};
    if (library_->api().synchronize(context, &error) != MKW_OK) throw StatusError(error);
  }
}

std::int64_t LoadedModel::workspace_bytes() const {
  std::int64_t bytes = 0;
  return library_->api().workspace_bytes(model_, &bytes) == MKW_OK ? bytes : 0;
}

std::size_t LoadedModel::contexts() const {
  const std::scoped_lock lock(mutex_);
  return all_.size();
}

}  // namespace mkwrap::binding
