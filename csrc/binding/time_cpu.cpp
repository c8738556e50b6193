// Python's view of timing/cpu.h.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "binding/module.h"
#include "timing/cpu.h"

namespace py = pybind11;

namespace mkwrap::binding {
namespace {

using timing::CpuKernel;

// Python hands addresses over as integers.
void* address(std::uintptr_t value) {
  return reinterpret_cast<void*>(value);  // NOLINT(performance-no-int-to-ptr)
}

CpuKernel make_kernel(const std::string& path, const std::string& entry,
                      const std::vector<std::vector<std::uintptr_t>>& args,
                      std::vector<std::int64_t> sizes,
                      const std::vector<std::pair<std::uintptr_t, std::size_t>>& zero,
                      std::ptrdiff_t offset) {
  std::vector<std::vector<void*>> lists;
  for (const auto& list : args) {
    auto& pointers = lists.emplace_back();
    pointers.reserve(list.size());
    for (const std::uintptr_t value : list) pointers.push_back(address(value));
  }
  std::vector<timing::Region> regions;
  regions.reserve(zero.size());
  for (const auto& [start, bytes] : zero) regions.push_back({address(start), bytes});
  return {path, entry, std::move(lists), std::move(sizes), std::move(regions), offset};
}

std::vector<std::vector<double>> time_kernels(
    const std::vector<const CpuKernel*>& kernels, int rounds, double batch_us,
    std::vector<std::int64_t> calls,
    const std::vector<std::tuple<std::uintptr_t, std::uintptr_t, std::size_t>>& restore,
    std::vector<int> pin) {
  timing::CpuPlan plan{rounds, batch_us, std::move(calls), {}, std::move(pin)};
  for (const auto& [destination, source, bytes] : restore) {
    plan.restore.push_back({address(destination), address(source), bytes});
  }
  const py::gil_scoped_release release;
  return timing::time_cpu(kernels, plan);
}

}  // namespace

void bind_time_cpu(py::module_& m) {
  py::class_<CpuKernel>(m, "CpuKernel")
      .def(py::init(&make_kernel), py::arg("path"), py::arg("entry"), py::arg("args"),
           py::arg("sizes") = py::tuple(), py::arg("zero") = py::tuple(), py::arg("offset") = 0)
      .def("run", &CpuKernel::operator(), py::arg("which") = 0,
           py::call_guard<py::gil_scoped_release>());
  m.def("time_cpu", &time_kernels, py::arg("kernels"), py::arg("rounds"),
        py::arg("batch_us") = 200.0, py::arg("calls") = py::tuple(),
        py::arg("restore") = py::tuple(), py::arg("pin") = py::tuple());
}

}  // namespace mkwrap::binding
