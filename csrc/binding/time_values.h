// A right result that Python holds, as the other files of the binding see it.
#ifndef MKWRAP_BINDING_TIME_VALUES_H_
#define MKWRAP_BINDING_TIME_VALUES_H_

#include <pybind11/pybind11.h>

#include <string>

#include "binding/host_memory.h"
#include "timing/values.h"

namespace mkwrap::binding {

// Keeps the Python object whose bytes are the reference.
struct HeldReference {
  HeldReference(const std::string& dtype, const pybind11::object& expected, double relative);

  HostMemory memory;
  timing::Reference reference;
};

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_TIME_VALUES_H_
