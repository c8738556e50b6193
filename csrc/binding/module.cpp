// The Python module mkwrap._C.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled parts of mkwrap: loaded models and timing.";
  m.attr("__version__") = MKWRAP_VERSION;
}
