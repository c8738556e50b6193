// What the binding needs of torch, looked up once per model: types, the DLPack exchange table, a
// few callables.
#ifndef MKWRAP_BINDING_TORCH_TYPES_H_
#define MKWRAP_BINDING_TORCH_TYPES_H_

#include <Python.h>
#include <dlpack/dlpack.h>

#include <cstddef>

#include "mkwrap/abi.h"

namespace mkwrap::binding {

// An owned reference to a Python object. Needs the interpreter lock whenever it changes.
class Object {
 public:
  Object() = default;
  explicit Object(PyObject* owned) : object_(owned) {}
  Object(Object&& other) noexcept : object_(other.release()) {}
  Object& operator=(Object&& other) noexcept {
    PyObject* old = object_;
    object_ = other.release();
    Py_XDECREF(old);
    return *this;
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() { Py_XDECREF(object_); }

  [[nodiscard]] PyObject* get() const { return object_; }
  PyObject* release() {
    PyObject* object = object_;
    object_ = nullptr;
    return object;
  }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

class TorchTypes {
 public:
  // Import torch and look everything up. `exchange`: use the exchange API where torch has it.
  // Returns false with a Python exception set.
  bool resolve(bool exchange);

  // Whether the object is exactly a torch.Tensor or a Parameter.
  bool is_plain(PyObject* object) const {
    const PyTypeObject* type = Py_TYPE(object);
    return type == tensor_type() || type == reinterpret_cast<PyTypeObject*>(parameter_.get());
  }
  bool is_tensor(PyObject* object) const { return PyObject_TypeCheck(object, tensor_type()) != 0; }
  // Whether a tensor subclass has operations of its own, hence perhaps no memory of its own
  // (FakeTensor, DTensor, …). -1 with a Python exception set.
  int overrides_dispatch(PyObject* tensor) const;

  // The table, or null: then tensors go through __dlpack__ and outputs through torch.empty_strided.
  [[nodiscard]] const DLPackExchangeAPI* exchange() const { return exchange_; }

  // 1, 0, or -1 with a Python exception set.
  int is_negated(PyObject* tensor) const;
  // Whether the tensor requires a gradient and the gradient mode is on; 1, 0, or -1 with a Python
  // exception set.
  int wants_gradient(PyObject* tensor) const;

  // The CUDA stream that torch works on now; false with a Python exception set.
  bool current_stream(int device, void** stream) const;

  // Make an uninitialised tensor; null with a Python exception set.
  [[nodiscard]] PyObject* empty(const DLTensor& prototype) const;

 private:
  [[nodiscard]] PyTypeObject* tensor_type() const {
    return reinterpret_cast<PyTypeObject*>(tensor_.get());
  }

  const DLPackExchangeAPI* exchange_ = nullptr;
  Object module_;
  Object tensor_;
  Object parameter_;
  Object is_neg_;
  Object requires_grad_;
  Object is_grad_enabled_;
  Object empty_strided_;
  Object no_dispatch_;
};

// "float32[8, 4] on cpu": how messages describe a tensor; `sizes` null: its shape is numbers.
void describe(const DLTensor& tensor, const mkw_size_text* sizes, char* text, std::size_t size);

// torch's name of a dtype, or null.
const char* dtype_name(DLDataType dtype);

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_TORCH_TYPES_H_
