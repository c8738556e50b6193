#include "binding/model.h"

#include <pybind11/pybind11.h>

#include <cstddef>
#include <utility>

#include "binding/arguments.h"
#include "binding/python_errors.h"
#include "mkwrap/dlpack.h"

namespace mkwrap::binding {
namespace {

// Bytes moved by a run of a few microseconds: below, giving up the lock costs more than others gain
// by it.
constexpr std::int64_t kLongRunBytes = std::int64_t{32} * 1024;

// The ordinal of the CUDA device that a tensor lives on; 0 where it does not say.
int device_of(PyObject* tensor) {
  const Object device(PyObject_GetAttrString(tensor, "device"));
  const Object index(device ? PyObject_GetAttrString(device.get(), "index") : nullptr);
  const long ordinal = index && PyLong_Check(index.get()) != 0 ? PyLong_AsLong(index.get()) : 0;
  PyErr_Clear();
  return static_cast<int>(ordinal);
}

// Create the model on the first input's device, unless it exists; find the stream the call runs on.
// False with a Python exception set.
bool begin(ModelState& state, PyObject* const* inputs, void** stream) {
  *stream = nullptr;
  const mkw_api& api = state.library->api();
  const bool cuda = api.device_type == MKW_DEVICE_CUDA;
  if (!state.loaded && !create_model(state, cuda && api.input_count > 0 ? device_of(inputs[0]) : 0))
    return false;
  return !cuda || state.torch.current_stream(state.loaded->device(), stream);
}

std::uint64_t capture_id(const ModelState& state, void* stream) {
  if (!state.driver || stream == nullptr) return 0;  // the legacy default stream cannot be captured
  int status = 0;
  std::uint64_t id = 0;
  const int result = state.driver->stream_capture(static_cast<timing::StreamHandle>(stream),
                                                  &status, &id, nullptr, nullptr, nullptr);
  return result == 0 && status == timing::kCaptureActive ? id : 0;
}

// Run on a context of the pool; false with a Python exception set.
bool launch(ModelState& state, const DLTensor* inputs, const DLTensor* outputs, void* stream) {
  const mkw_api& api = state.library->api();
  const LoadedModel::Order order{stream, capture_id(state, stream)};
  mkw_context* context = nullptr;
  try {
    context = state.loaded->acquire(order);
  } catch (const StatusError& error) {
    set_status_error(error.error);
    return false;
  }
  mkw_status status = MKW_OK;
  if (state.long_run) {
    const pybind11::gil_scoped_release release;
    status = api.run(context, mkw_tensors(inputs), mkw_tensors(outputs), stream);
  } else {
    status = api.run(context, mkw_tensors(inputs), mkw_tensors(outputs), stream);
  }
  if (status != MKW_OK) set_status_error(*api.last_error(context));
  state.loaded->release(context, order);
  return status == MKW_OK;
}

// How messages write the sizes of an argument: an input, or counted on from there an output.
const mkw_size_text* sizes_of(const mkw_api& api, int argument) {
  return api.size_texts != nullptr ? api.size_texts + argument : nullptr;
}

bool read_inputs(ModelState& state, Arguments& arguments, PyObject* const* inputs) {
  const mkw_api& api = state.library->api();
  for (int k = 0; k < api.input_count; ++k) {
    if (!arguments.read(static_cast<std::size_t>(k), inputs[k], {api.inputs[k], sizes_of(api, k)}))
      return false;
  }
  return true;
}

PyObject* collect(Outputs& outputs, Flat result) {
  if (result == Flat::kSingle) return outputs.finish(0);
  const auto count = static_cast<Py_ssize_t>(outputs.count());
  Object sequence(result == Flat::kList ? PyList_New(count) : PyTuple_New(count));
  if (!sequence) return nullptr;
  for (Py_ssize_t k = 0; k < count; ++k) {
    PyObject* tensor = outputs.finish(static_cast<std::size_t>(k));
    if (tensor == nullptr) return nullptr;
    if (result == Flat::kList) {
      PyList_SET_ITEM(sequence.get(), k, tensor);
    } else {
      PyTuple_SET_ITEM(sequence.get(), k, tensor);
    }
  }
  return sequence.release();
}

}  // namespace

std::unique_ptr<ModelState> open_state(int file, const std::string& path, bool exchange) {
  auto state = std::make_unique<ModelState>();
  try {
    state->library = std::make_shared<const Library>(file, path);
  } catch (const LibraryError& error) {
    set_error("LibraryFormatError", error.what());
    return nullptr;
  }
  const mkw_api& api = state->library->api();
  state->long_run = api.device_type == MKW_DEVICE_CUDA || api.symbol_count > 0 ||
                    api.traffic_bytes >= kLongRunBytes;
  if (!state->torch.resolve(exchange)) return nullptr;
  return state;
}

bool create_model(ModelState& state, int device) {
  if (state.loaded && state.loaded->device() == device) return true;
  if (state.loaded) {
    PyErr_SetString(PyExc_ValueError,
                    "this model lives on another device already; load the library once per device");
    return false;
  }
  try {
    auto loaded = std::make_unique<LoadedModel>(state.library, device);
    if (state.library->api().device_type == MKW_DEVICE_CUDA) state.driver = timing::Driver::open();
    state.loaded = std::move(loaded);
  } catch (const StatusError& error) {
    set_status_error(error.error);
  } catch (const timing::DriverError& error) {
    set_error("DriverError", error.what());
  }
  return state.loaded != nullptr;
}

bool use_weights(ModelState& state, const ModelState& source) {
  if (!state.loaded) {
    PyErr_SetString(
        PyExc_ValueError,
        "the model is on no device yet: call it, or create(ordinal), before its weights "
        "are swapped");
    return false;
  }
  try {
    const pybind11::gil_scoped_release release;
    state.loaded->use_weights(source.library);
  } catch (const StatusError& error) {
    set_status_error(error.error);
    return false;
  }
  return true;
}

bool synchronize(ModelState& state) {
  if (!state.loaded) return true;
  try {
    const pybind11::gil_scoped_release release;
    state.loaded->synchronize();
  } catch (const StatusError& error) {
    set_status_error(error.error);
    return false;
  }
  return true;
}

bool ask(ModelState& state, PyObject* const* inputs, RunFacts& facts) {
  const mkw_api& api = state.library->api();
  void* stream = nullptr;
  if (!begin(state, inputs, &stream)) return false;
  const CallSite site{state.torch, api, state.loaded->device(), stream};
  Arguments arguments(site, static_cast<std::size_t>(api.input_count));
  if (!read_inputs(state, arguments, inputs)) return false;
  const mkw_tensor* tensors = mkw_tensors(arguments.tensors());
  facts.elected.resize(static_cast<std::size_t>(api.kernel_count));
  mkw_error error{};
  mkw_status status = api.scratch_bytes(state.loaded->get(), tensors, &facts.scratch_bytes, &error);
  if (status == MKW_OK)
    status = api.elected(state.loaded->get(), tensors, facts.elected.data(), &error);
  if (status != MKW_OK) set_status_error(error);
  return status == MKW_OK;
}

PyObject* run(ModelState& state, PyObject* const* inputs, Flat result) {
  const mkw_api& api = state.library->api();
  void* stream = nullptr;
  if (!begin(state, inputs, &stream)) return nullptr;
  const CallSite site{state.torch, api, state.loaded->device(), stream};
  Arguments arguments(site, static_cast<std::size_t>(api.input_count));
  if (!read_inputs(state, arguments, inputs)) return nullptr;
  SizedOutputs sized(api);
  if (!sized.fill(arguments.tensors())) return nullptr;
  Outputs outputs(site, sized.infos());
  if (!outputs.allocate() || !launch(state, arguments.tensors(), outputs.tensors(), stream))
    return nullptr;
  return collect(outputs, result);
}

bool run_into(ModelState& state, PyObject* const* inputs, PyObject* const* outputs) {
  const mkw_api& api = state.library->api();
  void* stream = nullptr;
  if (!begin(state, inputs, &stream)) return false;
  const CallSite site{state.torch, api, state.loaded->device(), stream};
  Arguments arguments(site, static_cast<std::size_t>(api.input_count));
  Arguments results(site, static_cast<std::size_t>(api.output_count));
  if (!read_inputs(state, arguments, inputs)) return false;
  for (int k = 0; k < api.output_count; ++k) {
    mkw_tensor_info info = api.outputs[k];
    info.mutated = 1;
    const Expected expected{info, sizes_of(api, api.input_count + k)};
    if (!results.read(static_cast<std::size_t>(k), outputs[k], expected)) return false;
  }
  return launch(state, arguments.tensors(), results.tensors(), stream);
}

}  // namespace mkwrap::binding
