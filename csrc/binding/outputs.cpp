// Makes the output tensors of a call: torch's memory, through the exchange API's allocator or
// torch.empty_strided.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "binding/arguments.h"
#include "binding/python_errors.h"
#include "mkwrap/dlpack.h"

namespace mkwrap::binding {
namespace {

// The allocator reports through this; it is called with the interpreter lock held.
void report(void* /*context*/, const char* kind, const char* message) {
  if (PyErr_Occurred() != nullptr) return;
  PyErr_SetString(std::strcmp(kind, "MemoryError") == 0 ? PyExc_MemoryError : PyExc_RuntimeError,
                  message);
}

bool is_row_major(const mkw_tensor_info& info) {
  std::int64_t dense = 1;
  for (int k = info.ndim - 1; k >= 0; --k) {
    if (info.shape[k] != 1 && info.strides[k] != dense) return false;
    dense *= info.shape[k] == 0 ? 1 : info.shape[k];
  }
  return true;
}

std::int64_t storage_elements(const mkw_tensor_info& info) {
  std::int64_t last = 0;
  for (int k = 0; k < info.ndim; ++k) {
    if (info.shape[k] == 0) return 0;
    last += (info.shape[k] - 1) * info.strides[k];
  }
  return last + 1;
}

// A strided view of a tensor that owns its memory: the allocator only makes row-major ones.
struct StridedView {
  StridedView(DLManagedTensorVersioned* owner, const mkw_tensor_info& info)
      : base(owner),
        shape(info.shape, info.shape + info.ndim),
        strides(info.strides, info.strides + info.ndim) {
    managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
    managed.manager_ctx = this;
    managed.deleter = [](DLManagedTensorVersioned* self) {
      delete static_cast<StridedView*>(self->manager_ctx);
    };
    managed.flags = 0;
    managed.dl_tensor = base->dl_tensor;
    managed.dl_tensor.ndim = info.ndim;
    managed.dl_tensor.shape = shape.data();
    managed.dl_tensor.strides = strides.data();
  }
  ~StridedView() {
    if (base->deleter != nullptr) base->deleter(base);
  }
  StridedView(const StridedView&) = delete;
  StridedView& operator=(const StridedView&) = delete;

  DLManagedTensorVersioned managed{};  // NOLINT(bugprone-invalid-enum-default-initialization)
  DLManagedTensorVersioned* base;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
};

// How many sizes, shapes and strides, the outputs of a library with dynamic sizes have.
std::size_t size_count(const mkw_api& api) {
  std::size_t count = 0;
  for (int k = 0; k < api.output_count && api.symbol_count > 0; ++k)
    count += 2 * static_cast<std::size_t>(api.outputs[k].ndim);
  return count;
}

}  // namespace

SizedOutputs::SizedOutputs(const mkw_api& api)
    : api_(api),
      dynamic_(api.symbol_count > 0),
      infos_(dynamic_ ? static_cast<std::size_t>(api.output_count) : 0),
      places_(dynamic_ ? 2 * static_cast<std::size_t>(api.output_count) : 0),
      sizes_(size_count(api)) {}

bool SizedOutputs::fill(const DLTensor* inputs) {
  if (!dynamic_) return true;
  const auto count = static_cast<std::size_t>(api_.output_count);
  std::int64_t* free = sizes_.data();
  for (std::size_t k = 0; k < 2 * count; ++k) {
    places_[k] = free;
    free += api_.outputs[k % count].ndim;
  }
  mkw_error error{};
  if (api_.output_shapes(mkw_tensors(inputs), places_.data(), places_.data() + count, &error) !=
      MKW_OK) {
    set_status_error(error);
    return false;
  }
  for (std::size_t k = 0; k < count; ++k) {
    infos_[k] = api_.outputs[k];
    infos_[k].shape = places_[k];
    infos_[k].strides = places_[count + k];
    if (storage_elements(infos_[k]) != 0) continue;
    // As torch makes an empty tensor: a dimension of size 0 counts as 1.
    std::int64_t dense = 1;
    for (int d = infos_[k].ndim - 1; d >= 0; --d) {
      places_[count + k][d] = dense;
      dense *= places_[k][d] > 1 ? places_[k][d] : 1;
    }
  }
  return true;
}

Outputs::~Outputs() {
  for (std::size_t k = 0; k < count(); ++k) {
    if (managed_[k] != nullptr && managed_[k]->deleter != nullptr)
      managed_[k]->deleter(managed_[k]);
    Py_XDECREF(objects_[k]);
  }
}

bool Outputs::allocate() {
  const bool exchange = site_.torch.exchange() != nullptr;
  for (std::size_t k = 0; k < count(); ++k) {
    const mkw_tensor_info& info = infos_[k];
    if (!(exchange ? allocate_managed(k, info) : allocate_object(k, info))) return false;
    if (tensors_[k].data == nullptr && storage_elements(info) != 0) {
      set_error("InputError",
                std::string(info.path) +
                    ": expected memory, got a tensor without any from torch; a library " +
                    "cannot run under a FakeTensorMode or a functional transform");
      return false;
    }
  }
  return true;
}

bool Outputs::allocate_managed(std::size_t k, const mkw_tensor_info& info) {
  const bool row_major = is_row_major(info);
  std::int64_t elements = row_major ? 0 : storage_elements(info);
  DLTensor wanted = wanted_tensor(site_, info);
  if (!row_major) {
    wanted.ndim = 1;
    wanted.shape = &elements;
    wanted.strides = nullptr;
  }
  if (site_.torch.exchange()->managed_tensor_allocator(&wanted, &managed_[k], nullptr, report) !=
      0) {
    managed_[k] = nullptr;
    report(nullptr, "RuntimeError", "torch could not allocate an output");
    return false;
  }
  if (!row_major) managed_[k] = &(new StridedView(managed_[k], info))->managed;
  tensors_[k] = managed_[k]->dl_tensor;
  return true;
}

bool Outputs::allocate_object(std::size_t k, const mkw_tensor_info& info) {
  objects_[k] = site_.torch.empty(wanted_tensor(site_, info));
  if (objects_[k] == nullptr || !kept_.read(k, objects_[k], {info})) return false;
  tensors_[k] = kept_.tensors()[k];
  return true;
}

PyObject* Outputs::finish(std::size_t k) {
  PyObject* result = objects_[k];
  objects_[k] = nullptr;
  if (managed_[k] == nullptr) return result;
  DLManagedTensorVersioned* stolen = managed_[k];
  managed_[k] = nullptr;
  void* object = nullptr;
  if (site_.torch.exchange()->managed_tensor_to_py_object_no_sync(stolen, &object) != 0)
    return nullptr;
  return static_cast<PyObject*>(object);
}

}  // namespace mkwrap::binding
