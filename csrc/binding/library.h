// A library file brought into the process, and a model created from it with its contexts. Knows
// nothing of Python.
#ifndef MKWRAP_BINDING_LIBRARY_H_
#define MKWRAP_BINDING_LIBRARY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "mkwrap/abi.h"

namespace mkwrap::binding {

// The file is not a library of this ABI version.
struct LibraryError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A status of the C ABI on its way to Python.
struct StatusError : std::runtime_error {
  explicit StatusError(const mkw_error& reason)
      : std::runtime_error(reason.message), error(reason) {}
  mkw_error error;
};

// A loaded library, with a descriptor of its own of the file.
class Library {
 public:
  // `file` stays the caller's; `path` is for messages. Throws LibraryError.
  Library(int file, const std::string& path);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  [[nodiscard]] const mkw_api& api() const { return *api_; }
  [[nodiscard]] int file() const { return file_; }

 private:
  int file_ = -1;
  void* handle_ = nullptr;
  const mkw_api* api_ = nullptr;
};

// A model on one device and its contexts, one per call in flight.
class LoadedModel {
 public:
  // Throws StatusError.
  LoadedModel(std::shared_ptr<const Library> library, int device);
  ~LoadedModel();
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  // Where a call's work is ordered: a CUDA stream, and the graph capture that is under way on it
  // (0: none).
  struct Order {
    void* stream;
    std::uint64_t capture;
    bool operator==(const Order& other) const {
      return stream == other.stream && capture == other.capture;
    }
  };

  // Take a context that no other call uses, with the weights in use now; throws StatusError. Work
  // of a CUDA run is still in flight when the run returns, so a context that was used on one stream
  // is only given out for the same stream again, and one whose address is part of a captured graph
  // never again outside that capture. Memory cannot be allocated during a capture: it adopts any
  // idle context, whose work is done, as the device must be idle when a capture begins.
  mkw_context* acquire(Order order);
  void release(mkw_context* context, Order order);

  // Let all runs that begin from now on use the constants of `source`, a library of the same
  // program. Runs under way, and captured graphs, keep theirs. Throws StatusError, also what
  // `synchronize` would; weights are in use then nevertheless.
  void use_weights(std::shared_ptr<const Library> source);

  // Wait for the device and report, once, what earlier runs on any context met; throws StatusError.
  void synchronize();

  [[nodiscard]] const mkw_model* get() const { return model_; }
  int device() const { return device_; }
  std::int64_t workspace_bytes() const;
  std::size_t contexts() const;

 private:
  // Weights, and the library that must stay loaded with them.
  struct Weights {
    std::shared_ptr<const Library> source;
    std::shared_ptr<mkw_weights> handle;
  };
  struct Held {
    mkw_context* context;
    Weights weights;
    Order order;  // of its last run
    bool idle;
  };

  [[nodiscard]] bool current(const Held& held) const {
    return held.weights.handle == weights_.handle;
  }
  Held* take_idle(Order order);
  // Take out the contexts that no run will use any more; the caller destroys them.
  std::vector<Held> take_outdated();
  void destroy(const std::vector<Held>& contexts) const;

  std::shared_ptr<const Library> library_;
  int device_;
  mkw_model* model_ = nullptr;
  std::mutex waiting_;  // held while contexts are waited for, which others must not destroy
  mutable std::mutex mutex_;
  Weights weights_;
  std::vector<Held> contexts_;
};

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_LIBRARY_H_
