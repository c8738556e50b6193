#include "binding/python_errors.h"

#include <Python.h>

namespace mkwrap::binding {
namespace {

const char* error_class(mkw_status status) {
  switch (status) {
    case MKW_ERROR_INPUT:
      return "InputError";
    case MKW_ERROR_ALIASING:
      return "AliasingError";
    case MKW_ERROR_WEIGHTS:
      return "WeightsError";
    case MKW_ERROR_SIZE:
      return "SizeError";
    case MKW_ERROR_CAPTURE:
      return "GraphCaptureError";
    case MKW_ERROR_INDEX_RANGE:
      return "IndexRangeError";
    case MKW_ERROR_DRIVER:
    case MKW_ERROR_NO_DRIVER:
      return "DriverError";
    case MKW_ERROR_ARCHITECTURE:
    case MKW_ERROR_ISA:
      return "ArchitectureError";
    case MKW_ERROR_VERSION:
    case MKW_ERROR_FILE:
      return "LibraryFormatError";
    default:
      return "InternalError";
  }
}

}  // namespace

void set_error(const char* name, const std::string& message) {
  PyObject* module = PyImport_ImportModule("mkwrap.errors");
  if (module == nullptr) return;
  PyObject* type = PyObject_GetAttrString(module, name);
  Py_DECREF(module);
  if (type == nullptr) return;
  // A file name in a message need not be UTF-8.
  PyObject* text =
      PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace");
  PyObject* error = text == nullptr ? nullptr : PyObject_CallOneArg(type, text);
  if (error != nullptr) PyErr_SetObject(type, error);
  Py_XDECREF(error);
  Py_XDECREF(text);
  Py_DECREF(type);
}

void set_status_error(const mkw_error& error) {
  if (error.status == MKW_ERROR_MEMORY) {
    PyErr_SetString(PyExc_MemoryError, error.message);
  } else if (error.status == MKW_ERROR_ARGUMENT) {
    PyErr_SetString(PyExc_ValueError, error.message);
  } else {
    set_error(error_class(error.status), error.message);
  }
}

}  // namespace mkwrap::binding
