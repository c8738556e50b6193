// Python's view of timing/cuda.h.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "binding/host_memory.h"
#include "binding/module.h"
#include "binding/time_values.h"
#include "timing/cuda.h"

namespace py = pybind11;

namespace mkwrap::binding {
namespace {

using timing::CudaContext;
using timing::CudaFunction;
using timing::CudaLaunch;
using timing::CudaReplay;
using timing::CudaRun;
using timing::DeviceAddress;

void upload(CudaContext& context, DeviceAddress address, const py::object& data) {
  const HostMemory memory(data, HostMemory::Access::kRead);
  const py::gil_scoped_release release;
  context.upload(address, memory.data(), memory.bytes());
}

void download(CudaContext& context, DeviceAddress address, const py::object& data) {
  const HostMemory memory(data, HostMemory::Access::kWrite);
  const py::gil_scoped_release release;
  context.download(address, memory.data(), memory.bytes());
}

std::shared_ptr<CudaFunction> load(const std::shared_ptr<CudaContext>& context,
                                   const py::bytes& cubin, const std::string& entry,
                                   unsigned shared_bytes) {
  return std::make_shared<CudaFunction>(context, cubin, entry, shared_bytes);
}

std::shared_ptr<CudaLaunch> bind_launch(const std::shared_ptr<CudaFunction>& function,
                                        std::array<unsigned, 3> grid, unsigned threads,
                                        unsigned shared_bytes,
                                        const std::vector<std::pair<std::string, py::int_>>& args) {
  std::vector<std::uint64_t> values;
  for (const auto& [kind, value] : args) {
    if (kind == "ptr") {
      values.push_back(value.cast<std::uint64_t>());
    } else if (kind == "i64") {
      values.push_back(static_cast<std::uint64_t>(value.cast<std::int64_t>()));
    } else if (kind == "i32") {
      values.push_back(static_cast<std::uint32_t>(value.cast<std::int32_t>()));
    } else {
      throw py::value_error("an argument's kind is ptr, i32 or i64, not " + kind);
    }
  }
  return std::make_shared<CudaLaunch>(
      CudaLaunch{function, grid, threads, shared_bytes, std::move(values)});
}

CudaRun to_run(const py::sequence& steps) {
  CudaRun run;
  for (const py::handle step : steps) {
    if (py::isinstance<CudaLaunch>(step)) {
      run.emplace_back(step.cast<std::shared_ptr<CudaLaunch>>());
    } else {
      const auto [address, value, bytes] =
          step.cast<std::tuple<DeviceAddress, unsigned, std::size_t>>();
      run.emplace_back(timing::CudaFill{address, static_cast<unsigned char>(value), bytes});
    }
  }
  return run;
}

void run_once(CudaContext& context, const py::sequence& steps) {
  const CudaRun run = to_run(steps);
  const py::gil_scoped_release release;
  timing::run(context, run);
}

py::tuple compare(CudaContext& context, DeviceAddress address, const HeldReference& expected) {
  timing::Difference difference;
  {
    const py::gil_scoped_release release;
    difference = context.compare(address, expected.reference);
  }
  return py::make_tuple(difference.wrong, difference.first);
}

std::unique_ptr<CudaReplay> make_replay(const std::shared_ptr<CudaContext>& context,
                                        const std::vector<py::sequence>& runs, int unroll) {
  std::vector<CudaRun> list;
  list.reserve(runs.size());
  for (const py::sequence& steps : runs) list.push_back(to_run(steps));
  const py::gil_scoped_release release;
  return std::make_unique<CudaReplay>(context, std::move(list), unroll);
}

std::vector<std::vector<double>> time_replays(
    const CudaContext& context, const std::vector<const CudaReplay*>& replays, int rounds,
    const std::vector<std::tuple<DeviceAddress, DeviceAddress, std::size_t>>& restore) {
  std::vector<timing::CudaCopy> copies;
  copies.reserve(restore.size());
  for (const auto& [destination, source, bytes] : restore)
    copies.push_back({destination, source, bytes});
  const py::gil_scoped_release release;
  return timing::time_cuda(context, replays, rounds, copies);
}

py::list list_devices(const py::object& make_device) {
  py::list result;
  for (const timing::CudaDevice& device : timing::cuda_devices()) {
    result.append(make_device(device.ordinal, device.name,
                              py::make_tuple(device.major, device.minor), device.multiprocessors,
                              device.shared_optin_bytes, device.l2_bytes, device.memory_bytes,
                              device.driver_version));
  }
  return result;
}

}  // namespace

void bind_time_cuda(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  const py::object device =
      py::module_::import("collections")
          .attr("namedtuple")("CudaDevice",
                              "ordinal name capability multiprocessors shared_optin_bytes "
                              "l2_bytes memory_bytes driver_version",
                              py::arg("module") = "mkwrap._C");
  m.attr("CudaDevice") = device;
  m.def("cuda_devices",
        [] { return list_devices(py::module_::import("mkwrap._C").attr("CudaDevice")); });
  const py::class_<CudaLaunch, std::shared_ptr<CudaLaunch>> launch(m, "CudaLaunch");
  py::class_<CudaFunction, std::shared_ptr<CudaFunction>>(m, "CudaFunction")
      .def_property_readonly("registers", &CudaFunction::registers)
      .def_property_readonly("local_bytes", &CudaFunction::local_bytes)
      .def("launch", &bind_launch, py::arg("grid"), py::arg("threads"), py::arg("shared_bytes"),
           py::arg("args"));
  py::class_<CudaContext, std::shared_ptr<CudaContext>>(m, "CudaContext")
      .def(py::init<int>(), py::arg("ordinal") = 0)
      .def("allocate", &CudaContext::allocate, py::arg("nbytes"))
      .def("free", &CudaContext::free, py::arg("address"))
      .def("upload", &upload, py::arg("address"), py::arg("data"))
      .def("download", &download, py::arg("address"), py::arg("data"))
      .def("fill", &CudaContext::fill, py::arg("address"), py::arg("value"), py::arg("nbytes"),
           Release())
      .def("copy", &CudaContext::copy, py::arg("destination"), py::arg("source"), py::arg("nbytes"),
           Release())
      .def("repeat", &CudaContext::repeat, py::arg("address"), py::arg("period"), py::arg("nbytes"),
           Release())
      .def("compare", &compare, py::arg("address"), py::arg("expected"))
      .def("load", &load, py::arg("cubin"), py::arg("entry"), py::arg("shared_bytes") = 0)
      .def("run", &run_once, py::arg("run"));
  py::class_<CudaReplay>(m, "CudaReplay")
      .def(py::init(&make_replay), py::arg("context"), py::arg("runs"), py::arg("unroll"));
  m.def("time_cuda", &time_replays, py::arg("context"), py::arg("replays"), py::arg("rounds"),
        py::arg("restore") = py::tuple());
}

}  // namespace mkwrap::binding
