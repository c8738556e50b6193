// Reads the Python arguments of one call as DLTensors, and makes its outputs.
#ifndef MKWRAP_BINDING_ARGUMENTS_H_
#define MKWRAP_BINDING_ARGUMENTS_H_

#include <Python.h>
#include <dlpack/dlpack.h>

#include <cstdint>
#include <string>
#include <vector>

#include "binding/torch_types.h"
#include "mkwrap/abi.h"

namespace mkwrap::binding {

// Room for the items of one call: on the stack for the usual few, else on the heap.
template <typename T, std::size_t kInline>
class Array {
 public:
  explicit Array(std::size_t size) : data_(size <= kInline ? inline_ : new T[size]()) {}
  ~Array() {
    if (data_ != inline_) delete[] data_;
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T& operator[](std::size_t k) { return data_[k]; }
  T* data() { return data_; }

 private:
  T inline_[kInline]{};  // NOLINT(bugprone-invalid-enum-default-initialization): filled before use
  T* data_;
};

// What a call needs to know of its model. `stream` is where the model will run (CUDA).
struct CallSite {
  const TorchTypes& torch;
  const mkw_api& api;
  int device;
  void* stream;
};

// A tensor as `info` asks for it, without memory; borrows shape and strides.
DLTensor wanted_tensor(const CallSite& site, const mkw_tensor_info& info);

// What a tensor of a call must be; `sizes` is how messages write them, null where all are numbers.
struct Expected {
  const mkw_tensor_info& info;
  const mkw_size_text* sizes = nullptr;
};

// The tensors of a call that exist already. Borrows the Python objects it reads: they must outlive
// it.
class Arguments {
 public:
  explicit Arguments(const CallSite& site, std::size_t count) : site_(site), tensors_(count) {}

  // Read object as the tensor that is expected; false with a Python exception set
  // (InputError).
  bool read(std::size_t index, PyObject* object, const Expected& expected);

  const DLTensor* tensors() { return tensors_.data(); }

 private:
  bool read_tensor(std::size_t index, PyObject* object, const Expected& expected);
  bool read_protocol(std::size_t index, PyObject* object, const Expected& expected);
  bool take_capsule(std::size_t index, Object capsule, const Expected& expected);
  [[nodiscard]] bool refuse(const Expected& expected, const std::string& got) const;

  const CallSite& site_;
  Array<DLTensor, 12> tensors_;
  std::vector<Object> kept_;  // capsules that own what the slow path exported
};

// What the outputs of a call must be: the library's own descriptions, with the sizes that the
// inputs give the dynamic ones.
class SizedOutputs {
 public:
  explicit SizedOutputs(const mkw_api& api);
  SizedOutputs(const SizedOutputs&) = delete;
  SizedOutputs& operator=(const SizedOutputs&) = delete;

  // Size them for these inputs, which are checked where sizes are dynamic; false with a Python
  // exception set.
  bool fill(const DLTensor* inputs);
  const mkw_tensor_info* infos() { return dynamic_ ? infos_.data() : api_.outputs; }

 private:
  const mkw_api& api_;
  bool dynamic_;
  Array<mkw_tensor_info, 4> infos_;
  Array<std::int64_t*, 8> places_;  // of each output's shape, then of each output's strides
  Array<std::int64_t, 32> sizes_;
};

// The tensors a call makes, as `infos` describe them. Until `finish` they are this object's.
class Outputs {
 public:
  Outputs(const CallSite& site, const mkw_tensor_info* infos)
      : site_(site),
        infos_(infos),
        tensors_(count()),
        managed_(count()),
        objects_(count()),
        kept_(site, count()) {}
  ~Outputs();
  Outputs(const Outputs&) = delete;
  Outputs& operator=(const Outputs&) = delete;

  // Allocate all; false with a Python exception set.
  bool allocate();
  const DLTensor* tensors() { return tensors_.data(); }
  // Hand output k over as a Python tensor; null with a Python exception set.
  PyObject* finish(std::size_t k);

  [[nodiscard]] std::size_t count() const {
    return static_cast<std::size_t>(site_.api.output_count);
  }

 private:
  bool allocate_managed(std::size_t k, const mkw_tensor_info& info);
  bool allocate_object(std::size_t k, const mkw_tensor_info& info);

  const CallSite& site_;
  const mkw_tensor_info* infos_;
  Array<DLTensor, 4> tensors_;
  Array<DLManagedTensorVersioned*, 4> managed_;
  Array<PyObject*, 4> objects_;
  Arguments kept_;
};

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_ARGUMENTS_H_
