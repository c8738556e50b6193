#include "binding/torch_types.h"

#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "mkwrap/dlpack.h"

namespace mkwrap::binding {
namespace {

struct DtypeRow {
  DLDataType dtype;
  const char* name;
};

constexpr DtypeRow kDtypes[] = {
    {{kDLFloat, 64, 1}, "float64"},     {{kDLFloat, 32, 1}, "float32"},
    {{kDLFloat, 16, 1}, "float16"},     {{kDLBfloat, 16, 1}, "bfloat16"},
    {{kDLInt, 64, 1}, "int64"},         {{kDLInt, 32, 1}, "int32"},
    {{kDLInt, 16, 1}, "int16"},         {{kDLInt, 8, 1}, "int8"},
    {{kDLUInt, 64, 1}, "uint64"},       {{kDLUInt, 32, 1}, "uint32"},
    {{kDLUInt, 16, 1}, "uint16"},       {{kDLUInt, 8, 1}, "uint8"},
    {{kDLBool, 8, 1}, "bool"},          {{kDLComplex, 128, 1}, "complex128"},
    {{kDLComplex, 64, 1}, "complex64"},
};

Object attribute(PyObject* object, const char* name) {
  return Object(PyObject_GetAttrString(object, name));
}

// The exchange table of a tensor type, or null where there is none of a version this code can read.
const DLPackExchangeAPI* exchange_table(PyObject* type) {
  // torch 2.10 and early users of the protocol spell the second name.
  for (const char* name : {"__dlpack_c_exchange_api__", "__c_dlpack_exchange_api__"}) {
    const Object capsule = attribute(type, name);
    if (!capsule) {
      PyErr_Clear();
      continue;
    }
    if (!PyCapsule_IsValid(capsule.get(), "dlpack_exchange_api")) continue;
    const auto* header = static_cast<const DLPackExchangeAPIHeader*>(
        PyCapsule_GetPointer(capsule.get(), "dlpack_exchange_api"));
    while (header != nullptr && header->version.major != DLPACK_MAJOR_VERSION)
      header = header->prev_api;
    const auto* table = reinterpret_cast<const DLPackExchangeAPI*>(header);
    if (table != nullptr && table->dltensor_from_py_object_no_sync != nullptr) return table;
  }
  return nullptr;
}

int truth(PyObject* owned) {
  const Object result(owned);
  return result ? PyObject_IsTrue(result.get()) : -1;
}

}  // namespace

bool TorchTypes::resolve(bool exchange) {
  module_ = Object(PyImport_ImportModule("torch"));
  if (!module_) return false;
  const Object nn = attribute(module_.get(), "nn");
  tensor_ = attribute(module_.get(), "Tensor");
  if (!nn || !tensor_) return false;
  parameter_ = attribute(nn.get(), "Parameter");
  is_neg_ = attribute(tensor_.get(), "is_neg");
  requires_grad_ = attribute(tensor_.get(), "requires_grad");
  is_grad_enabled_ = attribute(module_.get(), "is_grad_enabled");
  empty_strided_ = attribute(module_.get(), "empty_strided");
  no_dispatch_ = attribute(tensor_.get(), "__torch_dispatch__");
  if (!parameter_ || !is_neg_ || !requires_grad_ || !is_grad_enabled_ || !empty_strided_ ||
      !no_dispatch_)
    return false;
  exchange_ = exchange ? exchange_table(tensor_.get()) : nullptr;
  return true;
}

int TorchTypes::overrides_dispatch(PyObject* tensor) const {
  const Object dispatch =
      attribute(reinterpret_cast<PyObject*>(Py_TYPE(tensor)), "__torch_dispatch__");
  if (!dispatch) return -1;
  return dispatch.get() != no_dispatch_.get() ? 1 : 0;
}

int TorchTypes::is_negated(PyObject* tensor) const {
  return truth(PyObject_Vectorcall(is_neg_.get(), &tensor, 1, nullptr));
}

int TorchTypes::wants_gradient(PyObject* tensor) const {
  const descrgetfunc get = Py_TYPE(requires_grad_.get())->tp_descr_get;
  const int required =
      truth(get(requires_grad_.get(), tensor, reinterpret_cast<PyObject*>(Py_TYPE(tensor))));
  return required == 1 ? truth(PyObject_CallNoArgs(is_grad_enabled_.get())) : required;
}

bool TorchTypes::current_stream(int device, void** stream) const {
  if (exchange_ != nullptr) return exchange_->current_work_stream(kDLCUDA, device, stream) == 0;
  const Object cuda = attribute(module_.get(), "cuda");
  const Object current(cuda ? PyObject_CallMethod(cuda.get(), "current_stream", "i", device)
                            : nullptr);
  const Object handle = current ? attribute(current.get(), "cuda_stream") : Object();
  if (!handle) return false;
  *stream = PyLong_AsVoidPtr(handle.get());
  return PyErr_Occurred() == nullptr;
}

PyObject* TorchTypes::empty(const DLTensor& prototype) const {
  const Object shape(PyTuple_New(prototype.ndim));
  const Object strides(PyTuple_New(prototype.ndim));
  if (!shape || !strides) return nullptr;
  for (int k = 0; k < prototype.ndim; ++k) {
    PyObject* size = PyLong_FromLongLong(prototype.shape[k]);
    PyObject* stride = PyLong_FromLongLong(prototype.strides[k]);
    if (size != nullptr) PyTuple_SET_ITEM(shape.get(), k, size);
    if (stride != nullptr) PyTuple_SET_ITEM(strides.get(), k, stride);
    if (size == nullptr || stride == nullptr) return nullptr;
  }
  const Object dtype = attribute(module_.get(), dtype_name(prototype.dtype));
  if (!dtype) return nullptr;
  char device[32];
  if (prototype.device.device_type == kDLCUDA) {
    std::snprintf(device, sizeof device, "cuda:%d", prototype.device.device_id);
  } else {
    std::snprintf(device, sizeof device, "cpu");
  }
  const Object args(PyTuple_Pack(2, shape.get(), strides.get()));
  const Object kwargs(Py_BuildValue("{s:O,s:s}", "dtype", dtype.get(), "device", device));
  return args && kwargs ? PyObject_Call(empty_strided_.get(), args.get(), kwargs.get()) : nullptr;
}

const char* dtype_name(DLDataType dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (std::memcmp(&row.dtype, &dtype, sizeof dtype) == 0) return row.name;
  }
  return nullptr;
}

void describe(const DLTensor& tensor, const mkw_size_text* sizes, char* text, std::size_t size) {
  const char* name = dtype_name(tensor.dtype);
  std::size_t used = 0;
  const auto append = [&](const char* format, auto... values) {
    if (used < size)
      used += static_cast<std::size_t>(std::snprintf(text + used, size - used, format, values...));
  };
  if (name != nullptr) {
    append("%s", name);
  } else {
    append("dtype(code %d, %d bits)", int{tensor.dtype.code}, int{tensor.dtype.bits});
  }
  if (sizes != nullptr) {
    append("%s", sizes->shape);
  } else {
    append("[");
    for (int k = 0; k < tensor.ndim; ++k)
      append(k == 0 ? "%lld" : ", %lld", static_cast<long long>(tensor.shape[k]));
    append("]");
  }
  if (tensor.device.device_type == kDLCPU) append(" on cpu");
  if (tensor.device.device_type == kDLCUDA) append(" on cuda:%d", tensor.device.device_id);
  if (sizes != nullptr) append("%s", sizes->ranges);
}

}  // namespace mkwrap::binding
