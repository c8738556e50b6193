// What each file of the binding adds to the module.
#ifndef MKWRAP_BINDING_MODULE_H_
#define MKWRAP_BINDING_MODULE_H_

#include <pybind11/pybind11.h>

namespace mkwrap::binding {

void bind_model(pybind11::module_& m);
void bind_time_cpu(pybind11::module_& m);
void bind_time_cuda(pybind11::module_& m);
void bind_time_values(pybind11::module_& m);

}  // namespace mkwrap::binding

#endif  // MKWRAP_BINDING_MODULE_H_
