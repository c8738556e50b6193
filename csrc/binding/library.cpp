#include "binding/library.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <utility>

namespace mkwrap::binding {

namespace {

// A path to an open file that nobody has written before: the time, in binary, as components that
// mean nothing.
std::string unique_path(int file) {
  std::string path = "/proc/" + std::to_string(getpid()) + "/fd";
  auto time = std::chrono::steady_clock::now().time_since_epoch().count();
  for (; time != 0; time /= 2) path += time % 2 == 0 ? "/" : "/.";
  return path + "/" + std::to_string(file);
}

}  // namespace

Library::Library(int file, const std::string& path) : file_(fcntl(file, F_DUPFD_CLOEXEC, 0)) {
  if (file_ < 0) throw LibraryError(path + ": " + std::strerror(errno));
  const std::string unique = unique_path(file_);
  const char* name = access(unique.c_str(), R_OK) == 0 ? unique.c_str() : path.c_str();
  handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  const char* reason = nullptr;
  if (handle_ == nullptr) {
    reason = dlerror();
  } else if (const auto get = reinterpret_cast<mkw_get_api_function>(dlsym(handle_, "mkw_get_api"));
             get == nullptr) {
    reason = "it does not export mkw_get_api";
  } else if (api_ = get(MKW_ABI_VERSION); api_ == nullptr || api_->version != MKW_ABI_VERSION) {
    reason = "it speaks another version of mkwrap's ABI";
  } else if (api_->size < offsetof(mkw_api, workspace_bytes) + sizeof(api_->workspace_bytes)) {
    reason = "its function table is too short";
  }
  if (reason == nullptr) {
    // Idle threads of the OpenMP pool sleep in the runtime's code: it must never be unmapped.
    for (const char* runtime : {"libgomp.so.1", "libomp.so.5"})
      dlopen(runtime, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    return;
  }
  const std::string message = path + " is not a library this mkwrap can load: " + reason;
  if (handle_ != nullptr) dlclose(handle_);
  close(file_);
  throw LibraryError(message);
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

std::int64_t LoadedModel::workspace_bytes() const {
  std::int64_t bytes = 0;
  return library_->api().workspace_bytes(model_, &bytes) == MKW_OK ? bytes : 0;
}

std::size_t LoadedModel::contexts() const {
  const std::scoped_lock lock(mutex_);
  return all_.size();
}

}  // namespace mkwrap::binding
