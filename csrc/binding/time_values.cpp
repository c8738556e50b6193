// Python's view of timing/values.h.
#include "binding/time_values.h"

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "binding/module.h"

namespace py = pybind11;

namespace mkwrap::binding {
namespace {

timing::Reference make_reference(const std::string& dtype, const HostMemory& memory,
                                 double relative) {
  const timing::Element element = timing::element_of(dtype);
  const py::gil_scoped_release release;
  return {element, memory.data(), memory.bytes(), relative};
}

void fill_normal(const py::object& data, const std::string& dtype, std::uint64_t seed) {
  const HostMemory memory(data, HostMemory::Access::kWrite);
  const timing::Element element = timing::element_of(dtype);
  const py::gil_scoped_release release;
  timing::fill_normal(element, memory.data(), memory.bytes() / timing::item_bytes(element), seed);
}

void fill_uniform(const py::object& data, const std::string& dtype, std::int64_t low,
                  std::int64_t high, std::uint64_t seed) {
  const HostMemory memory(data, HostMemory::Access::kWrite);
  const timing::Element element = timing::element_of(dtype);
  const py::gil_scoped_release release;
  timing::fill_uniform(element, memory.data(), memory.bytes() / timing::item_bytes(element), low,
                       high, seed);
}

py::tuple compare(const HeldReference& expected, const py::object& got) {
  const HostMemory memory(got, HostMemory::Access::kRead);
  if (memory.bytes() != expected.reference.bytes())
    throw std::invalid_argument("a result is as long as the reference");
  timing::Difference difference;
  {
    const py::gil_scoped_release release;
    difference = expected.reference.compare(memory.data(), 0, memory.bytes());
  }
  return py::make_tuple(difference.wrong, difference.first);
}

}  // namespace

HeldReference::HeldReference(const std::string& dtype, const py::object& expected, double relative)
    : memory(expected, HostMemory::Access::kRead),
      reference(make_reference(dtype, memory, relative)) {}

void bind_time_values(py::module_& m) {
  py::class_<HeldReference>(m, "Reference")
      .def(py::init<const std::string&, const py::object&, double>(), py::arg("dtype"),
           py::arg("expected"), py::arg("relative"))
      .def("compare", &compare, py::arg("got"));
  m.def("fill_normal", &fill_normal, py::arg("data"), py::arg("dtype"), py::arg("seed"));
  m.def("fill_uniform", &fill_uniform, py::arg("data"), py::arg("dtype"), py::arg("low"),
        py::arg("high"), py::arg("seed"));
}

}  // namespace mkwrap::binding
