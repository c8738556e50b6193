#include "binding/arguments.h"

#include <cstdint>
#include <utility>

#include "binding/python_errors.h"

namespace mkwrap::binding {
namespace {

std::string type_name(PyObject* object) { return Py_TYPE(object)->tp_name; }

// str(object.<name>), or nothing where it has none.
std::string attribute_text(PyObject* object, const char* name) {
  const Object value(PyObject_GetAttrString(object, name));
  const Object text(value ? PyObject_Str(value.get()) : nullptr);
  const char* utf8 = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (utf8 == nullptr) PyErr_Clear();
  return utf8 == nullptr ? "" : utf8;
}

// "a FakeTensor torch.float32 torch.Size([8]) on cpu (torch.strided)": what torch itself says of a
// tensor.
std::string tensor_text(PyObject* object) {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  std::string text = "a " + type_name(object) + " " + attribute_text(object, "dtype") + " " +
                     attribute_text(object, "shape") + " on " + attribute_text(object, "device") +
                     " (" + attribute_text(object, "layout") + ")";
  PyErr_Restore(type, value, trace);
  return text;
}

// Take the pending Python exception: its text, and the object to chain.
std::string take_exception(Object& cause) {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  const Object own_type(type);
  const Object own_trace(trace);
  cause = Object(value);
  const Object text(value == nullptr ? nullptr : PyObject_Str(value));
  const char* utf8 = text ? PyUnicode_AsUTF8(text.get()) : nullptr;
  if (utf8 == nullptr) PyErr_Clear();
  if (utf8 == nullptr) return "";
  // torch appends its C++ stack trace.
  const std::string message = utf8;
  return message.substr(0, message.find('\n'));
}

// The exception type says whether an object refused to be exported, or something else went wrong
// (out of memory, KeyboardInterrupt), which passes through as it is.
bool is_refusal() {
  return PyErr_ExceptionMatches(PyExc_Exception) != 0 &&
         PyErr_ExceptionMatches(PyExc_MemoryError) == 0;
}

}  // namespace

DLTensor wanted_tensor(const CallSite& site, const mkw_tensor_info& info) {
  return {nullptr,
          {static_cast<DLDeviceType>(site.api.device_type), site.device},
          info.ndim,
          {info.dtype.code, info.dtype.bits, info.dtype.lanes},
          const_cast<std::int64_t*>(info.shape),
          const_cast<std::int64_t*>(info.strides),
          0};
}

bool Arguments::refuse(const Expected& expected, const std::string& got) const {
  Object cause;
  std::string reason;
  if (PyErr_Occurred() != nullptr) {
    if (!is_refusal()) return false;
    reason = take_exception(cause);
  }
  char wanted[512];
  describe(wanted_tensor(site_, expected.info), expected.sizes, wanted, sizeof wanted);
  std::string message =
      std::string(expected.info.path) + ": expected a tensor " + wanted + ", got " + got;
  if (!reason.empty()) message += ": " + reason;
  set_error("InputError", message);
  if (cause) {
    PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyException_SetCause(value, cause.release());
    PyErr_Restore(type, value, trace);
  }
  return false;
}

bool Arguments::read(std::size_t index, PyObject* object, const Expected& expected) {
  if (site_.torch.is_plain(object)) return read_tensor(index, object, expected);
  if (!site_.torch.is_tensor(object)) return read_protocol(index, object, expected);
  const int overrides = site_.torch.overrides_dispatch(object);
  if (overrides != 0) {
    return refuse(expected, tensor_text(object) +
                                ", whose type has operations of its own and perhaps no memory");
  }
  return read_tensor(index, object, expected);
}

bool Arguments::read_tensor(std::size_t index, PyObject* object, const Expected& expected) {
  const int negated = site_.torch.is_negated(object);
  if (negated < 0) return refuse(expected, tensor_text(object) + " that torch cannot inspect");
  if (negated == 1)
    return refuse(expected, "a negated view (is_neg()); call resolve_neg() on it first");
  const int gradient = site_.torch.wants_gradient(object);
  if (gradient < 0) return refuse(expected, tensor_text(object) + " that torch cannot inspect");
  if (gradient == 1) {
    return refuse(
        expected,
        "a tensor that requires a gradient while gradients are on; a library has no derivative: "
        "call it under torch.no_grad(), or pass tensor.detach()");
  }
  const DLPackExchangeAPI* exchange = site_.torch.exchange();
  if (exchange == nullptr) return read_protocol(index, object, expected);
  if (exchange->dltensor_from_py_object_no_sync(object, &tensors_[index]) != 0) {
    return refuse(expected, tensor_text(object) + " that torch cannot export");
  }
  return true;
}

bool Arguments::read_protocol(std::size_t index, PyObject* object, const Expected& expected) {
  if (PyObject_HasAttrString(object, "__dlpack__") == 0)
    return refuse(expected, "a value of type " + type_name(object));
  // A Parameter's own __dlpack__ refuses although no gradient is recorded here.
  Object detached;
  if (site_.torch.is_tensor(object)) {
    detached = Object(PyObject_CallMethod(object, "detach", nullptr));
    if (!detached) return refuse(expected, tensor_text(object) + " that torch cannot detach");
    object = detached.get();
  }
  const Object kwargs(PyDict_New());
  const Object version(Py_BuildValue("(ii)", DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION));
  const Object method(PyObject_GetAttrString(object, "__dlpack__"));
  const Object none(PyTuple_New(0));
  if (!kwargs || !version || !method || !none) return false;
  if (site_.api.device_type == MKW_DEVICE_CUDA) {
    const Object place(PyObject_CallMethod(object, "__dlpack_device__", nullptr));
    int type = 0;
    int id = 0;
    if (!place || PyArg_ParseTuple(place.get(), "ii", &type, &id) == 0)
      return refuse(expected, "a value without a device");
    if (type != kDLCUDA) return refuse(expected, "a " + type_name(object) + " in host memory");
    // The protocol's number of the legacy default stream is 1.
    const auto stream = site_.stream == nullptr ? 1 : reinterpret_cast<std::intptr_t>(site_.stream);
    const Object number(PyLong_FromLongLong(stream));
    if (!number || PyDict_SetItemString(kwargs.get(), "stream", number.get()) != 0) return false;
  }
  if (PyDict_SetItemString(kwargs.get(), "max_version", version.get()) != 0) return false;
  Object capsule(PyObject_Call(method.get(), none.get(), kwargs.get()));
  if (!capsule && PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
    // Producers older than DLPack 1.0 do not know max_version.
    PyErr_Clear();
    if (PyDict_DelItemString(kwargs.get(), "max_version") != 0) return false;
    capsule = Object(PyObject_Call(method.get(), none.get(), kwargs.get()));
  }
  if (!capsule) return refuse(expected, "a " + type_name(object) + " that cannot be exported");
  if (detached) kept_.push_back(std::move(detached));
  return take_capsule(index, std::move(capsule), expected);
}

// The capsule is not renamed, so it keeps owning the tensor and frees it when it dies, after the
// call.
bool Arguments::take_capsule(std::size_t index, Object capsule, const Expected& expected) {
  if (PyCapsule_IsValid(capsule.get(), "dltensor_versioned") != 0) {
    const auto* managed = static_cast<const DLManagedTensorVersioned*>(
        PyCapsule_GetPointer(capsule.get(), "dltensor_versioned"));
    if (managed->version.major != DLPACK_MAJOR_VERSION)
      return refuse(expected, "a tensor of another DLPack version");
    if (expected.info.mutated != 0 && (managed->flags & DLPACK_FLAG_BITMASK_READ_ONLY) != 0) {
      return refuse(expected, "read-only memory, but the library writes to this argument");
    }
    tensors_[index] = managed->dl_tensor;
  } else if (PyCapsule_IsValid(capsule.get(), "dltensor") != 0) {
    tensors_[index] =
        static_cast<const DLManagedTensor*>(PyCapsule_GetPointer(capsule.get(), "dltensor"))
            ->dl_tensor;
  } else {
    return refuse(expected, "a value whose __dlpack__ gives no DLPack capsule");
  }
  kept_.push_back(std::move(capsule));
  return true;
}

}  // namespace mkwrap::binding
