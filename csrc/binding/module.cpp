// The Python module mkwrap._C.
#include "binding/module.h"

#include <pybind11/pybind11.h>

#include <exception>
#include <string>
#include <system_error>

#include "binding/python_errors.h"
#include "timing/cpu.h"
#include "timing/driver.h"

namespace {

// pybind11 fixes the signature.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const mkwrap::timing::LoadError& error) {
    mkwrap::binding::set_error("CompilerError", error.what());
  } catch (const std::system_error& error) {
    PyErr_SetObject(PyExc_OSError,
                    pybind11::make_tuple(error.code().value(), std::string(error.what())).ptr());
  } catch (const mkwrap::timing::DriverError& error) {
    mkwrap::binding::set_error("DriverError", error.what());
  }
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled parts of mkwrap: loaded models and timing.";
  m.attr("__version__") = MKWRAP_VERSION;
  pybind11::register_local_exception_translator(&translate);
  mkwrap::binding::bind_model(m);
  mkwrap::binding::bind_time_values(m);
  mkwrap::binding::bind_time_cpu(m);
  mkwrap::binding::bind_time_cuda(m);
}
